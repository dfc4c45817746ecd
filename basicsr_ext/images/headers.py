"""What an image file says about itself, without decoding it: exactly what :func:`.decode.decode` then returns.

How each kind is treated, here and by the decoder:

- PNG: 1, 2, 4 and 8 bits become 8, 16 stay; a palette becomes RGB; a transparent colour (tRNS) becomes alpha.
- JPEG: grey or RGB; CMYK is converted to RGB; behind it may lie smaller pictures, such as previews (MPO).
- WebP: RGB or RGBA, 8 bits.
- TIFF: grey, RGB or palette of 8 or 16 bits (less become 8), in strips or tiles, planes interleaved or apart, of either
  byte order, BigTIFF too; WhiteIsZero is inverted, associated alpha is divided out, channels without a meaning are
  left out behind colours. Pages that are marked as previews or masks of the first one are passed over.
- PBM, PGM, PPM, PAM: values are scaled from their largest one to 255, or to 65535 where it is above 255.
- BMP, GIF, AVIF, JPEG 2000: as Pillow reads them; more than 8 bits are scaled to 16.

The EXIF orientation is applied in all of them. Refused by name are animations, several pages or pictures, signed and
floating-point numbers, CMYK and Lab other than JPEG's, bands that are no colours, previews of raw files, more than
``LARGEST`` pixels, and files that end too early.
"""

import contextlib
import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from PIL import Image

from basicsr_ext.common.errors import InputError
from basicsr_ext.images import anymaps, data_files
from basicsr_ext.images.content import LARGEST, Content, FileContent, open_file, unpack
from basicsr_ext.images.values import Values

OTHERS = ("BMP", "DIB", "GIF", "AVIF", "JPEG2000")  # that Pillow reads; any other kind is no image
PNG_MARK = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112
_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"pHYs")  # chunks of a PNG
_SRGB = {  # how those that say what colours are begin if they mean those of sRGB
    b"gAMA": struct.pack(">I", 45455),
    b"cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
    b"cICP": b"\1\x0d",
}
_DAMAGE = (struct.error, IndexError, KeyError, ValueError, OverflowError)
_MODES = {"1": 1, "L": 1, "LA": 2, "La": 2, "P": 3, "RGB": 3, "RGBX": 3, "PA": 4, "RGBA": 4, "RGBa": 4}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of a JPEG's sizes
_TIFF_CODES = {1: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}  # whole numbers, by their type in the file


class Header(NamedTuple):
    """What a header says: height and width as shown, channels and bits, as the decoder returns them, and more."""

    height: int
    width: int
    channels: int  # 1 grey, 2 grey with alpha, 3 RGB, 4 RGBA
    bits: int  # 8 or 16
    format: str  # PNG, JPEG, WebP, TIFF, PNM, or what Pillow calls it; DATA for what is no picture
    orientation: int = 1  # of the EXIF block, 1 to 8; already applied to height and width
    profile: bytes = b""  # the colours of its ICC profile, as that says: "RGB ", "GRAY", ...; "?" if it is damaged
    odd: str | None = None  # why the file is refused, and the cure, if it is
    cmyk: bool = False  # whether the colours are converted from CMYK, which the profile describes
    metadata: bool = False  # whether there are EXIF, XMP, IPTC, texts or a resolution
    tones: bool = False  # whether something other than a profile says that the colours are not those of sRGB


def image_header(path: str | os.PathLike[str], values: Values | None = None) -> Header:
    """Read the header of an image file; InputError naming it if it would not be decoded, as far as headers tell."""
    with open_file(path) as file:
        return checked_header(FileContent(file), str(path), values)


