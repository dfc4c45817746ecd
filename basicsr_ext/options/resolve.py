"""From the command line and an option file to the options that BasicSR's pipelines run on."""

import argparse
import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, get_args

from basicsr_ext.common import plugins
from basicsr_ext.common.errors import InputError
from basicsr_ext.options.basicsr_keys import PHASES, SECTIONS, Findings, phase_of
from basicsr_ext.processes.launch import Launch


def raise_faults(found: Findings, source: str) -> None:
    """Raise one InputError that lists every fault; say which plugins failed if a name is not registered."""
    if not found.faults:
        return
    lines = list(dict.fromkeys(found.faults))
    if any("is not registered" in line for line in lines):
        lines += [f"(plugin {p.name} [{p.source}] failed to load: {p.error})" for p in plugins.failures()]
    head = [] if len(lines) == 1 else [f"{len(found.faults)} faults"]
    raise InputError(f"{source}: " + "\n  - ".join([*head, *lines]))


def select_datasets(opt: dict[str, Any], is_train: bool) -> list[str]:
    """Keep the data sets of this command: train and val*, or test* (val* where the file has no test*)."""
    datasets = opt.get("datasets")
    if not isinstance(datasets, Mapping):
        return []
    phases = {name: phase_of(name) for name in datasets}
    wanted = ("train", "val") if is_train else ("test",) if "test" in phases.values() else ("val",)
    dropped = [name for name, phase in phases.items() if phase in PHASES and phase not in wanted]
    opt["datasets"] = OrderedDict((name, block) for name, block in datasets.items() if name not in dropped)
    return [f"datasets.{name} is left to `basicsr test`" for name in dropped if phases[name] == "test"]


def resolve(
    opt: dict[str, Any],
    args: argparse.Namespace,
    root_path: str | os.PathLike[str],
    is_train: bool,
    here: Launch,
    file_name: str | None = None,
) -> list[str]:
    """Fill in place what BasicSR needs and the file left out; returns notes.

    ``file_name`` is the run's name in the file, before ``--force_yml``: a test takes that run's network.
    """
    root = os.path.abspath(os.path.expanduser(root_path))
    opt["dist"] = here.launcher != "none"
    opt["rank"], opt["world_size"] = here.rank, here.world_size
    opt["auto_resume"], opt["is_train"] = args.auto_resume, is_train
    if args.debug and not opt["name"].startswith("debug"):
        opt["name"] = f"debug_{opt['name']}"
    _whole(opt, "")
    notes = _resolve_gpus(opt, here)
    opt.update((section, {}) for section in ("path", "logger") if not opt.get(section))
    if opt.get("val") is None and not is_train:
        opt["val"] = {}  # in training its absence means: do not validate
    _resolve_defaults(opt, is_train)
    for name, dataset in opt["datasets"].items():
        resolve_dataset(opt, str(name), dataset)
    opt["path"] |= {key: os.path.expanduser(value) for key, value in opt["path"].items() if isinstance(value, str)}
    if is_train:
        _resolve_train_paths(opt, root)
        return notes
    by_hand = any(entry.lstrip("+ ").startswith("path:pretrain_network_g") for entry in args.force_yml or [])
    return notes + _resolve_test_paths(opt, root, file_name or opt["name"], by_hand)


def _resolve_gpus(opt: dict[str, Any], here: Launch) -> list[str]:
    import torch

    if opt.get("num_gpu", "auto") != "auto":
        return []
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    alone = here.launcher == "none"
    opt["num_gpu"] = min(count, 1) if alone else count
    starter = f"torchrun --nproc-per-node {count} -m basicsr_ext ... --launcher pytorch"
    return [f"num_gpu: auto uses 1 of {count} GPUs; start with `{starter}` to use all"] if alone and count > 1 else []


def _set_defaults(block: dict[str, Any], **defaults: Any) -> None:
    block.update((key, value) for key, value in defaults.items() if block.get(key) is None)


def _whole(block: dict[str, Any], section: str) -> None:
    """Turn 5e3 into 5000 where a whole number is meant: YAML reads it as a float."""
    for key, (kind, _) in SECTIONS[section].items():
        kinds = get_args(kind) or (kind,)
        if isinstance(block.get(key), float) and int in kinds and float not in kinds:
            block[key] = int(block[key])


