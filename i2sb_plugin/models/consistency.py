"""Predictions that agree with the image they are restored from, where the operator is known."""

from torch import Tensor

from i2sb_plugin.degradations.base import Operator
from i2sb_plugin.samplers import PredictX0

__all__ = ["consistent"]


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
