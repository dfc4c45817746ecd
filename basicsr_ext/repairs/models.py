"""Repairs to BasicSR's BaseModel: what it places, optimises, averages and validates."""

import contextlib
import functools
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from torch.nn.parallel import DataParallel, DistributedDataParallel

from basicsr_ext.checkpoints.saves import saves_of
from basicsr_ext.common.errors import InputError, Interrupted, did_you_mean
from basicsr_ext.common.registries import known_optimizers, known_schedulers
from basicsr_ext.common.seeds import kept_streams
from basicsr_ext.images.results import Results
from basicsr_ext.processes import collectives
from basicsr_ext.repairs.repair import Repairs
from basicsr_ext.repairs.shared_validation import FollowedImages, can_share, validate_shared
from basicsr_ext.training import loop_state, memory
from basicsr_ext.training.nonfinite import check_reduced, trained_norm

REPAIRS = Repairs()


# ---- distributed


@REPAIRS.replaces(BaseModel, "model_to_device", "ddp-on-cpu",
                  "Distributed training on a CPU dies: DistributedDataParallel is given a CUDA device.",
                  "device_ids=[torch.cuda.current_device()]")  # fmt: skip
def _model_to_device(self: Any, net: torch.nn.Module) -> torch.nn.Module:
    """Move a network to the model's device and wrap it if it is trained by several processes or GPUs."""
    net = net.to(self.device)
    trained = self.is_train and any(p.requires_grad for p in net.parameters())
    if self.opt["dist"]:
        if not trained:
            return net
        ids = [torch.cuda.current_device()] if self.device.type == "cuda" else None
        unused = self.opt.get("find_unused_parameters", False)
        net = DistributedDataParallel(net, device_ids=ids, find_unused_parameters=unused, gradient_as_bucket_view=True)
        if not unused:
            _settle_buckets(net)
        return net
    return DataParallel(net) if self.opt["num_gpu"] > 1 else net


def _settle_buckets(net: DistributedDataParallel) -> None:
    """Let the buckets of gradients be arranged before the first iteration, in the order of the parameters.

    DistributedDataParallel arranges them once more after its first backward pass, and three ranks or more add up a
    gradient in an order that depends on its place: a resumed run, whose first iteration is a later one, would be
    rounded otherwise than the unbroken one. So the first pass is one of zeros here, in every run.
    """
    parameters = [p for p in net.module.parameters() if p.requires_grad]
    net.module.forward = lambda: sum(p.sum() for p in parameters) * 0
    try:
        net().backward()
    finally:
        del net.module.forward
    net.zero_grad(set_to_none=True)


@REPAIRS.replaces(BaseModel, "validation", "validation-bare",
                  "Validation on rank 0 runs through DistributedDataParallel, whose forward waits for ranks that never "
                  "come, and its random draws change the training that follows.",
                  "self.dist_validation(dataloader")  # fmt: skip
def _validation(self: Any, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool = False) -> None:
    """Validate on bare networks, shared out over the ranks, leaving the random streams of training where they were.

    What was fed last is forgotten: where the data set has no ground truth, that of the training crop would stay.
    """
    wrapped = {k: v for k, v in vars(self).items() if isinstance(v, DataParallel | DistributedDataParallel)}
    shared = can_share(self)
    vars(self).pop("gt", None)
    validate = self.dist_validation if self.opt["dist"] else self.nondist_validation
    if shared:
        validate = functools.partial(validate_shared, self)
    data_set = "val" if dataloader is None else dataloader.dataset.opt["name"]
    # on rank 0 alone and without collectives?
    alone = not shared and (not self.opt["dist"] or type(self).dist_validation is SRModel.dist_validation)
    run = loop_state.current()
    try:
        for name, net in wrapped.items():
            setattr(self, name, net.module)
        abandonable = loop_state.current().abandonable() if alone else contextlib.nullcontext()
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
        followed = None if dataloader is None else FollowedImages(dataloader)
        run.results = Results.of(self.opt, followed and followed.dataset, data_set)
        with kept_streams(devices), memory.in_validation(data_set), abandonable:
            validate(followed, current_iter, tb_logger, save_img)
    except Interrupted:
        loop_state.current().validation_abandoned(data_set, everywhere=not self.opt["dist"])
    finally:
        run.results = None
        for name, net in wrapped.items():
            setattr(self, name, net)


# ---- losses, optimisers, averages


@REPAIRS.replaces(BaseModel, "reduce_loss_dict", "nonfinite-loss",
                  "Training goes on after a NaN or infinite loss and ends with exit code 0.",
                  "value.mean().item()")  # fmt: skip
