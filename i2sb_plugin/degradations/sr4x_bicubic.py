"""Antialiased bicubic reduction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional as F

from i2sb_plugin.degradations.base import DEGRADATIONS, Degraded, check_divisible, check_scale

__all__ = ["BicubicReduction"]


@DEGRADATIONS.register("sr4x_bicubic")
@dataclass(frozen=True)
class BicubicReduction:
    """Cubic kernel (a = -0.5) widened ``scale`` times, then every ``scale``-th sample (I2SB, 2302.05872, "bicubic").

    The same operator as MATLAB's ``imresize(image, 1/scale)``: weights that sum to one, edges mirrored with the edge
    repeated. Takes C,H,W or B,C,H,W, returns ``lq`` of C,H/scale,W/scale, which may leave the range of the input
    where edges overshoot. Raises InputError if ``scale`` does not divide the size.
    """

    scale: int = 4

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Reduce ``image``; nothing is drawn."""
        check_divisible(image, self.scale)
        if self.scale == 1:
            return Degraded(image.clone())
        taps = _taps(self.scale).to(image)
        height, width = image.shape[-2:]
        planes = image.reshape(-1, 1, height, width)
        planes = planes[..., _mirrored(height, self.scale), :]
        planes = F.conv2d(planes, taps.view(1, 1, -1, 1), stride=(self.scale, 1))
        planes = planes[..., _mirrored(width, self.scale)]
        planes = F.conv2d(planes, taps.view(1, 1, 1, -1), stride=(1, self.scale))
        return Degraded(planes.reshape(*image.shape[:-2], height // self.scale, width // self.scale))


@lru_cache(maxsize=16)
def _taps(scale: int) -> torch.Tensor:
    """Weights in float64 of the 4*scale pixels (one less for odd scales) below the cubic kernel; their sum is one."""
    count = 4 * scale - scale % 2
    distance = (torch.arange(count, dtype=torch.float64) - (count - 1) / 2).abs() / scale
    inner = 1.5 * distance**3 - 2.5 * distance**2 + 1
    outer = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = torch.where(distance <= 1, inner, torch.where(distance < 2, outer, torch.zeros_like(distance)))
    return weights / weights.sum()


@lru_cache(maxsize=64)
def _mirrored(size: int, scale: int) -> torch.Tensor:
    """Indices of ``size`` pixels with the border that the kernel needs, mirrored with the edge repeated."""
    border = (3 * scale - scale % 2) // 2
    index = torch.arange(-border, size + border) % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)
