"""The learning-rate schedules that ``train.scheduler.type`` may name: BasicSR's and torch's."""

from __future__ import annotations

from typing import Any

__all__ = ["known_schedulers"]

# These need functions, other schedules or a metric at each step, which an option file can not give.
_NOT_BY_OPTIONS = (
    "LRScheduler",
    "LambdaLR",
    "MultiplicativeLR",
    "SequentialLR",
    "ChainedScheduler",
    "ReduceLROnPlateau",
)


def known_schedulers() -> dict[str, type[Any]]:
    """Schedules by name; a name that both have means BasicSR's. All are stepped once per iteration."""
    from basicsr.models import lr_scheduler
    from torch.optim import lr_scheduler as torch_schedulers

    base = torch_schedulers.LRScheduler
    found = {k: v for k, v in vars(torch_schedulers).items() if isinstance(v, type) and issubclass(v, base)}
    found = {name: cls for name, cls in found.items() if not name.startswith("_") and name not in _NOT_BY_OPTIONS}
    return found | {
        "MultiStepLR": lr_scheduler.MultiStepRestartLR,
        "MultiStepRestartLR": lr_scheduler.MultiStepRestartLR,
        "CosineAnnealingRestartLR": lr_scheduler.CosineAnnealingRestartLR,
    }
