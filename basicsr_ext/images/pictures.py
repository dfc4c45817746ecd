"""Pictures as users have them: any common format, 8 or 16 bits, grey or colour, with transparency and orientation."""

import contextlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import write_whole
from basicsr_ext.images.content import read_content
from basicsr_ext.images.data_files import encode_data
from basicsr_ext.images.decode import decode, to_tensor
from basicsr_ext.images.headers import png_chunk, png_chunks, tiff_pages
from basicsr_ext.images.inventory import DATA_FORMATS, DEEP, FORMATS
from basicsr_ext.images.values import Values

_LONGEST_SIDE = {"webp": 16383, "jpg": 65500}  # pixels
_LONGEST_PROFILE = 1 << 24  # bytes; a packed one may claim any length


@dataclass(frozen=True)
class Picture:
    """One picture: ``colours`` 1 or 3,H,W (grey or RGB) and ``alpha`` 1,H,W, if any, float32 in [0, 1].

    ``bits`` (8 or 16) is how it was or will be stored, ``profile`` its ICC colour profile.
    With ``values`` it holds data: ``colours`` are C,H,W, any C, the numbers as they are stored, float32 or float64.
    """

    colours: Tensor
    alpha: Tensor | None = None
    bits: int = 8
    profile: bytes | None = None
    values: Values | None = None

    @property
    def hole(self) -> Tensor:
        """What it marks as a mask: bool 1,H,W, where a colour, on black, has half of full scale or more."""
        shown = self.colours.amax(0, keepdim=True)
        return (shown if self.alpha is None else shown * self.alpha) >= 0.5


def network_planes(picture: Picture, channels: int | None) -> Tensor:
    """What a network of so many channels sees of a picture: C,H,W; grey as RGB where it takes three or four.

    Alpha is among the planes if they are then as many as the network takes. Colours where it is 0, which nobody sees,
    are replaced by those of the visible pixels around: none of them gets into the result, nor darkens an edge.
    Of data, all channels, with the interval of their values as [0, 1].
    """
    if picture.values is not None:
        return picture.values.to_unit(picture.colours.permute(1, 2, 0).numpy())
    colours, alpha = _visible_colours(picture), picture.alpha
    if channels in (3, 4) and len(colours) == 1:
        colours = colours.expand(3, -1, -1)
    return torch.cat([colours, alpha]) if alpha is not None and channels == len(colours) + 1 else colours


def with_planes(picture: Picture, planes: Tensor) -> Picture:
    """The picture with the planes C,H,W that a network gave, 1 to 4; an alpha that is not among them is enlarged.

    The colours are then moved by as much as bicubic enlargement of the picture before any ground moves them where alpha
    changes: an edge is as bright as if the picture had been enlarged after it was put on its ground.
    """
    if picture.values is not None:
        return replace(picture, colours=_numbers(picture.values.from_unit(planes)))
    if len(planes) in (2, 4):
        return replace(picture, colours=planes[:-1], alpha=planes[-1:])
    alpha, size = picture.alpha, planes.shape[1:]
    if alpha is not None and alpha.shape[1:] != size:
        weighted, plain = (_enlarged(part, size) for part in (picture.colours * alpha, _visible_colours(picture)))
        alpha = _enlarged(alpha, size)
        moved = torch.where(alpha > 0, weighted / alpha - plain, 0)
        planes = (planes + (moved if len(moved) in (1, len(planes)) else moved.mean(0))).clamp_(0, 1)
    return replace(picture, colours=planes, alpha=alpha)


def _numbers(stored: np.ndarray) -> Tensor:
    """H,W,C of data as they are stored to C,H,W, exactly: float32, float64 of the kinds that need it."""
    exact = np.float64 if stored.dtype in (np.int32, np.float64) else np.float32
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(stored, 2, 0), exact))


def _visible_colours(picture: Picture) -> Tensor:
    """The colours, those under full transparency replaced by the visible ones around."""
    colours, alpha = picture.colours, picture.alpha
    if alpha is None or alpha.all():
        return colours
    return torch.where(alpha > 0, colours, _spread((colours * alpha)[None], alpha[None])[0])


