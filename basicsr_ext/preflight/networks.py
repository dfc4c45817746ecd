"""Everything about networks that can be known before training: that they build, and that checkpoints fit them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from basicsr_ext.checkpoints.networks import _INPUTS, _OUTPUTS, _build, _channels
from basicsr_ext.checkpoints.storage import load_state, load_weights
from basicsr_ext.common.contracts import RestorerContract, restorer_class_of
from basicsr_ext.common.errors import InputError

__all__ = ["channel_faults", "network_faults"]

_SHOWN = 3
_SCALES = ("upscale", "scale")


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
    own = restorer_class_of(model).data_faults(opt, item)
    if own is not None:
        return own
    ours = model is not None and (issubclass(model, RestorerContract) or model.__module__.startswith("basicsr."))
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
