"""Walks from the degraded image x1 down to the clean image x0, each a free function over a ``predict_x0`` callable.

A sampler takes ``predict_x0(xt: B,C,H,W, step: int) -> B,C,H,W``, calls it once for each step of the grid but the
last. Beside x1 it holds xt, one prediction and the noise of a step (``dbim`` of order 2 and 3 one and two predictions
more in the noise's place), whatever the number of steps. A new sampler is one function with ``@sampler``; its name is
then a value of the option ``val.sampler.type``, and keywords of its own (``eta``, ``order``) are options beside it.

Symbols of the family of Zheng et al. (DBIM, arXiv 2405.15885), in those of ``bridge.py``: ``w`` is the weight of x1 in
the mean of q(xt | x0, x1), ``c`` its standard deviation.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from i2sb_plugin.bridge import Bridge, Generators, standard_normal

__all__ = [
    "SAMPLERS",
    "SPACINGS",
    "ancestral",
    "dbim",
    "one_step",
    "ot_ode",
    "sampler",
    "space_indices",
    "step_grid",
]

PredictX0 = Callable[[Tensor, int], Tensor]
Callback = Callable[[int, Tensor, Tensor], None]

SAMPLERS: dict[str, Callable[..., Tensor]] = {}


def sampler(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make ``function`` selectable by its name."""
    SAMPLERS[function.__name__] = function
    return function


def space_indices(steps: int, count: int) -> list[int]:
    """Spread ``count`` indices evenly over ``range(steps)``, both ends included, halves rounded to even.

    The spacing is added up in float64 step by step, as the release does; other ways to round differ from it.

    Raises:
        ValueError: not 0 <= count <= steps.
    """
    if not 0 <= count <= steps:
        raise ValueError(f"{count} indices asked of {steps}; allowed: 0 to {steps}")
    stride = (steps - 1) / (count - 1) if count > 1 else 1.0
    indices, position = [], 0.0
    for _ in range(count):
        indices.append(round(position))
        position += stride
    return indices


def _log_snr_times(bridge: Bridge, u: Tensor) -> Tensor:
    """Times at which log((1 - w) / c) is spread evenly; the infinite values at both ends are cut off."""
    inner = slice(1, -1)
    level = (bridge.weight_x0[inner] / bridge.marginal_std[inner]).log()
    wanted = level[0] + (level[-1] - level[0]) * u
    nodes = torch.searchsorted(-level, -wanted).clamp_(0, len(level) - 1) + 1
    nodes[u <= 0], nodes[u >= 1] = 0, bridge.last_step
    return nodes / bridge.last_step


# How the nodes of a walk are spread: from u, even in [0, 1] with 0 at x0, to times.
SPACINGS: dict[str, Callable[[Bridge, Tensor], Tensor]] = {
    "uniform": lambda bridge, u: u,
    "quadratic": lambda bridge, u: u**2,  # denser towards x0
    "cosine": lambda bridge, u: (1 - torch.cos(torch.pi * u)) / 2,  # denser at both ends
    "log_snr": _log_snr_times,
}


def step_grid(bridge: Bridge, nfe: int, spacing: str = "uniform", first: float | None = None) -> list[int]:
    """The nodes that a restoration of ``nfe`` network evaluations visits, from x1 down to x0.

    Args:
        bridge: the grid of nodes.
        nfe: network evaluations, 1 to ``bridge.last_step``.
        spacing: a name in :data:`SPACINGS`; ``uniform`` is the release's.
        first: time in (0, 1) of the first node after x1, such as 0.999 for a short stochastic first step; None leaves
            it to ``spacing``. It needs ``nfe`` of 2 or more.

    Raises:
        ValueError: ``nfe``, ``spacing`` or ``first`` is not allowed.
    """
    if not 1 <= nfe <= bridge.last_step:
        raise ValueError(f"nfe is {nfe}; this bridge allows 1 to {bridge.last_step}")
    if spacing not in SPACINGS:
        raise ValueError(f"spacing is {spacing!r}; it must be one of {', '.join(SPACINGS)}")
    if first is None:
        return _nodes(bridge, nfe, spacing, bridge.last_step)
    if not 0 < first < 1 or nfe < 2:
        raise ValueError(f"first is {first} at nfe {nfe}; it must be a time in (0, 1), and nfe 2 or more")
    top = min(max(round(first * bridge.last_step), nfe - 1), bridge.last_step - 1)
    return [bridge.last_step, *_nodes(bridge, nfe - 1, spacing, top)]


