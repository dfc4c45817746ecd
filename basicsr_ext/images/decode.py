"""Image files of any channel count and depth to float tensors, and back."""

from __future__ import annotations

import io
import math
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image

from basicsr_ext.common.errors import InputError
from basicsr_ext.images import headers

__all__ = [
    "IMAGE_EXTENSIONS",
    "ImageHeader",
    "channel_fault",
    "check_complete",
    "decode_image",
    "decode_pixels",
    "image_header",
    "match_channels",
    "to_tensor",
    "write_image",
]

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".ppm", ".pgm")
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_ANYMAP = re.compile(rb"P([56])\n(\d+) (\d+)\n255\n")  # as `basicsr prepare --to raw` writes it: grey or RGB
_KINDS = {1: "grey", 3: "RGB", 4: "RGB with alpha"}
_FULL_SCALE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


class ImageHeader(NamedTuple):
    """What a file says about itself, as :func:`decode_pixels` would return it; ``bits`` is 8 or 16."""

    width: int
    height: int
    channels: int
    bits: int


def decode_image(data: bytes, path: str, channels: int | None = None, grey_to_rgb: bool = False) -> torch.Tensor:
    """Decode the bytes of an image file to a float32 tensor C,H,W in [0,1], grey, RGB or RGBA.

    ``path`` only serves the messages. Raises InputError as :func:`decode_pixels` and :func:`match_channels` do.
    """
    return to_tensor(match_channels(decode_pixels(data, path), path, channels, grey_to_rgb))


def decode_pixels(data: bytes, path: str) -> np.ndarray:
    """Decode the bytes of an image file to H,W,C of uint8 or uint16, in OpenCV's order (BGR, BGRA), C of 1, 3 or 4.

    The orientation in a JPEG's EXIF is applied, a JPEG has no alpha; other files come as they are stored.
    Raises InputError naming ``path`` if the file is empty, truncated, no image, an animation, in CMYK or Lab (a JPEG in
    CMYK is read), larger than :data:`basicsr_ext.images.headers.LARGEST`, or holds other numbers.
    """
    check_complete(data, path)
    refusal = headers.refusal(data)
    if refusal:
        raise InputError(f"{path}: {refusal}")
    stored = _stored_pixels(data)
    if stored is not None:
        return stored
    flag = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH if data[:3] == _JPEG else cv2.IMREAD_UNCHANGED
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise InputError(
            f"{path}: cannot be read as an image ({len(data)} bytes, the first are {bytes(data[:12])!r}): "
            "it is damaged or of another kind; replace it (PNG, JPEG, TIFF, WebP and BMP are read)"
        )
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.dtype not in _FULL_SCALE or pixels.shape[2] not in _KINDS:
        raise InputError(
            f"{path}: holds {pixels.shape[2]} channel(s) of {pixels.dtype}; "
            "save it as grey, RGB or RGBA with 8 or 16 bits"
        )
    return pixels


def _stored_pixels(data: bytes) -> np.ndarray | None:
    """Look at the pixels of an uncompressed image without copying them; None for any other file."""
    head = _ANYMAP.match(data)
    if head is None:
        return None
    shape = int(head[3]), int(head[2]), 1 if head[1] == b"5" else 3
    if len(data) - head.end() != math.prod(shape):
        return None
    return np.frombuffer(data, np.uint8, offset=head.end()).reshape(shape)[:, :, ::-1]


def check_complete(data: bytes, path: str) -> None:
    """Raise InputError naming ``path`` if an image file is empty or, PNG or JPEG, ends before its end mark.

    OpenCV may fill what is missing of a JPEG with grey and say nothing.
    """
    if not data:
        raise InputError(f"{path}: the file is empty; replace it")
    if data[:8] == _PNG:
        complete = data.rfind(b"IEND") > 0
    elif data[:3] == _JPEG:
        complete = data[-2:] == b"\xff\xd9" or data.rfind(b"\xff\xd9") > _start_of_scan(data)
    else:
        return
    if not complete:
        raise InputError(
            f"{path}: the file is truncated ({len(data)} bytes, without the end mark of its format); copy it again"
        )


