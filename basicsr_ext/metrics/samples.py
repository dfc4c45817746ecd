"""From a batch of a data set and a restored image to what metrics look at."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from basicsr_ext.common.contracts import DatasetContract, DrawsOptions, KnownOperator
from basicsr_ext.images.arrays import to_image
from basicsr_ext.images.values import Values
from basicsr_ext.metrics.base import Cost, Sample


def known_operator(dataset: object, mask: Tensor | None = None) -> Callable[[Tensor], Tensor] | None:
    """A of ``lq = A(gt)`` where a data set of ours degrades every image by the same known one; else None.

    ``mask`` is 1,h,w, 1 in the hole of an inpainting, for degradations that have one.
    """
    operator = dataset.degradation if isinstance(dataset, DatasetContract) else None
    if not isinstance(operator, KnownOperator) or (isinstance(operator, DrawsOptions) and operator.drawn_options):
        return None
    forward, hole = operator.forward, None if mask is None else mask[None].cpu().float()
    return lambda x: forward(x, hole)


def sample_of(
    dataset: object,
    batch: Mapping[str, Any],
    k: int,
    index: int,
    restored: np.ndarray,
    cost: Cost | None = None,
    values: Values | None = None,
) -> Sample:
    """The sample of image ``k`` of a batch, which is number ``index`` of the data set and was restored to ``restored``.

    A batch has ``lq``, perhaps ``gt`` and ``mask`` (B,C,H,W), and ``lq_path``; ``restored`` is H,W,C uint8 in OpenCV's
    order, or with ``values`` data H,W,C as they are stored.
    """

    def measured(planes: Tensor) -> np.ndarray:
        return to_image(planes) if values is None else values.to_measure(values.from_unit(planes))

    mask = batch["mask"][k] if "mask" in batch else None
    return Sample(
        index,
        Path(batch["lq_path"][k]).stem,
        restored if values is None else values.to_measure(restored),
        gt=measured(batch["gt"][k]) if "gt" in batch else None,
        lq=measured(batch["lq"][k]),
        operator=known_operator(dataset, mask),
        hole=None if mask is None else mask[0].cpu().numpy() > 0.5,
        cost=cost,
        is_data=values is not None,
    )
