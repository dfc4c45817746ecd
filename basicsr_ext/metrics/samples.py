"""From a batch of a data set and a restored image to what metrics look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from basicsr_ext.metrics.base import Cost, Sample

__all__ = ["known_operator", "sample_of"]


def known_operator(dataset: Any, mask: Tensor | None = None) -> Callable[[Tensor], Tensor] | None:
    """A of ``lq = A(gt)`` where the data set degrades by a fixed one: its ``degradation`` has ``forward(x, mask)``.

    Args:
        dataset: any data set.
        mask: 1,h,w, 1 in the hole of an inpainting, for degradations that have one.

    """
    degradation = getattr(dataset, "degradation", None)
    forward = getattr(degradation, "forward", None)
    if forward is None or getattr(degradation, "drawn_options", ()):
        return None
    hole = None if mask is None else mask[None].cpu().float()
    return lambda x: forward(x, hole)


def sample_of(
    dataset: Any,
    batch: Mapping[str, Any],
    k: int,
    index: int,
    restored: np.ndarray,
    to_image: Callable[[Tensor], np.ndarray],
    cost: Cost | None = None,
) -> Sample:
    """The sample of image ``k`` of a batch, which is number ``index`` of the data set.

    Args:
        dataset: where the batch is from.
        batch: ``lq``, perhaps ``gt`` and ``mask`` (B,C,H,W), and ``lq_path``.
        k: place in the batch.
        index: number in the data set.
        restored: H,W,C uint8 in OpenCV's order.
        to_image: turns C,H,W in [0, 1] into the like.
        cost: of the restoration.

    """
    mask = batch["mask"][k] if "mask" in batch else None
    return Sample(
        index,
        Path(batch["lq_path"][k]).stem,
        restored,
        gt=to_image(batch["gt"][k]) if "gt" in batch else None,
        lq=to_image(batch["lq"][k]),
        operator=known_operator(dataset, mask),
        hole=None if mask is None else mask[0].cpu().numpy() > 0.5,
        cost=cost,
    )
