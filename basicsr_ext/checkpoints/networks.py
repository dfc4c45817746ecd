"""Networks and their weights: what a network takes and gives, and whether a state dict fits it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from basicsr_ext.checkpoints.storage import load_checkpoint
from basicsr_ext.common import registries

_INPUTS = ("in_channels", "num_in_ch", "in_chans", "in_nc", "in_ch", "inp_channels", "img_channel", "img_channels")


_OUTPUTS = ("out_channels", "num_out_ch", "out_chans", "out_nc", "out_ch", "img_channel", "img_channels")


def _build(options: Mapping[str, Any]) -> nn.Module:
    """Build a network without memory for its weights, where the class can be built so."""
    from basicsr.utils.registry import ARCH_REGISTRY

    cls = registries.find(ARCH_REGISTRY, options["type"])
    arguments = {key: value for key, value in options.items() if key != "type"}
    try:
        with torch.device("meta"):
            return cls(**arguments)  # type: ignore[misc]
    except Exception:  # values computed while building have no meta form; build it really, errors included
        return cls(**arguments)  # type: ignore[misc]


def has_weights(opt: Mapping[str, Any]) -> bool:
    """Tell whether ``network_g`` has anything to load; False if it can not be built."""
    try:
        return bool(_build(opt["network_g"]).state_dict())
    except Exception:  # as in `network_faults`, which says why
        return False


def best_key(path: str) -> str | None:
    """The key to test a checkpoint with: the averaged weights if it holds them."""
    loaded = load_checkpoint(path, "path.pretrain_network_g", mmap=True)
    known = ("params_ema", "params")
    return next((key for key in known if isinstance(loaded, Mapping) and key in loaded), None)


def _channels(options: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str | None, Any]:
    """The first of ``names`` that the class of ``network_g`` takes, and its value or default."""
    from basicsr.utils.registry import ARCH_REGISTRY

    parameters = inspect.signature(registries.find(ARCH_REGISTRY, options["type"])).parameters  # type: ignore[arg-type]
    for name in names:
        if name in parameters:
            value = options.get(name, parameters[name].default)
            return (name, value) if isinstance(value, int) else (None, None)
    return None, None


def network_channels(options: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Channels that the network of a block ``network_g`` takes and gives; None where its arguments do not tell."""
    return _channels(options, _INPUTS)[1], _channels(options, _OUTPUTS)[1]


def network_multiple(net: nn.Module) -> int:
    """What height and width must be multiples of: the network's ``multiple``, else its largest ``window_size``, else 1.

    BasicSR's RRDBNet, which folds pixels at scales 1 and 2, is known too.
    """
    if isinstance(getattr(net, "multiple", None), int):
        return net.multiple
    if type(net).__name__ == "RRDBNet":
        return {1: 4, 2: 2}.get(net.scale, 1)
    windows = [getattr(part, "window_size", None) for part in net.modules()]
    return max((size for size in windows if isinstance(size, int)), default=1)
