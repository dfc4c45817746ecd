"""Image files of any channel count and depth to pixels and float tensors; what each kind becomes: :mod:`.headers`."""

import io
import math
import os
import re
import warnings
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from PIL import Image

from basicsr_ext.common.errors import InputError
from basicsr_ext.images import anymaps, headers
from basicsr_ext.images.content import read_content
from basicsr_ext.images.data_files import read_data
from basicsr_ext.images.headers import Header
from basicsr_ext.images.values import Values

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's
_BY_PILLOW = {2, 3, 4, 6, 7, 32771}  # TIFF compressions: fax, JPEG
_SHOWN = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # the chunks of a PNG that its pixels come from
_RAW = re.compile(rb"P([56])\n(\d+) (\d+)\n255\n")  # as `basicsr prepare --to raw` writes it: grey or RGB


def decode_image(data: bytes, path: str, channels: int | None = None, grey_to_rgb: bool = False) -> torch.Tensor:
    """Decode the bytes of an image file to a float32 tensor C,H,W in [0,1], grey, RGB or RGBA.

    ``path`` only serves the messages. Raises InputError as :func:`decode_pixels` and :func:`match_channels` do.
    """
    return to_tensor(match_channels(decode_pixels(data, path), path, channels, grey_to_rgb))


def read_pixels(path: str | os.PathLike[str]) -> np.ndarray:
    """Read and decode an image file as :func:`decode_pixels` does; InputError naming it also if it is missing."""
    return decode_pixels(read_content(path), str(path))


def decode_pixels(data: bytes, path: str, values: Values | None = None) -> np.ndarray:
    """Decode as :func:`decode` does, with grey and alpha as BGRA: C is 1, 3 or 4, as the data sets count channels.

    With ``values`` the file holds data: H,W,C of their kind, any C, in the order of the file.
    """
    if values is not None:
        return decode(data, path, values)[0]
    if head := _RAW.match(data):  # which is looked at without copying it
        shape = int(head[3]), int(head[2]), 1 if head[1] == b"5" else 3
        if 0 < len(data) - head.end() == math.prod(shape):
            return np.frombuffer(data, np.uint8, offset=head.end()).reshape(shape)[:, :, ::-1]
    pixels = decode(data, path)[0]
    return pixels[:, :, [0, 0, 0, 1]] if pixels.shape[2] == 2 else pixels


def decode(data: bytes, path: str, values: Values | None = None) -> tuple[np.ndarray, Header]:
    """Decode the bytes of an image file to H,W,C of uint8 or uint16, as its header says, and return that too.

    C is 1 (grey), 2 (grey, alpha), 3 or 4 in OpenCV's order (BGR, BGRA). The picture is turned as its EXIF says.
    With ``values`` the file holds data, see :func:`.data_files.read_data`.
    Raises InputError naming ``path`` if it is damaged, cut short, no image, or refused (see :mod:`.headers`).
    """
    header = headers.checked_header(data, path, values)
    if values is not None:
        return read_data(data, path, values), header
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = _DECODERS[header.format](data, header)
    except Exception as error:  # a damaged file may raise nearly anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: is damaged, or is no image that can be read ({reason}); replace it") from error
    if pixels is None or (pixels.shape, pixels.dtype) != (header[:3], np.dtype(f"uint{header.bits}")):
        raise InputError(f"{path}: is damaged: its pixels cannot be decoded as its header says; replace it")
    return pixels, header


# ---- one decoder for each format: H,W,C, turned


def _by_opencv(data: bytes, header: Header) -> np.ndarray | None:
    as_rgb = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION  # of CMYK too
    flags = as_rgb if header.format == "JPEG" else cv2.IMREAD_UNCHANGED  # which turns nothing
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None if pixels is None else _turn(np.atleast_3d(pixels), header.orientation)


