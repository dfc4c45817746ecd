"""Pictures and masks from what a caller in Python holds, and back: paths, arrays, tensors."""

import os

import numpy as np
import torch
from torch import Tensor

from basicsr_ext.common.errors import InputError
from basicsr_ext.images.pictures import Picture, data_picture, read_picture, stored_data
from basicsr_ext.images.values import Values
from basicsr_ext.restoring.files import read_mask

Image = str | os.PathLike[str] | np.ndarray | Tensor
_FULL: dict[np.dtype, int] = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


def to_picture(image: str | os.PathLike[str] | np.ndarray, values: Values | None = None) -> Picture:
    """Read a path, or take an array H,W or H,W,C of uint8, uint16 or floats in [0, 1]; InputError for any other.

    With ``values`` it is data: a path, or an array of their kind with their axes.
    """
    if isinstance(image, str | os.PathLike):
        return read_picture(image, values)
    if values is not None:
        return _data_picture(np.asarray(image), values)
    if (mode := getattr(image, "mode", "RGB")) not in ("L", "LA", "RGB", "RGBA", "I;16"):  # of Pillow
        raise InputError(f"the image has Pillow's mode {mode}, whose numbers are no colours; convert it to RGB")
    pixels = np.asarray(image)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4):
        raise InputError(f"the image is an array {np.shape(image)}; give H,W or H,W,C with 1 to 4 channels")
    full = 1 if pixels.dtype.kind == "f" else _FULL.get(pixels.dtype)
    if full is None:
        raise InputError(f"the image is an array of {pixels.dtype}; give uint8, uint16 or floats in [0, 1]")
    check_range(pixels)
    planes = torch.from_numpy(np.ascontiguousarray((pixels / np.float32(full)).astype(np.float32).transpose(2, 0, 1)))
    count = 1 if len(planes) < 3 else 3
    return Picture(planes[:count], planes[count:] if len(planes) in (2, 4) else None, 16 if full == 65535 else 8)


def _data_picture(numbers: np.ndarray, values: Values) -> Picture:
    if numbers.ndim not in (2, 3) or not numbers.size:
        raise InputError(f"the image is an array {numbers.shape}; give H,W or {','.join(values.axes)}")
    if numbers.dtype != values.kind:
        raise InputError(
            f"the image is an array of {numbers.dtype}; the network was trained on {values.dtype}: give that"
        )
    values.check(numbers, "the image")
    if numbers.ndim == 2:
        numbers = numbers[:, :, None]
    elif values.axes == "CHW":
        numbers = np.moveaxis(numbers, 0, 2)
    return data_picture(numbers, values)


def check_range(values: np.ndarray | Tensor) -> None:
    """Raise InputError if an image is empty, or its floats are NaN or further from [0, 1] than noise takes them."""
    if not all(values.shape):
        raise InputError(f"the image has no pixels: its shape is {tuple(values.shape)}")
    least, most = float(values.min()), float(values.max())
    if not (least > -8 and most < 9) and values.dtype not in _FULL:
        raise InputError(f"the image holds values from {least:g} to {most:g}; give uint8, uint16 or floats in [0, 1]")


def to_array(picture: Picture, like: object = None) -> np.ndarray:
    """H,W,C (H,W of one plane) with numbers as in the array ``like``, else whole ones of the picture's depth."""
    if picture.values is not None:
        numbers = stored_data(picture)
        if numbers.shape[2] == 1 and np.ndim(like) != 3:  # type: ignore[arg-type]
            return numbers[:, :, 0]
        return np.moveaxis(numbers, 2, 0) if picture.values.axes == "CHW" else numbers
    planes = picture.colours if picture.alpha is None else torch.cat([picture.colours, picture.alpha])
    pixels = planes.permute(1, 2, 0).numpy()
    pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    kind = like.dtype if isinstance(like, np.ndarray) else np.dtype(np.uint8 if picture.bits == 8 else np.uint16)
    return pixels.astype(kind) if kind.kind == "f" else (pixels * _FULL[kind]).round().astype(kind)


def to_mask(mask: Image) -> Tensor:
    """1,H,W (or B,1,H,W for such a tensor), 1 in the hole: where the path, array or tensor is white."""
    if isinstance(mask, str | os.PathLike):
        return read_mask(mask)
    if isinstance(mask, Tensor):
        planes = mask.detach().cpu().float() >= 0.5
        return (planes if planes.dim() > 2 else planes[None]).float()
    pixels = np.asarray(mask)
    return to_picture(pixels.astype(np.uint8) * 255 if pixels.dtype == bool else mask).hole.float()
