"""Repairs to BasicSR's BaseModel: what it saves, loads and resumes."""

from __future__ import annotations

import math
import os
import random
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from basicsr.utils.dist_util import master_only
from basicsr.utils.logger import get_root_logger

from basicsr_ext import distributed
from basicsr_ext.checkpoint import atomic_save, load_best, load_weights, plain, save_best
from basicsr_ext.errors import InputError
from basicsr_ext.repairs.models import method_repair

__all__ = ["REPAIRS"]

Network = torch.nn.Module


# ---- loading


def _option_of(opt: Mapping[str, Any], load_path: str) -> str:
    return next((f"path.{k}" for k, v in opt["path"].items() if v == load_path), "load_path")


def _load_network(
    self: Any, net: Network, load_path: str, strict: bool = True, param_key: str | None = "params"
) -> None:
    """Load weights into a network.

    Raises:
        InputError: The file is missing, damaged, lacks the key or, if strict, does not fit the network.

    """
    option = _option_of(self.opt, load_path)
    net = self.get_bare_model(net)
    weights = load_weights(load_path, param_key, option)
    get_root_logger().info(f"Loading {type(net).__name__} model from {load_path}, with param key: [{param_key}].")
    if strict:
        _refuse_misfit(net, weights, f"{option}: {load_path} does not fit network {type(net).__name__}")
    else:
        self._print_different_keys_loading(net, weights, strict)
    net.load_state_dict(weights, strict=strict)


def _refuse_misfit(net: Network, weights: Mapping[str, Any], lead: str) -> None:
    wanted = net.state_dict()
    shapes = [
        f"{k} is {tuple(weights[k].shape)} in the file, {tuple(v.shape)} in the network"
        for k, v in wanted.items()
        if torch.is_tensor(weights.get(k)) and weights[k].shape != v.shape
    ]
    faults = [
        ("only in the network", [k for k in wanted if k not in weights]),
        ("only in the file", [k for k in weights if k not in wanted]),
        ("other shapes", shapes),
    ]
    said = [f"{what} ({len(names)}): {', '.join(names[:3])}" for what, names in faults if names]
    if said:
        raise InputError(
            f"{lead}; {'; '.join(said)}. Give the options of the network that was saved, another file, "
            "or path.strict_load_g: false to load only what fits"
        )


# ---- saving and resuming


def _on_cpu(net: Network) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict((k.removeprefix("module."), v.cpu()) for k, v in net.state_dict().items())


@master_only
def _save_network(
    self: Any, net: Any, net_label: str, current_iter: int, param_key: str | list[str] = "params"
) -> None:
    """Save one network, or several under a key each, into one file.

    Raises:
        SaveError: The file could not be written; files saved before are untouched.

    """
    nets = net if isinstance(net, list) else [net]
    keys = param_key if isinstance(param_key, list) else [param_key]
    if len(nets) != len(keys):
        raise ValueError(f"save_network got {len(nets)} networks and {len(keys)} keys; give one key for each")
    name = f"{net_label}_{'latest' if current_iter == -1 else current_iter}.pth"
    weights = {key: _on_cpu(self.get_bare_model(one)) for one, key in zip(nets, keys)}
    atomic_save(weights, os.path.join(self.opt["path"]["models"], name))


@master_only
def _save_training_state(self: Any, epoch: int, current_iter: int) -> None:
    """Save what a resumed run needs besides the networks; plain numbers and tensors only.

    A model may define ``training_state_extras() -> dict`` and ``load_training_state_extras(dict)`` for state of its
    own, such as a gradient scaler's.

    Raises:
        SaveError: The file could not be written; files saved before are untouched.

    """
    if current_iter == -1:
        return
    state = {
        "epoch": epoch,
        "iter": current_iter,
        "optimizers": [o.state_dict() for o in self.optimizers],
        "schedulers": [s.state_dict() for s in self.schedulers],
        "best_metric_results": getattr(self, "best_metric_results", {}),
        "random": _random_state(self.device),
    }
    if hasattr(self, "training_state_extras"):
        state["extras"] = self.training_state_extras()
    save_best(self.opt, None, current_iter)
    atomic_save(plain(state), os.path.join(self.opt["path"]["training_states"], f"{current_iter}.state"))


def _random_state(device: torch.device) -> dict[str, Any]:
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "world_size": distributed.world_size(),
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if device.type == "cuda" else None,
    }


def _restore_random_state(saved: Mapping[str, Any] | None, opt: Mapping[str, Any], iteration: int) -> None:
    """Go on with the saved streams; several processes, whose streams are not saved, get fresh ones instead."""
    if saved is None or saved["world_size"] != 1 or distributed.world_size() != 1:
        seed = ((opt.get("manual_seed") or 0) * 1_000_003 + iteration) * 1_009 + distributed.rank()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed % 2**63)
        return
    version, words, gauss_next = saved["python"]
    random.setstate((version, tuple(words), gauss_next))
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(saved["cuda"])


def _resume_training(self: Any, resume_state: Mapping[str, Any]) -> None:
    """Restore optimisers, schedulers, best metrics and random streams.

    Raises:
        InputError: The state belongs to another set of optimisers or schedulers.

    """
    source = self.opt["path"].get("resume_state") or "the training state"
    for kind in ("optimizers", "schedulers"):
        saved, mine = resume_state[kind], getattr(self, kind)
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
                raise InputError(f"path.resume_state: {source} does not fit train.optim_g: {error}") from error
    _restore_best(self, load_best(source) or resume_state.get("best_metric_results") or {})
    if hasattr(self, "load_training_state_extras"):
        self.load_training_state_extras(resume_state.get("extras") or {})
    _restore_random_state(resume_state.get("random"), self.opt, resume_state["iter"])


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


REPAIRS = [
    method_repair(
        "load-network",
        "A checkpoint that is missing, damaged or of another network ends in an error that does not say so.",
        "load_network",
        "torch.load(load_path",
        _load_network,
    ),
    method_repair(
        "atomic-network",
        "A failed save of a network is ignored, and a killed one leaves half a file under the checkpoint's name.",
        "save_network",
        "Just ignore it",
        _save_network,
    ),
    method_repair(
        "atomic-state",
        "A failed save of the training state is ignored, a killed one leaves half a file, and best metrics and random "
        "streams are not in it.",
        "save_training_state",
        "Just ignore it",
        _save_training_state,
    ),
    method_repair(
        "resume-training",
        "A resumed run forgets its best metrics and repeats the random draws of the run's start.",
        "resume_training",
        "resume_state['optimizers']",
        _resume_training,
    ),
]
