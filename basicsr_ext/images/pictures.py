"""Pictures as users have them: any common format, 8 or 16 bits, grey or colour, with transparency and orientation."""

import contextlib
import io
import os
import struct
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import write_whole
from basicsr_ext.images.decode import decode, to_tensor
from basicsr_ext.images.headers import png_chunks, read_content
from basicsr_ext.images.inventory import DEEP, FORMATS

_LONGEST_SIDE = {"webp": 16383, "jpg": 65500}  # pixels
_LONGEST_PROFILE = 1 << 24  # bytes; a packed one may claim any length


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


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Decode a picture as :func:`.decode.decode` does; InputError naming it also if the file cannot be opened."""
    data = read_content(path)
    pixels, header = decode(data, str(path))
    planes = to_tensor(pixels)
    count = 1 if len(planes) < 3 else 3
    alpha = planes[count:].clone() if len(planes) in (2, 4) else None
    return Picture(planes[:count], alpha, header.bits, _profile(data) if header.profile else None)


def _profile(data: bytes) -> bytes | None:
    """The ICC colour profile of a file that was decoded; None if it is damaged."""
    with warnings.catch_warnings(), contextlib.suppress(Exception):  # it may raise nearly anything, and spoils no pixel
        warnings.simplefilter("ignore")
        for name, place, length in png_chunks(data) if data.startswith(b"\x89PNG") else ():
            if name == b"iCCP":  # Pillow stumbles over long texts beside it
                packed = data[place : place + length].split(b"\0\0", 1)[1]
                return zlib.decompressobj().decompress(packed, _LONGEST_PROFILE)
        with Image.open(io.BytesIO(data)) as image:
            return image.info.get("icc_profile")
    return None


def write_picture(path: str | os.PathLike[str], picture: Picture) -> None:
    """Store a picture, completely or not at all; the extension names the format, WebP is lossless, JPEG of quality 95.

    A JPEG holds no alpha, it is left out; JPEG and WebP hold 8 bits. Values are clamped and rounded to the nearest.
    Raises InputError if the format, the folder or the disk refuses the file, ValueError if the format has not so many
    bits.
    """
    path = Path(path)
    kind = {"tiff": "tif", "jpeg": "jpg"}.get(path.suffix[1:].lower(), path.suffix[1:].lower())
    if kind not in FORMATS or (picture.bits == 16 and kind not in DEEP):
        raise ValueError(f"{path}: cannot hold a picture of {picture.bits} bits; 8: {', '.join(FORMATS)}; 16: png, tif")
    planes = [picture.colours] + ([picture.alpha] if picture.alpha is not None and kind != "jpg" else [])
    height, width = picture.colours.shape[1:]
    if max(height, width) > _LONGEST_SIDE.get(kind, max(height, width)):
        said = f"{FORMATS[kind]} holds {_LONGEST_SIDE[kind]} pixels a side, not {height}x{width} (height x width)"
        raise InputError(f"cannot save {path}: {said}; choose png or tif")
    try:
        data = _encode(_to_pixels(planes, picture.bits), kind, picture.profile)
    except (OSError, struct.error, cv2.error) as error:  # what its encoder cannot hold
        raise InputError(f"cannot save {path} as {FORMATS[kind]}: {error}; choose another format") from error
    write_whole(path, data)


def _to_pixels(planes: list[Tensor], bits: int) -> np.ndarray:
    """H,W,C of uint8 or uint16; grey with alpha of 16 bits becomes RGBA, since OpenCV cannot store it."""
    if bits == 16 and len(planes) == 2 and len(planes[0]) == 1:
        planes = [planes[0].expand(3, -1, -1), planes[1]]
    full, kind = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    single = [(plane.clamp(0, 1) * full).round().numpy().astype(kind) for part in planes for plane in part]
    return np.stack(single, axis=2)


def _encode(pixels: np.ndarray, kind: str, profile: bytes | None) -> bytes:
    if pixels.dtype == np.uint16:
        order = [0] if pixels.shape[2] == 1 else [2, 1, 0, 3][: pixels.shape[2]]
        data = cv2.imencode(f".{kind}", np.ascontiguousarray(pixels[:, :, order]))[1].tobytes()
        return _with_profile(data, profile) if kind == "png" and profile else data
    options: dict[str, dict[str, Any]] = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.save(buffer, FORMATS[kind], **options.get(kind, {}), **({"icc_profile": profile} if profile else {}))
    return buffer.getvalue()


def _with_profile(png: bytes, profile: bytes) -> bytes:
    """Put an iCCP chunk behind the head of a PNG."""
    body = b"iCCPicc\0\0" + zlib.compress(profile)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[: 8 + 25] + chunk + png[8 + 25 :]  # signature, IHDR


def write_image(path: str | os.PathLike[str], image: Tensor, bits: int = 8) -> None:
    """Write ``image`` (C,H,W in [0,1]: 1, 3 or 4 channels) as :func:`write_picture` does; its folder is made.

    Raises ValueError if shape, ``bits`` (8 or 16), values (NaN) or alpha cannot be stored in that format.
    """
    if bits not in (8, 16) or image.ndim != 3 or len(image) not in (1, 3, 4):
        raise ValueError(
            f"{path}: cannot write {tuple(image.shape)} with {bits} bits; "
            "give C,H,W with 1, 3 or 4 channels and 8 or 16 bits"
        )
    if not torch.isfinite(image).all():
        raise ValueError(f"{path}: cannot write an image with values that are not finite")
    if len(image) == 4 and Path(path).suffix.lower() in (".jpg", ".jpeg"):
        raise ValueError(f"{path}: JPEG holds no alpha; use .png or .tif")
    planes = image.detach().cpu().double()
    write_picture(path, Picture(planes[:3], planes[3:] if len(planes) == 4 else None, bits))
