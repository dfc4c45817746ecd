"""Headers tell what is too large, animated, cut short or in other colours, before anything is decoded."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError
from basicsr_ext.images import headers
from basicsr_ext.images.decode import decode_pixels
from studies.reliability.inputs.fuzz_images import bomb, files

repairs.apply()


@pytest.mark.parametrize("side", [13_378, 60_000, 2**31 - 1])
def test_a_bomb_is_refused_before_it_is_unpacked(side, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side, side))
    assert path.stat().st_size < 10_000
    for read in (lambda: decode_pixels(path.read_bytes(), str(path)), lambda: headers.image_header(path)):
        with pytest.raises(InputError, match=r"bomb\.png: .*178,956,970"):
            read()


@pytest.mark.parametrize("kind", ["BMP", "GIF"])
def test_a_large_picture_that_pillow_reads_is_refused_for_its_size(kind, tmp_path):
    path = tmp_path / f"large.{kind.lower()}"
    Image.new("1" if kind == "BMP" else "L", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    if kind == "BMP":
        content[18:26] = struct.pack("<ii", 20_000, 10_000)
    else:
        content[6:10] = struct.pack("<HH", 20_000, 10_000)
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"large\.{kind.lower()}: .*178,956,970 pixels"):
        headers.image_header(path)


def test_an_image_below_the_limit_is_no_bomb():
    assert headers.checked_header(bomb(13_377, 13_377), "x").height == 13_377


def test_a_part_of_a_png_that_claims_more_than_the_file_is_refused():
    content = files()["plain_2_8_False_png.png"]
    place = content.index(b"IDAT") - 4
    claimed = content[:place] + (1 << 30).to_bytes(4, "big") + content[place + 4 :]
    with pytest.raises(InputError, match=r"x\.png: .*1,073,741,824"):
        decode_pixels(claimed, "x.png")


@pytest.mark.parametrize("layout", [{"rowsperstrip": 8}, {"tile": (16, 16)}, {"planarconfig": "separate"}])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_that_lacks_strips_or_tiles_is_refused(layout, compression):
    """tifffile would make them black, of a damaged height 15 million rows of them."""
    buffer, shape = io.BytesIO(), (3, 64, 64) if "planarconfig" in layout else (64, 64, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    tifffile.imwrite(buffer, pixels, photometric="rgb", compression=compression, **layout)
    whole = buffer.getvalue()
    assert decode_pixels(whole, "whole.tif").shape == (64, 64, 3)
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        tags = file.pages.first.tags
        place, count = tags["ImageLength"].valueoffset, tags.get(324, tags.get(273)).count
    for rows in (65, 60_000):
        content = bytearray(whole)
        content[place : place + 2] = struct.pack("<H", rows)
        with pytest.raises(InputError, match=rf"short\.tif: is damaged: it holds {count} of [\d,]+ strips or tiles"):
            decode_pixels(bytes(content), "short.tif")


def test_a_planar_tiff_that_is_cut_short_is_refused():
    planes = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, planes, photometric="rgb", planarconfig="separate")
    content = buffer.getvalue()
    assert (decode_pixels(content, "x.tif")[:, :, ::-1].transpose(2, 0, 1) == planes).all()
    for end in range(1, len(content)):
        with pytest.raises(InputError, match=r"x.tif"):
            decode_pixels(content[:end], "x.tif")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", files())
def test_no_truncation_and_no_noise_confuses_the_reader(name):
    content, rng = files()[name], np.random.default_rng(zlib.crc32(name.encode()))
    for end in range(min(len(content), 300)):
        assert headers.header_of(content[:end]) is None or end > 7
        noisy = bytearray(content)
        noisy[end] = int(rng.integers(256))
        headers.header_of(bytes(noisy))


def _with_index(order, sizes):
    """A JPEG of 16 x 24 pixels with others behind it, and the index that says where (MPF)."""
    first, *others = (cv2.imencode(".jpg", np.zeros((*size, 3), np.uint8))[1].tobytes() for size in sizes)
    length = 2 + 2 + 4 + 8 + 2 + 12 + 4 + 16 * len(sizes)
    start = len(first) + length - 10  # counted from the index, which begins behind the start, the marker and its name
    places = [0, *(start + sum(map(len, others[:k])) for k in range(len(others)))]
    index = struct.pack(
        f"{order}2sHIHHHIII", b"II" if order == "<" else b"MM", 42, 8, 1, 0xB002, 7, 16 * len(sizes), 26, 0
    )
    index += b"".join(struct.pack(f"{order}IIIHH", 0, 0, place, 0, 0) for place in places)
    segment = b"\xff\xe2" + struct.pack(">H", 2 + 4 + len(index)) + b"MPF\0" + index
    return first[:2] + segment + first[2:] + b"".join(others)


@pytest.mark.parametrize("order", ["<", ">"])
def test_pictures_of_one_size_in_a_jpeg_are_refused_and_previews_are_not(order):
    preview = headers.header_of(_with_index(order, [(16, 24), (8, 12), (4, 6)]))
    assert preview[:4] == (16, 24, 3, 8) and preview.odd is None
    several = headers.header_of(_with_index(order, [(16, 24), (8, 12), (16, 24)]))
    assert several[:4] == (16, 24, 3, 8) and "several pictures" in several.odd
    cut = _with_index(order, [(16, 24), (16, 24)])
    for place in range(2, 60):  # an index that is damaged spoils no pixel
        damaged = cut[:place] + bytes([cut[place] ^ 0xFF]) + cut[place + 1 :]
        headers.header_of(damaged)
    assert headers.header_of(cut[:2] + cut[2:].replace(b"MPF\0", b"MPX\0")).odd is None
