"""A diffusion from the clean image to pure noise, on the terms of ``bridge.py``: what the bridge is compared with.

A conditional diffusion model (Palette, arXiv 2111.05826; SR3, arXiv 2104.07636) starts at noise and sees the degraded
image beside xt; the bridge starts at the degraded image itself. Everything else is the same here: the network, the
grid of nodes, and the walk, :func:`i2sb_plugin.samplers.dbim` with x1 = 0, which then is DDIM (arXiv 2010.02502) at
order 1 and the exponential multistep solver of DPM-Solver++ (arXiv 2211.01095) at order 2 and 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from i2sb_plugin.bridge import Generators, pick, standard_normal

__all__ = ["PREDICTIONS", "Diffusion"]

PREDICTIONS = ("v", "eps", "x0")
BETA_MIN, BETA_MAX = 0.1, 20.0  # rates at both ends (arXiv 2011.13456, appendix C); DDPM's of 1,000 steps


@dataclass(frozen=True)
class Diffusion:
    """xt = alpha x0 + sigma eps on a grid of nodes, alpha^2 + sigma^2 = 1; node 0 is x0, the last one all but noise.

    Build it with :meth:`variance_preserving`. All coefficients are float64 on the CPU.

    Attributes:
        weight_x0: alpha at each node, falling from 1.
        marginal_std: sigma at each node, rising from 0.
        predicts: what the network learns: ``v`` = alpha eps - sigma x0 (arXiv 2202.00512), ``eps`` or ``x0``.
    """

    weight_x0: Tensor
    marginal_std: Tensor
    predicts: str = "v"

    @classmethod
    def variance_preserving(cls, steps: int = 1000, predicts: str = "v") -> Diffusion:
        """Nodes 0..steps at t = node / steps; the noise rate rises linearly with t (arXiv 2011.13456, eq. 32).

        Raises:
            ValueError: ``steps`` < 1, or ``predicts`` is not one of :data:`PREDICTIONS`.
        """
        if steps < 1:
            raise ValueError(f"diffusion.steps is {steps}; it must be a whole number from 1")
        if predicts not in PREDICTIONS:
            raise ValueError(f"diffusion.predicts is {predicts!r}; it must be one of {', '.join(PREDICTIONS)}")
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        log_alpha = -(BETA_MIN * t + (BETA_MAX - BETA_MIN) * t**2 / 2) / 2
        return cls(log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt(), predicts)

    @property
    def last_step(self) -> int:
        """The node of noise."""
        return len(self.weight_x0) - 1

    @property
    def first_step(self) -> int:
        """The lowest node that training draws; node 0 is x0 itself."""
        return 1

    @property
    def sigma(self) -> Tensor:
        """For losses that are weighted by it, as by the bridge's sigma."""
        return self.marginal_std

    @cached_property
    def network_time(self) -> Tensor:
        """What the network is fed at each node, in [0, 1000]."""
        return torch.linspace(0, 1000, self.last_step + 1, dtype=torch.float64)

    def time(self, step: Tensor) -> Tensor:
        """What the network is fed at ``step`` (B, int64, CPU): B, float32, in (0, 1000]."""
        return self.network_time[step].float()

    def sample_step(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw training steps, uniform over the nodes but x0: (batch,) int64 on the CPU."""
        return torch.randint(self.first_step, self.last_step + 1, (batch,), generator=generator)

    def sample_xt(self, x0: Tensor, x1: Tensor | None, step: Tensor, generator: Generators = None) -> Tensor:
        """Draw xt = alpha x0 + sigma eps, eps ~ N(0, 1).

        Args:
            x0: B,C,H,W in [-1, 1].
            x1: not looked at, since a diffusion ends at noise; it stands here as it does for the bridge.
            step: (B,) int64, a node for each image.
            generator: see :func:`i2sb_plugin.bridge.standard_normal`.

        Returns:
            xt, same shape as x0.
        """
        noise = standard_normal(x0, generator)
        return (pick(self.weight_x0, step, x0) * x0).addcmul_(pick(self.marginal_std, step, x0), noise)

    def target(self, xt: Tensor, x0: Tensor, step: Tensor) -> Tensor:
        """What the network learns: eps = (xt - alpha x0) / sigma, v = (alpha xt - x0) / sigma, or x0; shaped as x0."""
        if self.predicts == "x0":
            return x0
        alpha, sigma = pick(self.weight_x0, step, xt), pick(self.marginal_std, step, xt)
        return (xt - alpha * x0) / sigma if self.predicts == "eps" else (alpha * xt - x0) / sigma

    def x0_from(self, xt: Tensor, prediction: Tensor, step: Tensor) -> Tensor:
        """The clean image that a prediction of the network stands for: the inverse of :meth:`target`."""
        if self.predicts == "x0":
            return prediction
        alpha, sigma = pick(self.weight_x0, step, xt), pick(self.marginal_std, step, xt)
        if self.predicts == "eps":
            return (xt - sigma * prediction) / alpha
        return alpha * xt - sigma * prediction

    def posterior_std(self, step: int, previous: int) -> float:
        """Standard deviation of p(x_previous | x0, x_step), DDPM's (arXiv 2006.11239, eq. 7)."""
        carried = (
            self.weight_x0[step] * self.marginal_std[previous] / self.weight_x0[previous] / self.marginal_std[step]
        )
        return float(self.marginal_std[previous] * (1 - carried**2).clamp_min(0).sqrt())