def _png(data: bytes, header: Header) -> np.ndarray | None:
    chunks = list(headers.png_chunks(data))
    kept = [data[place - 8 : place + length + 4] for name, place, length in chunks if name in _SHOWN]
    # libpng stumbles over long texts, and over profiles that it thinks little of
    shown = headers.PNG_MARK + b"".join(kept) if len(kept) < len(chunks) else data
    pixels = _by_opencv(shown, header)
    if data[25] == 3:  # a palette: what it does not hold would be shown black
        with Image.open(io.BytesIO(shown), formats=("PNG",)) as image:
            _check_palette(image)
    if pixels is None or header.channels != 2:
        return pixels
    if pixels.shape[2] == 4:
        return np.ascontiguousarray(pixels[:, :, [0, 3]])
    place = next(place for name, place, _ in chunks if name == b"tRNS")
    key, depth, full = int.from_bytes(data[place : place + 2], "big"), data[24], np.iinfo(pixels.dtype).max
    alpha = np.where(pixels == key * full // ((1 << depth) - 1), 0, full).astype(pixels.dtype)
    return np.concatenate([pixels, alpha], axis=2)


def _tiff(data: bytes, header: Header) -> np.ndarray:
    tags = next(iter(headers.tiff_pages(data)))
    colours, bits = tags.get(262, (1,))[0], tags.get(258, (1,))[0]
    if bits < 8 or colours == 6 or tags.get(259, (1,))[0] in _BY_PILLOW:
        return _by_pillow(data, header, ("TIFF",))  # which has turned it
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        stored = np.asarray(page.asarray())
        palette = page.colormap if colours == 3 else None
    samples = tags.get(277, (1,))[0]
    if samples > 1 and tags.get(284, (1,))[0] == 2:
        stored = np.moveaxis(stored.reshape(samples, *stored.shape[-2:]), 0, 2)
    stored = np.atleast_3d(stored)
    if palette is not None:
        return _turn((palette[::-1, stored[:, :, 0]] >> 8).astype(np.uint8).transpose(1, 2, 0), header.orientation)
    pixels = stored[:, :, : header.channels].astype(stored.dtype.newbyteorder("="))
    shown, full = 1 if header.channels < 3 else 3, np.iinfo(pixels.dtype).max
    if colours == 0:
        pixels[:, :, 0] = full - pixels[:, :, 0]
    if header.channels > shown and tags.get(338, (2,))[0] == 1:  # colours that were multiplied by alpha
        alpha = np.maximum(pixels[:, :, shown:].astype(np.float64), 1)
        pixels[:, :, :shown] = np.minimum(np.round(pixels[:, :, :shown] * float(full) / alpha), full)
    return _turn(_opencv_order(pixels), header.orientation)


def _by_pillow(data: bytes, header: Header, formats: tuple[str, ...] = headers.OTHERS) -> np.ndarray:
    if header.bits == 16:  # of which Pillow keeps 8
        import imagecodecs

        read = imagecodecs.avif_decode if header.format == "AVIF" else imagecodecs.jpeg2k_decode
        largest = (1 << headers.number_bits(data, header.format)) - 1
        return _opencv_order(anymaps.scaled(np.atleast_3d(read(data)), largest))
    with Image.open(io.BytesIO(data), formats=formats) as image:
        _check_palette(image)
        return _opencv_order(np.atleast_3d(np.asarray(image.convert(_MODES[header.channels]))))


def _check_palette(image: Image.Image) -> None:
    if image.mode == "P" and (most := np.asarray(image).max()) >= len(image.getpalette() or ()) // 3:
        raise ValueError(f"a pixel has colour {most}, which the palette does not hold")


def _opencv_order(pixels: np.ndarray) -> np.ndarray:
    """RGB to BGR and RGBA to BGRA, and back."""
    if pixels.shape[2] < 3:
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    pixels = pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
    return np.ascontiguousarray(pixels)


_DECODERS: dict[str, Callable[[bytes, Header], np.ndarray | None]] = {
    "PNG": _png,
    "JPEG": _by_opencv,
    "WebP": _by_opencv,
    "TIFF": _tiff,
    "PNM": lambda data, _: _opencv_order(anymaps.values_of(data)),
    **dict.fromkeys(headers.OTHERS, lambda data, header: _turn(_by_pillow(data, header), header.orientation)),
}


def match_channels(
    pixels: np.ndarray,
    path: str,
    channels: int | None,
    grey_to_rgb: bool = False,
    option: str = "channels",
    values: Values | None = None,
) -> np.ndarray:
    """Return ``pixels`` (H,W,C) if C is ``channels`` or that is None; ``grey_to_rgb`` repeats a grey image thrice.

    Raises InputError naming ``path`` and ``option`` otherwise: nothing is dropped or added silently.
    """
    found = pixels.shape[2]
    if fault := channel_fault(found, path, channels, grey_to_rgb, option, values):
        raise InputError(fault)
    return pixels if channels in (None, found) else np.repeat(pixels, channels, axis=2)


def channel_fault(
    found: int,
    path: str,
    channels: int | None,
    grey_to_rgb: bool = False,
    option: str = "channels",
    values: Values | None = None,
) -> str | None:
    """Say why :func:`match_channels` would refuse an image of ``found`` channels; None if it would not.

    Grey with alpha counts as RGBA, which :func:`decode_pixels` makes of it. Channels of data are none of these.
    """
    if values is not None:
        said = f"{path}: has {found} channel(s) but {option} is {channels}"
        return None if channels in (None, found) else f"{said}; set {option}: {found}, or take the file out"
    found = 4 if found == 2 else found
    grey_for_rgb = (found, channels) == (1, 3)
    if channels in (None, found) or (grey_for_rgb and grey_to_rgb):
        return None
    kind = {1: "grey", 3: "RGB", 4: "RGB with alpha"}[found]
    cure = f"set {option}: {found}, or convert the file" + (", or set grey_to_rgb: true" if grey_for_rgb else "")
    return f"{path}: has {found} channel(s) ({kind}) but {option} is {channels}; {cure}"


def to_tensor(pixels: np.ndarray, values: Values | None = None) -> torch.Tensor:
    """Turn H,W,C of uint8 or uint16, as :func:`decode` gives them, into float32 C,H,W in [0,1], contiguous, RGB(A).

    With ``values`` they are data: the interval of these becomes [0,1], and the order of channels stays.
    """
    if values is not None:
        return values.to_unit(pixels)
    height, width, channels = pixels.shape
    order = (0, 1)[:channels] if channels < 3 else (2, 1, 0, 3)[:channels]
    planes = np.empty((channels, height, width), np.float32)
    for plane, source in zip(planes, _planes(pixels, order)):
        plane[...] = source
    planes /= np.float32(np.iinfo(pixels.dtype).max)
    return torch.from_numpy(planes)


def _planes(pixels: np.ndarray, order: tuple[int, ...]) -> Sequence[np.ndarray]:
    """The channels of H,W,C in the given order, taken apart in one go where the colours of a pixel lie side by side."""
    stored = pixels[:, :, ::-1] if pixels.strides[2] < 0 else pixels
    if len(order) == 3 and stored.strides[1:] == (3 * stored.itemsize, stored.itemsize):
        split = cv2.split(np.ascontiguousarray(stored))
        return split if stored is not pixels else split[::-1]
    return [pixels[:, :, channel] for channel in order]