def checked_header(content: Content, path: str, values: Values | None = None) -> Header:
    """Read the header of an image, with ``values`` of data; InputError naming ``path`` if it is of a refused kind."""
    if not len(content):
        raise InputError(f"{path}: the file is empty; replace or remove it")
    if values is not None:
        return Header(*data_files.data_shape(content, path, values), 8 * values.kind.itemsize, "DATA")
    header = header_of(content)
    if header is None:
        if data_files.kind_of(content):
            raise InputError(f"{path}: {data_files.NO_PICTURE}")
        held = f"{len(content)} bytes, the first are {content[:12]!r}"
        cure = "it is damaged or of another kind; replace it (PNG, JPEG, TIFF, WebP, BMP and PNM are read)"
        raise InputError(f"{path}: cannot be read as an image ({held}): {cure}")
    if header.height * header.width > LARGEST:
        said = f"says that it is {header.height}x{header.width} (height x width), more than {LARGEST:,} pixels"
        raise InputError(f"{path}: {said}, in {len(content):,} bytes; cut it into parts, or remove it")
    if header.odd:
        raise InputError(f"{path}: {header.odd}")
    return header


def header_of(content: Content) -> Header | None:
    """Read the header of an image; None if it is no image, or its header is damaged."""
    start = content[:12]
    reader = next((read for mark, read in _READERS.items() if start.startswith(mark)), _other)
    try:
        header = reader(content)
    except _DAMAGE:
        return None
    if header is None or not header.height or not header.width:
        return None
    if header.orientation not in range(1, 9):
        return header._replace(orientation=1)
    return header._replace(height=header.width, width=header.height) if header.orientation >= 5 else header


def _orientation(exif: bytes) -> int:
    found = Image.Exif()
    with warnings.catch_warnings(), contextlib.suppress(Exception):  # a damaged block spoils no pixel
        warnings.simplefilter("ignore")
        found.load(exif)
        return found.get(_ORIENTATION, 1)
    return 1


def _space(profile: bytes) -> bytes:
    return profile[16:20] or b"?"


def _cut(length: int, needed: int | None = None) -> str:
    of = "" if needed is None else f" of at least {needed:,}"
    return f"is cut short ({length:,}{of} bytes): its end is missing; copy it again or remove it"


def _animation(kind: str) -> str:
    return f"is an animation ({kind}); save the frame that is meant as a file of its own"


# ---- one reader for each format


def png_chunks(content: Content) -> Iterator[tuple[bytes, int, int]]:
    """Name of each chunk of a PNG, where its contents begin, and how many bytes it claims."""
    place = 8
    while place + 8 <= len(content):
        length, name = struct.unpack(">I4s", content[place : place + 8])
        yield name, place + 8, length
        place += 12 + length
        if name == b"IEND":
            return


