"""Refuse, before anything is written, every run that could not end well: data, networks, devices, live runs."""

import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from basicsr_ext.checkpoints.resumable import resumable_iterations
from basicsr_ext.checkpoints.saves import option_faults
from basicsr_ext.common import folder_lock
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import listed
from basicsr_ext.metrics import build_metrics
from basicsr_ext.models.acceleration import lacks_bf16
from basicsr_ext.options.check import model_class
from basicsr_ext.preflight import data, measures, networks
from basicsr_ext.processes import launch
from basicsr_ext.processes.launch import Launch

_INPUTS = ("pretrain", "teacher")  # how the options of `path` begin that name files to read


def missing_files(opt: Mapping[str, Any]) -> list[str]:
    """Faults of the folders and files that the options name; quick, builds nothing."""
    return [fault for name, block in _datasets(opt) for fault in data.missing_data(f"datasets.{name}", block)]


def _datasets(opt: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The data sets of options that are not yet checked."""
    datasets = opt.get("datasets")
    blocks = datasets.items() if isinstance(datasets, Mapping) else ()
    return [(name, block) for name, block in blocks if isinstance(block, Mapping)]


def device_faults(opt: Mapping[str, Any], here: Launch) -> list[str]:
    """Faults of ``num_gpu`` and ``prefetch_mode`` on this machine."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = opt.get("num_gpu", "auto")
    faults = []
    if isinstance(wanted, int) and wanted > 0 and count == 0:
        faults.append(f"num_gpu is {wanted}, but torch finds no CUDA device; set num_gpu: auto, or 0 for the CPU")
    elif isinstance(wanted, int) and wanted > count and here.launcher == "none":
        faults.append(f"num_gpu is {wanted}, but torch finds {count} CUDA device(s); set num_gpu: auto or {count}")
    for name, block in _datasets(opt):
        if block.get("prefetch_mode") == "cuda" and (count == 0 or wanted == 0):
            faults.append(f"datasets.{name}.prefetch_mode is cuda, but the run is on the CPU; set it to cpu or ~")
        elif block.get("prefetch_mode") == "cuda" and block.get("pin_memory") is not True:
            faults.append(f"datasets.{name}.prefetch_mode is cuda, which needs pin_memory: true; set it")
    return faults


def check_put_aside(opt: Mapping[str, Any], option_file: str, is_train: bool) -> None:
    """Refuse a start that would put a folder aside in which inputs of its own lie; InputError names them."""
    folder = opt["path"]["experiments_root" if is_train else "results_root"]
    goes_on = is_train and (opt["path"].get("resume_state") or (opt["auto_resume"] and resumable_iterations(opt)))
    if goes_on or launch.is_restart() or not os.path.lexists(folder):
        return
    named = [("-opt", option_file), *_texts({key: value for key, value in opt.items() if key != "path"})]
    named += [(f"path.{key}", text) for key, text in opt["path"].items() if key.startswith(_INPUTS)]
    texts = [(option, text) for option, text in named if isinstance(text, str)]
    if inside := [f"{option} {text}" for option, text in texts if _lies_in(option, text, folder)]:
        cure = "give --auto_resume to go on with that run, or " if is_train else ""
        raise InputError(
            f"{folder} exists: a new start would put it aside, and inputs of this one lie in it: {listed(inside)}; "
            f"{cure}choose another name, or copy the inputs elsewhere"
        )


def _texts(block: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """The texts in nested options, each with its dotted name."""
    if isinstance(block, str):
        yield where, block
    items = block.items() if isinstance(block, Mapping) else enumerate(block) if isinstance(block, list) else ()
    for key, value in items:
        yield from _texts(value, f"{where}.{key}" if where else str(key))


def _lies_in(option: str, text: str, folder: str) -> bool:
    """Whether a text is the path of something in ``folder``, by its name or where links lead, a data folder's too."""
    path, root = os.path.expanduser(text), os.path.realpath(folder)
    if not os.path.exists(path):
        return False
    places = [os.path.dirname(os.path.abspath(path)), path]
    if ".dataroot" in option:  # `root_path` holds all, and is no input
        inner = (os.path.join(base, name) for base, folders, files in os.walk(path) for name in folders + files)
        places += filter(os.path.islink, inner)
    return any(os.path.commonpath([root, os.path.realpath(place)]) == root for place in places)


def check_run(opt: Mapping[str, Any], is_train: bool, here: Launch) -> list[str]:
    """Check options against data, checkpoints and live runs, writing nothing; notes for the log, or InputError."""
    faults: list[str] = []
    notes: list[str] = []
    folder = opt["path"]["experiments_root" if is_train else "results_root"]
    if here.is_main and (owner := folder_lock.held_by(folder)) is not None:
        faults.append(folder_lock.refusal(folder, owner))
    faults.extend(networks.network_faults(opt))
    if is_train:
        faults += option_faults(opt)
    if is_train and (opt["logger"].get("wandb") or {}).get("project"):
        if not opt["logger"].get("use_tb_logger"):
            faults.append("logger.wandb follows what goes to TensorBoard; set logger.use_tb_logger: true")
        if importlib.util.find_spec("wandb") is None:
            faults.append("logger.wandb needs the package wandb; run: pip install wandb, or leave logger.wandb out")
    metrics = build_metrics((opt.get("val") or {}).get("metrics"))
    built = not any(fault.startswith("network_g") for fault in faults)
    for name, block in opt["datasets"].items():
        where = f"datasets.{name}"
        dataset, item = data.check_dataset(where, block, faults, notes)
        if name == "train" and dataset is not None and len(dataset):
            faults.extend(data.training_size_faults(opt, len(dataset), here.world_size))
        if item is not None and name != "train":
            faults.extend(measures.metric_faults(where, "val.metrics", metrics, dataset, block, item))
        if block.get("phase") != "train" and dataset is not None and (opt.get("val") or {}).get("save_img"):
            faults.extend(data.result_faults(where, block, dataset, Path(opt["path"]["visualization"])))
        if dataset is not None and name != "train":
            faults.extend(_video_faults(opt, where, block["type"], dataset))
        if item is not None and built:
            faults.extend(networks.channel_faults(opt, where, item, model_class(opt)))
    if is_train and opt.get("val") and not any(name.startswith("val") for name in opt["datasets"]):
        notes.append("val is given, but datasets has no val: nothing will be validated")
    on_cpu = opt["num_gpu"] == 0 or not torch.cuda.is_available()
    if is_train and opt["train"].get("precision") == "bf16" and on_cpu and lacks_bf16("cpu"):
        notes.append("train.precision is bf16, for which this CPU has no units: many times slower than fp32; set auto")
    if "cuda_graph" in (opt.get("val") or {}):
        notes.append("val.cuda_graph does nothing any more; leave it out")
    if faults:
        faults = list(dict.fromkeys(faults))
        head = f"{len(faults)} things keep {opt['name']} from starting:"
        raise InputError(faults[0] if len(faults) == 1 else "\n  - ".join([head, *faults]))
    return notes


def _video_faults(opt: Mapping[str, Any], where: str, kind: str, dataset: Any) -> list[str]:
    """What the validation of BasicSR's video models, which is their own, needs of data and machine."""
    if "VideoBaseModel" not in [cls.__name__ for cls in (model_class(opt) or object).__mro__]:
        return []
    if "data_info" not in vars(dataset):
        said = "and this knows no folders of frames; take a data set such as VideoTestDataset"
        return [f"{where}.type is {kind}, but {opt['model_type']} measures videos, {said}"]
    if opt["num_gpu"] == 0 and (opt.get("val") or {}).get("metrics"):
        return [
            f"num_gpu is 0, but {opt['model_type']} keeps its figures on a GPU; leave val.metrics out, or take a GPU"
        ]
    return []
