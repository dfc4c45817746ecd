"""Reduction by the mean of square blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

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

    Attributes:
        scale: size of the image divided by that of the result; it must divide the sides.

    """

    scale: int = 4
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Reduce ``image``; nothing is drawn."""
        return Degraded(self.forward(image))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Apply A: the means of the blocks of C,H,W or B,C,H,W."""
        check_divisible(x, self.scale)
        return F.avg_pool2d(x, self.scale)

    def adjoint(self, y: torch.Tensor, size: tuple[int, int], mask: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the transpose of A: spread each mean evenly over its block."""
        return self.pseudo_inverse(y, size) / self.scale**2

    def pseudo_inverse(self, y: torch.Tensor, size: tuple[int, int], mask: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the pseudo-inverse of A: repeat each mean over its block."""
        return y.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)
