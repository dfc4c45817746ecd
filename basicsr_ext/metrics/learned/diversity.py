"""How much the draws of one image differ."""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from basicsr_ext.common.errors import InputError
from basicsr_ext.metrics.base import METRICS, Metric, Sample
from basicsr_ext.metrics.learned.lpips import LPIPS, lpips_distance


@METRICS.register("diversity")
@dataclass
class Diversity(Metric):
    """Spread over seeds: the standard deviation in grey levels of 255, or the mean LPIPS of all pairs of draws."""

    by: Literal["std", "lpips"] = "std"  # what is taken
    net: Literal["alex", "vgg", "squeeze"] = "alex"  # of LPIPS
    weights: str | None = None  # file of LPIPS' trunk, or folder that has it

    higher_is_better = True
    needs = frozenset({"draws"})
    extra = "perceptual"

    def __post_init__(self) -> None:
        if self.by == "lpips":
            self.packages, self.files = LPIPS.packages, LPIPS(self.net).files

    def measure(self, sample: Sample) -> float:
        """The spread of one image; raises InputError for fewer than two draws."""
        draws = sample.draws or ()
        if len(draws) < 2:
            raise InputError(f"diversity needs at least 2 draws, but {sample.name} has {len(draws)}")
        if self.by == "std":
            return float(np.stack(draws).astype(np.float64).std(axis=0, ddof=1).mean())
        pairs = list(itertools.combinations(draws, 2))
        return math.fsum(lpips_distance(self.net, *pair, self.weights) for pair in pairs) / len(pairs)
