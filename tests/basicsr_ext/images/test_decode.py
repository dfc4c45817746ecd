"""Image files of 1, 3 and 4 channels, 8 and 16 bit, to tensors and back; bad files are named."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from basicsr_ext.common.errors import InputError
from basicsr_ext.images import headers
from basicsr_ext.images.decode import decode, decode_image, decode_pixels, to_tensor
from basicsr_ext.images.headers import Header, header_of, image_header
from basicsr_ext.images.pictures import Picture, write_picture
from tests.support.image_files import write_image

KINDS = [(extension, channels, bits) for extension in (".png", ".tif") for channels in (1, 3, 4) for bits in (8, 16)]


def levels(channels, bits, height=21, width=33, seed=0):
    """A smooth random picture C,H,W of whole grey levels, as a tensor in [0,1]."""
    coarse = torch.rand(1, channels, 4, 5, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)[0]
    full = 2**bits - 1
    return ((smooth.double() * full).round() / full).float()


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb(width=40, height=24):
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


@pytest.mark.parametrize(("extension", "channels", "bits"), KINDS)
def test_written_images_are_read_back_exactly(tmp_path, extension, channels, bits):
    image = levels(channels, bits)
    path = tmp_path / f"deep/image{extension}"
    write_image(path, image, bits)
    read = decode_image(path.read_bytes(), str(path), channels)
    assert read.dtype == torch.float32 and read.is_contiguous()
    torch.testing.assert_close(read, image, rtol=0, atol=1e-7)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(("extension", "channels", "bits"), KINDS)
def test_the_header_says_what_decoding_gives(tmp_path, extension, channels, bits):
    path = tmp_path / f"image{extension}"
    write_image(path, levels(channels, bits), bits)
    assert image_header(path)[:4] == (21, 33, channels, bits)
    assert image_header(path) == header_of(path.read_bytes())


def test_channels_come_in_rgb_order():
    image = Image.new("RGBA", (2, 2), (255, 51, 0, 102))
    values = decode_image(encode(image, "PNG"), "image")[:, 0, 0]
    torch.testing.assert_close(values, torch.tensor([1.0, 0.2, 0.0, 0.4]))


@pytest.mark.parametrize(("kind", "tolerance"), [("JPEG", 0.1), ("WEBP", 0.1), ("BMP", 0), ("PNG", 0), ("TIFF", 0)])
def test_every_usual_format_is_read(kind, tolerance):
    expected = torch.from_numpy(np.array(rgb())).permute(2, 0, 1) / 255
    read = decode_image(encode(rgb(), kind), "image", 3)
    assert (read - expected).abs().max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_jpeg_is_applied_alike_to_pixels_and_header(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for mode, channels in (("RGB", 3), ("L", 1)):
        data = encode(rgb().convert(mode), "JPEG", exif=exif, quality=95)
        upright = rgb().convert(mode)
        turned = {
            1: upright,
            2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            3: upright.rotate(180),
            4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
            5: upright.transpose(Image.Transpose.TRANSPOSE),
            6: upright.rotate(-90, expand=True),
            7: upright.transpose(Image.Transpose.TRANSVERSE),
            8: upright.rotate(90, expand=True),
        }[orientation]
        expected = torch.from_numpy(np.array(turned)).reshape(turned.height, turned.width, channels)
        read = decode_image(data, "image", channels)
        assert (read - expected.permute(2, 0, 1) / 255).abs().mean() < 0.02
        assert header_of(data) == Header(turned.height, turned.width, channels, 8, "JPEG", orientation, metadata=True)


@pytest.mark.parametrize(("mode", "options", "channels"), [
    ("1", {}, 1), ("L", {}, 1), ("P", {}, 3), ("LA", {}, 4), ("RGBA", {}, 4), ("P", {"transparency": 3}, 4),
    ("RGB", {"transparency": (0, 0, 0)}, 4), ("I;16", {}, 1),
])  # fmt: skip
def test_header_and_pixels_agree_on_every_kind_of_png(mode, options, channels):
    image = Image.fromarray(np.zeros((24, 40), np.uint16)) if mode == "I;16" else rgb().convert(mode)
    data = encode(image, "PNG", **options)
    assert decode_image(data, "image").shape == (channels, 24, 40)
    stored = 2 if mode == "LA" else channels  # which data sets take for RGBA
    assert header_of(data)[:4] == (24, 40, stored, 16 if mode == "I;16" else 8)


def test_a_wrong_channel_count_names_file_counts_and_cure():
    data = encode(rgb().convert("L"), "PNG")
    with pytest.raises(InputError, match=r"a/b\.png: .*1 channel.*channels is 3.*channels: 1"):
        decode_image(data, "a/b.png", 3)
    repeated = decode_image(data, "a/b.png", 3, grey_to_rgb=True)
    assert repeated.shape == (3, 24, 40) and torch.equal(repeated[0], repeated[2])
    with pytest.raises(InputError, match=r"x\.png: .*4 channel.*RGB with alpha.*channels is 3"):
        decode_image(encode(rgb().convert("RGBA"), "PNG"), "x.png", 3, grey_to_rgb=True)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_truncated_files_are_named(kind, kept):
    data = encode(Image.effect_noise((80, 60), 50).convert("RGB"), kind)
    with pytest.raises(InputError, match=r"^cut/short:"):
        decode_image(data[: int(len(data) * kept)], "cut/short")


def test_a_jpeg_cut_behind_its_thumbnail_is_named():
    """The thumbnail's own end mark must not pass for the image's."""
    thumbnail = b"Exif\0\0" + encode(rgb(8, 8), "JPEG")
    data = encode(rgb(), "JPEG")
    data = data[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + data[2:]
    assert decode_image(data, "whole").shape == (3, 24, 40)
    with pytest.raises(InputError, match=r"cut\.jpg: is cut short"):
        decode_image(data[:-2], "cut.jpg")


def test_bytes_after_the_end_of_an_image_do_no_harm():
    for kind in ("PNG", "JPEG"):
        assert decode_image(encode(rgb(), kind) + b"\0" * 64, "padded").shape == (3, 24, 40)


@pytest.mark.parametrize("data", [b"", b"git-lfs", b"\x89PNG\r\n\x1a\n\0\0\0\0IEND", b"\xff\xd8\xff\xd9"])
def test_what_is_no_image_is_named(tmp_path, data):
    with pytest.raises(InputError, match=r"not/an.png:"):
        decode_image(data, "not/an.png")
    path = tmp_path / "no.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"no\.png"):
        image_header(path)


def test_a_damaged_png_is_named():
    data = bytearray(encode(Image.effect_noise((80, 60), 50), "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(InputError, match=r"damaged\.png"):
        decode_image(bytes(data), "damaged.png")


@pytest.mark.parametrize("kind", ["png", "bmp"])
def test_a_pixel_without_a_colour_in_the_palette_is_named(kind):
    buffer, image = io.BytesIO(), Image.fromarray(np.array([[0, 1, 7]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0] + 18 * [9])
    image.save(buffer, kind, bits=8)
    content, colours = buffer.getvalue(), (b"PLTE" if kind == "png" else b"BM")
    assert decode(content, "a")[0][0, 2].tolist() == [9, 9, 9]
    if kind == "png":
        place = content.index(colours)
        held = content[: place - 4] + headers.png_chunk(colours, content[place + 4 : place + 10])
        short = held + content[place + 8 + int.from_bytes(content[place - 4 : place], "big") :]
    else:
        short = content[:46] + (2).to_bytes(4, "little") + content[50:]  # colours that are used
    with pytest.raises(InputError, match="a: is damaged.* colour 7, which the palette does not hold"):
        decode(short, "a")


def test_coarse_colours_outside_of_jpeg_are_refused_by_their_name():
    buffer = io.BytesIO()
    Image.new("YCbCr", (4, 4)).save(buffer, "TIFF", compression="raw")
    content = buffer.getvalue()
    assert decode(content, "a.tif")[1].channels == 3
    place = content.index((530).to_bytes(2, "little") + b"\3\0\2\0\0\0") + 8
    with pytest.raises(InputError, match="YCbCr whose colours are coarser than its brightness"):
        decode(content[:place] + b"\2\0\2\0" + content[place + 4 :], "a.tif")


def test_float_images_are_refused():
    data = cv2.imencode(".tif", np.zeros((8, 8, 3), np.float32))[1].tobytes()
    with pytest.raises(InputError, match=r"float\.tif: holds 3 channel.*float32; save it as"):
        decode_image(data, "float.tif")


def test_writing_clamps_and_rounds_to_nearest(tmp_path):
    image = torch.tensor([-0.2, 0.0, 0.499 / 255, 0.501 / 255, 254.6 / 255, 1.3]).reshape(1, 1, 6)
    write_image(tmp_path / "image.png", image)
    read = decode_image((tmp_path / "image.png").read_bytes(), "image.png")
    assert (read * 255).round().flatten().tolist() == [0, 0, 0, 1, 255, 255]
    assert image.min() < 0


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_what_a_format_cannot_hold_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=name):
        write_picture(tmp_path / name, Picture(torch.zeros(3, 4, 4), bits=16))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_view_of_pixels_gives_the_same_numbers(channels, kind):
    """However the pixels lie in memory: whole, cropped, mirrored, turned, colours in either order."""
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (21, 34, channels), endpoint=True).astype(kind)
    views = [pixels, pixels[3:15, 4:29], pixels[:, ::-1], pixels[::-1], pixels.transpose(1, 0, 2), pixels[:, :, ::-1],
             pixels[2:, 3:, ::-1], pixels[::-1, 5:, ::-1], np.asfortranarray(pixels)]  # fmt: skip
    order = [0] if channels == 1 else [2, 1, 0, 3][:channels]
    for view in views:
        expected = view[:, :, order].astype(np.float32) / np.float32(np.iinfo(kind).max)
        assert np.array_equal(to_tensor(view).numpy(), expected.transpose(2, 0, 1))


def test_uncompressed_images_are_read_without_a_copy():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    data = b"P6\n7 5\n255\n" + pixels.tobytes()
    read = decode_pixels(data, "image")
    assert np.array_equal(read, pixels[:, :, ::-1]) and not read.flags.owndata and not read.flags.writeable
    assert np.array_equal(decode_pixels(b"P6 # by hand\n7 5\n255\n" + pixels.tobytes(), "image"), read)
    assert np.array_equal(decode_pixels(b"P5\n7 15\n255\n" + pixels.tobytes(), "image").ravel(), pixels.ravel())
