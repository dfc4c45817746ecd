"""Picture files: every format, depth, orientation and transparency, and the damaged ones."""

import functools
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from basicsr_ext.common.errors import InputError
from basicsr_ext.images.headers import PNG_MARK, image_header, png_chunk
from basicsr_ext.images.pictures import Picture, network_planes, read_picture, with_planes, write_picture

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


@functools.cache  # it holds the second in which it was made
def profile_of(space):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:16] + space + profile[20:]


@pytest.mark.parametrize("planes", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "bits, name", [(8, "a.png"), (8, "a.jpg"), (8, "a.tif"), (8, "a.webp"), (16, "a.png"), (16, "a.tif")]
)
def test_a_format_keeps_depth_alpha_and_the_colour_profile_of_its_channels(tmp_path, bits, name, planes):
    colours, alpha = torch.rand(1 if planes < 3 else 3, 8, 8), None if planes % 2 else torch.rand(1, 8, 8)
    wanted, full = b"GRAY" if planes < 3 and name != "a.webp" else b"RGB ", (1 << bits) - 1
    for space in (b"GRAY", b"RGB ", b"CMYK"):
        write_picture(tmp_path / name, Picture(colours, alpha, bits, profile_of(space)))
        picture = read_picture(tmp_path / name)
        assert picture.profile == (profile_of(space) if space == wanted else None) and picture.bits == bits
        assert (picture.alpha is None) == (alpha is None or name == "a.jpg")
        if name in ("a.png", "a.tif"):
            assert torch.equal((picture.colours * full).round(), (colours * full).round())
            assert alpha is None or torch.equal((picture.alpha * full).round(), (alpha * full).round())


def test_other_programs_read_what_is_written_with_sixteen_bits(tmp_path):
    planes = torch.rand(4, 12, 20)
    for count in (1, 3, 4):
        wanted = (planes[:count] * 65535).round().permute(1, 2, 0).numpy().astype(np.uint16)
        for name in ("a.png", "a.tif"):
            write_picture(tmp_path / name, Picture(planes[: min(count, 3)], planes[3:] if count == 4 else None, 16))
            found = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED).reshape(12, 20, count)
            assert (found[:, :, [2, 1, 0, 3][:count] if count > 1 else [0]] == wanted).all()
    write_picture(tmp_path / "b.png", Picture(planes[:1], planes[3:], 16))
    with Image.open(tmp_path / "b.png") as image:
        levels = (planes[[0, 3]] * 65535).round().int().permute(1, 2, 0).numpy()
        assert (np.asarray(image.convert("LA")) == levels >> 8).all()


# ---- transparency


def disc(edge, hidden):
    """A textured disc, hard or soft at its edge, and what lies hidden around it."""
    y, x = np.mgrid[:48, :48]
    alpha = np.clip((18 - np.hypot(x - 23.5, y - 23.5)) / edge + 0.5, 0, 1)
    ramp = np.stack([0.5 + 0.4 * np.sin(x / 5), 0.5 + 0.4 * np.cos(y / 4), 1 - x / 60], 2)
    noise = np.random.default_rng(0).random(ramp.shape)
    around = {"black": 0 * ramp, "white": 0 * ramp + 1, "noise": noise, "the same": ramp}[hidden]
    colours = torch.from_numpy(np.where(alpha[:, :, None] > 0, ramp, around)).permute(2, 0, 1).float()
    return Picture(colours, torch.from_numpy(alpha)[None].float())


def enlarged(planes, scale=4):
    for size in ((planes.shape[1], scale * planes.shape[2]), (scale * planes.shape[1], scale * planes.shape[2])):
        planes = torch.nn.functional.interpolate(planes[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)
    return planes


@pytest.mark.parametrize("edge", [1e-6, 1, 8])
@pytest.mark.parametrize("hidden", ["black", "white", "noise", "the same"])
def test_no_pixel_at_an_alpha_edge_is_darker_than_in_the_composite(edge, hidden):
    picture = disc(edge, hidden)
    restored = with_planes(picture, enlarged(network_planes(picture, 3)))
    for ground in (0.0, 1.0):
        wanted = enlarged(picture.colours * picture.alpha + ground * (1 - picture.alpha))
        found = restored.colours * restored.alpha + ground * (1 - restored.alpha)
        assert (found - wanted).min() > -8 / 255
    twin = disc(edge, "the same")
    assert torch.equal(restored.colours, with_planes(twin, enlarged(network_planes(twin, 3))).colours), "none is seen"


@pytest.mark.parametrize("channels", [3, 4])
def test_visible_colours_reach_a_network_unchanged_and_hidden_ones_never(channels):
    picture = disc(1, "noise")
    planes = network_planes(picture, channels)
    clear = picture.alpha[0] == 0
    assert torch.equal(planes[:3, ~clear], picture.colours[:, ~clear])
    assert torch.equal(planes[:3], network_planes(disc(1, "black"), channels)[:3])
    assert torch.equal(with_planes(picture, planes).colours, planes[:3]), "at the same size nothing is moved"
    nothing = Picture(torch.rand(3, 5, 7), torch.zeros(1, 5, 7))
    assert not network_planes(nothing, 3).any(), "nothing is visible"


def test_a_jpeg_shows_transparency_on_white(tmp_path):
    alpha = torch.ones(1, 32, 32)
    alpha[:, :16] = 0
    write_picture(tmp_path / "a.jpg", Picture(torch.zeros(3, 32, 32), alpha))
    pixels = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert (pixels[:14] > 250).all() and (pixels[18:] < 5).all()


def test_long_texts_and_odd_profiles_beside_the_pixels_are_passed_over(tmp_path, capfd):
    (tmp_path / "a.png").write_bytes(
        PNG_MARK + b"".join(
            png_chunk(name, content)
            for name, content in (
                (b"IHDR", struct.pack(">IIBBBBB", 20, 12, 8, 0, 0, 0, 0)), (b"tEXt", b"w\0" + b"x" * 10_000_000),
                (b"zTXt", b"w\0\0" + zlib.compress(b"x" * 2_000_000)), (b"iCCP", b"p\0\0" + zlib.compress(b"x" * 999)),
                (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY))), (b"IEND", b""),
            )
        )
    )  # fmt: skip
    assert (stored(read_picture(tmp_path / "a.png").colours)[:, :, 0] == GREY).all()
    assert capfd.readouterr() == ("", "")


def test_a_jpeg_is_written_without_alpha_and_values_are_rounded(tmp_path):
    colours = torch.tensor([-0.1, 0.4999 / 255, 0.5001 / 255, 1.2]).reshape(1, 2, 2)
    write_picture(tmp_path / "a.png", Picture(colours))
    assert np.asarray(Image.open(tmp_path / "a.png")).ravel().tolist() == [0, 0, 1, 255]
    write_picture(tmp_path / "a.jpg", Picture(torch.rand(3, 8, 8), torch.rand(1, 8, 8)))
    assert Image.open(tmp_path / "a.jpg").mode == "RGB"
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.jpg"}


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.gif"])
def test_what_a_format_cannot_hold_is_refused(tmp_path, name):
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
def test_what_cannot_be_read_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        read_picture(tmp_path / name)


def test_a_picture_with_nan_is_refused_and_leaves_no_file(tmp_path):
    colours = torch.rand(3, 8, 8)
    colours[1, 2, 3] = float("nan")
    with pytest.raises(ValueError, match=r"x\.png.*NaN"):
        write_picture(tmp_path / "x.png", Picture(colours))
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot save .*file/a\.png: .*choose another folder"):
        write_picture(tmp_path / "file" / "a.png", Picture(torch.rand(3, 8, 8)))
