"""Everything about networks that can be known before training: that they build, and that checkpoints fit them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from basicsr_ext.checkpoints.files import load_checkpoint, load_state, load_weights
from basicsr_ext.common import registries
from basicsr_ext.common.errors import InputError

__all__ = ["best_key", "channel_faults", "has_weights", "network_channels", "network_faults"]

_SHOWN = 3
_INPUTS = ("in_channels", "num_in_ch", "in_chans", "in_nc", "in_ch", "inp_channels", "img_channel", "img_channels")
_SCALES = ("upscale", "scale")
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


def network_faults(opt: Mapping[str, Any]) -> list[str]:
    """Faults of every ``network_*`` block, of the checkpoint that ``path`` names for it, and of ``resume_state``."""
    faults = []
    for name, options in opt.items():
        if not name.startswith("network_") or not isinstance(options, Mapping):
            continue
        try:
            network = _build(options)
        except Exception as error:  # a class refuses its arguments in whatever way it likes
            text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
            said = text if text.startswith(name) else f"{name}: {options['type']} can not be built: {text}"
            faults.append(said)
            continue
        if opt["path"].get(f"pretrain_{name}"):
            faults.extend(_checkpoint_faults(opt["path"], name.removeprefix("network_"), network))
    if opt["path"].get("resume_state") and opt["is_train"]:
        try:
            load_state(opt["path"]["resume_state"], "path.resume_state")
        except InputError as error:
            faults.append(str(error))
    return faults


def _checkpoint_faults(path: Mapping[str, Any], label: str, network: nn.Module) -> list[str]:
    option = f"path.pretrain_network_{label}"
    try:
        loaded = load_weights(path[option.removeprefix("path.")], path.get(f"param_key_{label}", "params"), option)
    except InputError as error:
        return [str(error)]
    if not path.get(f"strict_load_{label}", True):
        return []
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(getattr(value, "shape", ())) for key, value in loaded.items()}
    lacking = [key for key in wanted if key not in found]
    surplus = [key for key in found if key not in wanted]
    shapes = [f"{k} {found[k]} instead of {wanted[k]}" for k in wanted if k in found and wanted[k] != found[k]]
    parts = [
        f"{len(keys)} {what}: {', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''}"
        for what, keys in (("missing", lacking), ("unknown", surplus), ("of another shape", shapes))
        if keys
    ]
    if not parts:
        return []
    file = path[f"pretrain_network_{label}"]
    return [
        f"{option} is {file}, which does not fit network_{label} ({type(network).__name__}): {'; '.join(parts)}; "
        f"give the options that it was trained with, or set path.strict_load_{label}: false to load what fits"
    ]


def channel_faults(opt: Mapping[str, Any], where: str, item: Any, model: type | None) -> list[str]:
    """Compare the channels of the first image, and the sizes of the pair, with what ``network_g`` is built for.

    A model class may bring its own check, ``data_faults(opt, item) -> list[str]``. Models that are neither BasicSR's
    nor declare their options may join inputs in their own ways; these are not checked.
    """
    own = getattr(model, "data_faults", None)
    if own is not None:
        return own(opt, item)
    ours = hasattr(model, "option_blocks") or getattr(model, "__module__", "").startswith("basicsr.")
    if not ours or not isinstance(item, Mapping) or "network_g" not in opt:
        return []
    faults = _scale_faults(opt, where, item)
    for side, names in (("lq", _INPUTS), ("gt", _OUTPUTS)):
        option, wanted = _channels(opt["network_g"], names)
        image = item.get(side)
        if option and torch.is_tensor(image) and image.dim() >= 3 and image.shape[-3] != wanted:
            there = image.shape[-3]
            faults.append(
                f"network_g.{option} is {wanted}, but the {side} images of {where} have {there} channel(s), such as "
                f"{item.get(f'{side}_path', 'the first one')}; set network_g.{option}: {there} or change the data"
            )
    return faults


def _scale_faults(opt: Mapping[str, Any], where: str, item: Mapping[str, Any]) -> list[str]:
    lq, gt = item.get("lq"), item.get("gt")
    option, scale = _channels(opt["network_g"], _SCALES)
    if not (option and torch.is_tensor(lq) and torch.is_tensor(gt) and lq.dim() >= 3 and gt.dim() >= 3):
        return []
    there = gt.shape[-1] // lq.shape[-1]
    if there == scale:
        return []
    return [
        f"network_g.{option} is {scale}, but the clean images of {where} are {there} times as large as the degraded "
        f"ones; set network_g.{option}: {there} or change the data"
    ]


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
