"""FID of many crops of few images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from basicsr_ext.common.errors import InputError
from basicsr_ext.metrics.base import METRICS
from basicsr_ext.metrics.learned.features import FEATURES
from basicsr_ext.metrics.learned.fid import frechet
from basicsr_ext.metrics.learned.set_distance import SetDistance

__all__ = ["PatchFID"]


@METRICS.register("patch_fid")
@dataclass
class PatchFID(SetDistance):
    """Fréchet distance of features of crops on a grid, for sets too small for FID; compare equal options alone.

    The crops of both sets lie at the same places.
    """

    features: Literal["inception", "vgg16", "alexnet", "efficientnet_lite0"] = "inception"  # the network
    patch: int = 128  # side of a crop in pixels
    stride: int = 64  # from one crop to the next
    reference: str | None = None  # folder of images; the ground truth of the data set if left out
    weights: str | None = None  # file of the network, or folder that has it

    least: ClassVar[int] = 1
    digits: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        smallest = FEATURES[self.features].least
        if self.patch < smallest:
            raise InputError(f"patch_fid.patch is {self.patch}; {self.features} takes crops from {smallest} pixels")
        if self.stride < 1:
            raise InputError(f"patch_fid.stride is {self.stride}; set a number of pixels from 1")

    @property
    def network(self) -> str:
        """The option ``features``."""
        return self.features

    @property
    def _view(self) -> tuple[int, ...]:
        return self.patch, self.stride

    def views(self, image: np.ndarray) -> list[np.ndarray]:
        """The crops, row by row; raises InputError where the image is smaller than one."""
        height, width = image.shape[:2]
        if min(height, width) < self.patch:
            raise InputError(f"patch_fid.patch is {self.patch}, but an image measures {height}x{width}; set less")
        tops, lefts = (range(0, side - self.patch + 1, self.stride) for side in (height, width))
        return [image[y : y + self.patch, x : x + self.patch] for y in tops for x in lefts]

    def distance(self, restored: np.ndarray, reference: np.ndarray) -> float:
        """torch-fidelity's distance."""
        if min(len(restored), len(reference)) < 2:
            raise InputError("patch_fid has fewer than 2 crops; set a smaller patch or stride, or add images")
        return frechet(restored, reference)

    @property
    def crops(self) -> int:
        """Number of crops of the restored images."""
        return sum(len(record["restored"]) for record in self.records.values())

    def notes(self) -> list[str]:
        """A warning where there are fewer crops than features."""
        first = next(iter(self.records.values()), None)
        if first is None or self.crops > first["restored"].shape[1]:
            return []
        return [
            f"{self.crops} crops give no full covariance of {first['restored'].shape[1]} features; "
            "set a smaller stride, or features with fewer dimensions (alexnet has 256)"
        ]

    def identity(self) -> dict[str, Any]:
        """With the crops."""
        return super().identity() | {"crop": f"{self.patch} every {self.stride} pixels"}

    def provenance(self) -> dict[str, Any]:
        """With the number of crops."""
        return super().provenance() | {"crops": self.crops}
