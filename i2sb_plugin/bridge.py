"""The bridge between a clean image and its degraded version, in the order of the paper (I2SB, arXiv 2302.05872).

===========  =================================================================================================
x0           clean image, B,C,H,W, range [-1, 1]
x1           degraded image, same shape and range
xt           a point of the bridge between them
step         integer index of a node; 0 is the node nearest to x0, ``bridge.last_step`` the one nearest to x1
t            time, float in [0, 1]: 0 at x0, 1 at x1; the network is fed ``1000 * t``
sigma        standard deviation gathered from x0 up to a node:  sigma^2     = integral of beta from 0 to t
sigma_bar    standard deviation gathered from x1 down to it:    sigma_bar^2 = integral of beta from t to 1
nfe          number of network evaluations of one restoration
ot_ode       the noise-free limit of the bridge (section 3.1): the same means, no noise
===========  =================================================================================================

All coefficients are float64 on the CPU and are cast where they meet an image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["RELEASED_BETA_MIN", "RELEASED_TIMES", "Bridge", "pick", "sent", "standard_normal", "variance_at"]

Generators = torch.Generator | list[torch.Generator] | Callable[[Tensor], Tensor] | None

RELEASED_BETA_MIN = 0.1  # beta(0) of the release: 1e-4 per step, 1,000 steps
RELEASED_TIMES = (1e-4, 1.0)  # t0 and T of the release: what its network is fed, divided by the number of steps


def variance_at(t: Tensor, beta_max: float, beta_min: float = RELEASED_BETA_MIN) -> Tensor:
    """Variance that the bridge has gathered from x0 up to time ``t``.

    ``beta(t) = r(t)^2`` with ``r`` rising linearly from ``sqrt(beta_min)`` towards ``sqrt(beta_max)`` until t = 1/2
    and falling back in mirror image; this is its integral in closed form.

    Args:
        t: times in [0, 1], float64, any shape.
        beta_max: the rate that ``r^2`` would reach at t = 1 without the mirror, > 0, in variance per unit of time.
        beta_min: the rate at both ends, > 0.

    Returns:
        sigma^2(t), same shape; 0 at t = 0, the total variance at t = 1.

    Source: I2SB section 4 (symmetric schedule), stated in continuous time.
    """
    start, slope = beta_min**0.5, beta_max**0.5 - beta_min**0.5

    def rising(s: Tensor) -> Tensor:  # integral of (start + slope * u)^2 over u in [0, s]
        return s * (start**2 + start * slope * s + slope**2 * s**2 / 3)

    total = 2 * rising(torch.tensor(0.5, dtype=t.dtype))
    return torch.where(t <= 0.5, rising(t), total - rising(1 - t))


def standard_normal(like: Tensor, generator: Generators = None) -> Tensor:
    """Draw N(0, 1) noise of the shape, type and device of ``like``.

    Args:
        like: B,C,H,W.
        generator: one generator for the whole batch, or a list with one for each image, so that an image gets the
            same noise alone and inside a batch; CPU generators serve any device. A function is given ``like`` and gives
            the noise itself.

    Raises:
        ValueError: the list's length is not the batch size.
    """
    if callable(generator):
        return generator(like)
    noise = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    if not isinstance(generator, list):
        return _draw(noise, generator)
    if len(generator) != len(like):
        raise ValueError(f"generator is a list of {len(generator)} but the batch has {len(like)} images")
    for image, own in zip(noise, generator):
        _draw(image, own)
    return noise


def _draw(image: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is None or generator.device == image.device:
        return image.normal_(generator=generator)
    return image.copy_(sent(torch.randn(image.shape, generator=generator, dtype=image.dtype), image.device))


def sent(values: Tensor, device: torch.device) -> Tensor:
    """``values`` of the CPU on ``device``; a GPU is not waited for, so that it always has work ahead of it.

    A plain copy to a GPU first waits until everything that was asked of it is done; one from page-locked memory queues.
    """
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def pick(coefficient: Tensor, step: Tensor, image: Tensor) -> Tensor:
    """The coefficient at ``step`` (B, int64, CPU) for each image of the batch, shaped B,1,1,1 in the image's type."""
    return sent(coefficient[step].to(image.dtype), image.device).reshape(-1, *[1] * (image.dim() - 1))


