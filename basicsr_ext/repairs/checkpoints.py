"""Repairs to BasicSR's BaseModel: what it saves, loads and resumes."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils.dist_util import master_only
from basicsr.utils.logger import get_root_logger

from basicsr_ext.checkpoints.networks import check_fit
from basicsr_ext.checkpoints.resumable import load_best, save_best
from basicsr_ext.checkpoints.run_record import option_text
from basicsr_ext.checkpoints.saves import saves_of
from basicsr_ext.checkpoints.storage import CONFIGURATION, atomic_save, load_weights, plain, save_safetensors
from basicsr_ext.common.contracts import RestorerContract
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.versions import versions_of
from basicsr_ext.repairs.repair import Repairs
from basicsr_ext.training.sample_order import global_batch_size

REPAIRS = Repairs()


# ---- loading


@REPAIRS.replaces(BaseModel, "load_network", "load-network",
                  "A checkpoint that is missing, damaged or of another network ends in an error that does not say so.",
                  "torch.load(load_path")  # fmt: skip
def _load_network(
    self: Any, net: torch.nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
) -> None:
    """Load weights into a network; if not strict, what fits.

    Raises InputError if the file is missing or damaged, lacks the key or does not fit; if not strict, if nothing fits.
    """
    option = next((f"path.{k}" for k, v in self.opt["path"].items() if v == load_path), "load_path")
    net = self.get_bare_model(net)
    weights = load_weights(load_path, param_key, option)
    get_root_logger().info(f"Loading {type(net).__name__} model from {load_path}, with param key: [{param_key}].")
    cure = "give the options of the network that was saved, or another file"
    if strict and "pretrain_network" in option:
        cure += f", or {option.replace('pretrain_network', 'strict_load')}: false to load only what fits"
    check_fit(weights, net, f"{option}: {load_path} does not fit network {type(net).__name__}", cure, strict)
    if not strict:
        self._print_different_keys_loading(net, weights, strict)
    net.load_state_dict(weights, strict=strict)


# ---- saving and resuming


def _on_cpu(net: torch.nn.Module) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict((k.removeprefix("module."), v.cpu()) for k, v in net.state_dict().items())


@REPAIRS.replaces(BaseModel, "save_network", "atomic-network",
                  "A failed save of a network is ignored, and a killed one leaves half a file under the "
                  "checkpoint's name.", "Just ignore it")  # fmt: skip
@master_only
def _save_network(
    self: Any, net: Any, net_label: str, current_iter: int, param_key: str | list[str] = "params"
) -> None:
    """Save one network, or several under a key each, into one file; with ``logger.save_safetensors`` the last one also
    as safetensors (the averaged weights, where there are two). Raises SaveError, which ends the run; files saved
    before are untouched.
    """
    nets = net if isinstance(net, list) else [net]
    keys = param_key if isinstance(param_key, list) else [param_key]
    if len(nets) != len(keys):
        raise ValueError(f"save_network got {len(nets)} networks and {len(keys)} keys; give one key for each")
    saves = saves_of(self)
    path = saves.models / f"{net_label}_{'latest' if current_iter == -1 else current_iter}.pth"
    weights = {key: _on_cpu(self.get_bare_model(one)) for one, key in zip(nets, keys)}
    saves.write(current_iter, path, lambda place: atomic_save(weights, place))
    if saves.safetensors:
        texts = {"weights": keys[-1], CONFIGURATION: _configuration(self.opt)}
        beside = path.with_suffix(".safetensors")
        saves.write(current_iter, beside, lambda place: save_safetensors(weights[keys[-1]], place, texts))


def _configuration(opt: Mapping[str, Any]) -> str:
    """What restoring needs of the options, as JSON."""
    left_out = ("datasets", "path", "train", "logger", "dist_params", "start")
    kept = {k: v for k, v in opt.items() if k in ("model_type", "scale", "val", "network_g") or isinstance(v, Mapping)}
    return option_text({k: v for k, v in kept.items() if k not in left_out and not k.endswith("_d")})


@REPAIRS.replaces(BaseModel, "save_training_state", "atomic-state",
                  "A failed save of the training state is ignored, a killed one leaves half a file, and best metrics, "
                  "the place in the data, options and versions are not in it.", "Just ignore it")  # fmt: skip
@master_only
def _save_training_state(self: Any, epoch: int, current_iter: int) -> None:
    """Save what a resumed run needs besides the networks, plain numbers and tensors only; then the save is whole.

    A model of our contract adds state of its own, such as a gradient scaler's, by ``training_state_extras``.
    Raises SaveError, which ends the run; files saved before are untouched.
    """
    if current_iter == -1:
        return
    best: Mapping[str, Any] = vars(self).get("best_metric_results", {})  # there once something was validated
    state: dict[str, Any] = {
        "epoch": epoch,
        "iter": current_iter,
        "position": _position(self.opt, current_iter),
        "optimizers": [o.state_dict() for o in self.optimizers],
        "schedulers": [s.state_dict() for s in self.schedulers],
        "best_metric_results": best,
        "random": {"manual_seed": self.opt.get("manual_seed"), "iter": current_iter},
        "options": self.opt.get("resolved") or option_text(self.opt),
        "versions": versions_of(),
    }
    if isinstance(self, RestorerContract):
        state["extras"] = self.training_state_extras()
    saves = saves_of(self)
    save_best(self.opt, None, current_iter)
    saves.write(current_iter, saves.states / f"{current_iter}.state", lambda place: atomic_save(plain(state), place))
    saves.commit(current_iter, best)


def _position(opt: Mapping[str, Any], iteration: int) -> int | None:
    """How many samples all processes have taken after an iteration; None where the options do not say it."""
    start, batch = opt.get("start") or {"iter": 0, "position": 0}, global_batch_size(opt)
    if batch is None or start.get("position") is None:
        return None
    return start["position"] + (iteration - start["iter"]) * batch


@REPAIRS.replaces(BaseModel, "resume_training", "resume-training",
                  "A resumed run forgets its best metrics, and a changed learning rate is ignored without a word.",
                  "resume_state['optimizers']")  # fmt: skip
def _resume_training(self: Any, resume_state: Mapping[str, Any]) -> None:
    """Restore optimisers, schedulers and best metrics; random streams follow from seed and iteration alone.

    Raises InputError if the state belongs to another set of optimisers or schedulers.
    """
    source = self.opt["path"].get("resume_state") or "the training state"
    for kind, mine in (("optimizers", self.optimizers), ("schedulers", self.schedulers)):
        saved = resume_state[kind]
        if len(saved) != len(mine):
            raise InputError(
                f"path.resume_state: {source} holds {len(saved)} {kind}, the options make {len(mine)}; "
                "resume with the options of the run that saved it"
            )
        if kind == "optimizers":
            _say_kept_learning_rates(mine, saved)
        for one, state in zip(mine, saved):
            try:
                one.load_state_dict(state)
            except (ValueError, KeyError) as error:
                raise InputError(
                    f"path.resume_state: {source} does not fit train.optim_g: {error}; "
                    "resume with the options of the run that saved it"
                ) from error
    _restore_best(self, load_best(source) or resume_state.get("best_metric_results") or {})
    if isinstance(self, RestorerContract):
        self.load_training_state_extras(resume_state.get("extras") or {})


def _say_kept_learning_rates(optimizers: list[Any], saved: list[Any]) -> None:
    for optimizer, state in zip(optimizers, saved):
        for group, old in zip(optimizer.param_groups, state["param_groups"]):
            new_lr, old_lr = group.get("initial_lr", group["lr"]), old.get("initial_lr", old["lr"])
            if not math.isclose(new_lr, old_lr):
                get_root_logger().warning(
                    f"The options say lr {new_lr:g}, the resumed state {old_lr:g}: the state's is kept. "
                    "To train on with another lr, start a new run from path.pretrain_network_g."
                )


def _restore_best(model: Any, saved: Mapping[str, Any]) -> None:
    """Take over the best values of those data sets whose metrics are still the same."""
    metrics = (model.opt.get("val") or {}).get("metrics") or {}
    same = {name: record for name, record in saved.items() if set(record) == set(metrics)}
    if same:
        model.best_metric_results = {name: {m: dict(v) for m, v in record.items()} for name, record in same.items()}
