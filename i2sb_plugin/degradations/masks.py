"""Masks for inpainting, 1 in the hole: drawn, from the bit-packed file that the release uses, or from a folder."""

import logging
import math
import re
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from basicsr_ext.common.errors import InputError
from basicsr_ext.images.arrays import hole_of
from basicsr_ext.images.decode import read_pixels
from basicsr_ext.images.inventory import EXTENSIONS, images_below

__all__ = ["MaskFile", "MaskFolder", "draw_mask", "load_masks"]

STROKES = 64  # at most; a hole that is still too small grows pixel by pixel


class MaskFile:
    """Masks of an ``.npz`` file, packed to one bit a pixel: one array of N masks of ``side`` x ``side``.

    The file of Palette ("imagenet_freeform_masks.npz", 10,000 masks of 256x256 for each range of covered area) is one.
    ``key`` names the array; without it, it is the only one, or the one that is named after ``area`` in per cent.
    It stays packed in memory: 8 KiB a mask. Raises InputError naming the file if it holds something else.
    """

    def __init__(
        self, path: str, key: str | None = None, side: int = 256, area: tuple[float, float] | None = None
    ) -> None:
        self.path = path
        self.side = side
        if side < 1:
            raise InputError(f"degradation.mask_size is {side}; give the side of the masks in pixels, such as 256")
        packed = _read_packed(path, key, area)
        size = -(-side * side // 8)
        if packed.size == 0 or packed.size % size or (side * side) % 8:
            raise InputError(
                f"degradation.masks {path}: holds {packed.size} packed bytes, no whole number of "
                f"masks of {side}x{side} ({size} bytes each); set degradation.mask_size to their side"
            )
        self._packed = packed.reshape(-1, size)

    def __len__(self) -> int:
        return len(self._packed)

    def get(self, index: int) -> np.ndarray:
        """Return mask ``index``, uint8 of side x side; raises InputError if it has no hole."""
        mask = np.unpackbits(self._packed[index]).reshape(self.side, self.side)
        _check_hole(mask, f"degradation.masks {self.path}, mask {index}")
        return mask


class MaskFolder:
    """Masks of a folder of images, sorted by name; white (half of full scale or more, in any channel) is the hole.

    ``invert`` takes black for the hole. The names are read at once, the images when they are asked for;
    the log says what the folder holds besides.
    Raises InputError naming the folder or the file if there are none, or a mask has no hole.
    """

    def __init__(self, path: str, invert: bool = False) -> None:
        there = images_below(path)
        self.paths, self.invert = [file for file, _ in there.files], invert
        if not self.paths:
            raise InputError(
                f"degradation.masks {path}: the folder has no image; put masks there "
                f"({', '.join(EXTENSIONS)}), white in the hole"
            )
        if there.left_out:
            logging.getLogger("basicsr").warning(f"degradation.masks {path}: {there}")

    def __len__(self) -> int:
        return len(self.paths)

    def get(self, index: int) -> np.ndarray:
        """Return mask ``index``, uint8 of H,W."""
        path = self.paths[index]
        pixels = read_pixels(path)
        mask = hole_of(pixels)[:, :, 0].astype(np.uint8) ^ np.uint8(self.invert)
        _check_hole(mask, str(path))
        return mask


@lru_cache(maxsize=8)
def load_masks(
    path: str,
    key: str | None = None,
    side: int = 256,
    area: tuple[float, float] | None = None,
    invert: bool = False,
) -> MaskFile | MaskFolder:
    """Open the masks at ``path``, an .npz file (``key``, ``side``, ``area``) or a folder (``invert``), once a process.

    Raises InputError as the two classes do, or if there is nothing at ``path``.
    """
    if Path(path).is_dir():
        return MaskFolder(path, invert)
    if not Path(path).is_file():
        raise InputError(
            f"degradation.masks {path}: no such file or folder; give a folder of mask images or an "
            ".npz file of bit-packed masks"
        )
    return MaskFile(path, key, side, area)


def draw_mask(height: int, width: int, area: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Draw brush strokes until they cover a part of the image within ``area``: uint8 of ``height`` x ``width``.

    Strokes are paths of up to 12 segments, 3 to 12 % of the image wide, that turn by up to 60 degrees; the covered
    area is drawn evenly from ``area`` and met to the pixel. Raises InputError if no number of pixels lies in ``area``.
    """
    total = height * width
    fewest, most = max(1, math.ceil(area[0] * total - 1e-9)), math.floor(area[1] * total + 1e-9)
    if fewest > most:
        raise InputError(
            f"degradation.area is {list(area)}, but no whole number of the {total} pixels of an image of "
            f"{height}x{width} lies in it; widen the range or take larger images"
        )
    target = int(rng.integers(fewest, most + 1))
    mask = np.zeros((height, width), np.uint8)
    for _ in range(STROKES):
        if _stroke(mask, target, rng):
            break
    _grow(mask, target, rng)
    return mask


def _stroke(mask: np.ndarray, target: int, rng: np.random.Generator) -> bool:
    """Draw one stroke into ``mask``, segment by segment, and stop before it covers more than ``target`` pixels."""
    height, width = mask.shape
    unit = math.sqrt(height * width)
    brush = max(1, round(unit * rng.uniform(0.03, 0.12)))
    x, y, angle = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, 2 * math.pi)
    for _ in range(int(rng.integers(4, 13))):
        angle += rng.uniform(-math.pi / 3, math.pi / 3)
        length = unit * rng.uniform(0.04, 0.16)
        if not (0 <= x + length * math.cos(angle) <= width and 0 <= y + length * math.sin(angle) <= height):
            angle = math.atan2(height / 2 - y, width / 2 - x) + rng.uniform(-0.8, 0.8)  # back towards the middle
        end = (x + length * math.cos(angle), y + length * math.sin(angle))
        longer = cv2.line(mask.copy(), (int(x), int(y)), (int(end[0]), int(end[1])), 1, brush)
        covered = int(longer.sum(dtype=np.int64))
        if covered > target:
            return True
        mask[:], (x, y) = longer, end
    return False


def _grow(mask: np.ndarray, target: int, rng: np.random.Generator) -> None:
    """Add pixels at the border of the hole, or anywhere if there is none, until ``target`` are covered."""
    missing = target - int(mask.sum(dtype=np.int64))
    while missing > 0:
        if not mask.any():
            mask.flat[rng.integers(mask.size)] = 1
            missing -= 1
            continue
        border = np.flatnonzero(cv2.dilate(mask, np.ones((3, 3), np.uint8)) > mask)
        chosen = border if len(border) <= missing else rng.permutation(border)[:missing]
        mask.flat[chosen] = 1
        missing -= len(chosen)


def _read_packed(path: str, key: str | None, area: tuple[float, float] | None) -> np.ndarray:
    where = f"degradation.masks {path}"
    try:
        with np.load(path, allow_pickle=False) as archive:
            key = key or _find_key(archive.files, area, where)
            if key not in archive.files:
                raise InputError(
                    f"{where}: has no array {key!r}; set degradation.key to one of {', '.join(archive.files)}"
                )
            packed = archive[key]
    except InputError:
        raise
    except Exception as error:  # numpy raises whatever the zip, the header or the pickle inside make it raise
        raise InputError(
            f"{where}: cannot be read as an .npz file of plain arrays ({error}); give the file as it was published"
        ) from None
    if packed.dtype != np.uint8:
        raise InputError(
            f"{where}: {key!r} holds {packed.dtype}, not packed bits (uint8); write it with numpy.packbits"
        )
    return packed.reshape(-1)


def _find_key(keys: list[str], area: tuple[float, float] | None, where: str) -> str:
    """Return the only array, or the only one named after ``area`` in per cent: "10-20% freeform" for 0.1 to 0.2."""
    wanted = [str(round(100 * end)) for end in area or ()]
    named = [key for key in keys if area and ("".join(wanted) in key or re.findall(r"\d+", key)[:2] == wanted)]
    if len(keys) != 1 and len(named) != 1:
        raise InputError(f"{where}: holds {len(keys)} arrays; set degradation.key to one of {', '.join(keys)}")
    return (named or keys)[0]


def _check_hole(mask: np.ndarray, where: str) -> None:
    if not mask.any():
        raise InputError(f"{where}: the mask has no hole; make white what is to be filled (or set degradation.invert)")
