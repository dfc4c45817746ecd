"""KID, by torch-fidelity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from basicsr_ext.common.errors import InputError
from basicsr_ext.metrics.base import METRICS
from basicsr_ext.metrics.learned.set_distance import SetDistance

__all__ = ["KID"]


@METRICS.register("kid")
@dataclass
class KID(SetDistance):
    """Squared maximum mean discrepancy of Inception features: unbiased, so small sets are no fault, merely uncertain.

    Source: Binkowski et al., ICLR 2018 (1801.01401).
    """

    subset_size: int | None = None  # images in a subset; the smaller set, at most 1000, if left out
    subsets: int = 100  # how many are drawn and averaged
    layer: Literal[64, 192, 768, 2048] = 2048  # of Inception
    reference: str | None = None  # folder of images; the ground truth of the data set if left out
    weights: str | None = None  # file of Inception, or folder that has it

    digits: ClassVar[int] = 5

    @property
    def network(self) -> str:
        """Inception at the layer."""
        return "inception" if self.layer == 2048 else f"inception_{self.layer}"

    def distance(self, restored: np.ndarray, reference: np.ndarray) -> float:
        """The library's own distance, with its own seed."""
        from torch_fidelity.metric_kid import kid_features_to_metric

        count = min(len(restored), len(reference))
        size = min(1000, count) if self.subset_size is None else self.subset_size
        if not 2 <= size <= count:
            raise InputError(
                f"kid.subset_size is {size}, but the sets have {len(restored)} and {len(reference)} images; set it "
                f"from 2 to {count} or leave it out"
            )
        sets = (torch.from_numpy(part) for part in (restored, reference))
        found = kid_features_to_metric(*sets, kid_subsets=self.subsets, kid_subset_size=size, verbose=False)
        return float(found["kernel_inception_distance_mean"])
