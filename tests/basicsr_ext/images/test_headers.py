"""Headers tell what is too large, animated, cut short or in other colours, before anything is decoded."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError
from basicsr_ext.images import headers
from basicsr_ext.images.decode import decode_pixels
from studies.reliability.inputs.fuzz_images import bomb, files

repairs.apply()
FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WebP", "tif": "TIFF", "bmp": "BMP", "gif": "GIF", "ppm": "PNM"}
REFUSED = {
    "animated.png": "is an animation (APNG)",
    "animated.webp": "is an animation (WebP)",
    "animated.gif": "is an animation (GIF)",
    "cmyk.tif": "holds CMYK colours; convert it to RGB",
    "float.tif": "holds 1 channel(s) of float32",
    "empty": "the file is empty",
}


def by_pillow(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("name", [name for name in files() if name != "empty"])
def test_a_header_tells_format_and_size(name):
    kind = headers.header_of(files()[name])
    side = (1, 1) if name.startswith("one_pixel") else (50, 37)
    assert (kind.format, kind.width, kind.height) == (FORMATS[name.split(".")[1]], *side)


@pytest.mark.parametrize("name", [name for name in files() if name not in REFUSED and "16" not in name])
def test_pixels_are_those_that_pillow_reads(name):
    pixels = decode_pixels(files()[name], name)
    colours = np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels[:, :, [2, 1, 0]]
    assert np.abs(colours - by_pillow(files()[name])).max() <= 4  # JPEG and WebP decoders differ by a rounding
    if name.split(".")[1] in ("png", "bmp", "gif", "ppm"):
        assert (colours == by_pillow(files()[name])).all()


@pytest.mark.parametrize("name", REFUSED)
def test_other_images_are_refused_by_name(name):
    with pytest.raises(InputError) as error:
        decode_pixels(files()[name], f"there/{name}")
    assert str(error.value).startswith(f"there/{name}")
    assert REFUSED[name] in str(error.value)


@pytest.mark.parametrize("side", [13_378, 60_000, 2**31 - 1])
def test_a_bomb_is_refused_before_it_is_unpacked(side, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side, side))
    assert path.stat().st_size < 10_000
    for read in (lambda: decode_pixels(path.read_bytes(), str(path)), lambda: headers.image_header(path)):
        with pytest.raises(InputError, match=r"bomb\.png: .*178,956,970"):
            read()


def test_an_image_below_the_limit_is_no_bomb():
    assert headers.checked_header(bomb(13_377, 13_377), "x").height == 13_377


def test_a_part_of_a_png_that_claims_more_than_the_file_is_refused():
    content = files()["rgb.png"]
    place = content.index(b"IDAT") - 4
    claimed = content[:place] + (1 << 30).to_bytes(4, "big") + content[place + 4 :]
    with pytest.raises(InputError, match=r"x\.png: .*1,073,741,824"):
        decode_pixels(claimed, "x.png")


def test_a_planar_tiff_that_is_cut_short_is_refused():
    tifffile = pytest.importorskip("tifffile")
    planes = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, planes, photometric="rgb", planarconfig="separate")
    content = buffer.getvalue()
    assert (decode_pixels(content, "x.tif")[:, :, ::-1].transpose(2, 0, 1) == planes).all()
    for end in range(1, len(content)):
        with pytest.raises(InputError, match=r"x.tif"):
            decode_pixels(content[:end], "x.tif")


@pytest.mark.parametrize("name", files())
def test_no_truncation_and_no_noise_confuses_the_reader(name):
    content, rng = files()[name], np.random.default_rng(zlib.crc32(name.encode()))
    for end in range(min(len(content), 300)):
        assert headers.header_of(content[:end]) is None or end > 8
        noisy = bytearray(content)
        noisy[end] = int(rng.integers(256))
        headers.header_of(bytes(noisy))
