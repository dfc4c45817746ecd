"""The photographs of a study: BSDS500, Set5 and Set14 below a folder of the user, or scikit-image's without one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2

from basicsr_ext.errors import InputError
from i2sb_plugin.data.sample_photographs import prepare as prepare_samples

__all__ = ["CROP", "Photographs"]

CROP = 64  # pixels, as in training
OVERLAPPING = ("302003.jpg", "12003.jpg")  # of BSDS500's training photographs; shown by Set5 and Set12 too
_FULL = {"set5": "Set5/{}", "set14": "Set14/{}", "bsds": "BSDS500/val_pairs20/{}"}
_CLEAN = {"set5": "GTmod12", "set14": "GTmod12", "bsds": "GTmod4"}


class Photographs:
    """Folders to train on and to compare on.

    Args:
        root: folder with BSDS500/train, BSDS500/val, Set5 and Set14; None for scikit-image's photographs.
        work: folder for what is cut.
        crops: number of crops to compare on.

    Raises:
        InputError: a folder is missing.

    """

    def __init__(self, root: Path | None, work: Path, crops: int) -> None:
        self._root = root
        samples = None if root else prepare_samples(work / "photographs")
        self._train, self._val = (
            (samples / "train", samples / "val") if samples else (root / "BSDS500/train", root / "BSDS500/val")
        )
        for folder in (self._train, self._val):
            if not folder.is_dir():
                raise InputError(f"--data: {folder} is not there; give the folder that holds BSDS500, Set5 and Set14")
        self.training = _links(self._train, work / "train")
        self._crops = _crops(self._val, work / f"crops{crops}", crops)

    @property
    def source(self) -> str:
        """What the figures name."""
        return "BSDS500, Set5, Set14" if self._root else "scikit-image's photographs"

    def dataset(self, name: str, degradation: dict[str, Any]) -> dict[str, Any] | None:
        """A block of ``datasets`` of ``basicsr benchmark``; None where that set is not at hand."""
        if name == "crops":
            given = {"type": "PairedDegradationDataset", "dataroot_gt": str(self._crops), "degradation": degradation}
        elif self._root and name in _FULL:
            clean, low = (self._root / _FULL[name].format(part) for part in (_CLEAN[name], "LRbicx4"))
            given = {"type": "PairedImageDataset", "dataroot_gt": str(clean), "dataroot_lq": str(low)}
        elif name == "photographs" or name == "bsds":
            given = {"type": "PairedDegradationDataset", "dataroot_gt": str(self._val), "degradation": degradation}
        else:
            return None
        return {"name": name, "io_backend": {"type": "disk"}, **given}


def _links(source: Path, folder: Path) -> Path:
    """The training photographs but those that a test set shows."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.name not in OVERLAPPING and path.is_file() and not (folder / path.name).exists():
            os.symlink(path.resolve(), folder / path.name)
    return folder


def _crops(source: Path, folder: Path, count: int) -> Path:
    """``count`` crops, as many of each photograph, along its diagonal; PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = sorted(path for path in source.iterdir() if path.suffix in (".jpg", ".png"))
    for k in range(count):
        path, place = paths[k % len(paths)], k // len(paths)
        places = -(-count // len(paths))
        image = cv2.imread(str(path))
        top, left = ((side - CROP) * (2 * place + 1) // (2 * places) // 4 * 4 for side in image.shape[:2])
        cv2.imwrite(str(folder / f"{path.stem}_{place}.png"), image[top : top + CROP, left : left + CROP])
    return folder
