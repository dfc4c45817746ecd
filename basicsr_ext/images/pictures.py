"""Pictures as users have them: any common format, 8 or 16 bits, grey or colour, with transparency and orientation."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from basicsr_ext.common.errors import InputError

__all__ = [
    "EXTENSIONS",
    "FORMATS",
    "Picture",
    "Shape",
    "network_planes",
    "read_picture",
    "read_shape",
    "with_planes",
    "write_picture",
]

FORMATS = {"png": "PNG", "tif": "TIFF", "webp": "WEBP", "jpg": "JPEG"}
EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".ppm", ".pgm")
_ORIENTATION = 0x0112
_DAMAGE = (OSError, ValueError, SyntaxError, struct.error, zlib.error, EOFError, IndexError, TypeError, KeyError)


class Shape(NamedTuple):
    """What a file's head says: height and width as the picture is shown, planes without transparency, bits."""

    height: int
    width: int
    channels: int
    bits: int


@dataclass(frozen=True)
class Picture:
    """One picture: ``colours`` 1 or 3,H,W (grey or RGB) and ``alpha`` 1,H,W, if any, float32 in [0, 1].

    ``bits`` (8 or 16) is how it was or will be stored, ``profile`` its ICC colour profile.
    """

    colours: Tensor
    alpha: Tensor | None = None
    bits: int = 8
    profile: bytes | None = None


def network_planes(picture: Picture, channels: int | None) -> Tensor:
    """What a network of so many channels sees of a picture: C,H,W; grey as RGB where it takes three or four.

    Alpha is among the planes if they are then as many as the network takes.
    """
    colours, alpha = picture.colours, picture.alpha
    if channels in (3, 4) and len(colours) == 1:
        colours = colours.expand(3, -1, -1)
    return torch.cat([colours, alpha]) if alpha is not None and channels == len(colours) + 1 else colours


def with_planes(picture: Picture, planes: Tensor) -> Picture:
    """The picture with the planes C,H,W that a network gave, 1 to 4; an alpha that is not among them is enlarged."""
    alpha = picture.alpha
    if len(planes) in (2, 4):
        planes, alpha = planes[:-1], planes[-1:]
    elif alpha is not None and alpha.shape[1:] != planes.shape[1:]:
        alpha = F.interpolate(alpha[None], planes.shape[1:], mode="bicubic", antialias=True)[0].clamp_(0, 1)
    profile = picture.profile if len(planes) == len(picture.colours) else None
    return replace(picture, colours=planes, alpha=alpha, profile=profile)


