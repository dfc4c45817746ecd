"""Reduction by the mean of square blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from i2sb_plugin.degradations.base import DEGRADATIONS, Degraded, check_divisible, check_scale

__all__ = ["PoolReduction"]


@DEGRADATIONS.register("sr4x_pool")
@dataclass(frozen=True)
class PoolReduction:
    """Mean of every ``scale`` x ``scale`` block (I2SB, 2302.05872, super-resolution 4x "pool").

    Takes C,H,W or B,C,H,W, returns ``lq`` of C,H/scale,W/scale in the range of the input.
    Raises InputError if ``scale`` does not divide the size.
    """

    scale: int = 4

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Reduce ``image``; nothing is drawn."""
        check_divisible(image, self.scale)
        return Degraded(F.avg_pool2d(image, self.scale))
