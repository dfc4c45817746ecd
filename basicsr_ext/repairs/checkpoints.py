"""Repairs to BasicSR's BaseModel: what it saves, loads and resumes."""

import collections
import copy
import json
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils.dist_util import master_only
from basicsr.utils.logger import get_root_logger

from basicsr_ext.checkpoints.networks import check_fit
from basicsr_ext.checkpoints.resumable import load_best, save_best
from basicsr_ext.checkpoints.run_record import changed_options, option_text
from basicsr_ext.checkpoints.saves import saves_of
from basicsr_ext.checkpoints.storage import CONFIGURATION, atomic_save, load_weights, plain, read_configuration
from basicsr_ext.common.contracts import RestorerContract
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.versions import versions_of
from basicsr_ext.repairs.repair import Repairs
from basicsr_ext.training.sample_order import global_batch_size

REPAIRS = Repairs()
_step_schedule = BaseModel.update_learning_rate  # as BasicSR has it; that of the repaired loop begins an iteration


# ---- loading


@REPAIRS.replaces(BaseModel, "load_network", "load-network",
                  "A checkpoint that is missing, damaged or of another network ends in an error that does not say so.",
                  "torch.load(load_path")  # fmt: skip
def _load_network(
    self: Any, net: torch.nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
) -> None:
    """Load weights into a network; if not strict, what fits, which must not be nothing."""
    option = next((f"path.{k}" for k, v in self.opt["path"].items() if v == load_path), "load_path")
    net = self.get_bare_model(net)
    weights = load_weights(load_path, param_key, option)
    get_root_logger().info(f"Loading {type(net).__name__} model from {load_path}, with param key: [{param_key}].")
    cure = "give the options of the network that was saved, or another file"
    if self.opt["path"].get("resume_state"):
        cure = "a run goes on with the network of its save: give that, or begin a run of another name from the file"
    elif strict and "pretrain_network" in option:
        cure += f", or {option.replace('pretrain_network', 'strict_load')}: false to load only what fits"
    lead = f"{option}: {load_path} does not fit network {type(net).__name__}"
    fitting = check_fit(weights, net, lead, cure, strict)
    if not strict:
        self._print_different_keys_loading(net, fitting, strict)
    net.load_state_dict(fitting, strict=strict)
    if isinstance(self, RestorerContract) and option == "path.pretrain_network_g":
        self.take_configuration(read_configuration(load_path, option))


# ---- saving and resuming


def _on_cpu(net: torch.nn.Module) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict((k.removeprefix("module."), v.cpu()) for k, v in net.state_dict().items())


@REPAIRS.replaces(BaseModel, "save_network", "atomic-network",
                  "A failed save of a network is ignored, and a killed one leaves half a file under the "
                  "checkpoint's name.", "Just ignore it")  # fmt: skip
@master_only
def _save_network(self: Any, net: Any, net_label: str, current_iter: int, param_key: str | list = "params") -> None:
    """Save one network, or several under a key each, into one file; the one that restores with its options."""
    nets = net if isinstance(net, list) else [net]
    keys = param_key if isinstance(param_key, list) else [param_key]
    if len(nets) != len(keys):
        raise ValueError(f"save_network got {len(nets)} networks and {len(keys)} keys; give one key for each")
    saves = saves_of(self)
    path = saves.models / f"{net_label}_{'latest' if current_iter == -1 else current_iter}.pth"
    weights = {key: _on_cpu(self.get_bare_model(one)) for one, key in zip(nets, keys)}
    about = {CONFIGURATION: _configuration(self.opt)} if net_label == "net_g" else {}
    saves.write(current_iter, path, lambda place: atomic_save(weights | about, place))


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
                  "A resumed run forgets its best metrics, and ignores changes of the learning rate, the schedule and "
                  "the optimiser's settings without a word.",
                  "resume_state['optimizers']")  # fmt: skip
def _resume_training(self: Any, resume_state: Mapping[str, Any]) -> None:
    """Restore moments, counters and best metrics; random streams follow from seed and iteration alone.

    Schedules and settings of the optimisers are those of the options: the schedule is walked from the first iteration,
    so that a run whose options have changed goes on as if it had had them from there, and one whose options have not
    bit by bit. A model that sets its learning rates in a way of its own goes on with those of the state.
    """
    source = self.opt["path"].get("resume_state") or "the training state"
    for kind, mine in (("optimizers", self.optimizers), ("schedulers", self.schedulers)):
        if len(resume_state[kind]) != len(mine):
            raise InputError(
                f"path.resume_state: {source} holds {len(resume_state[kind])} {kind}, the options make {len(mine)}; "
                "resume with the options of the run that saved it"
            )
    follows = type(self).update_learning_rate is BaseModel.update_learning_rate
    if follows:
        _walk_schedule(self, resume_state["iter"])
        _say_what_follows(self, resume_state)
    else:
        for scheduler, state in zip(self.schedulers, resume_state["schedulers"]):
            scheduler.load_state_dict(state)
    for optimizer, state in zip(self.optimizers, resume_state["optimizers"]):
        try:
            _load_moments(optimizer, state, follows)
        except (ValueError, KeyError) as error:
            raise InputError(
                f"path.resume_state: {source} does not fit train.optim_g: {error}; "
                "resume with the options of the run that saved it"
            ) from error
    best = load_best(source) or resume_state.get("best_metric_results") or {}
    _restore_best(self, best, json.loads(resume_state.get("options") or "{}"))
    if isinstance(self, RestorerContract):
        self.load_training_state_extras(resume_state.get("extras") or {})


