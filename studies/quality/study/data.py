"""The photographs of a study: BSDS500, Set5 and Set14 below a folder of the user, or scikit-image's without one."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2

from basicsr_ext.common.errors import InputError
from i2sb_plugin.data.photographs import prepare as prepare_samples

__all__ = ["CROP", "DATASETS", "TRAINED", "Photographs"]

CROP = 64  # pixels, as in training
OVERLAPPING = ("302003.jpg", "12003.jpg")  # of BSDS500's training photographs; shown by Set5 and Set12 too
TRAINED = (
    "198 photographs of BSDS500's training set, all but those two that test sets show "
    f"({' and '.join(OVERLAPPING)}); compared on its 20 validation photographs, Set5 and Set14"
)
_FULL = {"set5": "Set5/{}", "set14": "Set14/{}", "bsds": "BSDS500/val_pairs20/{}"}
_CLEAN = {"set5": "GTmod12", "set14": "GTmod12", "bsds": "GTmod4"}
_LOW, BICUBIC = "LRbicx4", {"type": "sr4x_bicubic"}  # the folder of the pairs, and what made them
DATASETS = ("crops", *_FULL)


class Photographs:
    """Folders to train on and to compare on.

    Args:
        root: folder with BSDS500/train, BSDS500/val, Set5 and Set14; None for scikit-image's photographs.
        work: folder for what is cut.
        crops: number of crops to compare on.

    Raises:
        InputError: a folder is missing, or a photograph cannot be used.

    """

    def __init__(self, root: Path | None, work: Path, crops: int) -> None:
        self._root = root
        samples = None if root else prepare_samples(work / "photographs")
        self._train, self._val = (
            (samples / "train", samples / "val") if samples else (root / "BSDS500/train", root / "BSDS500/val")
        )
        _check_folders([self._train, self._val])
        self.training = _links(self._train, work / "train")
        self.pieces, self._crops = _crops(self._val, work / f"crops{crops}", crops)

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError if a folder of one of these data sets is missing; without ``root`` some are left out."""
        full = [name for name in names if self._root and name in _FULL]
        _check_folders([self._root / _FULL[name].format(part) for name in full for part in (_CLEAN[name], _LOW)])

    @property
    def source(self) -> str:
        """What the figures name."""
        return "BSDS500, Set5, Set14" if self._root else "scikit-image's photographs"

    def dataset(self, name: str, degradation: dict[str, Any]) -> dict[str, Any] | None:
        """A block of ``datasets`` of ``basicsr benchmark``; None where that set is not at hand."""
        if name == "crops":
            given = {"type": "PairedDegradationDataset", "dataroot_gt": str(self._crops), "degradation": degradation}
        elif self._root and name in _FULL:
            clean, low = (str(self._root / _FULL[name].format(part)) for part in (_CLEAN[name], _LOW))
            if degradation == BICUBIC:
                given = {"type": "PairedImageDataset", "dataroot_gt": clean, "dataroot_lq": low}
            else:
                given = {"type": "PairedDegradationDataset", "dataroot_gt": clean, "degradation": degradation}
        elif name == "bsds":
            given = {"type": "PairedDegradationDataset", "dataroot_gt": str(self._val), "degradation": degradation}
        else:
            return None
        return {"name": name, "io_backend": {"type": "disk"}, **given}


def _check_folders(folders: Iterable[Path]) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"--data: {folder} is missing; give the folder that holds BSDS500, Set5 and Set14")


def _links(source: Path, folder: Path) -> Path:
    """The training photographs but those that a test set shows."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.name not in OVERLAPPING and path.is_file() and not (folder / path.name).exists():
            os.symlink(path.resolve(), folder / path.name)
    return folder


def _crops(source: Path, folder: Path, count: int) -> tuple[int, Path]:
    """``count`` crops, as many of each photograph, along its diagonal; PNG. Returns how many of each, and the folder.

    Raises:
        InputError: there is no photograph, or one is damaged or smaller than a crop.

    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = sorted(path for path in source.iterdir() if path.suffix in (".jpg", ".png"))
    if not paths:
        raise InputError(f"--data: {source} holds no .jpg or .png")
    places = -(-count // len(paths))
    for k in range(count):
        path, place = paths[k % len(paths)], k // len(paths)
        image = cv2.imread(str(path))
        if image is None or min(image.shape[:2]) < CROP:
            fault = "cannot be read" if image is None else f"is {image.shape[1]} x {image.shape[0]} pixels"
            raise InputError(f"--data: {path} {fault}; photographs of {CROP} x {CROP} pixels and more are needed")
        top, left = ((side - CROP) * (2 * place + 1) // (2 * places) // 4 * 4 for side in image.shape[:2])
        cv2.imwrite(str(folder / f"{path.stem}_{place}.png"), image[top : top + CROP, left : left + CROP])
    return places if count % len(paths) == 0 else 1, folder