@dataclass(frozen=True)
class Bridge:
    """A bridge on a grid of nodes: marginal (eq. 11), target (eq. 12) and its inverse, posterior (eq. 4).

    Build it with :meth:`one_clock` (exact at both ends, the default) or :meth:`released` (the authors' grid).

    Attributes:
        variance: sigma^2 at each node, float64, rising.
        variance_bar: sigma_bar^2 at each node, float64, falling.
        network_time: what the network is fed at each node, float64; from 0 to 1000 on one clock.
        first_step: the lowest node that training draws; on one clock node 0 is x0 itself and has no target.
        ot_ode: leave out the noise (section 3.1).
        predicts: what the network learns: ``eps``, eq. 12, or ``x0`` itself.
        x1_share: share of the training steps that are put to x1, in [0, 1]; not the paper's.
        trained_steps: the nodes that training draws; all from ``first_step`` where there are none. Not the paper's.
    """

    variance: Tensor
    variance_bar: Tensor
    network_time: Tensor
    first_step: int
    ot_ode: bool = False
    predicts: str = "eps"
    x1_share: float = 0.0
    trained_steps: tuple[int, ...] = ()

    @classmethod
    def one_clock(
        cls,
        steps: int = 1000,
        beta_max: float = 0.3,
        ot_ode: bool = False,
        predicts: str = "eps",
        beta_min: float = RELEASED_BETA_MIN,
    ) -> Bridge:
        """Nodes 0..steps at t = node / steps; sigma^2 + sigma_bar^2 is the total variance at every node.

        The total variance depends on ``beta_min`` and ``beta_max`` alone (0.141 for 0.1 and 0.3), not on ``steps``.

        Raises:
            ValueError: ``steps`` < 1, ``beta_min`` <= 0 or ``beta_max`` <= 0.
        """
        _check(steps >= 1, "steps", steps, "a whole number from 1")
        _check(beta_max > 0, "beta_max", beta_max, "a number above 0")
        _check(beta_min > 0, "beta_min", beta_min, "a number above 0")
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        variance = variance_at(t, beta_max, beta_min)
        return cls(variance, variance[-1] - variance, 1000 * t, 1, ot_ode, predicts)

    @classmethod
    def released(
        cls,
        steps: int = 1000,
        beta_max: float = 0.3,
        ot_ode: bool = False,
        predicts: str = "eps",
        beta_min: float = RELEASED_BETA_MIN,
        t0: float = RELEASED_TIMES[0],
        T: float = RELEASED_TIMES[1],
    ) -> Bridge:
        """The grid of the authors' release, node for node, for weights that were trained on it.

        It counts beta_n on both sides of node n, starts at sigma = 0.01 instead of 0, and its total variance depends
        on ``steps``; :meth:`one_clock` has none of these quirks. ``t0`` and ``T`` change what the network is fed, from
        ``steps * t0`` at the first node to ``steps * T`` at the last one, and nothing else.

        Raises:
            ValueError: ``steps`` is odd or < 2, ``beta_max`` <= 0, ``beta_min`` is not the release's, or ``t0`` and
                ``T`` do not rise from 0.
        """
        _check(beta_min == RELEASED_BETA_MIN, "beta_min", beta_min, "0.1 with schedule: released, which fixes it")
        _check(steps >= 2 and steps % 2 == 0, "steps", steps, "an even number from 2 with schedule: released")
        _check(beta_max > 0, "beta_max", beta_max, "a number above 0")
        _check(0 <= t0 < T < float("inf"), "t0", f"{t0} and bridge.T {T}", "from 0 and below bridge.T")
        ends = (1e-4**0.5, (beta_max / steps) ** 0.5)
        rising = torch.linspace(*ends, steps, dtype=torch.float64)[: steps // 2] ** 2
        beta = torch.cat([rising, rising.flip(0)])
        network_time = torch.linspace(t0, T, steps, dtype=torch.float64) * steps
        return cls(beta.cumsum(0), beta.flip(0).cumsum(0).flip(0), network_time, 0, ot_ode, predicts)

    @property
    def last_step(self) -> int:
        """The node at x1."""
        return len(self.variance) - 1

    @cached_property
    def sigma(self) -> Tensor:
        """sigma at each node, float64."""
        return self.variance.sqrt()

    @cached_property
    def weight_x0(self) -> Tensor:
        """Weight of x0 in the mean of q(xt | x0, x1), eq. 11; the weight of x1 is one minus it."""
        return self.variance_bar / (self.variance + self.variance_bar)

    @cached_property
    def marginal_std(self) -> Tensor:
        """Standard deviation of q(xt | x0, x1), eq. 11: sigma * sigma_bar / sqrt(sigma^2 + sigma_bar^2)."""
        return (self.variance * self.variance_bar / (self.variance + self.variance_bar)).sqrt()

    @cached_property
    def _trained_nodes(self) -> Tensor:
        return torch.tensor(self.trained_steps or range(self.first_step, self.last_step + 1))

    def time(self, step: Tensor) -> Tensor:
        """What the network is fed at ``step`` (B, int64, CPU): B, float32."""
        return self.network_time[step].float()

    def sample_step(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw training steps: (batch,) int64 on the CPU.

        They are uniform over the nodes that are trained; with the probability ``x1_share`` a step is put to the node
        at x1 instead.
        """
        nodes = self._trained_nodes
        step = nodes[torch.randint(len(nodes), (batch,), generator=generator)]
        if self.x1_share:
            step[torch.rand(batch, generator=generator) < self.x1_share] = self.last_step
        return step

    def sample_xt(self, x0: Tensor, x1: Tensor, step: Tensor, generator: Generators = None) -> Tensor:
        """Draw xt from q(xt | x0, x1), eq. 11.

        Args:
            x0: B,C,H,W in [-1, 1].
            x1: same shape.
            step: (B,) int64 on the CPU, a node for each image.
            generator: see :func:`standard_normal`.

        Returns:
            xt, same shape as x0; with ``ot_ode`` the mean alone, and nothing is drawn.
        """
        xt = torch.lerp(x1, x0, pick(self.weight_x0, step, x0))
        if self.ot_ode:
            return xt
        return xt.addcmul_(pick(self.marginal_std, step, x0), standard_normal(x0, generator))

    def target(self, xt: Tensor, x0: Tensor, step: Tensor) -> Tensor:
        """What the network learns to predict: (xt - x0) / sigma, eq. 12, or x0 where ``predicts`` says so."""
        if self.predicts == "x0":
            return x0
        return (xt - x0) / pick(self.sigma, step, xt)

    def x0_from(self, xt: Tensor, prediction: Tensor, step: Tensor) -> Tensor:
        """The clean image that a prediction of the network stands for: the inverse of :meth:`target`."""
        if self.predicts == "x0":
            return prediction
        return torch.addcmul(xt, pick(self.sigma, step, xt), prediction, value=-1)

    def posterior(self, step: int, previous: int) -> tuple[float, float, float]:
        """Coefficients of p(x_previous | x0, x_step), eq. 4, for ``previous`` < ``step``.

        Returns:
            weight of x0, weight of x_step, standard deviation (0 with ``ot_ode``).

        Raises:
            ValueError: not 0 <= previous < step <= last_step.
        """
        if not 0 <= previous < step <= self.last_step:
            raise ValueError(
                f"posterior goes from step {step} to {previous}; needs 0 <= previous < step <= {self.last_step}"
            )
        whole, below = float(self.variance[step]), float(self.variance[previous])
        std = 0.0 if self.ot_ode else self.posterior_std(step, previous)
        return (whole - below) / whole, below / whole, std

    def posterior_std(self, step: int, previous: int) -> float:
        """Standard deviation of p(x_previous | x0, x_step), whether or not ``ot_ode`` leaves it out."""
        whole, below = float(self.variance[step]), float(self.variance[previous])
        return (below * (whole - below) / whole) ** 0.5


def _check(holds: bool, name: str, got: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"bridge.{name} is {got}; it must be {allowed}")