def _walk_schedule(model: Any, iteration: int) -> None:
    """Take the learning rates to where they are after an iteration; a million take a few seconds."""
    train = model.opt["train"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch misses the optimiser's own steps
        for k in range(1, min(iteration, int(train.get("total_iter", iteration))) + 1):
            _step_schedule(model, k, warmup_iter=train.get("warmup_iter", -1))


def _say_what_follows(model: Any, resume_state: Mapping[str, Any]) -> None:
    rates = [
        [f"{group['lr']:.6g}" for one in optimizers for group in one["param_groups"]]
        for optimizers in (resume_state["optimizers"], [vars(optimizer) for optimizer in model.optimizers])
    ]
    changed = []
    if resume_state.get("options") and model.opt.get("resolved"):
        lines = changed_options(resume_state["options"], json.loads(model.opt["resolved"]))
        changed = [line for line in lines if re.match(r"train\.(optim_|scheduler|warmup_iter)", line)]
    if changed or rates[0] != rates[1]:
        before, now = (", ".join(dict.fromkeys(some)) for some in rates)
        get_root_logger().info(
            "Optimiser and schedule are those of the options, as if the run had had them from its first iteration; "
            f"moments and counters are those of the state. {'; '.join([*changed, ''])}"
            f"lr of iteration {resume_state['iter']}: {before} -> {now}"
        )


def _load_moments(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], own_settings: bool) -> None:
    """Load a state of ``optimizer``, which keeps its own settings (or takes the saved ones).

    Moments that the saved settings had no use for (``amsgrad``, say) begin at zero. Raises ValueError or KeyError if
    the state is that of other parameters or of another optimiser.
    """
    own, groups = optimizer.state_dict()["param_groups"], saved["param_groups"]
    if own_settings and len(own) == len(groups):
        groups = [{**mine, "params": old["params"]} for mine, old in zip(own, groups)]
    optimizer.load_state_dict({**saved, "param_groups": groups})
    for parameter, held in optimizer.state.items():
        for name, moment in held.items():
            pairs = zip(moment.shape, parameter.shape) if getattr(moment, "ndim", 0) == parameter.ndim else ()
            if any(side not in (1, whole) for side, whole in pairs):  # Adafactor keeps rows and columns
                shapes = [tuple(tensor.shape) for tensor in (moment, parameter)]
                raise ValueError(f"{name} of the shape {shapes[0]} is held for a weight of the shape {shapes[1]}")
    for group, old in zip(optimizer.param_groups, saved["param_groups"]):
        if all(group[k] == old.get(k) for k in group if k not in ("params", "lr", "initial_lr")):
            continue
        for parameter in group["params"]:
            if held := optimizer.state.get(parameter):
                needed = _first_moments(optimizer, group, parameter)
                if needed and not needed.keys() & held.keys():
                    kind = type(optimizer).__name__
                    raise ValueError(f"it holds {', '.join(held)}, but {kind} needs {', '.join(needed)}")
                held.update({name: value for name, value in needed.items() if name not in held})


def _first_moments(optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: torch.Tensor) -> dict[str, Any]:
    """What the optimiser holds of a parameter after a first step with a gradient of zero."""
    stand_in = torch.zeros_like(parameter, requires_grad=True)
    stand_in.grad = torch.zeros_like(stand_in)
    twin = copy.copy(optimizer)
    twin.state, twin.param_groups = collections.defaultdict(dict), [{**group, "params": [stand_in]}]
    twin.step()
    return twin.state[stand_in]


def _restore_best(model: Any, saved: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Take over the best values of those data sets that are measured as they were; ``before`` are the saved options."""
    now = json.loads(option_text(model.opt))
    metrics = (now.get("val") or {}).get("metrics") or {}
    same = {name: record for name, record in saved.items() if set(record) == set(metrics)}
    if before:
        for name in [name for name in same if _measured(before, name) != _measured(now, name)]:
            del same[name]
            said = "val.metrics or its images are not those of the save"
            get_root_logger().warning(f"The best figures of {name} begin anew: {said}.")
    if same:
        model.best_metric_results = {name: {m: dict(v) for m, v in record.items()} for name, record in same.items()}


def _measured(opt: Mapping[str, Any], name: str) -> Any:
    """What the figures of the data set ``name`` depend on beside the network."""
    loading = ("num_worker_per_gpu", "batch_size_per_gpu", "prefetch_mode", "pin_memory", "cache")
    blocks = [block for block in (opt.get("datasets") or {}).values() if block.get("name") == name]
    left = [{key: value for key, value in block.items() if key not in loading} for block in blocks]
    return left, (opt.get("val") or {}).get("metrics")
