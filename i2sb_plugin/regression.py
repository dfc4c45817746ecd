"""Plain regression from the degraded image to the clean one, on the terms of ``bridge.py``: the bridge's twin.

It is the bridge's last step alone: the network sees x1 and the time of x1, and one evaluation restores. What it learns
differs from eq. 12 there by the factor -sigma, so that an error of the network is one of x0.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from i2sb_plugin.bridge import Generators

__all__ = ["Regression"]


@dataclass(frozen=True)
class Regression:
    """x0 = x1 + network(x1, 1000): one node above x0, no noise.

    Attributes:
        first_step: the node of x1, the one that training sees.
        last_step: the same.
        sigma: the scale of the target at each node, 1, for losses that are weighted by it.
    """

    first_step: ClassVar[int] = 1
    last_step: ClassVar[int] = 1
    sigma: ClassVar[Tensor] = torch.ones(2, dtype=torch.float64)

    def time(self, step: Tensor) -> Tensor:
        """What the network is fed at ``step`` (B, int64): B, float32, 1000, as at the end of the bridge."""
        return 1000.0 * step.float()

    def sample_step(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """The node of x1 for each image, (batch,) int64 on the CPU; nothing is drawn."""
        return torch.ones(batch, dtype=torch.int64)

    def sample_xt(self, x0: Tensor, x1: Tensor, step: Tensor, generator: Generators = None) -> Tensor:
        """x1 itself, B,C,H,W in [-1, 1]; nothing is drawn."""
        return x1

    def target(self, xt: Tensor, x0: Tensor, step: Tensor) -> Tensor:
        """What the network learns: the residual x0 - x1, shaped as x0."""
        return x0 - xt

    def x0_from(self, xt: Tensor, prediction: Tensor, step: Tensor) -> Tensor:
        """The clean image that a prediction of the network stands for: the inverse of :meth:`target`."""
        return xt + prediction
