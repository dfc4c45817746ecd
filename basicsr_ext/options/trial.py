"""Try options that only the class itself can judge: build optimisers, schedules and losses, measure a grey image."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from basicsr_ext.common import registries

__all__ = ["trial_faults"]

_SIDE = 192  # pixels; NIQE needs two blocks of 96


def trial_faults(opt: Mapping[str, Any], is_train: bool) -> list[str]:
    """Faults of ``train.optim_*``, ``*_opt``, ``scheduler`` and ``val.metrics`` whose keys and types are right already.

    Losses and metrics that are not BasicSR's are left alone, and PerceptualLoss: they may load networks.
    """
    faults = []
    train, val = opt.get("train") or {}, opt.get("val") or {}
    for name, block in train.items() if is_train else ():
        if name.startswith("optim_") and isinstance(block, Mapping):
            faults += _refusal(f"train.{name}", lambda b=block: _optimizer(b))
        elif name.endswith("_opt") and isinstance(block, Mapping):
            faults += _refusal(f"train.{name}", lambda b=block: _loss(b))
    if is_train and isinstance(train.get("scheduler"), Mapping):
        faults += _refusal("train.scheduler", lambda: _scheduler(train["scheduler"]))
    for name, block in (val.get("metrics") or {}).items():
        faults += _refusal(f"val.metrics.{name}", lambda b=block: _measure(b))
    return faults


def _refusal(where: str, attempt: Callable[[], None]) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            attempt()
        except Exception as error:  # the class refuses its arguments in whatever way it likes
            return [f"{where}: {str(error) or type(error).__name__}"]
    return []


def _optimizer(block: Mapping[str, Any]) -> Any:
    import torch

    cls = getattr(torch.optim, block["type"], None)
    arguments = {key: value for key, value in block.items() if key not in ("type", "fused", "foreach", "capturable")}
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    return cls([parameter], **arguments) if inspect.isclass(cls) else None  # a model may bring optimisers of its own


def _loss(block: Mapping[str, Any]) -> None:
    from basicsr.utils.registry import LOSS_REGISTRY

    cls = registries.find(LOSS_REGISTRY, block["type"])
    if getattr(cls, "__module__", "").startswith("basicsr.") and cls.__name__ != "PerceptualLoss":
        cls(**{key: value for key, value in block.items() if key != "type"})


def _scheduler(block: Mapping[str, Any]) -> None:
    optimizer = _optimizer({"type": "SGD", "lr": 0.1, "momentum": 0.9})
    cls = registries.known_schedulers().get(block["type"])
    if cls is not None:
        cls(optimizer, **{key: value for key, value in block.items() if key != "type"})


def _measure(block: Mapping[str, Any]) -> None:
    import numpy as np
    from basicsr.metrics import calculate_metric
    from basicsr.utils.registry import METRIC_REGISTRY

    metric = registries.find(METRIC_REGISTRY, block["type"])
    if not getattr(metric, "__module__", "").startswith("basicsr."):
        return
    image = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
    arguments = {key: value for key, value in block.items() if key != "better"}
    names = inspect.signature(metric).parameters
    calculate_metric({key: image for key in ("img", "img2") if key in names}, arguments)
