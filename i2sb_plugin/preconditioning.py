"""What the network learns where it sees x1: the residual, scaled to unit variance.

With u the distance of xt from what it would be if x0 were x1, the bridge's marginal (eq. 11) and the diffusion's say

    u = b (x0 - x1) + c n,   n ~ N(0, 1)

with b the weight of x0 and c the standard deviation of all noise in xt. The best linear guess of the residual from u is
c_skip u; what it leaves has the standard deviation c_out. So, with v the mean square of x0 - x1 over the training set,

    x0 = x1 + c_skip u + c_out F(c_in u, x1, t)
    c_in = (b^2 v + c^2)^(-1/2),   c_skip = b v c_in^2,   c_out = sqrt(v) c c_in

and F has a target of unit variance at every node: near x0 it is eq. 12 with its sign changed, at x1, where u is 0, a
residual network with the factor sqrt(v).

Source: the derivation of EDM (Karras et al., arXiv 2206.00364, appendix B.6), for the residual of a bridge.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from i2sb_plugin.bridge import Bridge, pick
from i2sb_plugin.diffusion import Diffusion

__all__ = ["Direct", "Preconditioning"]


@dataclass(frozen=True)
class Direct:
    """What is done without preconditioning: the network is fed xt and learns the ``bridge``'s own target, eq. 12.

    The methods are those of :class:`Preconditioning`; x1 plays no part.
    """

    bridge: Bridge | Diffusion

    def network_input(self, xt: Tensor, x1: Tensor, step: Tensor) -> Tensor:
        """xt itself."""
        return xt

    def target(self, xt: Tensor, x0: Tensor, x1: Tensor, step: Tensor) -> Tensor:
        """What the bridge has its network learn."""
        return self.bridge.target(xt, x0, step)

    def x0_from(self, xt: Tensor, prediction: Tensor, x1: Tensor, step: Tensor) -> Tensor:
        """The clean image that a prediction stands for."""
        return self.bridge.x0_from(xt, prediction, step)


@dataclass(frozen=True)
class Preconditioning:
    """Scales of the network's input and output at each node; all coefficients are float64 on the CPU.

    Build it with :meth:`of_bridge` or :meth:`of_diffusion`.

    Attributes:
        weight_x0: b at each node.
        weight_x1: weight of x1 in u at each node, so that u = xt - weight_x1 * x1.
        noise_std: c at each node.
        residual_variance: v, the mean square of x0 - x1, both in [-1, 1].
    """

    weight_x0: Tensor
    weight_x1: Tensor
    noise_std: Tensor
    residual_variance: float

    def __post_init__(self) -> None:
        if not 0 < self.residual_variance < float("inf"):
            raise ValueError(f"residual_variance is {self.residual_variance}; it must be a number above 0")

    @classmethod
    def of_bridge(cls, bridge: Bridge, residual_variance: float, x1_noise: float = 0.0) -> Preconditioning:
        """Of a bridge whose start is x1 plus N(0, ``x1_noise``^2).

        Raises:
            ValueError: ``residual_variance`` is not above 0, or the bridge carries no noise (``ot_ode``): then xt and
                x1 give x0 away, and nothing is left to learn between the ends.
        """
        if bridge.ot_ode:
            raise ValueError("predicts is preconditioned, but ot_ode leaves out the noise that it is scaled by; "
                             "give ot_ode: false, with a small beta_min and beta_max for little noise")  # fmt: skip
        share = 1 - bridge.weight_x0  # of the start's own noise
        noise = (bridge.marginal_std.square() + (share * x1_noise).square()).sqrt()
        return cls(bridge.weight_x0, torch.ones_like(noise), noise, residual_variance)

    @classmethod
    def of_diffusion(cls, diffusion: Diffusion, residual_variance: float) -> Preconditioning:
        """Of a diffusion that sees x1, which is then told x0 - x1 as a bridge is; ValueError as above."""
        alpha = diffusion.weight_x0
        return cls(alpha, alpha, diffusion.marginal_std, residual_variance)

    @cached_property
    def c_in(self) -> Tensor:
        """Factor of u, the network's input; 0 at x1, where u is 0 unless the start has noise."""
        variance = self.weight_x0.square() * self.residual_variance + self.noise_std.square()
        return torch.where(variance > 0, variance.rsqrt(), 0.0)

    @cached_property
    def c_skip(self) -> Tensor:
        """Share of u that is taken for the residual."""
        return self.weight_x0 * self.residual_variance * self.c_in.square()

    @cached_property
    def c_out(self) -> Tensor:
        """Standard deviation of what the network has to add."""
        scale = torch.where(self.c_in > 0, self.noise_std * self.c_in, 1.0)
        return self.residual_variance**0.5 * scale

    def _distance(self, xt: Tensor, x1: Tensor, step: Tensor) -> Tensor:
        return torch.addcmul(xt, pick(self.weight_x1, step, xt), x1, value=-1)

    def network_input(self, xt: Tensor, x1: Tensor, step: Tensor) -> Tensor:
        """What the network is fed in place of xt: c_in u, B,C,H,W.

        Args:
            xt: point of the bridge, B,C,H,W.
            x1: the degraded image without noise of its own, same shape, in [-1, 1].
            step: (B,) int64 on the CPU, a node for each image.
        """
        return self._distance(xt, x1, step).mul_(pick(self.c_in, step, xt))

    def target(self, xt: Tensor, x0: Tensor, x1: Tensor, step: Tensor) -> Tensor:
        """What the network learns, (x0 - x1 - c_skip u) / c_out, B,C,H,W; not defined at node 0."""
        guess = self._distance(xt, x1, step) * pick(self.c_skip, step, xt)
        return (x0 - x1 - guess) / pick(self.c_out, step, xt)

    def x0_from(self, xt: Tensor, prediction: Tensor, x1: Tensor, step: Tensor) -> Tensor:
        """The clean image that a prediction of the network stands for: the inverse of :meth:`target`."""
        guess = self._distance(xt, x1, step).mul_(pick(self.c_skip, step, xt)).add_(x1)
        return guess.addcmul_(pick(self.c_out, step, xt), prediction)
