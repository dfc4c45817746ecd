"""The pictures of the page: copies under plain names, thumbnails, and the places where methods differ most."""

import math
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from basicsr_ext.benchmark.run.store import read_stored
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import write_whole
from basicsr_ext.common.plain_json import finite
from basicsr_ext.images.arrays import to_bgr
from basicsr_ext.images.results import write_pixels

FOLDER = "index_files"  # beside index.html; replaced whenever the page is written
THUMBNAIL = 144  # largest side, pixels


def gather(records: dict[str, Any], root: Path, folder: Path, quality: int | None) -> dict[str, Any]:
    """Put all pictures of ``records``, whose paths are relative to ``root``, below ``folder``.

    Returns the records with paths relative to ``folder``; each image of a data set also gets ``thumb``, a path, and
    ``crops``, a list of [left, top, side] in pixels where the methods differ most. NaN and infinities become null.
    Raises InputError if a picture is missing, unreadable or cannot be written.
    """
    records = finite(records)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    order = {method["name"]: k for k, method in enumerate(records["methods"])}
    for d, dataset in enumerate(records["datasets"]):
        by_image: dict[str, list[tuple[int, dict[str, Any]]]] = {image["name"]: [] for image in dataset["images"]}
        for result in records["results"]:
            if result["dataset"] == dataset["name"] and result["method"] in order:
                for row in result["images"]:
                    by_image.setdefault(row["image"], []).append((order[result["method"]], row))
        for k, image in enumerate(dataset["images"]):
            _gather_image(image, by_image[image["name"]], _Place(root, folder, f"{FOLDER}/{d}/{k:04d}", quality))
    return records


class _Place:
    """Where the pictures of one image come from and go to; paths that are returned are relative to the page."""

    def __init__(self, root: Path, folder: Path, stem: str, quality: int | None) -> None:
        self.root, self.folder, self.stem, self.quality = root, folder, stem, quality

    def take(self, path: str | None, name: str) -> str | None:
        """Copy or convert one picture."""
        if path is None:
            return None
        if self.quality is not None:
            return self._save(f"{name}.webp", self.read(path), cv2.IMWRITE_WEBP_QUALITY, self.quality)
        target = f"{self.stem}_{name}.png"  # as a benchmark writes them
        write_whole(self.folder / target, self._existing(path).read_bytes())
        return target

    def _existing(self, path: str) -> Path:
        source = self.root / path
        if not source.is_file():
            raise InputError(f"{source} is missing; run the benchmark again: it computes what is not there")
        return source

    def read(self, path: str) -> np.ndarray:
        """H,W,3 uint8."""
        return to_bgr(read_stored(self._existing(path)))

    def thumbnail(self, image: np.ndarray) -> str:
        """Save a small JPEG of ``image``."""
        factor = min(1.0, THUMBNAIL / max(image.shape[:2]))
        size = [max(1, round(side * factor)) for side in image.shape[1::-1]]
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return self._save("thumb.jpg", small, cv2.IMWRITE_JPEG_QUALITY, 80)

    def _save(self, name: str, image: np.ndarray, *flags: int) -> str:
        target = f"{self.stem}_{name}"
        write_pixels(self.folder / target, image, flags)
        return target


def _gather_image(image: dict[str, Any], rows: list[tuple[int, dict]], place: _Place) -> None:
    shown = [row["file"] for _, row in rows if row.get("file")]
    first = image.get("gt") or (shown[0] if shown else image.get("lq"))
    pixels = {path: place.read(path) for path in [*shown, first] if path}
    if first:
        image["thumb"] = place.thumbnail(pixels[first])
        image["height"], image["width"] = pixels[first].shape[:2]
    image["crops"] = differing_crops([pixels[path] for path in shown])
    for key in ("gt", "lq"):
        image[key] = place.take(image.get(key), key)
    for number, row in rows:
        for key in ("file", "trajectory", "deviation"):
            row[key] = place.take(row.get(key), f"{number}" if key == "file" else f"{number}_{key}")


def differing_crops(images: list[np.ndarray], count: int = 3) -> list[list[int]]:
    """The squares in which images H,W,3 (uint8) of one size differ most: [left, top, side] each, most first.

    The difference at a pixel is the standard deviation over the images; squares do not overlap, and one where all
    images agree is not listed. Images of another size than the first are left out.
    """
    same = [image.astype(np.float32).mean(2) for image in images if image.shape == images[0].shape]
    if len(same) < 2:
        return []
    height, width = same[0].shape
    side = min(height, width, max(24, round(math.sqrt(height * width) / 7)))
    kernel = (side, side)
    spread = cv2.boxFilter(np.std(same, axis=0), -1, kernel, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    spread = spread[: height - side + 1, : width - side + 1].copy()
    found = []
    for _ in range(count):
        top, left = np.unravel_index(int(spread.argmax()), spread.shape)
        if spread[top, left] <= 1e-3:
            break
        found.append([int(left), int(top), side])
        spread[max(0, top - side + 1) : top + side, max(0, left - side + 1) : left + side] = 0
    return found