def _open(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures and of odd metadata
        try:
            return Image.open(path)
        except Image.DecompressionBombError as error:
            raise InputError(f"{path}: {error}; cut it into parts") from error
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; correct the path") from error
        except _DAMAGE as error:
            raise InputError(f"{path}: cannot be read as an image ({_first_line(error)}); replace it") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _bits(image: Image.Image) -> int:
    """The depth of the file; Pillow cuts colours of 16 bits to 8 without a word."""
    coding = str(image.tile[0][3]) if image.tile else ""
    return 16 if image.mode.startswith("I") or "16" in coding else 8


def read_shape(path: str | os.PathLike[str]) -> Shape:
    """Read size, planes and depth from the head of a file; InputError if it is no picture."""
    with _open(Path(path)) as image:
        width, height = image.size
        if image.format != "TIFF" and _orientation(image) >= 5:  # Pillow turns TIFF itself
            width, height = height, width
        return Shape(
            height, width, 1 if image.mode in ("1", "L", "LA", "F") or image.mode[0] == "I" else 3, _bits(image)
        )


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # to look for it behind the pixels, Pillow would decode them
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:  # a damaged EXIF block spoils no pixel
        return 1
    return value if isinstance(value, int) else 1


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Decode a picture, turned as its EXIF orientation says.

    Raises:
        InputError: naming the file, if it is missing, damaged, cut short, no picture, or not of 8 or 16 bits.

    """
    path = Path(path)
    with _open(path) as image, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if image.mode == "F":
                raise InputError(f"{path}: holds floating-point numbers; save it with 8 or 16 bits")
            profile = image.info.get("icc_profile") if image.mode not in ("CMYK", "LAB", "YCCK") else None
            pixels = _decode_deep(path, image) if _bits(image) == 16 else _decode(image)
        except _DAMAGE as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: damaged or cut short ({_first_line(error)}); replace it") from error
    full = np.iinfo(pixels.dtype).max
    planes = np.empty((pixels.shape[2], *pixels.shape[:2]), np.float32)
    for k, plane in enumerate(planes):
        np.divide(pixels[:, :, k], full, out=plane, dtype=np.float32)
    tensor = torch.from_numpy(planes)
    count = 1 if len(planes) < 3 else 3
    alpha = tensor[count:].clone() if len(planes) in (2, 4) else None
    return Picture(tensor[:count], alpha, 16 if full > 255 else 8, profile)


def _decode(image: Image.Image) -> np.ndarray:
    """H,W,1 to 4 of uint8: grey, grey with alpha, RGB, RGBA."""
    image.load()
    transparent = image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA", "La")
    turned = ImageOps.exif_transpose(image) if _orientation(image) != 1 else image
    mode = ("LA" if transparent else "L") if grey else ("RGBA" if transparent else "RGB")
    pixels = np.asarray(turned if turned.mode == mode else turned.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _decode_deep(path: Path, image: Image.Image) -> np.ndarray:
    """H,W,1, 3 or 4 of uint16 by OpenCV, which turns a TIFF by itself, others not."""
    image.load()  # for its complaints: OpenCV fills up what is missing
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        held = "nothing that can be decoded" if pixels is None else f"numbers of type {pixels.dtype}"
        raise InputError(f"{path}: holds {held}; save it with 8 or 16 bits")
    pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
    if image.format != "TIFF":
        pixels = _turn(pixels, _orientation(image))
    return pixels[:, :, [0] if pixels.shape[2] == 1 else [2, 1, 0, 3][: pixels.shape[2]]]


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels


def write_picture(path: str | os.PathLike[str], picture: Picture) -> None:
    """Store a picture, completely or not at all; the extension names the format, WebP is lossless, JPEG of quality 95.

    A JPEG holds no alpha, it is left out; JPEG and WebP hold 8 bits. Values are clamped and rounded to the nearest.

    Raises:
        InputError: the folder or the disk refuses the file.
        ValueError: the format is unknown or can not hold so many bits.

    """
    path = Path(path)
    kind = {"tiff": "tif", "jpeg": "jpg"}.get(path.suffix[1:].lower(), path.suffix[1:].lower())
    if kind not in FORMATS or (picture.bits == 16 and kind not in ("png", "tif")):
        raise ValueError(
            f"{path}: can not hold a picture of {picture.bits} bits; 8: {', '.join(FORMATS)}; 16: png, tif"
        )
    planes = [picture.colours] + ([picture.alpha] if picture.alpha is not None and kind != "jpg" else [])
    data = _encode(_to_pixels(planes, picture.bits), kind, picture.profile)
    try:
        _write_whole(path, data)
    except OSError as error:
        raise InputError(f"{path}: can not be written ({error.strerror or error}); choose another folder") from error


def _to_pixels(planes: list[Tensor], bits: int) -> np.ndarray:
    """H,W,C of uint8 or uint16; grey with alpha of 16 bits becomes RGBA, since OpenCV can not store it."""
    if bits == 16 and len(planes) == 2 and len(planes[0]) == 1:
        planes = [planes[0].expand(3, -1, -1), planes[1]]
    full, kind = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    single = [plane for part in planes for plane in part]
    pixels = np.empty((*single[0].shape, len(single)), kind)
    for k, plane in enumerate(single):
        pixels[:, :, k] = (plane.clamp(0, 1) * full).round().numpy()
    return pixels


def _encode(pixels: np.ndarray, kind: str, profile: bytes | None) -> bytes:
    if pixels.dtype == np.uint16:
        order = [0] if pixels.shape[2] == 1 else [2, 1, 0, 3][: pixels.shape[2]]
        data = cv2.imencode(f".{kind}", np.ascontiguousarray(pixels[:, :, order]))[1].tobytes()
        return _with_profile(data, profile) if kind == "png" and profile else data
    options: dict[str, Any] = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}.get(kind, {})
    options |= {"icc_profile": profile} if profile else {}
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, FORMATS[kind], **options)
    return buffer.getvalue()


def _with_profile(png: bytes, profile: bytes) -> bytes:
    """Put an iCCP chunk behind the head of a PNG."""
    body = b"iCCPicc\0\0" + zlib.compress(profile)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    head = 8 + 25  # signature, IHDR
    return png[:head] + chunk + png[head:]


def _write_whole(path: Path, data: bytes) -> None:
    """Write beside ``path``, then rename, so that no later run takes half a file for a finished one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