def _resolve_defaults(opt: dict[str, Any], is_train: bool) -> None:
    from basicsr_ext.metrics import build_metric

    _set_defaults(opt["logger"], print_freq=100, save_checkpoint_freq=5000, use_tb_logger=False)
    if opt.get("val") is not None:
        _set_defaults(opt["val"], suffix=None, save_img=not is_train, **({"val_freq": 5000} if is_train else {}))
        for metric in (opt["val"].get("metrics") or {}).values():
            # BasicSR would take the higher figures for the better ones
            if "better" not in metric and build_metric(metric).better == "lower":
                metric["better"] = "lower"
    for section in ("logger", "val", "train"):
        _whole(opt.get(section) or {}, section)
    _set_defaults(opt["path"], resume_state=None, strict_load_g=True, pretrain_network_g=None)
    if is_train and "debug" in opt["name"]:
        if opt.get("val") is not None:
            opt["val"]["val_freq"] = 8
        opt["logger"].update(print_freq=1, save_checkpoint_freq=8)


def resolve_dataset(opt: Mapping[str, Any], name: str, dataset: dict[str, Any], phase: str | None = None) -> None:
    """Fill in place what a data set needs and its block ``datasets.<name>``, which tells the phase, left out."""
    dataset["phase"] = phase or phase_of(name)
    _whole(dataset, "datasets.*")
    dataset.setdefault("name", name)
    dataset |= {key: opt[key] for key in ("scale",) if key in opt} | {
        key: opt[key] for key in ("data",) if opt.get(key)
    }
    expand = os.path.expanduser
    roots: list[str] = []
    for key, value in dataset.items():
        if value and key.startswith(("dataroot", "meta_info")):
            dataset[key] = [expand(v) for v in value] if isinstance(value, list) else expand(value)
            if key.startswith("dataroot"):
                roots += value if isinstance(value, list) else [value]
    if dataset.get("io_backend") is None:
        lmdb = bool(roots) and all(root.endswith(".lmdb") for root in roots)
        dataset["io_backend"] = {"type": "lmdb" if lmdb else "disk"}
    if dataset["phase"] == "train":
        _set_defaults(dataset, num_worker_per_gpu=0, dataset_enlarge_ratio=1)
        _set_defaults(dataset, persistent_workers=True, pin_memory=bool(opt.get("num_gpu")))
    if dataset["phase"] != "train" or dataset["num_worker_per_gpu"] == 0:
        dataset.pop("persistent_workers", None)  # torch refuses it for a loader without workers


def _resolve_train_paths(opt: dict[str, Any], root: str) -> None:
    path = opt["path"]
    path.pop("results_root", None)
    base = os.path.abspath(path.get("experiments_root") or os.path.join(root, "experiments"))
    folder = os.path.join(base, opt["name"])
    path["experiments_root"] = path["log"] = folder
    path |= {key: os.path.join(folder, key) for key in ("models", "training_states", "visualization")}


def _resolve_test_paths(opt: dict[str, Any], root: str, file_name: str, by_hand: bool) -> list[str]:
    """Point to the results and, unless a network is given, to that of the run ``name``, or else as in the file.

    In a training file ``path.pretrain_network_g`` is where the training began: the run's own network is tested if there
    is one, unless the command line (``by_hand``) names another.
    """
    path = opt["path"]
    experiments = os.path.abspath(path.pop("experiments_root", None) or os.path.join(root, "experiments"))
    base = os.path.abspath(path.get("results_root") or os.path.join(root, "results"))
    path["results_root"] = path["log"] = os.path.join(base, opt["name"])
    path["visualization"] = os.path.join(path["results_root"], "visualization")
    start = path["pretrain_network_g"]
    if start is not None and (by_hand or not opt.get("train")):
        return []
    from basicsr_ext.checkpoints import networks

    names = dict.fromkeys((opt["name"], file_name))
    trained = [os.path.join(experiments, name, "models", "net_g_latest.pth") for name in names]
    if found := next(filter(os.path.isfile, trained), None):
        path["pretrain_network_g"] = found
        if start is not None or path.get("param_key_g") is None:
            path["param_key_g"] = networks.best_key(found)
        said = "is not set" if start is None else f"is {start}, where the training began"
        return [f"path.pretrain_network_g {said}: {found} is tested"]
    if start is None and networks.has_weights(opt):
        said = f"path.pretrain_network_g is not set, and there is no {' and no '.join(trained)}"
        raise InputError(f"{said}; train that run first, or give the file of a trained network")
    return []
