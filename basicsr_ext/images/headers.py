"""Images that a decoder would read at any cost or take for something else, told from the bytes of their header."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

__all__ = ["LARGEST", "ImageKind", "image_kind", "refusal"]

LARGEST = 178_956_970  # pixels, as in Pillow: beyond it, a file of a few kilobytes may ask for gigabytes
_PNM = re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*(\d{1,18})\s+(?:#[^\n]*\n\s*)*(\d{1,18})\s")
_TIFF_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # whole numbers, by their type in the file
_TIFF_COLOURS = {5: "CMYK", 8: "Lab", 9: "Lab", 10: "Lab"}
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


class ImageKind(NamedTuple):
    """What a header says: format, size in pixels, and ``odd``, why it is more or other than one picture, if it is."""

    format: str
    width: int
    height: int
    odd: str | None = None


def refusal(content: bytes) -> str | None:
    """Say why the bytes of an image file are not decoded, and what to do; None if nothing speaks against it.

    Refused are more than ``LARGEST`` pixels, animations, TIFFs in CMYK or Lab, and TIFFs whose pixels are not all
    there. Looks at PNG, JPEG, WebP, GIF, BMP, TIFF and PNM; what it does not understand is left to the decoder.
    """
    kind = image_kind(content)
    if kind is None:
        return None
    if kind.width * kind.height > LARGEST:
        return (
            f"says that it is {kind.height}x{kind.width} (height x width), more than {LARGEST:,} pixels, in "
            f"{len(content):,} bytes; cut it into parts, or remove it"
        )
    return kind.odd


def image_kind(content: bytes) -> ImageKind | None:
    """Read the header of an image file; None if its format is not one of those above, or its header is damaged."""
    for start, read in _READERS:
        if content.startswith(start):
            try:
                return read(content)
            except (struct.error, IndexError, KeyError, ValueError, OverflowError):
                return None
    return None


def _png(content: bytes) -> ImageKind:
    width, height = struct.unpack_from(">II", content, 16)
    place, odd = 8, None
    while place + 8 <= len(content) and content[place + 4 : place + 8] != b"IEND":
        length, name = struct.unpack_from(">I4s", content, place)
        place += 12 + length
        if name == b"acTL":
            odd = "is an animation (APNG); save the frame that is meant as a file of its own"
        if place > len(content):  # OpenCV would reserve what is claimed
            odd = f"is damaged: a part of it claims {length:,} bytes, more than the file has; replace it"
    return ImageKind("PNG", width, height, odd)


def _jpeg(content: bytes) -> ImageKind | None:
    place = 2
    while place + 9 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", content, place + 5)
            return ImageKind("JPEG", width, height)
        place += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", content, place + 2)[0]
    return None


def _webp(content: bytes) -> ImageKind | None:
    chunk = content[12:16]
    if content[8:12] != b"WEBP":
        return None
    if chunk == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
        return ImageKind("WebP", width, height)
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", content, 21)[0]
        return ImageKind("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    width, height = (1 + int.from_bytes(content[place : place + 3], "little") for place in (24, 27))
    odd = "is an animation (WebP); save the frame that is meant as a file of its own" if content[20] & 2 else None
    return ImageKind("WebP", width, height, odd)


def _gif(content: bytes) -> ImageKind:
    width, height = struct.unpack_from("<HH", content, 6)
    place, frames = 13 + _colour_table(content[10]), 0
    while place < len(content) and frames < 2 and content[place] in (0x21, 0x2C):
        if content[place] == 0x2C:
            frames += 1
            place += 11 + _colour_table(content[place + 9])
        else:
            place += 2
        while content[place]:
            place += 1 + content[place]
        place += 1
    odd = "is an animation (GIF); save the frame that is meant as a file of its own" if frames > 1 else None
    return ImageKind("GIF", width, height, odd)


def _colour_table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _bmp(content: bytes) -> ImageKind:
    width, height = struct.unpack_from("<ii", content, 18)
    return ImageKind("BMP", abs(width), abs(height))


def _pnm(content: bytes) -> ImageKind | None:
    match = _PNM.match(content[:4096])
    return ImageKind("PNM", int(match[1]), int(match[2])) if match else None


def _tiff(content: bytes) -> ImageKind:
    tags = _tiff_tags(content)
    width, height = tags[256][0], tags[257][0]
    colours = _TIFF_COLOURS.get(tags.get(262, (2,))[0])
    odd = None
    if colours:
        odd = f"holds {colours} colours; convert it to RGB"
    offsets, counts = tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or ()
    end = max((offset + count for offset, count in zip(offsets, counts)), default=0)
    if end > len(content):
        odd = f"is truncated ({len(content):,} of at least {end:,} bytes); copy it again"
    return ImageKind("TIFF", width, height, odd)


def _tiff_tags(content: bytes) -> dict[int, tuple[int, ...]]:
    """The whole numbers of the first directory by tag; those of more than 2**20 values are left out."""
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", content, 2)[0] == 43
    number, room = ("Q", 8) if big else ("I", 4)
    place = struct.unpack_from(order + number, content, 8 if big else 4)[0]
    entries = struct.unpack_from(order + ("Q" if big else "H"), content, place)[0]
    place += 8 if big else 2
    tags = {}
    for _ in range(min(entries, 4096)):
        tag, kind, count = struct.unpack_from(f"{order}HH{number}", content, place)
        value = place + 4 + room
        if kind in _TIFF_CODES and count <= 1 << 20:
            if count * struct.calcsize(f"={_TIFF_CODES[kind]}") > room:
                value = struct.unpack_from(order + number, content, value)[0]
            tags[tag] = struct.unpack_from(f"{order}{count}{_TIFF_CODES[kind]}", content, value)
        place += 4 + 2 * room
    return tags


_READERS = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"RIFF", _webp),
    (b"GIF8", _gif),
    (b"BM", _bmp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),
    (b"MM\0+", _tiff),
    *((b"P%d" % number, _pnm) for number in range(1, 7)),
)