def _reduce_loss_dict(self: Any, loss_dict: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Mean of each loss over the processes; all processes get it, with one wait for the device."""
    if not loss_dict:
        return {}
    with torch.no_grad():
        values = [v.detach().float().mean().to(self.device) for v in loss_dict.values()]
        reduced = torch.stack([*values, trained_norm(self)])
        if self.opt["dist"]:
            torch.distributed.all_reduce(reduced)
            reduced /= self.opt["world_size"]
    *means, norm = reduced.tolist()
    check_reduced(self, dict(zip(loss_dict, means)), norm)
    return OrderedDict(zip(loss_dict, means))


@REPAIRS.replaces(BaseModel, "get_optimizer", "any-optimizer",
                  "train.optim_g.type accepts few of torch's optimisers (release 1.4.2: Adam only).",
                  "optim_type == 'Adam'")  # fmt: skip
def _get_optimizer(self: Any, optim_type: str, params: Any, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
    """Build the optimiser of torch.optim with this name; InputError if there is none or it refuses the options."""
    known = known_optimizers()
    if optim_type not in known:
        raise InputError(f"train.optim_g.type is {optim_type!r}: no such optimiser; {did_you_mean(optim_type, known)}")
    try:
        return known[optim_type](params, lr=lr, **kwargs)
    except TypeError as error:
        raise InputError(f"train.optim_g: {optim_type} cannot be built with these options: {error}") from error


@REPAIRS.replaces(BaseModel, "setup_schedulers", "scheduler-options",
                  "setup_schedulers knows two schedules, and removes the type from the options: a second model of them "
                  "fails.", ".pop('type')")  # fmt: skip
def _setup_schedulers(self: Any) -> None:
    """Build one scheduler per optimiser, leaving the options as they are; InputError if it does not take them."""
    options = dict(self.opt["train"].get("scheduler") or {})
    name, known = options.pop("type", None), known_schedulers()
    if name not in known:
        raise InputError(f"train.scheduler.type is {name!r}: no such scheduler; {did_you_mean(name, known)}")
    try:
        self.schedulers += [known[name](optimizer, **options) for optimizer in self.optimizers]
    except TypeError as error:
        raise InputError(f"train.scheduler: {name} cannot be built with these options: {error}") from error


@REPAIRS.replaces(BaseModel, "model_ema", "ema-buffers",
                  "The averaged network keeps the buffers (BatchNorm statistics, say) that it was built with.",
                  ".data.mul_(decay)")  # fmt: skip
@torch.no_grad()
def _model_ema(self: Any, decay: float = 0.999) -> None:
    """Let ``net_g_ema`` follow ``net_g``: parameters by the average, buffers by copy."""
    net, ema = self.get_bare_model(self.net_g), self.net_g_ema
    if getattr(self, "_followed", None) is None or self._followed[0] != (net, ema):
        self._followed = (net, ema), *_pairs(net, ema)
    _, source, averaged, buffers = self._followed
    if averaged:
        torch._foreach_lerp_(averaged, source, 1 - decay)
    for module, follower, name in buffers:
        getattr(follower, name).copy_(getattr(module, name))


def _pairs(net: torch.nn.Module, ema: torch.nn.Module) -> tuple[list, list, list]:
    """Parameters of both networks, and their modules with the names of buffers: found once, as the optimiser's are."""
    source, averaged, modules = dict(net.named_parameters()), dict(ema.named_parameters()), dict(net.named_modules())
    buffers = [
        (modules[path], follower, name)
        for path, follower in ema.named_modules()
        for name, _ in follower.named_buffers(recurse=False)
    ]
    return [source[name] for name in averaged], list(averaged.values()), buffers


@REPAIRS.replaces(BaseModel, "_update_best_metric_result", "best-metric-ties",
                  "A tie moves the best metric to the later iteration, and an infinite figure stays the best for ever.",
                  "val >=")  # fmt: skip
def _update_best(self: Any, dataset_name: str, metric: str, val: float, current_iter: int) -> None:
    """Keep the first iteration that reached the best value, so that a tie does not move it; for a resumed run too."""
    best = self.best_metric_results[dataset_name][metric]
    better = val > best["val"] if best["better"] == "higher" else val < best["val"]
    if better and math.isfinite(val):
        best["val"], best["iter"] = float(val), current_iter
    if self.opt.get("is_train") and collectives.is_main() and self.opt["path"].get("training_states"):
        saves_of(self).keep_metrics(self.opt, self.best_metric_results, current_iter)
