"""What training sees of an image: a random square, perhaps flipped and turned."""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from basicsr_ext.common.errors import InputError


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
    if min(height, width) < size:
        cure = f"set {option} to at most {min(height, width)} or take the file out"
        raise InputError(f"{path}: is {height}x{width} (height x width), smaller than {option} {size}; {cure}")


def centre_square(pixels: np.ndarray, size: int, fast: bool = False) -> np.ndarray:
    """Resize the shorter side of H,W,C (uint8 or uint16) to ``size`` and return the centre square of it.

    PIL's bilinear filter with antialiasing, the longer side rounded down, the centre to the nearest pixel: what
    torchvision's Resize and CenterCrop do to an image file, and the release (I2SB) with them. ``fast`` resizes uint8
    as torchvision does a tensor: in less than half the time, at most one grey level away.
    """
    height, width = pixels.shape[:2]
    short = min(height, width)
    height, width = (size * length // short for length in (height, width))
    if short != size:
        resized = _resized_by_torch if fast and pixels.dtype == np.uint8 else _resized
        pixels = resized(pixels, width, height)
    top, left = (round((length - size) / 2) for length in (height, width))
    return pixels[top : top + size, left : left + size]


def _resized_by_torch(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    image = F.interpolate(image, (height, width), mode="bilinear", antialias=True)
    return image[0].permute(1, 2, 0).numpy()


def _resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize colours together and other images plane by plane: PIL has no 16-bit colour, and weighs by alpha."""
    whole = pixels.dtype == np.uint8
    parts = [pixels] if whole and pixels.shape[2] == 3 else list(np.moveaxis(pixels, 2, 0))
    images = [Image.fromarray(np.ascontiguousarray(part, None if whole else np.float32)) for part in parts]
    done = [np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) for image in images]
    resized = np.dstack(done)
    return resized if whole else resized.round().clip(0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)
