"""What training sees of an image: a random square, perhaps flipped and turned."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from basicsr_ext.errors import InputError

__all__ = ["View", "centre_square", "check_crop", "draw_view"]


class View(NamedTuple):
    """A square of an image and its orientation, in pixels of the smaller image of a pair."""

    top: int
    left: int
    size: int
    flip_columns: bool
    flip_rows: bool
    transpose: bool

    def of(self, pixels: np.ndarray, scale: int = 1) -> np.ndarray:
        """Return the view of ``pixels`` (H,W,C), which are ``scale`` times finer; nothing is copied."""
        rows = slice(self.top * scale, (self.top + self.size) * scale)
        columns = slice(self.left * scale, (self.left + self.size) * scale)
        pixels = pixels[rows, columns]
        if self.flip_columns:
            pixels = pixels[:, ::-1]
        if self.flip_rows:
            pixels = pixels[::-1]
        return pixels.transpose(1, 0, 2) if self.transpose else pixels


def draw_view(height: int, width: int, size: int, flip: bool, turn: bool, generator: torch.Generator) -> View:
    """Draw a square of ``size`` in ``height`` x ``width``; ``flip`` mirrors, ``turn`` turns by multiples of 90 degrees.

    Every draw takes ``generator``, and their number does not depend on the options.
    """
    top, left = (int(torch.randint(length - size + 1, (), generator=generator)) for length in (height, width))
    coins = (torch.rand(3, generator=generator) < 0.5).tolist()
    return View(top, left, size, flip and coins[0], turn and coins[1], turn and coins[2])


def check_crop(pixels: np.ndarray, size: int, path: str, option: str = "gt_size") -> None:
    """Raise InputError naming ``path`` if ``pixels`` (H,W,C) are smaller than a square of ``size``."""
    height, width = pixels.shape[:2]
    if height < size or width < size:
        raise InputError(
            f"{path}: is {height}x{width} (height x width), smaller than {option} {size}; "
            f"set {option} to at most {min(height, width)} or take the file out"
        )


def centre_square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize the shorter side of H,W,C (uint8 or uint16) to ``size`` and return the centre square of it.

    PIL's bilinear filter with antialiasing, the longer side rounded down, the centre to the nearest pixel: what
    torchvision's Resize and CenterCrop do to an image file, and the release (I2SB) with them.
    """
    height, width = pixels.shape[:2]
    short = min(height, width)
    height, width = (size * length // short for length in (height, width))
    if short != size:
        pixels = _resized(pixels, width, height)
    top, left = (round((length - size) / 2) for length in (height, width))
    return pixels[top : top + size, left : left + size]


def _resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize plane by plane: PIL has no 16-bit colour, and would weight colours by alpha."""
    if pixels.dtype == np.uint8:
        planes = [Image.fromarray(p).resize((width, height), Image.Resampling.BILINEAR) for p in _planes(pixels)]
        return np.stack([np.asarray(plane) for plane in planes], axis=2)
    images = [Image.fromarray(plane.astype(np.float32)) for plane in _planes(pixels)]
    values = [np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) for image in images]
    return np.stack(values, axis=2).round().clip(0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)


def _planes(pixels: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(pixels[:, :, channel]) for channel in range(pixels.shape[2])]
