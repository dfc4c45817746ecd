"""The pictures of the page: copies under plain names, thumbnails, and the places where methods differ most."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.plain_json import finite

FOLDER = "index_files"  # beside index.html; replaced whenever the page is written
SHOWN = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}  # what every browser shows
THUMBNAIL = 144  # largest side, pixels
CROPS = 3  # places shown of each image


def gather(records: dict[str, Any], root: Path, folder: Path, quality: int | None) -> dict[str, Any]:
    """Put all pictures of ``records``, whose paths are relative to ``root``, below ``folder``.

    Returns the records with paths relative to ``folder``; each image of a data set also gets ``thumb``, a path, and
    ``crops``, a list of [left, top, side] in pixels where the methods differ most. NaN and infinities become null.

    Raises InputError if a picture is missing or unreadable.
    """
    records = finite(records)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    order = {method["name"]: k for k, method in enumerate(records["methods"])}
    for d, dataset in enumerate(records["datasets"]):
        results = [r for r in records["results"] if r["dataset"] == dataset["name"] and r["method"] in order]
        by_image: dict[str, list[tuple[int, dict[str, Any]]]] = {image["name"]: [] for image in dataset["images"]}
        for result in results:
            for row in result["images"]:
                by_image.setdefault(row["image"], []).append((order[result["method"]], row))
        for k, image in enumerate(dataset["images"]):
            _gather_image(image, by_image[image["name"]], _Place(root, folder, f"{FOLDER}/{d}/{k:04d}", quality))
    return records


class _Place:
    """Where the pictures of one image come from and go to."""

    def __init__(self, root: Path, folder: Path, stem: str, quality: int | None) -> None:
        self.root, self.folder, self.stem, self.quality = root, folder, stem, quality

    def take(self, path: str | None, name: str) -> str | None:
        """Copy or convert one picture; its path relative to the page."""
        if path is None:
            return None
        source = self.existing(path)
        copied = self.quality is None and source.suffix.lower() in SHOWN
        suffix = source.suffix.lower() if copied else ".png" if self.quality is None else ".webp"
        target = self.folder / f"{self.stem}_{name}{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if copied:
            shutil.copyfile(source, target)
        else:
            _save(target, self.read(path), self.quality)
        return target.relative_to(self.folder).as_posix()

    def existing(self, path: str) -> Path:
        """Where the picture lies."""
        source = self.root / path
        if not source.is_file():
            raise InputError(f"{source} is missing; run the benchmark again: it computes what is not there")
        return source

    def read(self, path: str) -> np.ndarray:
        """H,W,3 uint8."""
        source = self.existing(path)
        data = np.fromfile(source, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        if image is None:
            raise InputError(f"{source} cannot be read as an image; remove it and run the benchmark again")
        return image

    def thumbnail(self, image: np.ndarray) -> str:
        """Save a small JPEG of ``image``; its path relative to the page."""
        height, width = image.shape[:2]
        factor = min(1.0, THUMBNAIL / max(height, width))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        target = self.folder / f"{self.stem}_thumb.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        _save(target, cv2.resize(image, size, interpolation=cv2.INTER_AREA), 80)
        return target.relative_to(self.folder).as_posix()


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


def differing_crops(images: list[np.ndarray], count: int = CROPS) -> list[list[int]]:
    """The squares in which images H,W,3 (uint8) of one size differ most: [left, top, side] each, most first.

    The difference at a pixel is the standard deviation over the images; squares do not overlap, and one where all
    images agree is not listed. Images of another size than the first are left out.
    """
    if not images:
        return []
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


def _save(path: Path, image: np.ndarray, quality: int | None) -> None:
    flag = {".webp": cv2.IMWRITE_WEBP_QUALITY, ".jpg": cv2.IMWRITE_JPEG_QUALITY}.get(path.suffix)
    done, data = cv2.imencode(path.suffix, image, [flag, quality] if flag and quality else [])
    if not done:
        raise OSError(f"{path} could not be written")
    path.write_bytes(data.tobytes())