def _spread(weighted: Tensor, weight: Tensor) -> Tensor:
    """Means of colours by their weights (1,C,H,W and 1,1,H,W), over ever larger squares where those are 0."""
    means = weighted / weight.clamp_min(torch.finfo(weight.dtype).tiny)
    if max(weight.shape[-2:]) == 1 or weight.all():
        return means
    coarser = _spread(*(F.avg_pool2d(planes, 2, ceil_mode=True) for planes in (weighted, weight)))
    wide = F.interpolate(coarser, weight.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(weight > 0, means, wide)


def _enlarged(planes: Tensor, size: Sequence[int]) -> Tensor:
    """C,H,W bicubically, one direction after the other and clamped each time, as Pillow does."""
    for step in ((planes.shape[1], size[1]), size):
        planes = F.interpolate(planes[None], tuple(step), mode="bicubic", antialias=True)[0].clamp_(0, 1)
    return planes


def read_picture(path: str | os.PathLike[str], values: Values | None = None) -> Picture:
    """Decode a picture as :func:`.decode.decode` does; InputError naming it also if the file cannot be opened."""
    data = read_content(path)
    pixels, header = decode(data, str(path), values)
    if values is not None:
        return data_picture(pixels, values)
    planes = to_tensor(pixels)
    count = 1 if len(planes) < 3 else 3
    alpha = planes[count:].clone() if len(planes) in (2, 4) else None
    return Picture(planes[:count], alpha, header.bits, _profile(data) if header.profile else None)


def data_picture(stored: np.ndarray, values: Values) -> Picture:
    """Data H,W,C as they are stored, as a picture."""
    return Picture(_numbers(stored), values=values)


def stored_data(picture: Picture) -> np.ndarray:
    """The numbers H,W,C of a picture that holds data, of their kind."""
    assert picture.values is not None
    return np.ascontiguousarray(np.moveaxis(picture.colours.numpy(), 0, 2), picture.values.kind)


def _profile(data: bytes) -> bytes | None:
    """The ICC colour profile of a file that was decoded; None if it is damaged."""
    with warnings.catch_warnings(), contextlib.suppress(Exception):  # it may raise nearly anything, and spoils no pixel
        warnings.simplefilter("ignore")
        for name, place, length in png_chunks(data) if data.startswith(b"\x89PNG") else ():
            if name == b"iCCP":  # Pillow stumbles over long texts beside it
                packed = data[place : place + length].split(b"\0\0", 1)[1]
                return zlib.decompressobj().decompress(packed, _LONGEST_PROFILE)
        if data[:2] in (b"II", b"MM"):  # of which Pillow opens some kinds alone
            return bytes(next(tiff_pages(data))[34675]) or None
        with Image.open(io.BytesIO(data)) as image:
            return image.info.get("icc_profile")
    return None


def write_picture(path: str | os.PathLike[str], picture: Picture) -> None:
    """Store a picture, completely or not at all; the extension names the format, WebP is lossless, JPEG of quality 95.

    A JPEG shows what is transparent on white; JPEG and WebP hold 8 bits, WebP no grey. The colour profile is kept if it
    is one of the stored channels. Values are clamped and rounded to the nearest.
    Data are written as they are, into .npy, .npz or .tif.
    Raises InputError if the format, its bits, the folder or the disk refuses the file, ValueError if a value is NaN.
    """
    path, kind = Path(path), _format_of(path)
    if picture.values is not None:
        if kind not in DATA_FORMATS:
            raise InputError(f"{path}: cannot hold {picture.values.dtype} data; give {', '.join(DATA_FORMATS)}")
        write_whole(path, encode_data(stored_data(picture), kind, picture.values))
        return
    if kind not in FORMATS or (picture.bits == 16 and kind not in DEEP):
        raise InputError(f"{path}: cannot hold a picture of {picture.bits} bits; 8: {', '.join(FORMATS)}; 16: png, tif")
    colours, alpha = picture.colours, picture.alpha
    check_sides(path, *colours.shape[1:])
    if alpha is not None and kind == "jpg":
        colours, alpha = colours * alpha + (1 - alpha), None
    full, whole = (255, np.uint8) if picture.bits == 8 else (65535, np.uint16)
    planes = [*colours] if alpha is None else [*colours, *alpha]
    if any(plane.isnan().any() for plane in planes):
        raise ValueError(f"{path}: the picture holds NaN, which no file can hold")
    pixels = np.stack([(plane.clamp(0, 1) * full).round().numpy().astype(whole) for plane in planes], axis=2)
    space = b"RGB " if len(colours) == 3 or kind == "webp" else b"GRAY"
    profile = picture.profile if picture.profile and picture.profile[16:20] == space else None
    try:
        data = _encode(pixels, kind, profile)
    except (OSError, struct.error) as error:  # what its encoder cannot hold
        raise InputError(f"cannot save {path} as {FORMATS[kind]}: {error}; choose another format") from error
    write_whole(path, data)


def _format_of(path: str | os.PathLike[str]) -> str:
    kind = Path(path).suffix[1:].lower()
    return {"tiff": "tif", "jpeg": "jpg"}.get(kind, kind)


def check_sides(path: str | os.PathLike[str], height: int, width: int) -> None:
    """Raise InputError if the format of ``path`` cannot hold a picture of this size."""
    kind = _format_of(path)
    if max(height, width) > _LONGEST_SIDE.get(kind, max(height, width)):
        said = f"{FORMATS[kind]} holds {_LONGEST_SIDE[kind]} pixels a side, not {height}x{width} (height x width)"
        raise InputError(f"cannot save {path}: {said}; choose png or tif")


def _encode(pixels: np.ndarray, kind: str, profile: bytes | None) -> bytes:
    buffer, channels = io.BytesIO(), pixels.shape[2]
    stored = pixels[:, :, 0] if channels == 1 else pixels
    if pixels.dtype == np.uint8:
        options: dict[str, dict[str, Any]] = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}
        Image.fromarray(stored).save(buffer, FORMATS[kind], icc_profile=profile, **options.get(kind, {}))
    elif kind == "png":  # of 16 bits, into which neither Pillow nor OpenCV writes grey with alpha
        import imagecodecs

        data = bytes(imagecodecs.png_encode(stored, level=3))
        chunk = png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile)) if profile else b""
        return data[:33] + chunk + data[33:]  # behind the mark and IHDR
    else:
        import tifffile

        colours, planes = "rgb" if channels > 2 else "minisblack", "contig" if channels > 1 else None
        alpha = ["unassalpha"] if channels in (2, 4) else None
        tifffile.imwrite(buffer, stored, photometric=colours, planarconfig=planes, extrasamples=alpha,
                         compression="lzw", predictor=True, iccprofile=profile, metadata=None)  # fmt: skip
    return buffer.getvalue()
