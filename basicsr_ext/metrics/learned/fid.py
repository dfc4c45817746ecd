"""FID, by torch-fidelity, or by clean-fid in the mode of the I2SB paper."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Literal
from unittest import mock

import numpy as np
import torch

from basicsr_ext.metrics.base import METRICS
from basicsr_ext.metrics.learned.set_distance import ENOUGH, SetDistance

__all__ = ["FID", "frechet"]


def frechet(restored: np.ndarray, reference: np.ndarray) -> float:
    """Fréchet distance of features N,D and M,D float32, as torch-fidelity computes it."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(torch.from_numpy(part)) for part in (restored, reference)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


def _sqrtm(matrix: np.ndarray, disp: bool = True) -> Any:
    """scipy's root of a matrix, with the argument that clean-fid gives it and SciPy no longer takes."""
    from scipy import linalg

    root = linalg.sqrtm(matrix)
    return root if disp else (root, 0.0)


@METRICS.register("fid")
@dataclass
class FID(SetDistance):
    """Fréchet distance of Inception features between the restored images and the reference set; not a mean of images.

    Source: Heusel et al., NeurIPS 2017 (1706.08500).
    """

    mode: Literal["tensorflow", "legacy_pytorch"] = "tensorflow"  # that of torch-fidelity, or of clean-fid and I2SB
    layer: Literal[64, 192, 768, 2048] = 2048  # of Inception; a plain FID takes 2048
    reference: str | None = None  # folder of images; the ground truth of the data set if left out
    weights: str | None = None  # file of Inception, or folder that has it

    digits: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode == "legacy_pytorch" and self.layer != 2048:
            raise ValueError(f"layer is {self.layer}, but mode legacy_pytorch has 2048 alone; leave one of them out")

    @property
    def network(self) -> str:
        """Inception as the mode and the layer want it."""
        if self.mode == "legacy_pytorch":
            return "inception_pytorch"
        return "inception" if self.layer == 2048 else f"inception_{self.layer}"

    def distance(self, restored: np.ndarray, reference: np.ndarray) -> float:
        """The library's own distance."""
        if self.mode == "tensorflow":
            return frechet(restored, reference)
        from cleanfid import fid

        with mock.patch.object(fid, "linalg", SimpleNamespace(sqrtm=_sqrtm)):
            return float(fid.fid_from_feats(restored, reference))

    def notes(self) -> list[str]:
        """A warning of small sets."""
        if not self.records:
            return []
        count = min(len(self.records), self.reference_identity()["images"])
        if count >= ENOUGH:
            return []
        return [
            f"FID of {count} images mostly shows how few they are: it is biased below {ENOUGH}; "
            "use kid or patch_fid instead"
        ]

    def identity(self) -> dict[str, Any]:
        """With what the resizing is."""
        resize = "bilinear to 299, TensorFlow 1.x" if self.mode == "tensorflow" else "bilinear to 299, not antialiased"
        return super().identity() | {"resize": resize}
