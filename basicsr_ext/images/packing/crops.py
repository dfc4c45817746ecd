"""Large images cut into overlapping squares, as BasicSR's extract_subimages cuts them, and packed for fast reading."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import write_whole
from basicsr_ext.images.decode import read_pixels

_KINDS = {1: b"P5", 3: b"P6"}  # of portable anymaps: grey, RGB


@dataclass(frozen=True)
class Cutting:
    """How images become crops."""

    crop: int | None = None  # side of the squares in pixels; None packs whole images
    step: int | None = None  # pixels from one square to the next
    threshold: int = 0  # a last square is added at the border where more than this would be left over
    raw: bool = False  # store uint8 uncompressed (as a portable anymap) instead of PNG
    compression: int = 1  # of PNG, 0 to 9
    skip_small: bool = False  # leave out images that are smaller than a square

    @property
    def extension(self) -> str:
        """Of a crop's name."""
        return "ppm" if self.raw else "png"


class Crop(NamedTuple):
    """One crop: its key, its size H,W,C, and its file, which is empty once it was written."""

    key: str
    size: tuple[int, int, int]
    content: bytes


def starts(length: int, cutting: Cutting) -> list[int]:
    """Where the squares begin along a side of ``length`` pixels, which has room for one."""
    crop = cutting.crop or length
    found = list(range(0, length - crop + 1, cutting.step or crop))
    if length - (found[-1] + crop) > cutting.threshold:
        found.append(length - crop)
    return found


def cut_file(path: str, key: str, cutting: Cutting, folder: str | None = None) -> list[Crop]:
    """Cut an image into crops called ``key``_s001 and so on, or ``key`` alone if it stays whole.

    With ``folder`` they are written there, each completely or not at all, and returned without their content.
    Raises InputError naming the file if it cannot be read, is too small, or does not fit the kind of storage.
    """
    pixels = read_pixels(path)
    height, width, channels = pixels.shape
    if cutting.raw and (pixels.dtype != np.uint8 or channels not in _KINDS):
        said = f"has {channels} channel(s) of {pixels.dtype}, but raw crops are grey or RGB with 8 bits"
        raise InputError(f"{path}: {said}; give --to lmdb, or convert it")
    side = cutting.crop
    if side is None:
        return [_stored(key, pixels, cutting, folder)]
    check_size(path, height, width, cutting)
    if min(height, width) < side:
        return []
    corners = [(top, left) for top in starts(height, cutting) for left in starts(width, cutting)]
    squares = [pixels[top : top + side, left : left + side] for top, left in corners]
    return [_stored(f"{key}_s{number:03d}", square, cutting, folder) for number, square in enumerate(squares, 1)]


def check_size(path: str, height: int, width: int, cutting: Cutting) -> None:
    """Raise InputError naming the file if the image is smaller than a square and such ones are not left out."""
    if min(height, width) < (cutting.crop or 0) and not cutting.skip_small:
        cure = f"give --crop {min(height, width)} or less, take it out, or leave such images out with --skip_small"
        raise InputError(f"{path}: is {height}x{width} (height x width), smaller than --crop {cutting.crop}; {cure}")


def _stored(key: str, pixels: np.ndarray, cutting: Cutting, folder: str | None) -> Crop:
    if cutting.raw:
        height, width, channels = pixels.shape
        content = b"%s\n%d %d\n255\n" % (_KINDS[channels], width, height) + pixels[:, :, ::-1].tobytes()
    else:
        options = [cv2.IMWRITE_PNG_COMPRESSION, cutting.compression]
        content = cv2.imencode(".png", np.ascontiguousarray(pixels), options)[1].tobytes()
    if folder is not None:
        write_whole(Path(folder) / f"{key}.{cutting.extension}", content)
        content = b""
    return Crop(key, pixels.shape, content)
