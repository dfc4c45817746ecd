"""Picture files: every format, depth, orientation and transparency, and the damaged ones."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from basicsr_ext.common.errors import InputError
from basicsr_ext.images.headers import image_header
from basicsr_ext.images.pictures import Picture, read_picture, write_picture

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 20), dtype=np.uint8)
RGB = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 256, (12, 20, 4), dtype=np.uint8)


def stored(tensor, bits=8):
    full = 255 if bits == 8 else 65535
    return (tensor * full).round().to(torch.int32).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        *((name, pixels) for name in ("a.png", "a.tif", "a.webp") for pixels in (GREY, RGB, RGBA)),
        *(("a.bmp", pixels) for pixels in (GREY, RGB)),  # Pillow writes BMP without alpha
    ],
)
def test_eight_bits_are_read_exactly(tmp_path, name, pixels):
    if pixels.ndim == 2 and name == "a.webp":
        pixels = np.repeat(pixels[:, :, None], 3, 2)  # WebP knows no grey
    Image.fromarray(pixels).save(tmp_path / name, **({"lossless": True, "exact": True} if name == "a.webp" else {}))
    picture = read_picture(tmp_path / name)
    pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
    assert (stored(picture.colours) == pixels[:, :, :3]).all() and picture.bits == 8
    assert (picture.alpha is None) == (pixels.shape[2] != 4)
    if picture.alpha is not None:
        assert (stored(picture.alpha) == pixels[:, :, 3:]).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_read_and_written_exactly(tmp_path, name, channels):
    pixels = RNG.integers(0, 65536, (12, 20, channels), dtype=np.uint16)
    order = [0] if channels == 1 else [2, 1, 0, 3][:channels]
    cv2.imwrite(str(tmp_path / name), pixels[:, :, order])
    picture = read_picture(tmp_path / name)
    assert picture.bits == 16 and image_header(tmp_path / name)[:4] == (12, 20, channels, 16)
    assert (stored(picture.colours, 16) == pixels[:, :, :3]).all()
    write_picture(tmp_path / f"again-{name}", picture)
    again = read_picture(tmp_path / f"again-{name}")
    assert torch.equal(again.colours, picture.colours) and again.bits == 16
    if channels == 4:
        assert torch.equal(again.alpha, picture.alpha)
        assert (stored(picture.alpha, 16) == pixels[:, :, 3:]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_the_orientation_is_applied(tmp_path, name, orientation):
    blocks = np.kron(RNG.integers(0, 256, (3, 5), dtype=np.uint8), np.ones((8, 8), np.uint8))
    pixels = np.repeat(blocks[:, :, None], 3, 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / name, exif=exif, quality=95)
    transposed = {5: 1, 6: 1, 7: 1, 8: 1}.get(orientation, 0)
    shown = pixels.transpose(1, 0, 2) if transposed else pixels
    shown = shown[:, ::-1] if orientation in (2, 3, 6, 7) else shown
    shown = shown[::-1] if orientation in (3, 4, 7, 8) else shown
    picture = read_picture(tmp_path / name)
    assert picture.colours.shape[1:] == shown.shape[:2] == image_header(tmp_path / name)[:2]
    assert np.abs(stored(picture.colours) - shown).max() < 20


def test_the_orientation_of_sixteen_bits_is_applied(tmp_path):
    import tifffile

    pixels = RNG.integers(0, 65536, (4, 6, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    picture = read_picture(tmp_path / "a.tif")
    assert (stored(picture.colours, 16) == pixels.transpose(1, 0, 2)[:, ::-1]).all()
    plain = cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG", exif=exif)
    block = buffer.getvalue()
    start = block.index(b"eXIf") - 4
    chunk = block[start : start + 12 + int.from_bytes(block[start : start + 4], "big")]
    (tmp_path / "a.png").write_bytes(plain[:33] + chunk + plain[33:])
    picture = read_picture(tmp_path / "a.png")
    assert (stored(picture.colours, 16) == pixels.transpose(1, 0, 2)[:, ::-1]).all()


def test_palettes_bilevel_and_grey_with_alpha_are_read(tmp_path):
    palette = Image.fromarray(RGB).quantize(16)
    palette.save(tmp_path / "p.png", transparency=3)
    picture = read_picture(tmp_path / "p.png")
    assert picture.colours.shape == (3, 12, 20)
    assert ((picture.alpha[0] == 0).numpy() == (np.asarray(palette) == 3)).all()
    Image.fromarray(GREY > 99).save(tmp_path / "b.png")
    assert (stored(read_picture(tmp_path / "b.png").colours)[:, :, 0] == 255 * (GREY > 99)).all()
    Image.fromarray(RGBA[:, :, :2]).save(tmp_path / "la.png")
    picture = read_picture(tmp_path / "la.png")
    assert picture.colours.shape == picture.alpha.shape == (1, 12, 20)
    write_picture(tmp_path / "again.png", picture)
    assert (np.asarray(Image.open(tmp_path / "again.png")) == RGBA[:, :, :2]).all()


@pytest.mark.parametrize("bits, name", [(8, "a.png"), (8, "a.jpg"), (8, "a.tif"), (8, "a.webp"), (16, "a.png")])
def test_the_colour_profile_is_kept(tmp_path, bits, name):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    write_picture(tmp_path / name, Picture(torch.rand(3, 8, 8), bits=bits, profile=profile))
    picture = read_picture(tmp_path / name)
    assert picture.profile == profile and picture.bits == bits


def test_a_jpeg_is_written_without_alpha_and_values_are_rounded(tmp_path):
    colours = torch.tensor([-0.1, 0.4999 / 255, 0.5001 / 255, 1.2]).reshape(1, 2, 2)
    write_picture(tmp_path / "a.png", Picture(colours))
    assert np.asarray(Image.open(tmp_path / "a.png")).ravel().tolist() == [0, 0, 1, 255]
    write_picture(tmp_path / "a.jpg", Picture(torch.rand(3, 8, 8), torch.rand(1, 8, 8)))
    assert Image.open(tmp_path / "a.jpg").mode == "RGB"
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.jpg"}


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.gif"])
def test_what_a_format_can_not_hold_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="16 bits"):
        write_picture(tmp_path / name, Picture(torch.rand(3, 8, 8), bits=16))


def damaged():
    large = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    files = {"text.png": b"no picture", "empty.png": b"", "float.tif": None}
    for name, kind in (("cut.png", "PNG"), ("cut.jpg", "JPEG"), ("cut.tif", "TIFF"), ("cut.webp", "WEBP")):
        buffer = io.BytesIO()
        Image.fromarray(large).save(buffer, kind)
        files[name] = buffer.getvalue()[: len(buffer.getvalue()) // 2]
    for ext in (".png", ".tif"):
        data = cv2.imencode(ext, large.astype(np.uint16) * 257)[1].tobytes()
        files[f"cut16{ext}"] = data[: len(data) // 2]
    buffer = io.BytesIO()
    Image.fromarray(large[:, :, 0].astype(np.float32)).save(buffer, "TIFF")
    files["float.tif"] = buffer.getvalue()
    return files


@pytest.mark.parametrize("name, data", damaged().items(), ids=damaged())
def test_what_can_not_be_read_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        read_picture(tmp_path / name)


def test_a_file_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot save .*file/a\.png: .*choose another folder"):
        write_picture(tmp_path / "file" / "a.png", Picture(torch.rand(3, 8, 8)))
