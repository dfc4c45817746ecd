"""Everything about networks that can be known before training: that they build, and that checkpoints fit them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from basicsr_ext.checkpoints.networks import (
    INPUTS,
    OUTPUTS,
    SCALES,
    build_empty,
    channel_option,
    check_fit,
    network_multiple,
)
from basicsr_ext.checkpoints.storage import load_checkpoint, load_state, load_weights
from basicsr_ext.common.contracts import NetworkContract, RestorerContract, restorer_class_of
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import listed
from basicsr_ext.restoring.tiling import check_tile

LOOSELY = ", or set path.strict_load_{}: false to load what fits"


def network_faults(opt: Mapping[str, Any]) -> list[str]:
    """Faults of every ``network_*`` block, of the checkpoint that ``path`` names for it, and of ``resume_state``."""
    faults = []
    for name, options in opt.items():
        if not name.startswith("network_") or not isinstance(options, Mapping):
            continue
        try:
            for key, file in options.items():  # SpyNet and its like load files themselves, without saying which
                if key.endswith("_path") and isinstance(file, str):
                    load_checkpoint(file, f"{name}.{key}", mmap=True)
            network = build_empty(options)
        except Exception as error:  # a class refuses its arguments in whatever way it likes
            text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
            said = "" if isinstance(error, InputError) else f"{options['type']} cannot be built: "
            faults.append(text if text.startswith(name) else f"{name}: {said}{text}")
        else:
            if (name, opt.get("model_type")) == ("network_g", "SwinIRModel") and "window_size" not in options:
                said = "SwinIRModel pads images to multiples of it; give that of the network, 7 where it had none"
                faults.append(f"network_g.window_size is missing: {said}")
            if empty := [part for part, value in network.named_parameters() if not value.numel()]:
                faults.append(f"{name}: {options['type']} has no values in {listed(empty)}; give it more channels")
            faults.extend(_training_faults(opt, network))
            if name == "network_g":
                faults.extend(_tile_faults(opt.get("val") or {}, network))
            if opt["path"].get(f"pretrain_{name}"):
                faults.extend(_checkpoint_faults(opt["path"], name.removeprefix("network_"), network))
    if opt["path"].get("resume_state") and opt["is_train"]:
        try:
            load_state(opt["path"]["resume_state"], "path.resume_state")
        except InputError as error:
            faults.append(str(error))
    return faults


def _tile_faults(val: Mapping[str, Any], network: nn.Module) -> list[str]:
    """What keeps ``val.tile`` from serving the network."""
    if not val.get("tile"):
        return []
    try:
        check_tile(val["tile"], val.get("tile_overlap") or 0, network_multiple(network))
    except InputError as error:
        return [f"val.{error}"]
    return []


def _training_faults(opt: Mapping[str, Any], network: nn.Module) -> list[str]:
    """What the network says of the smallest part of a batch."""
    if not (opt["is_train"] and isinstance(network, NetworkContract)):
        return []
    batch = opt["datasets"]["train"]["batch_size_per_gpu"]
    return network.training_faults(max(1, batch // (opt["train"].get("accumulate") or 1)))


def _checkpoint_faults(path: Mapping[str, Any], label: str, network: nn.Module) -> list[str]:
    option, strict = f"path.pretrain_network_{label}", path.get(f"strict_load_{label}", True)
    file = path[f"pretrain_network_{label}"]
    try:
        loaded = load_weights(file, path.get(f"param_key_{label}", "params"), option)
        lead = f"{option} is {file}, which does not fit network_{label} ({type(network).__name__})"
        loosely = LOOSELY.format(label) if strict else ""
        check_fit(loaded, network, lead, f"give the options that it was trained with{loosely}", strict)
    except InputError as error:
        return [str(error)]
    return []


def channel_faults(opt: Mapping[str, Any], where: str, item: Any, model: type | None) -> list[str]:
    """Compare the channels of the first image, and the sizes of the pair, with what ``network_g`` is built for.

    A model class may bring its own check, ``data_faults(opt, item) -> list[str]``. Models that are neither BasicSR's
    nor declare their options may join inputs in their own ways; these are not checked.
    """
    if (own := restorer_class_of(model).data_faults(opt, item)) is not None:
        return own
    ours = model is not None and (issubclass(model, RestorerContract) or model.__module__.startswith("basicsr."))
    if not ours or not isinstance(item, Mapping) or "network_g" not in opt:
        return []
    faults = _scale_faults(opt, where, item)
    for side, names in (("lq", INPUTS), ("gt", OUTPUTS)):
        option, wanted = channel_option(opt["network_g"], names)
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
    option, scale = channel_option(opt["network_g"], SCALES)
    if not (option and torch.is_tensor(lq) and torch.is_tensor(gt) and lq.dim() >= 3 and gt.dim() >= 3):
        return []
    there = gt.shape[-1] // lq.shape[-1]
    said = f"network_g.{option} is {scale}, but the clean images of {where} are {there} times as large as the degraded"
    return [] if there == scale else [f"{said} ones; set network_g.{option}: {there} or change the data"]
