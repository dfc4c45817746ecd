"""``basicsr check``: build everything, push one batch and one validation image through, keep nothing.

With ``--data``, decode every image instead.
"""

import argparse
import copy
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from basicsr_ext import repairs
from basicsr_ext.common.contracts import restorer_of
from basicsr_ext.common.errors import InputError
from basicsr_ext.options.arguments import add_arguments
from basicsr_ext.options.file import load_yaml
from basicsr_ext.processes.launch import Launch


def run(argv: list[str]) -> int:
    """Check an option file by a rehearsal in a temporary folder; returns 0, or raises what a run would raise.

    With ``--data`` no network is built; returns 1 if any image cannot be used.
    """
    parser = argparse.ArgumentParser(prog="basicsr check", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--data", action="store_true", help="read every image of every data set, and nothing else")
    args = parser.parse_args(argv)
    if args.launcher != "none":
        raise InputError(f"--launcher is {args.launcher}: basicsr check runs in one process; leave the flag out")
    repairs.apply()
    from basicsr_ext.preflight import checks, intervals, start
    from basicsr_ext.training import loop_state, memory

    datasets = load_yaml(args.opt).get("datasets")
    is_train = isinstance(datasets, dict) and "train" in datasets
    opt, notes = start.prepare(args, os.getcwd(), is_train, Launch())
    if args.data:
        return _check_data(opt)
    notes += intervals.settle(opt, is_train)
    for note in notes + checks.check_run(opt, is_train, Launch()):
        print(f"note: {note}")
    with tempfile.TemporaryDirectory(prefix="basicsr-check-") as folder:
        _move_paths(opt, folder)
        with loop_state.watched_run() as run, memory.explained(run, is_train):
            _rehearse(opt, is_train)
    print(f"{args.opt}: all well; nothing was kept")
    return 0


def _check_data(opt: dict[str, Any]) -> int:
    from basicsr_ext.common.cores import usable_cores
    from basicsr_ext.preflight.every_image import data_faults

    total = 0
    for name, block in opt["datasets"].items():
        count, faults = data_faults(f"datasets.{name}", block, usable_cores())
        total += len(faults)
        print(f"datasets.{name}: {count:,} images, {len(faults) or 'no'} fault(s)", *faults, sep="\n  ")
    return 1 if total else 0


def _move_paths(opt: dict[str, Any], folder: str) -> None:
    opt["root_path"] = folder
    for key in {"results_root", "models", "training_states", "log", "visualization"} & opt["path"].keys():
        opt["path"][key] = os.path.join(folder, key)
        os.mkdir(opt["path"][key])


def _rehearse(opt: dict[str, Any], is_train: bool) -> None:
    from basicsr.data import build_dataset
    from basicsr.models import build_model
    from basicsr.utils import set_random_seed

    opt["manual_seed"] = opt["manual_seed"] if opt.get("manual_seed") is not None else 0
    opt["start"] = {"epoch": 0, "iter": 0}
    set_random_seed(opt["manual_seed"])
    datasets = {name: build_dataset(block) for name, block in opt["datasets"].items()}
    for name, dataset in datasets.items():
        print(f"datasets.{name}: {type(dataset).__name__}, {len(dataset)} images")
    model = build_model(opt)
    for name in ("net_g", "net_d"):
        if (network := vars(model).get(name)) is not None:
            kind, count = type(model.get_bare_model(network)).__name__, sum(p.numel() for p in network.parameters())
            print(f"{name.replace('net', 'network')}: {kind}, {count:,} parameters")
    if is_train:
        with _shapes_fit("datasets.train: one batch cannot be trained"):
            _train_once(model, datasets["train"], opt)
    for name, dataset in datasets.items():
        if name != "train" and opt.get("val") is not None:
            with _shapes_fit(f"datasets.{name}: one image cannot be restored"):
                _validate_once(model, dataset, opt, is_train)
            print(f"datasets.{name}: one image restored and measured")


@contextmanager
def _shapes_fit(where: str) -> Iterator[None]:
    """Turn torch's words on shapes into InputError: options that do not fit each other are what they come from."""
    try:
        yield
    except RuntimeError as error:
        if not re.search(r"size|shape|channels", str(error)):
            raise
        said = str(error).splitlines()[0]
        raise InputError(f"{where}: {said}; network_g, the data and the losses must fit each other") from error


def _train_once(model: Any, dataset: Any, opt: dict[str, Any]) -> None:
    import torch
    from torch.utils.data import DataLoader

    batch_size = opt["datasets"]["train"]["batch_size_per_gpu"] * max(1, opt["num_gpu"])
    indices = [k % len(dataset) for k in range(batch_size)]
    batch = next(iter(DataLoader(dataset, batch_size=batch_size, sampler=indices)))
    shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in batch.items() if torch.is_tensor(value))
    looked = [k * len(dataset) // 128 for k in range(128)]  # as many images as a run looks at
    restorer_of(model).begin_training(DataLoader(dataset, batch_size=batch_size, sampler=looked))
    model.update_learning_rate(1, warmup_iter=opt["train"].get("warmup_iter", -1))
    model.feed_data(batch)
    model.optimize_parameters(1)
    log = {key: value for key, value in model.get_current_log().items() if "/" not in key}
    losses = ", ".join(f"{key} {float(value):.4g}" for key, value in log.items())
    print(f"one batch: {shapes}; {losses}")


def _validate_once(model: Any, dataset: Any, opt: dict[str, Any], is_train: bool) -> None:
    from torch.utils.data import DataLoader

    first = copy.copy(dataset)  # cut to its first image, otherwise as it is
    first.__class__ = type(type(dataset).__name__, (type(dataset),), {"__len__": lambda self: 1})
    model.validation(DataLoader(first, batch_size=1, shuffle=False), 1 if is_train else opt["name"], None, False)
