"""Repairs to process group, folders, logger, registries and options."""

import collections
import contextlib
import inspect
import json
import logging
import os
import sys
import time
import uuid
from argparse import Namespace
from collections.abc import Mapping
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import yaml
from basicsr.utils import dist_util, misc, options, registry
from basicsr.utils import logger as basicsr_logger

from basicsr_ext.common.errors import InputError, UnknownName, did_you_mean
from basicsr_ext.processes import collectives, launch
from basicsr_ext.processes.group import init_dist
from basicsr_ext.repairs.repair import Repairs, source_says

REPAIRS = Repairs()

_FORMAT = "%(asctime)s %(levelname)s: %(message)s"
STARTERS = ".torchrun"  # file in a run's folder: who started the processes that trained there last


def _group_is_faulty() -> bool:
    pytorch = vars(dist_util).get("_init_dist_pytorch", dist_util.init_dist)
    return source_says(pytorch, "% num_gpus") or source_says(dist_util.init_dist, "set_start_method")


REPAIRS.replaces(dist_util, "init_dist", "process-group",
                 "Distributed runs need CUDA and nccl, take GPUs by global rank, ignore a timeout, and force spawned "
                 "workers.", _group_is_faulty)(init_dist)  # fmt: skip


# ---- folders


@REPAIRS.replaces(misc, "mkdir_and_rename", "run-put-aside",
                  "Two runs of one name within a second fail, because both old folders are renamed alike.",
                  "new_name = path + '_archived_' + get_time_str()")  # fmt: skip
def mkdir_and_rename(path: str) -> None:
    """Make a folder; one that exists is put aside under a name with the time, never over another one."""
    if os.path.exists(path):
        aside = archived = f"{path}_archived_{misc.get_time_str()}"
        count = 1
        while os.path.exists(aside):
            count += 1
            aside = f"{archived}_{count}"
        print(f"Path already exists. Rename it to {aside}", flush=True)
        os.rename(path, aside)
    os.makedirs(path, exist_ok=True)


@REPAIRS.replaces(misc, "make_exp_dirs", "run-folders",
                  "Every extra key of path: becomes a folder, and one that is empty (None) ends the run.",
                  "for key, path in path_opt.items()")  # fmt: skip
def make_exp_dirs(opt: Mapping[str, Any]) -> None:
    """Make the folders of a run, and no folder of any other key of ``path``; the other ranks wait for it."""
    if collectives.is_main():
        mkdir_and_rename(opt["path"]["experiments_root" if opt["is_train"] else "results_root"])
        make_folders(opt["path"])
    collectives.barrier()


def make_folders(paths: Mapping[str, Any]) -> None:
    """Make the folders of a run, the resolved options ``path``, where they are missing."""
    for key in ("experiments_root", "models", "training_states", "log", "visualization"):
        if paths.get(key):
            os.makedirs(paths[key], exist_ok=True)


@REPAIRS.replaces(options, "copy_opt_file", "option-copy",
                  "Every rank writes the copy of the option file, and before rank 0 has made its folder; a pipe, the "
                  "copy itself or a line break in the command end the run.",
                  "rank", absent=True)  # fmt: skip
def copy_opt_file(opt_file: str, experiments_root: str) -> None:
    """Copy the option file, and sign the run's folder with the torchrun that trains in it, on rank 0 alone."""
    starters = collectives.gather_objects(launch.starter())
    if collectives.is_main():
        source = Path(opt_file).expanduser()
        target = Path(experiments_root, source.name)
        if source.is_file() and source.resolve() != target.resolve():
            command = " ".join(" ".join(sys.argv).split())
            head = f"# GENERATE TIME: {time.asctime()}\n# CMD:\n# {command}\n\n"
            text = head + source.read_text(encoding="utf-8-sig")
            target.write_text(text, encoding="utf-8", errors="backslashreplace")
        Path(experiments_root, STARTERS).write_text(json.dumps([name for name in starters if name]))


# ---- logger


class _File(logging.FileHandler):
    """Says once that it cannot be written, such as on a full disk."""

    told = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.told:
            print(f"warning: {self.baseFilename} cannot be written: {sys.exc_info()[1]}", file=sys.stderr, flush=True)
        self.told = True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@REPAIRS.replaces(basicsr_logger, "get_root_logger", "logger",
                  "A logger asked for before the run opens its log file stays silent, and the file is never written.",
                  "just return it")  # fmt: skip
def get_root_logger(
    logger_name: str = "basicsr", log_level: int = logging.INFO, log_file: str | None = None
) -> logging.Logger:
    """BasicSR's logger, which speaks on rank 0 only (errors: on all ranks).

    With ``log_file`` it writes to that file from then on and speaks from ``log_level`` up, however often it was asked
    for before; warnings that came earlier are written to the file too.
    """
    logger = logging.getLogger(logger_name)
    if not any(type(h) is logging.StreamHandler for h in logger.handlers):
        stream = logging.StreamHandler()
        stream.setFormatter(logging.Formatter(_FORMAT))
        logger.addHandler(stream)
        # keeps what is logged before the log file is opened
        logger.addHandler(MemoryHandler(1000, logging.CRITICAL + 1, logging.NullHandler()))
        logger.propagate = False
    basicsr_logger.initialized_logger[logger_name] = True
    if not collectives.is_main():
        logger.setLevel(logging.ERROR)
    elif log_file is not None:
        logger.setLevel(log_level)
        _open_file(logger, log_level, log_file)
    return logger


