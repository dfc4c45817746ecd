"""Mutate real image files, and see that both decoders read each correctly or refuse it by name.

Truncations, flipped bits, overwritten headers, pieces of one file in another, and sizes that are not true, of PNG,
JPEG, WebP, TIFF, BMP, GIF and PNM with every kind of colours; through `decode_image`, BasicSR's `imfrombytes` and the
look at headers before a run.

    python -m studies.reliability.inputs.fuzz_images --cases 2000
"""

import io
import struct
import sys
import tempfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError

NAME = "photo.file"
STEPS = st.tuples(
    st.sampled_from(("truncate", "flip", "flip", "header", "header", "insert", "splice", "zero", "size", "double")),
    st.integers(0, 1 << 30),
    st.binary(min_size=1, max_size=8),
)


def _photograph() -> Image.Image:
    from skimage import data

    return Image.fromarray(data.astronaut()).crop((100, 0, 400, 220)).resize((50, 37))


@lru_cache(maxsize=1)
def files() -> dict[str, bytes]:
    """Real files of every kind, by name."""
    photo = _photograph()
    grey = photo.convert("L")
    frames = {"save_all": True, "append_images": [photo.rotate(90), photo.rotate(180)]}
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    palette = photo.convert("P", palette=Image.Palette.ADAPTIVE, colors=60)
    plans: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "rgb.png": (photo, "PNG", {}),
        "grey.png": (grey, "PNG", {}),
        "grey16.png": (deep, "PNG", {}),
        "alpha.png": (photo.convert("RGBA"), "PNG", {}),
        "grey_alpha.png": (photo.convert("LA"), "PNG", {}),
        "palette.png": (palette, "PNG", {}),
        "palette_transparent.png": (palette, "PNG", {"transparency": 3}),
        "bits.png": (photo.convert("1"), "PNG", {}),
        "animated.png": (photo, "PNG", frames),
        "one_pixel.png": (photo.resize((1, 1)), "PNG", {}),
        "rgb.jpg": (photo, "JPEG", {}),
        "grey.jpg": (grey, "JPEG", {}),
        "progressive.jpg": (photo, "JPEG", {"progressive": True}),
        "cmyk.jpg": (photo.convert("CMYK"), "JPEG", {}),
        "one_pixel.jpg": (photo.resize((1, 1)), "JPEG", {}),
        "lossy.webp": (photo, "WEBP", {}),
        "lossless.webp": (photo, "WEBP", {"lossless": True}),
        "animated.webp": (photo, "WEBP", frames),
        "rgb.tif": (photo, "TIFF", {}),
        "lzw.tif": (photo, "TIFF", {"compression": "tiff_lzw"}),
        "deflate.tif": (photo, "TIFF", {"compression": "tiff_deflate"}),
        "jpeg.tif": (photo, "TIFF", {"compression": "jpeg"}),
        "grey16.tif": (deep, "TIFF", {}),
        "palette.tif": (palette, "TIFF", {}),
        "cmyk.tif": (photo.convert("CMYK"), "TIFF", {}),
        "float.tif": (photo.convert("F"), "TIFF", {}),
        "rgb.bmp": (photo, "BMP", {}),
        "palette.bmp": (palette, "BMP", {}),
        "still.gif": (photo, "GIF", {}),
        "animated.gif": (photo, "GIF", frames),
        "rgb.ppm": (photo, "PPM", {}),
    }
    return {name: _encode(*plan) for name, plan in plans.items()} | {"empty": b""}


def _encode(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that claims ``width`` x ``height`` pixels and holds the first rows of them, black."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(min(width * 3 + 1, 1 << 20) * min(height, 8)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def images() -> st.SearchStrategy:
    """Cases: the number of a real file, and the steps that change it."""
    return st.tuples(st.integers(0, len(files()) - 1), st.lists(STEPS, max_size=3))


def mutate(content: bytes, steps: list[tuple[str, int, bytes]]) -> bytes:
    """Apply ``steps`` to the bytes of a file."""
    for name, number, piece in steps:
        place = number % (len(content) + 1)
        if name == "truncate":
            content = content[:place]
        elif name == "zero":
            content = content[:place] + bytes(min(512, len(content) - place)) + content[place + 512 :]
        elif name == "insert":
            content = content[:place] + piece + content[place:]
        elif name == "double":
            content = content + content[: place or 1]
        elif name == "splice":
            others = sorted(files())
            content = content[:place] + files()[others[number % len(others)]][place:]
        elif name == "header":
            place %= 64
            content = content[:place] + piece + content[place + len(piece) :]
        elif name == "size":
            content = _other_size(content, number)
        elif content:
            place %= len(content)
            content = content[:place] + bytes([content[place] ^ 1 << number % 8]) + content[place + 1 :]
    return content


def _other_size(content: bytes, number: int) -> bytes:
    """Make the header of a PNG (its checksum mended), BMP or PPM claim another size; a bomb for other kinds."""
    width, height = (1 << number % 18) - number % 2, 1 << number // 18 % 18
    if content[:4] == b"\x89PNG" and len(content) > 33:
        header = content[12:16] + struct.pack(">II", width, height) + content[24:29]
        return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    if content[:2] == b"BM":
        return content[:18] + struct.pack("<ii", width, height) + content[26:]
    if content[:2] == b"P6":
        return b"P6\n%d %d\n255\n" % (width, height) + content[13:]
    return bomb(width, height)


def run(case: Any) -> None:
    """Decode one case by every way there is; all that refuse it must name it."""
    from basicsr.utils.img_util import imfrombytes

    from basicsr_ext.images.decode import decode_image
    from basicsr_ext.images.headers import image_header
    from basicsr_ext.images.pictures import read_picture
    from basicsr_ext.repairs.images import NamedBytes

    number, steps = case
    content = mutate(files()[sorted(files())[number]], steps)
    named = NamedBytes(content)
    named.path = NAME
    path = Path(tempfile.gettempdir()) / f"fuzz-images-{NAME}"
    path.write_bytes(content)
    ways = (
        lambda: decode_image(content, NAME),
        lambda: imfrombytes(named, float32=True),
        lambda: imfrombytes(named, flag="unchanged"),
        lambda: read_picture(path).colours,
        lambda: image_header(path),
    )
    refusals = [refusal for refusal in map(_refusal, ways) if refusal]
    path.unlink()
    if refusals:
        raise InputError("; ".join(refusals))


def _refusal(way: Any) -> str | None:
    try:
        result = way()
    except InputError as error:
        if NAME not in str(error):
            raise AssertionError(f"the file is not named: {error}") from error
        return str(error)
    if not isinstance(result, tuple) and not bool((result == result).all()):
        raise AssertionError("the image holds NaN")
    return None


def prepare_process() -> st.SearchStrategy:
    import warnings

    repairs.apply()
    warnings.simplefilter("ignore")
    files()
    return images()


if __name__ == "__main__":
    from studies.reliability.inputs.campaign import main

    sys.exit(main("studies.reliability.inputs.fuzz_images", 2000, prepare_process, run))
