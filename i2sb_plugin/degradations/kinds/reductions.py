"""Reductions of the size: antialiased bicubic, and the mean of square blocks."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch.nn import functional as F

from i2sb_plugin.degradations.base import DEGRADATIONS, Degraded, check_divisible, check_scale

__all__ = ["BicubicReduction", "PoolReduction"]


@dataclass(frozen=True)
class _Reduction(ABC):
    """What both reductions share: C,H,W or B,C,H,W become ``scale`` times smaller, and nothing is drawn."""

    scale: int = 4
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Reduce ``image``."""
        return Degraded(self.forward(image))

    @abstractmethod
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Apply A."""


@DEGRADATIONS.register("sr4x_bicubic")
@dataclass(frozen=True)
class BicubicReduction(_Reduction):
    """Cubic kernel (a = -0.5) widened ``scale`` times, then every ``scale``-th sample (I2SB, 2302.05872, "bicubic").

    The same operator as MATLAB's ``imresize(image, 1/scale)``: weights that sum to one, edges mirrored with the edge
    repeated. Takes C,H,W or B,C,H,W, returns ``lq`` of C,H/scale,W/scale, which may leave the range of the input
    where edges overshoot. Raises InputError if ``scale`` does not divide the size.

    Attributes:
        scale: size of the image divided by that of the result.

    """

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Apply A to C,H,W or B,C,H,W."""
        check_divisible(x, self.scale)
        rows, columns = self._axes(_reduction, x, (x.shape[-2], x.shape[-1]))
        return rows @ x @ columns.T

    def adjoint(self, y: torch.Tensor, size: tuple[int, int], mask: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the transpose of A."""
        rows, columns = self._axes(_reduction, y, size)
        return rows.T @ y @ columns

    def pseudo_inverse(self, y: torch.Tensor, size: tuple[int, int], mask: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the pseudo-inverse of A: the smallest image that A reduces to ``y`` exactly."""
        rows, columns = self._axes(_enlargement, y, size)
        return rows @ y @ columns.T

    def _axes(
        self, matrix: Callable[..., torch.Tensor], like: torch.Tensor, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows, columns = (matrix(side, self.scale, like.dtype, like.device) for side in size)
        return rows, columns


@lru_cache(maxsize=16)
def _reduction(size: int, scale: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Matrix of size/scale x size that reduces one axis: for crops a product is far faster than a convolution."""
    taps, pixels = _taps(scale), _mirrored(size, scale)
    matrix = torch.zeros(size // scale, size, dtype=torch.float64)
    for row, start in zip(matrix, range(0, size, scale)):
        row.index_add_(0, pixels[start : start + len(taps)], taps)
    return matrix.to(device, dtype)


@lru_cache(maxsize=16)
def _enlargement(size: int, scale: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Pseudo-inverse of :func:`_reduction`; its smallest singular value is far from 0."""
    matrix = _reduction(size, scale, torch.float64, torch.device("cpu"))
    return torch.linalg.solve(matrix @ matrix.T, matrix).T.to(device, dtype)


def _taps(scale: int) -> torch.Tensor:
    """Weights in float64 of the 4*scale pixels (one less for odd scales) below the cubic kernel; their sum is one."""
    count = 4 * scale - scale % 2
    distance = (torch.arange(count, dtype=torch.float64) - (count - 1) / 2).abs() / scale
    inner = 1.5 * distance**3 - 2.5 * distance**2 + 1
    outer = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = torch.where(distance <= 1, inner, torch.where(distance < 2, outer, torch.zeros_like(distance)))
    return weights / weights.sum()


def _mirrored(size: int, scale: int) -> torch.Tensor:
    """Indices of ``size`` pixels with the border that the kernel needs, mirrored with the edge repeated."""
    border = (3 * scale - scale % 2) // 2
    index = torch.arange(-border, size + border) % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


@DEGRADATIONS.register("sr4x_pool")
@dataclass(frozen=True)
class PoolReduction(_Reduction):
    """Mean of every ``scale`` x ``scale`` block (I2SB, 2302.05872, super-resolution 4x "pool").

    Takes C,H,W or B,C,H,W, returns ``lq`` of C,H/scale,W/scale in the range of the input.
    Raises InputError if ``scale`` does not divide the size.

    Attributes:
        scale: size of the image divided by that of the result; it must divide the sides.

    """

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