def _start_of_scan(data: bytes) -> int:
    """Return where the scan of a JPEG starts (a thumbnail before it has an end mark of its own), or its length."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xDA:
            return position
        position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return len(data)


def match_channels(
    pixels: np.ndarray, path: str, channels: int | None, grey_to_rgb: bool = False, option: str = "channels"
) -> np.ndarray:
    """Return ``pixels`` (H,W,C) if C is ``channels`` or that is None; ``grey_to_rgb`` repeats a grey image thrice.

    Raises InputError naming ``path`` and ``option`` otherwise: nothing is dropped or added silently.
    """
    found = pixels.shape[2]
    fault = channel_fault(found, path, channels, grey_to_rgb, option)
    if fault:
        raise InputError(fault)
    return pixels if channels in (None, found) else np.repeat(pixels, channels, axis=2)


def channel_fault(
    found: int, path: str, channels: int | None, grey_to_rgb: bool = False, option: str = "channels"
) -> str | None:
    """Say why :func:`match_channels` would refuse an image of ``found`` channels; None if it would not."""
    grey_for_rgb = (found, channels) == (1, 3)
    if channels in (None, found) or (grey_for_rgb and grey_to_rgb):
        return None
    cure = f"set {option}: {found}, or convert the file" + (", or set grey_to_rgb: true" if grey_for_rgb else "")
    return f"{path}: has {found} channel(s) ({_KINDS[found]}) but {option} is {channels}; {cure}"


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Turn H,W,C of uint8 or uint16 in OpenCV's order into float32 C,H,W in [0,1], contiguous, in RGB(A) order."""
    height, width, channels = pixels.shape
    order = (0,) if channels == 1 else (2, 1, 0, 3)[:channels]
    planes = np.empty((channels, height, width), np.float32)
    for plane, source in zip(planes, _planes(pixels, order)):
        plane[...] = source
    planes /= np.float32(_FULL_SCALE[pixels.dtype])
    return torch.from_numpy(planes)


def _planes(pixels: np.ndarray, order: tuple[int, ...]) -> Sequence[np.ndarray]:
    """The channels of H,W,C in the given order, taken apart in one go where the colours of a pixel lie side by side."""
    stored = pixels[:, :, ::-1] if pixels.strides[2] < 0 else pixels
    if len(order) == 3 and stored.strides[1:] == (3 * stored.itemsize, stored.itemsize):
        split = cv2.split(np.ascontiguousarray(stored))
        return split if stored is not pixels else split[::-1]
    return [pixels[:, :, channel] for channel in order]


def write_image(path: str | os.PathLike[str], image: torch.Tensor, bits: int = 8) -> None:
    """Write ``image`` (C,H,W in [0,1]: 1, 3 or 4 channels, clamped, rounded to nearest) completely or not at all.

    The extension of ``path`` names the format; its folder is made. Raises ValueError if shape, ``bits`` (8 or 16) or
    values (NaN) cannot be stored in that format.
    """
    path = Path(path)
    if bits not in (8, 16) or image.ndim != 3 or image.shape[0] not in _KINDS:
        raise ValueError(
            f"{path}: cannot write {tuple(image.shape)} with {bits} bits; "
            "give C,H,W with 1, 3 or 4 channels and 8 or 16 bits"
        )
    if not torch.isfinite(image).all():
        raise ValueError(f"{path}: cannot write an image with values that are not finite")
    if path.suffix.lower() in (".jpg", ".jpeg", ".webp", ".bmp") and (bits == 16 or image.shape[0] == 4):
        raise ValueError(f"{path}: {path.suffix} is written with 8 bits and without alpha; use .png or .tif")
    full = 255 if bits == 8 else 65535
    values = (image.detach().cpu().double().clamp(0, 1) * full).round().permute(1, 2, 0).numpy()
    pixels = values.astype(np.uint8 if bits == 8 else np.uint16)
    if pixels.shape[2] > 1:
        pixels = pixels[:, :, (2, 1, 0, 3)[: pixels.shape[2]]]
    _write_complete(path, cv2.imencode(path.suffix, np.ascontiguousarray(pixels))[1].tobytes())


def _write_complete(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path``, then rename it, so that no reader meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def image_header(source: str | os.PathLike[str] | bytes) -> ImageHeader:
    """Read size, channels and depth of an image file (a path or its bytes) without decoding its pixels.

    Raises InputError naming the path if it is no image.
    """
    path = "image" if isinstance(source, bytes) else str(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return _read_header(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        pixels = decode_pixels(data, path)
        return ImageHeader(pixels.shape[1], pixels.shape[0], pixels.shape[2], 8 * pixels.dtype.itemsize)


def _read_header(image: Image.Image) -> ImageHeader:
    """Translate Pillow's view of an opened file into what OpenCV decodes."""
    width, height = image.size
    if image.format == "JPEG" and image.getexif().get(0x0112, 1) >= 5:
        width, height = height, width
    if image.mode in ("LA", "RGBA", "PA", "RGBa") or (image.format == "PNG" and "transparency" in image.info):
        channels = 4
    else:
        channels = 1 if image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;") else 3
    coding = image.tile[0][3] if image.tile else ""
    coding = coding if isinstance(coding, str) else str(coding[0])
    return ImageHeader(width, height, channels, 16 if "16" in coding or image.mode.startswith("I") else 8)
