"""What TensorBoard shows of a validation besides its figures: images side by side, and curves of a model's settings."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as nnf
from basicsr.utils import get_root_logger
from torch import Tensor

from basicsr_ext.processes import collectives

COMPARED = 4  # images of a data set
SIDE = 256  # pixels, of the part of each image that is shown


def comparison(lq: Tensor, restored: Tensor, gt: Tensor | None) -> Tensor:
    """Input, restoration and ground truth side by side: 3,h,n*w in [0, 1], the middle :data:`SIDE` pixels of each.

    ``lq`` (C,h,w) is enlarged to the size of ``restored`` (C,H,W) without smoothing; all are in [0, 1].
    """
    from torchvision.transforms.functional import center_crop

    size = restored.shape[-2:]
    parts = [nnf.interpolate(lq[None].float(), size, mode="nearest-exact")[0], restored.float()]
    parts += [gt.float()] if gt is not None and gt.shape[-2:] == size else []
    rgb = [part[:3] if len(part) >= 3 else part[:1].expand(3, -1, -1) for part in parts]
    shown = [min(side, SIDE) for side in size]
    return torch.cat([center_crop(part, shown).clamp(0, 1).cpu() for part in rgb], dim=-1)


def log_comparisons(board: Any, name: str, indices: list[int], batch: dict, restored: Tensor, iteration: Any) -> None:
    """Show those of ``indices`` that are among the first :data:`COMPARED` of this process.

    ``batch`` and ``restored`` hold the images of ``indices``, in this order.
    """
    first = collectives.shard_indices(COMPARED * collectives.world_size())[:COMPARED]
    for k, index in enumerate(indices):
        if index in first:
            gt = batch["gt"][k] if "gt" in batch else None
            board.add_image(f"comparison/{name}/{index}", comparison(batch["lq"][k], restored[k], gt), iteration)


def log_curve(
    model: Any, name: str, measure: Callable[[], dict[str, float]], board: Any, iteration: int | str
) -> dict[str, dict[str, float]]:
    """Measure the model at each of its :meth:`~basicsr_ext.models.restoration_model.RestorationModel.curve` settings.

    ``measure`` restores images of the data set ``name`` and gives the mean of each metric, the same on every process.
    Returns these figures by setting, and writes them to TensorBoard, if there is a ``board``, as
    ``curve/<name>/<metric>/<setting>``. The model's options are put back afterwards.
    """
    before, found = model.opt, {}
    try:
        for setting, opt in model.curve(iteration).items():
            model.take_options(opt)
            found[setting] = measure()
    finally:
        model.take_options(before)
    for metric in next(iter(found.values()), {}):
        points = {setting: values[metric] for setting, values in found.items()}
        said = ", ".join(f"{setting}: {value:.4f}" for setting, value in points.items())
        get_root_logger().info(f"Validation {name}, {metric} at {said}")
        if board is not None:
            for setting, value in points.items():
                board.add_scalar(f"curve/{name}/{metric}/{setting}", value, iteration)
    return found