def _nodes(bridge: Bridge, count: int, spacing: str, top: int) -> list[int]:
    """``count`` + 1 distinct nodes that fall from ``top`` to 0."""
    if spacing == "uniform":
        return space_indices(top + 1, count + 1)[::-1]
    u = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    nodes = (SPACINGS[spacing](bridge, u) * top).round().long().tolist()
    for k in range(1, count + 1):  # rounding may merge neighbours: push upwards, then back below the top
        nodes[k] = max(nodes[k], nodes[k - 1] + 1)
    for k in range(count, -1, -1):
        nodes[k] = min(nodes[k], top - (count - k))
    return nodes[::-1]


@sampler
def ancestral(
    predict_x0: PredictX0,
    bridge: Bridge,
    x1: Tensor,
    steps: Sequence[int],
    *,
    generator: Generators = None,
    clip: bool = False,
    mask: Tensor | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Draw each node from the posterior, given the predicted x0 (I2SB algorithm 2).

    Args:
        predict_x0: see the head of this file.
        bridge: its posterior is walked; with ``bridge.ot_ode`` no noise is drawn.
        x1: degraded images, B,C,H,W in [-1, 1]; not changed.
        steps: falling nodes, such as :func:`step_grid` gives.
        generator: one, or one for each image (see :func:`i2sb_plugin.bridge.standard_normal`).
        clip: clamp each prediction of x0 to [-1, 1].
        mask: B,1,H,W, 1 in the hole of an inpainting task: what is outside it is known and is put back after each
            step, with the noise of its node, as the release does.
        callback: called as ``callback(step, xt, x0)`` after each step with the node reached, the point there and the
            prediction it was drawn from; it must copy what it wants to keep.

    Returns:
        B,C,H,W: the point at the last node; on one clock, that is the last prediction of x0.

    Raises:
        ValueError: ``steps`` does not fall, or leaves the bridge.
    """
    walk = [(step, previous, *bridge.posterior(step, previous)) for step, previous in itertools.pairwise(steps)]
    hole = None if mask is None else mask.bool()
    xt = x1  # and never written to while it is: each step makes a point of its own
    for step, previous, weight_x0, _, std in walk:
        x0 = _predict(predict_x0, xt, step, clip)
        xt = xt.lerp(x0, weight_x0)
        if std > 0 and previous > 0:
            xt.add_(standard_normal(xt, generator), alpha=std)
        if hole is not None:
            xt = torch.where(hole, xt, _known(bridge, x1, previous, generator), out=_reused(xt))
        if callback is not None:
            callback(previous, xt, x0)
        del x0  # before the next prediction takes memory of its own
    return xt


def _predict(predict_x0: PredictX0, xt: Tensor, step: int, clip: bool) -> Tensor:
    x0 = predict_x0(xt, step)
    return x0.clamp(-1, 1) if clip else x0


def _known(bridge: Bridge, x1: Tensor, step: int, generator: Generators) -> Tensor:
    """What lies outside the hole, x0 = x1, as it looks at ``step``: with the noise of the marginal there."""
    std = float(bridge.marginal_std[step])
    if bridge.ot_ode or std == 0:
        return x1
    noise = standard_normal(x1, generator)
    return torch.add(x1, noise, alpha=std, out=_reused(noise))


def _reused(tensor: Tensor) -> Tensor | None:
    """The tensor, to be written to; none in a graph, which knows no such thing."""
    return None if torch.jit.is_tracing() else tensor


@sampler
def ot_ode(
    predict_x0: PredictX0,
    bridge: Bridge,
    x1: Tensor,
    steps: Sequence[int],
    *,
    generator: Generators = None,
    clip: bool = False,
    mask: Tensor | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Follow the posterior mean, without noise (I2SB section 3.1); arguments as in :func:`ancestral`."""
    still = replace(bridge, ot_ode=True)
    return ancestral(predict_x0, still, x1, steps, generator=generator, clip=clip, mask=mask, callback=callback)


@sampler
def one_step(
    predict_x0: PredictX0,
    bridge: Bridge,
    x1: Tensor,
    steps: Sequence[int],
    *,
    generator: Generators = None,
    clip: bool = False,
    mask: Tensor | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Predict x0 at x1 itself, whatever ``steps`` is: the fidelity mode; arguments as in :func:`ancestral`."""
    x0 = _keep_known(_predict(predict_x0, x1, steps[0], clip), x1, mask)
    if callback is not None:
        callback(0, x0, x0)
    return x0


def _keep_known(x0: Tensor, x1: Tensor, mask: Tensor | None) -> Tensor:
    return x0 if mask is None else torch.where(mask.bool(), x0, x1)


@sampler
def dbim(
    predict_x0: PredictX0,
    bridge: Bridge,
    x1: Tensor,
    steps: Sequence[int],
    *,
    generator: Generators = None,
    clip: bool = False,
    mask: Tensor | None = None,
    callback: Callback | None = None,
    eta: float = 0.0,
    order: int = 1,
    start: Tensor | None = None,
) -> Tensor:
    """Walk the family that shares the bridge's marginals (DBIM, arXiv 2405.15885).

    The first step draws from the marginal q(xt | x0, x1), the only choice there. After it ``eta`` = 0 is
    deterministic and ``eta`` = 1 the ancestral walk; ``order`` 2 and 3 extrapolate from the predictions before, at no
    further network evaluation. Other arguments as in :func:`ancestral`; outside the hole of ``mask`` each prediction
    is set to x1.

    Raises:
        ValueError: ``eta`` is not in [0, 1], ``order`` not 1, 2 or 3, or ``order`` above 1 with ``eta`` above 0.
    """
    if not 0 <= eta <= 1 or order not in (1, 2, 3) or (order > 1 and eta > 0):
        raise ValueError(f"eta is {eta} and order {order}; eta lies in [0, 1], order is 1, 2 or 3, above 1 at eta 0")
    c, w = bridge.marginal_std.tolist(), (1 - bridge.weight_x0).tolist()
    level = (bridge.weight_x0 / bridge.marginal_std).log().tolist()  # lambda, the clock of the high-order steps
    history: list[tuple[float, Tensor]] = []  # level and prediction, newest first
    xt = x1 if start is None else start.clone()  # x1 itself is never written to
    for step, previous in itertools.pairwise(steps):
        x0 = _keep_known(_predict(predict_x0, xt, step, clip), x1, mask)
        if previous == 0:
            xt = x0
        elif step == steps[0] and start is None:
            xt = torch.lerp(x0, x1, w[previous]).add_(standard_normal(x1, generator), alpha=c[previous])
        else:
            omega = eta * min(bridge.posterior_std(step, previous), c[previous])
            kappa = (c[previous] ** 2 - omega**2) ** 0.5 / c[step]
            history = [(level[step], x0), *history]
            xt.mul_(kappa).add_(x1, alpha=w[previous] - kappa * w[step])
            _add_extrapolated(xt, history, level[previous], 1 - w[previous] - kappa * (1 - w[step]))
            if omega > 0:
                xt.add_(standard_normal(xt, generator), alpha=omega)
            history = history[: order - 1]
        if callback is not None:
            callback(previous, xt, x0)
        del x0  # before the next prediction takes memory of its own
    return xt


def _add_extrapolated(xt: Tensor, history: list[tuple[float, Tensor]], target: float, weight: float) -> None:
    for share, (_, prediction) in zip(_extrapolation([level for level, _ in history], target), history):
        xt.add_(prediction, alpha=share * weight)


def _extrapolation(levels: list[float], target: float) -> list[float]:
    """Weights of the predictions at ``levels``, newest first, in a step to ``target`` (DBIM section 4.3).

    One prediction makes the step one of first order; with two or three the integral over the step takes a straight line
    or a parabola through them. They add up to 1.
    """
    if len(levels) == 1:
        return [1.0]
    h, h1 = target - levels[0], levels[0] - levels[1]
    first = -math.expm1(-h)
    straight, bent = (h - first) / first, (h * h / 2 - h + first) / first
    if len(levels) == 2:
        return [1 + straight / h1, -straight / h1]
    h2 = levels[1] - levels[2]
    new = (straight * (2 * h1 + h2) + 2 * bent) / (h1 + h2)  # of the slopes between the predictions
    old = -(straight * h1 + 2 * bent) / (h1 + h2)
    return [1 + new / h1, old / h2 - new / h1, -old / h2]
