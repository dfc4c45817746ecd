"""One evaluation that ends anywhere on a bridge's walk: the student of a trained bridge, on the terms of ``bridge.py``.

The walk is the deterministic one, ``dbim`` at eta 0. With D the trained bridge's prediction of x0, z the noise of the
first step and a, b and c the weights of x1, x0 and noise in q(xt | x0, x1) (eq. 11), all its points have the form

    X_s = a_s x1 + b_s G_s + c_s z,   a = sigma^2 / S,   b = sigma_bar^2 / S,   c^2 = sigma^2 sigma_bar^2 / S

with S = sigma^2 + sigma_bar^2. One step, from node s to the next one s' below it, changes G alone:

    G_s' = kappa G_s + (1 - kappa) D(X_s, s)
    kappa = (c_s' b_s) / (c_s b_s') = sigma_s' sigma_bar_s / (sigma_s sigma_bar_s'),   where S is the same at all nodes

At x1 kappa is 0, and G = D(x1): the mean. At x0 G is the end of the walk: one sharp image. The student is a network
G(x1, z, s) that learns each G from the one before.

Source: OFTSR (arXiv 2412.09465), which does so for a rectified flow; written here for bridges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from i2sb_plugin.bridge import Bridge, pick
from i2sb_plugin.samplers import step_grid

__all__ = ["StudentWalk"]


@dataclass(frozen=True)
class StudentWalk:
    """The walk that a student learns, by places: 0 at x1, :attr:`last_place` at x0; build it with :meth:`of_bridge`.

    All coefficients are float64 on the CPU.

    Attributes:
        bridge: the teacher's.
        nodes: falling nodes from ``bridge.last_step`` to 0, one for each place.
    """

    bridge: Bridge
    nodes: tuple[int, ...]

    @classmethod
    def of_bridge(cls, bridge: Bridge, count: int, spacing: str = "uniform") -> StudentWalk:
        """The walk of ``count`` evaluations of the teacher.

        Args:
            bridge: the grid of nodes that the teacher was trained on.
            count: evaluations, 2 to ``bridge.last_step``.
            spacing: a name in :data:`i2sb_plugin.samplers.SPACINGS`.

        Raises:
            ValueError: ``count`` or ``spacing`` is not allowed, or the bridge carries no noise (``ot_ode``), without
                which there is nothing to draw.
        """
        if not 2 <= count <= bridge.last_step:
            raise ValueError(f"nodes is {count}; this bridge allows 2 to {bridge.last_step}")
        if bridge.ot_ode:
            raise ValueError("nodes asks for a walk with noise, but bridge.ot_ode leaves it out; set ot_ode: false")
        return cls(bridge, tuple(step_grid(bridge, count, spacing)))

    @property
    def last_place(self) -> int:
        """The place at x0, and the number of steps."""
        return len(self.nodes) - 1

    @cached_property
    def weight_x0(self) -> Tensor:
        """b at each place; 0 at x1, where the walk starts."""
        return _from_x1(self.bridge.weight_x0[list(self.nodes)])

    @cached_property
    def noise_std(self) -> Tensor:
        """c at each place; 0 at x1."""
        return _from_x1(self.bridge.marginal_std[list(self.nodes)])

    @cached_property
    def kappa(self) -> Tensor:
        """Share of G that the step from each place but the last keeps, in [0, 1]; 0 in the first step and the last."""
        b, c = self.weight_x0, self.noise_std
        kappa = (c[1:] * b[:-1]) / (c[:-1] * b[1:])
        kappa[0] = kappa[-1] = 0.0
        return kappa

    def time(self, position: Tensor) -> Tensor:
        """What the network is fed at a position: B, float32, in [0, 1000].

        Args:
            position: (B,) on the CPU, places or numbers between them, which lie on a straight line between their times.
        """
        times, position = self.bridge.network_time[list(self.nodes)], position.double()
        below = position.long().clamp(0, self.last_place - 1)
        return torch.lerp(times[below], times[below + 1], position - below).float()

    def position_of(self, dial: Tensor) -> Tensor:
        """The position that a dial stands for, same shape: 1 (fidelity) is x1, 0 (realism) is x0."""
        return (1 - dial.double()) * self.last_place

    def point(self, x1: Tensor, found: Tensor, noise: Tensor, place: Tensor) -> Tensor:
        """X_s, the point of the walk, B,C,H,W.

        Args:
            x1: where the walk starts, B,C,H,W in [-1, 1].
            found: G_s, same shape.
            noise: z, same shape, N(0, 1).
            place: (B,) int64 on the CPU, that of s.
        """
        mean = torch.lerp(x1, found, pick(self.weight_x0, place, x1))
        return mean.addcmul_(pick(self.noise_std, place, x1), noise)

    def target(self, found: Tensor, prediction: Tensor, place: Tensor) -> Tensor:
        """G_s', what the next place learns, B,C,H,W.

        Args:
            found: G_s, B,C,H,W.
            prediction: D(X_s, s), the teacher's prediction of x0, same shape.
            place: (B,) int64 on the CPU, that of s, below :attr:`last_place`.
        """
        return torch.lerp(prediction, found, pick(self.kappa, place, found))

    def trained_place(self, drawn: Tensor, anchor: float, x0_share: float, bias: float) -> Tensor:
        """The places that training learns, (B,) int64 from 0 to :attr:`last_place`.

        Args:
            drawn: (B, 2) uniform in [0, 1), on the CPU.
            anchor: share of the samples at x1, whose target is the teacher's prediction there.
            x0_share: share of the samples at x0.
            bias: 0 spreads the other samples evenly over the places below x1; above it they gather near x1, from where
                errors travel down, as u^(1 + bias) for a uniform u.
        """
        place = 1 + (drawn[:, 0] ** (1 + bias) * self.last_place).long().clamp_(max=self.last_place - 1)
        place = torch.where(drawn[:, 1] < anchor, 0, place)
        return torch.where(drawn[:, 1] >= 1 - x0_share, self.last_place, place)


def _from_x1(coefficient: Tensor) -> Tensor:
    """The coefficients of a walk whose first point is x1 itself, as on the released grid it is not by its node."""
    coefficient[0] = 0.0
    return coefficient