def _open_file(logger: logging.Logger, log_level: int, log_file: str) -> None:
    file = _File(log_file, "w", encoding="utf-8", errors="backslashreplace")  # names of files may be no UTF-8
    file.setFormatter(logging.Formatter(_FORMAT))
    file.setLevel(log_level)
    for handler in list(logger.handlers):
        if isinstance(handler, MemoryHandler):
            handler.setTarget(file)
        if isinstance(handler, MemoryHandler | logging.FileHandler):
            logger.removeHandler(handler)
            handler.close()
    logger.addHandler(file)


# ---- registries


def _place(thing: type) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _is_same(old: type, new: type) -> bool:
    """True if both are the same definition, imported twice (by two names of its module, say)."""
    if old is new or _place(old) == _place(new):
        return True
    try:
        return old.__qualname__ == new.__qualname__ and os.path.samefile(inspect.getfile(old), inspect.getfile(new))
    except (TypeError, OSError):
        return False


@REPAIRS.replaces(registry.Registry, "_do_register", "registry", "Registering a class twice fails.", "assert")
def _do_register(self: Any, name: str, obj: Any, suffix: str | None = None) -> None:
    """Register an object; the same definition may come again, but InputError names another one of that name."""
    name = f"{name}_{suffix}" if isinstance(suffix, str) else name
    old = self._obj_map.get(name)
    if old is not None and not _is_same(old, obj):
        raise InputError(
            f"two objects are registered as {self._name} {name!r}: {_place(old)} and {_place(obj)}; rename one of them"
        )
    self._obj_map[name] = obj


@REPAIRS.replaces(registry.Registry, "get", "unknown-names",
                  "An unknown name is answered by a misleading line and no list of names.",
                  "is not found, use name")  # fmt: skip
def _registry_get(self: Any, name: str, suffix: str = "basicsr") -> Any:
    """Look a name up, then with BasicSR's suffix; UnknownName lists the known ones, nearest first."""
    for known in (name, f"{name}_{suffix}"):
        if known in self._obj_map:
            return self._obj_map[known]
    raise UnknownName(f"no {self._name} is registered as {name!r}; {did_you_mean(name, self._obj_map)}")


# ---- options


@REPAIRS.replaces(options, "parse_options", "options-parsed",
                  "The command line is executed as Python (--force_yml), and keys and values are not checked.",
                  "exec(")  # fmt: skip
def parse_options(root_path: str, is_train: bool = True) -> tuple[dict[str, Any], Namespace]:
    """Parse the command line and the option file, as :func:`basicsr_ext.preflight.start.parse_options` does."""
    from basicsr_ext.preflight.start import parse_options as parse

    return parse(root_path, is_train)


def _loads_objects() -> bool:
    try:
        yaml.load("!!python/name:os.getcwd", Loader=options.ordered_yaml()[0])
    except yaml.YAMLError:
        return False
    return True


@REPAIRS.replaces(options, "ordered_yaml", "safe-yaml",
                  "Loading an option file can run any Python function that the file names.",
                  _loads_objects)  # fmt: skip
def ordered_yaml() -> tuple[type, type]:
    """YAML loader and dumper that keep the order of keys; the loader builds plain values only."""
    c = yaml.__with_libyaml__
    loader: Any = type("OrderedSafeLoader", (yaml.CSafeLoader if c else yaml.SafeLoader,), {})
    dumper: Any = type("OrderedDumper", (yaml.CDumper if c else yaml.Dumper,), {})

    def construct(reader: Any, node: Any) -> collections.OrderedDict:
        reader.flatten_mapping(node)
        return collections.OrderedDict(reader.construct_pairs(node))

    loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, construct)
    dumper.add_representer(collections.OrderedDict, lambda writer, data: writer.represent_dict(data.items()))
    return loader, dumper


@REPAIRS.replaces(basicsr_logger, "init_wandb_logger", "weights-and-biases",
                  "Weights & Biases cannot be used: its package has lost the function that BasicSR asks for an id.",
                  "wandb.util.generate_id")  # fmt: skip
def init_wandb_logger(opt: dict[str, Any]) -> None:
    """Let Weights & Biases, on rank 0, follow what goes to TensorBoard; ``resume_id`` goes on with a run of theirs."""
    if not collectives.is_main():
        return
    import wandb

    chosen = opt["logger"]["wandb"]
    known, project = chosen.get("resume_id"), chosen["project"]
    name, resume = known or uuid.uuid4().hex[:8], "allow" if known else "never"
    wandb.init(id=name, resume=resume, name=opt["name"], config=opt, project=project, sync_tensorboard=True)
    get_root_logger().info(f"Weights & Biases follows: id {name}, project {project}.")
