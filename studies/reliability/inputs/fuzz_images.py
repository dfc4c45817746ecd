"""Mutate real image files, and see that both decoders read each correctly or refuse it by name.

Truncations, flipped bits, overwritten headers, pieces of one file in another, and sizes that are not true, of the files
of `zoo_files`; through `decode_image`, BasicSR's `imfrombytes`, `restore` and the look at headers before a run.

    python -m studies.reliability.inputs.fuzz_images --cases 2000
"""

import struct
import sys
import tempfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError
from basicsr_ext.images.headers import PNG_MARK, png_chunk
from studies.reliability.inputs.zoo_files import zoo

NAME = "photo.file"
STEPS = st.tuples(
    st.sampled_from(("truncate", "flip", "flip", "header", "header", "insert", "splice", "zero", "size", "double")),
    st.integers(0, 1 << 30),
    st.binary(min_size=1, max_size=8),
)


@lru_cache(maxsize=1)
def files() -> dict[str, bytes]:
    """The zoo: real files of every kind, by name."""
    return {file.name: file.content for file in zoo()}


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that claims ``width`` x ``height`` pixels and holds the first rows of them, black."""

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(min(width * 3 + 1, 1 << 20) * min(height, 8)))
    return PNG_MARK + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


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
