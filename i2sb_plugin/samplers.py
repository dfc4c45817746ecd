"""Walks from the degraded image x1 down to the clean image x0, each a free function over a ``predict_x0`` callable.

A sampler takes ``predict_x0(xt: B,C,H,W, step: int) -> B,C,H,W``, calls it once for each step of the grid but the
last, and keeps one image batch of its own whatever the number of steps. A new sampler is one function with
``@sampler``; its name is then a value of the option ``val.sampler.type``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from i2sb_plugin.bridge import Bridge, Generators, standard_normal

__all__ = ["SAMPLERS", "ancestral", "ot_ode", "space_indices", "step_grid"]

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


def step_grid(bridge: Bridge, nfe: int) -> list[int]:
    """The nodes that a restoration of ``nfe`` network evaluations visits, from x1 down to x0.

    Raises:
        ValueError: ``nfe`` is below 1 or above the number of steps of the bridge.
    """
    if not 1 <= nfe <= bridge.last_step:
        raise ValueError(f"nfe is {nfe}; this bridge allows 1 to {bridge.last_step}")
    return space_indices(bridge.last_step + 1, nfe + 1)[::-1]


@sampler
def ancestral(
    predict_x0: PredictX0,
    bridge: Bridge,
    x1: Tensor,
    steps: Sequence[int],
    *,
    generator: Generators = None,
    clip: bool = False,
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
        callback: called as ``callback(step, xt, x0)`` after each step with the node reached, the point there and the
            prediction it was drawn from; it must copy what it wants to keep.

    Returns:
        B,C,H,W: the point at the last node; on one clock, that is the last prediction of x0.

    Raises:
        ValueError: ``steps`` does not fall, or leaves the bridge.
    """
    walk = [(step, previous, *bridge.posterior(step, previous)) for step, previous in zip(steps, steps[1:])]
    xt = x1.clone()
    for step, previous, weight_x0, _, std in walk:
        x0 = predict_x0(xt, step)
        if clip:
            x0 = x0.clamp(-1, 1)
        xt.lerp_(x0, weight_x0)
        if std > 0 and previous > 0:
            xt.add_(standard_normal(xt, generator), alpha=std)
        if callback is not None:
            callback(previous, xt, x0)
    return xt


@sampler
def ot_ode(
    predict_x0: PredictX0,
    bridge: Bridge,
    x1: Tensor,
    steps: Sequence[int],
    *,
    generator: Generators = None,
    clip: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    """Follow the posterior mean, without noise (I2SB section 3.1); arguments as in :func:`ancestral`."""
    return ancestral(predict_x0, replace(bridge, ot_ode=True), x1, steps, generator=generator, clip=clip, callback=callback)
