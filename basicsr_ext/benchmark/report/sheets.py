"""Sheets: the same part of an image by every method, side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from basicsr_ext.common.errors import InputError
from basicsr_ext.images.arrays import to_bgr
from basicsr_ext.images.decode import read_pixels
from basicsr_ext.images.results import write_pixels


def sheet(root: Path, records: Mapping[str, Any], dataset: str, target: Path) -> bool:
    """Write the centres, of 96 pixels at most, of the first six images side by side: every method, the original.

    ``records`` are those in the folder ``root``, ``target`` is a PNG or JPEG. Returns False if no method restored the
    data set.
    """
    chosen = next(one for one in records["datasets"] if one["name"] == dataset)["images"][:6]
    labels = {method["name"]: method["label"] for method in records["methods"]}
    results = [result for result in records["results"] if result["dataset"] == dataset]
    if not results:
        return False
    files = {result["method"]: {one["image"]: one["file"] for one in result["images"]} for result in results}
    columns = [(labels[method], [root / found[image["name"]] for image in chosen]) for method, found in files.items()]
    columns.append(("original", [root / image["gt"] for image in chosen]))
    side = min([96, *(min(image["width"], image["height"]) for image in chosen)])
    write_sheet(columns, target, side)
    return True


def write_sheet(columns: list[tuple[str, list[Path]]], path: str | Path, crop: int) -> None:
    """Write the centres of images, ``crop`` pixels wide and shown twice as large, to a PNG or JPEG.

    A column has its caption and as many image files as the others. Raises InputError if an image is missing, unreadable
    or smaller than ``crop``, or the picture cannot be written.
    """
    if not 1 <= crop <= 10_000:
        raise InputError(f"--crop is {crop}; give a whole number of pixels from 1 to 10000")
    gap, head, side, rows = 6, 24, 2 * crop, len(columns[0][1])
    page = np.full((head + rows * (side + gap) - gap, len(columns) * (side + gap) - gap, 3), 255, np.uint8)
    for c, (caption, files) in enumerate(columns):
        left = c * (side + gap)
        width = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0]
        size = 0.5 * min(1, (side - 4) / max(width, 1))
        cv2.putText(page, caption, (left + 2, 17), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1, cv2.LINE_AA)
        for r, file in enumerate(files):
            top = head + r * (side + gap)
            page[top : top + side, left : left + side] = _centre(file, crop)
    write_pixels(path, page)


def _centre(path: Path, crop: int) -> np.ndarray:
    image = to_bgr(read_pixels(path))
    if min(image.shape[:2]) < crop:
        raise InputError(f"{path} is smaller than {crop} pixels; replace it, or give a smaller --crop")
    top, left = (image.shape[0] - crop) // 2, (image.shape[1] - crop) // 2
    return image[top : top + crop, left : left + crop].repeat(2, 0).repeat(2, 1)
