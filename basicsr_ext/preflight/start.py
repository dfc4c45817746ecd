"""From the command line to a run that is checked: the last moment before anything is written."""

import argparse
import random
import sys
from pathlib import Path
from typing import Any

from basicsr_ext.common import folder_lock, plugins
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.seeds import MOST_SEED
from basicsr_ext.options.arguments import add_arguments
from basicsr_ext.options.check import inspect_options, known_names
from basicsr_ext.options.file import apply_overrides, load_yaml
from basicsr_ext.options.resolve import raise_faults, resolve, select_datasets
from basicsr_ext.preflight import checks, intervals
from basicsr_ext.processes import collectives, launch
from basicsr_ext.processes.launch import Launch

_EARLY = ("plugins", "model_type")  # these decide which other options exist


def parse_options(root_path: str | Path, is_train: bool = True) -> tuple[dict[str, Any], argparse.Namespace]:
    """Take the place of BasicSR's ``parse_options``: read ``sys.argv``, check everything, then resolve.

    ``root_path`` is the folder below which ``experiments`` and ``results`` lie. Nothing is written before all checks
    have passed (InputError with all faults). Returns the resolved options, and the arguments with ``.opt``, the file.
    """
    parser = argparse.ArgumentParser(prog=Path(sys.argv[0]).name or "basicsr")
    add_arguments(parser)
    args = parser.parse_args(sys.argv[1:])
    here = launch.find_launch(args.launcher)
    opt, notes = prepare(args, root_path, is_train, here)
    notes += intervals.settle(opt, is_train)
    checks.check_put_aside(opt, args.opt, is_train)
    notes += checks.check_run(opt, is_train, here)
    if here.is_main:
        folder_lock.hold(opt["path"]["experiments_root" if is_train else "results_root"])
        for line in notes:
            print(f"note: {line}", file=sys.stderr, flush=True)
    if notes:
        opt["notes"] = notes  # BasicSR writes the options to the log, and the notes with them
    _start_processes(opt, here)
    return opt, args


def prepare(args: argparse.Namespace, root_path: str | Path, is_train: bool, here: Launch) -> tuple[dict, list[str]]:
    """Load, override, load plugins, check and resolve; also the notes. Reads no data and starts no process."""
    opt = load_yaml(args.opt)
    file_name = opt.get("name")
    entries = args.force_yml or []
    early = [entry for entry in entries if entry.lstrip("+ ").partition("=")[0].strip() in _EARLY]
    apply_overrides(opt, early)
    notes = [here.note] if here.note else []
    notes += [f"plugin {p.name} failed to load: {p.error}" for p in plugins.load_entry_points() if not p.ok]
    listed: Any = opt.get("plugins") or []
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise InputError(f"{args.opt}: plugins is {listed!r}, but it must be a list such as [my_package, ./file.py]")
    plugins.load_listed(listed, Path(args.opt).expanduser().parent)
    apply_overrides(opt, [entry for entry in entries if entry not in early], lambda keys: known_names(opt, keys))
    notes += select_datasets(opt, is_train)
    found = inspect_options(opt, is_train)
    found.faults += checks.missing_files(opt) + checks.device_faults(opt, here)
    raise_faults(found, args.opt)
    notes += found.notes
    return opt, notes + resolve(opt, args, root_path, is_train, here, file_name)


def _start_processes(opt: dict[str, Any], here: Launch) -> None:
    """Join the process group if there is a launcher, then seed: after every override, differently on each rank."""
    from basicsr.utils import set_random_seed
    from basicsr.utils.dist_util import get_dist_info, init_dist

    if here.launcher != "none":
        wishes = dict(opt.get("dist_params") or {})
        if here.launcher == "pytorch":
            wishes.pop("port", None)  # torchrun sets it
        if opt["num_gpu"] == 0:
            wishes["backend"] = "gloo"  # the CPU was asked for, though there may be GPUs
        init_dist(here.launcher, **wishes)
        opt["rank"], opt["world_size"] = get_dist_info()
    if opt.get("manual_seed") is None:
        opt["manual_seed"] = collectives.broadcast_object(random.randint(1, 10000))
        opt["manual_seed_drawn"] = True  # a resumed run takes that of its save
    set_random_seed((opt["manual_seed"] + opt["rank"]) % (MOST_SEED + 1))
