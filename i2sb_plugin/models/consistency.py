"""Restorations that agree with the image they are made from: by its operator, or by its low frequencies."""

import math

from torch import Tensor

from i2sb_plugin.degradations.base import Operator
from i2sb_plugin.degradations.filters import SeparableFilter
from i2sb_plugin.samplers import PredictX0

__all__ = ["consistent", "with_low_frequencies"]


def consistent(
    predict_x0: PredictX0, operator: Operator, lq: Tensor, mask: Tensor | None = None, strength: float = 1.0
) -> PredictX0:
    """Correct every prediction towards ``A x0 = lq``: x0 + strength * (A^+ lq - A^+ A x0).

    Args:
        predict_x0: what a sampler calls; predicts in [-1, 1].
        operator: A and its pseudo-inverse, acting on [0, 1].
        lq: the degraded image, B,C,h,w in [0, 1].
        mask: the hole of an inpainting task, B,1,H,W, or None.
        strength: share of the correction; 1 makes a linear operator agree exactly.

    Returns:
        A ``predict_x0`` for any sampler.

    Source: the correction of CDDB (2305.19809) with the pseudo-inverse, as DDNM (2212.00490) has it.
    """
    wanted: Tensor | None = None

    def corrected(xt: Tensor, step: int) -> Tensor:
        nonlocal wanted
        image = predict_x0(xt, step).add(1).div(2)
        size = (image.shape[-2], image.shape[-1])
        if wanted is None:
            wanted = operator.pseudo_inverse(lq, size, mask)
        found = operator.pseudo_inverse(operator.forward(image, mask), size, mask)
        return image.add(wanted - found, alpha=strength).mul(2).sub(1)

    return corrected


def with_low_frequencies(restored: Tensor, degraded: Tensor, sigma: float, clamp: bool = True) -> Tensor:
    """Exchange the low frequencies of a restoration for those of the degraded image, where its operator is not known.

    Brightness and colours, which a walk may shift, are then the input's: restored + G (degraded - restored), with G a
    Gaussian blur.

    Args:
        restored: B,C,H,W in [0, 1].
        degraded: the image that it was restored from, at full size, same shape and range.
        sigma: standard deviation of the blur in pixels, above 0; it ends after three of them, or at the image's size.
        clamp: to [0, 1]; not of data without bounds.

    Returns:
        B,C,H,W in [0, 1].
    """
    reach = min(math.ceil(3 * sigma), (min(restored.shape[-2:]) - 1) // 2)
    weights = [math.exp(-(x**2) / (2 * sigma**2)) for x in range(-reach, reach + 1)]
    blur = SeparableFilter(tuple(weight / sum(weights) for weight in weights), "reflect")
    moved = restored + blur.forward(degraded - restored)
    return moved.clamp(0, 1) if clamp else moved