def png_chunk(name: bytes, content: bytes) -> bytes:
    """One chunk of a PNG: its length, name, contents and checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _png(content: Content) -> Header | None:
    mark, width, height, bits, kind = unpack(">4sIIBB", content, 12)
    if mark != b"IHDR":  # Apple has a kind of its own
        return None
    channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[kind]
    orientation, profile, odd, name, metadata = 1, b"", None, b"", False
    tinted = set[bytes]()
    for name, place, length in png_chunks(content):
        if place + length + 4 > len(content):  # OpenCV would reserve what is claimed
            said = f"a part of it claims {length:,} bytes, more than the file has"
            odd = f"is cut short or damaged: {said}; copy it again or remove it"
        elif name == b"acTL":
            odd = _animation("APNG")
        elif name == b"tRNS" and kind in (0, 2, 3):
            channels = {0: 2, 2: 4, 3: 4}[kind]
        elif name == b"eXIf":
            orientation = _orientation(content[place : place + length])
        elif name == b"iCCP":
            packed = content[place : place + min(length, 1 << 10)].partition(b"\0\0")[2]
            with contextlib.suppress(zlib.error):
                profile = zlib.decompressobj().decompress(packed, 128)
            profile = _space(profile)
        elif name in _SRGB and not content[place : place + length].startswith(_SRGB[name]):
            tinted.add(name)
        metadata |= name in _METADATA
        tinted |= {name} & {b"sRGB"}
    if name != b"IEND":
        odd = odd or _cut(len(content))
    tones = bool(tinted) and b"sRGB" not in tinted and not profile
    depth = 16 if bits == 16 else 8
    return Header(height, width, channels, depth, "PNG", orientation, profile, odd, False, metadata, tones)


def _jpeg_segments(content: Content, place: int = 0) -> Iterator[tuple[int, int, int]]:
    """Marker of each segment up to the scan, where its contents begin, and how many bytes they are."""
    place += 2
    while content[place : place + 1] == b"\xff":
        marker = content[place + 1 : place + 2][0]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        (length,) = unpack(">H", content, place + 2)
        yield marker, place + 4, length - 2
        if marker == 0xDA:
            return
        place += 2 + length


def _jpeg(content: Content) -> Header | None:
    place, frame, orientation, profile, several, metadata = 2, None, 1, b"", False, False
    for marker, place, length in _jpeg_segments(content):
        if marker in _FRAMES:
            frame = unpack(">BHHB", content, place)
        elif marker == 0xE1 and content[place : place + 6] == b"Exif\0\0":
            orientation = _orientation(content[place + 6 : place + length])
        elif marker == 0xE2 and content[place : place + 12] == b"ICC_PROFILE\0":
            profile = profile or _space(content[place + 14 : place + length])
        elif marker == 0xE2 and content[place : place + 4] == b"MPF\0":
            several = _is_album(content, place + 4, place + length)
        density = marker == 0xE0 and content[place + 7 : place + 8] > b"\0"
        metadata |= marker in (0xE1, 0xED, 0xFE) or density
    if frame is None:
        return None
    bits, height, width, count = frame
    odd = None if bits == 8 else f"is a JPEG of {bits} bits; save it with 8 bits, or as a PNG or TIFF with 16"
    if several:
        odd = "holds several pictures of one size (MPO); save the one that is meant as a file of its own"
    # the end mark; that of a thumbnail lies before the scan, and cameras add bytes behind it
    if not any(b"\xff\xd9" in content[start:] for start in (-2, max(place, len(content) - (1 << 16)), place)):
        odd = _cut(len(content))
    return Header(height, width, {1: 1, 3: 3, 4: 3}[count], 8, "JPEG", orientation, profile, odd, count == 4, metadata)


def _is_album(content: Content, start: int, end: int) -> bool:
    """Whether the pictures behind a JPEG (its MPF index is ``content[start:end]``) are as large as the first one."""
    with contextlib.suppress(*_DAMAGE):  # a damaged index spoils no pixel
        index = content[start:end]
        entries = bytes(next(tiff_pages(index), {})[0xB002])
        form = "<8xI4x" if index[:2] == b"II" else ">8xI4x"
        places = [start + place for (place,) in struct.iter_unpack(form, entries)]
        sizes = [
            unpack(">HH", content, place + 1)
            for begin in (0, *places[1:])
            for marker, place, _ in _jpeg_segments(content, begin)
            if marker in _FRAMES
        ]
        return sizes[0] in sizes[1:]
    return False


def _webp(content: Content) -> Header | None:
    if content[8:12] != b"WEBP":
        return None
    end = 8 + unpack("<I", content, 4)[0]
    odd = _cut(len(content), end) if end > len(content) else None
    alpha, orientation, profile, metadata, place = False, 1, b"", False, 12
    size: tuple[int, int] | None = None
    while place + 8 <= min(end, len(content)):
        name, length = struct.unpack("<4sI", content[place : place + 8])
        start = place + 8
        if name == b"VP8X":
            flags, *sides = unpack("<BxxxHBHB", content, start)
            size = (1 + sides[2] + (sides[3] << 16), 1 + sides[0] + (sides[1] << 16))
            alpha, odd = bool(flags & 16), odd or (_animation("WebP") if flags & 2 else None)
        elif name == b"VP8 ":
            width, height = unpack("<HH", content, start + 6)
            size = size or (height & 0x3FFF, width & 0x3FFF)
        elif name == b"VP8L":
            (packed,) = unpack("<I", content, start + 1)
            size = size or ((packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1)
            alpha = bool(packed >> 28 & 1)
        elif name == b"EXIF":
            orientation = _orientation(content[start : start + length])
        elif name == b"ICCP":
            profile = _space(content[start : start + length])
        alpha, metadata = alpha or name == b"ALPH", metadata or name in (b"EXIF", b"XMP ")
        place = start + length + (length & 1)
    channels = 4 if alpha else 3
    return Header(*size, channels, 8, "WebP", orientation, profile, odd, False, metadata) if size else None


def tiff_pages(content: Content) -> Iterator[Mapping[int, tuple[int, ...]]]:
    """The whole numbers of each directory by tag: none for other values, and for more than 2**20 of them."""
    order = "<" if content[:2] == b"II" else ">"
    big = unpack(order + "H", content, 2)[0] == 43
    number, room = ("Q", 8) if big else ("I", 4)
    place, seen = unpack(order + number, content, 8 if big else 4)[0], set()
    while place and place not in seen:
        seen.add(place)
        (entries,) = unpack(order + ("Q" if big else "H"), content, place)
        place += 8 if big else 2
        tags: dict[int, tuple[int, ...]] = {}
        for _ in range(min(entries, 4096)):
            tag, kind = unpack(f"{order}HH", content, place)
            (count,) = unpack(order + number, content, place + 4)
            tags[tag] = ()
            if kind in _TIFF_CODES and count <= 1 << 20:
                form, value = f"{order}{count}{_TIFF_CODES[kind]}", place + 4 + room
                if struct.calcsize(form) > room:
                    (value,) = unpack(order + number, content, value)
                tags[tag] = unpack(form, content, value)
            place += 4 + 2 * room
        yield tags
        (place,) = unpack(order + number, content, place)


def _tiff(content: Content) -> Header | None:
    pages = tiff_pages(content)
    tags = next(pages, {})
    (width,), (height,) = tags[256], tags[257]
    samples, bits = tags.get(277, (1,))[0], tags.get(258, (1,))
    colours = tags.get(262, (1,))[0]
    base = 3 if colours in (2, 3, 6) else 1
    extra = samples - (1 if colours == 3 else base)
    meaning = tags.get(338, (2,) if extra == 1 else ())  # where it is not said, a single one is taken for alpha
    channels = base + (extra > 0 and meaning[:1] in ((1,), (2,)))
    odd, numbers = None, {2: "int", 3: "float"}.get(tags.get(339, (1,))[0], "uint")
    if colours not in (0, 1, 2, 3, 6):
        known = {5: "CMYK colours", 8: "Lab colours", 9: "Lab colours", 10: "Lab colours"}
        odd = f"holds {known.get(colours, f'colours of an unknown kind ({colours})')}; convert it to RGB"
    elif colours == 6 and tags.get(259) not in ((6,), (7,)) and tags.get(530, (2, 2)) != (1, 1):
        odd = "holds YCbCr whose colours are coarser than its brightness, without JPEG; save it as RGB"
    elif extra > 1 and (channels == 1 or {1, 2} & {*meaning[1:]}):
        odd = f"holds {samples} channels and does not say which are the colours; save it as grey, RGB or RGBA"
    elif colours == 3 and max(tags.get(320) or (0,)) < 256:
        odd = "holds a palette of 8 bits, where TIFF has 16; save it as RGB"
    elif tags.get(254, (0,))[0] & 1 and 330 in tags:
        odd = "begins with a preview, as raw files of cameras do; develop it, and save it as PNG or TIFF"
    elif numbers != "uint" or set(bits) not in ({1}, {2}, {4}, {8}, {16}) or (samples > 1 and bits[0] < 8):
        odd = f"holds {samples} channel(s) of {numbers}{bits[0]}; save it as grey, RGB or RGBA with 8 or 16 bits"
    offsets, counts = tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or ()
    end = max((offset + count for offset, count in zip(offsets, counts)), default=0)
    if end > len(content):
        odd = _cut(len(content), end)
    wide, high = tags.get(322, (width,))[0] or width, tags.get(323, tags.get(278, (height,)))[0] or height
    parts = -(-width // wide) * -(-height // high) * (samples if tags.get(284, (1,))[0] == 2 else 1)
    if len(offsets) < parts and tags.get(259) != (6,):  # 6, an old kind of JPEG, may say its places otherwise
        odd = odd or f"is damaged: it holds {len(offsets):,} of {parts:,} strips or tiles; replace it"
    try:
        if any(not page.get(254, (0,))[0] & (1 | 4) for page in pages):  # a page of its own, no preview, no mask
            odd = odd or "holds several pages; save the page that is meant as a file of its own"
    except _DAMAGE:
        odd = odd or _cut(len(content))
    orientation, depth = tags.get(274, (1,))[0], 16 if bits[0] == 16 else 8
    profile = _space(bytes(number & 255 for number in tags[34675][:20])) if 34675 in tags else b""
    metadata = not tags.keys().isdisjoint((271, 700, 33723, 34665)) or (282 in tags and tags.get(296) != (1,))
    return Header(height, width, channels, depth, "TIFF", orientation, profile, odd, False, metadata)


def _pnm(content: Content) -> Header | None:
    layout = anymaps.layout_of(content[: anymaps.LONGEST_HEAD])
    if layout is None:
        return None
    end = layout.start + layout.bytes_needed
    odd = _cut(len(content), end) if end > len(content) else None
    if re.search(rb"\nTUPLTYPE\s+CMYK", content[: layout.start]):
        odd = "holds CMYK colours; convert it to RGB"
    elif layout.kind > 3 and re.match(rb"P[1-7]\s", content[end : end + 3]):
        odd = "holds several pictures; save the one that is meant as a file of its own"
    return Header(layout.height, layout.width, layout.channels, layout.bits, "PNM", odd=odd)


def number_bits(data: bytes, kind: str) -> int:
    """Bits of a number of an AVIF or JPEG 2000, 8 of others; 0 if they are signed, or not the same in all channels."""
    if kind == "AVIF":
        flags = data[data.index(b"av1C") + 6]
        return 12 if flags & 0x20 else 10 if flags & 0x40 else 8
    if kind != "JPEG2000":
        return 8
    place = data.index(b"\xff\x4f\xff\x51") + 40
    depths = {*data[place + 2 : place + 2 + 3 * unpack(">H", data, place)[0] : 3]}  # less 1, and 128 if signed
    return max(depths) + 1 if len(depths) == 1 and max(depths) < 128 else 8 if max(depths) < 8 else 0


def _other(content: Content) -> Header | None:
    """By Pillow, which knows all but the depth."""
    with warnings.catch_warnings(), contextlib.suppress(Exception):  # a damaged header may raise nearly anything
        warnings.simplefilter("ignore")  # of large pictures and of odd metadata
        try:
            opened = Image.open(io.BytesIO(content[:]), formats=OTHERS)
        except Image.DecompressionBombError:
            return Header(1, 1, 1, 8, "", odd=f"holds more than {LARGEST:,} pixels; cut it into parts, or remove it")
        with opened as image:
            image.load()  # these formats do not say where they end
            mode, (width, height), name = image.mode, image.size, image.format or ""
            depth = number_bits(content[:], name)
            channels, bits = _MODES.get(mode, 1), 16 if depth > 8 else 8
            if "transparency" in image.info and mode in ("1", "L", "P", "RGB"):
                channels = 2 if channels == 1 else 4
            odd = None if mode in _MODES or bits == 16 else f"holds {mode}; save it with 8 or 16 bits"
            if not depth:
                odd = "holds signed numbers, or several depths; save it with 8 or 16 bits"
            orientation, profile = image.getexif().get(_ORIENTATION, 1), image.info.get("icc_profile")
            space, metadata = _space(profile) if profile else b"", any(map(image.info.get, ("exif", "xmp", "comment")))
            _, nclx, shown = content[:].partition(b"nclx") if name == "AVIF" and not profile else (b"", b"", b"")
            tones = bool(nclx) and not (shown[1] in (1, 2) and shown[3] in (1, 2, 6, 13))
            with contextlib.suppress(EOFError):  # of a still picture
                image.seek(1)
                odd = _animation(name)
            return Header(height, width, channels, bits, name, orientation, space, odd, False, metadata, tones)
    return None


_READERS = {
    PNG_MARK: _png,
    b"\xff\xd8\xff": _jpeg,
    b"RIFF": _webp,
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
    **dict.fromkeys((b"P%d" % number for number in range(1, 8)), _pnm),
}
