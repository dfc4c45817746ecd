"""The options that BasicSR itself reads, by section: names, types and least values; and the check against them."""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from basicsr_ext.common.errors import did_you_mean
from basicsr_ext.common.option_blocks import convert, is_near

PHASES = ("train", "val", "test")

Table = dict[str, tuple[Any, int | None]]  # name -> (type, least value or None)


def _table(kinds: Mapping[str, Any]) -> Table:
    """A section: names, separated by spaces, ``name>=least`` where there is a least value -> their type."""
    words = [(word.partition(">="), kind) for names, kind in kinds.items() for word in names.split()]
    return {name: (kind, int(least) if least else None) for (name, _, least), kind in words}


_LOADER: dict[str, Any] = {
    "name type phase": str,
    "scale>=1": int | float,
    "io_backend": dict,
    "num_worker_per_gpu>=0 batch_size_per_gpu>=1 num_prefetch_queue>=1": int,
    "dataset_enlarge_ratio>=1": int | float,
    "prefetch_mode": Literal["cpu", "cuda"] | None,
    "pin_memory persistent_workers use_shuffle": bool,
}
_BELOW = {"ema_decay": 1, "num_worker_per_gpu": 257}
LOADER_KEYS = frozenset(_table(_LOADER))
_SECTIONS: dict[str, dict[str, Any]] = {
    "": {
        "name model_type": str,
        "scale>=1": int | float,
        "num_gpu>=0": Literal["auto"] | int,
        "manual_seed>=0": int | None,
        "find_unused_parameters": bool,
        "plugins": list[str] | None,
        "datasets network_g network_d": dict,
        "path train val logger dist_params data": dict | None,
    },
    "path": {
        "pretrain_network_g pretrain_network_d param_key_g param_key_d": str | None,
        "resume_state experiments_root results_root": str | None,
        "strict_load_g strict_load_d": bool,
        "ignore_resume_networks": str | list[str] | None,
    },
    "train": {
        "total_iter>=1 warmup_iter>=-1 net_d_iters>=1 net_d_init_iters>=0": int,
        "ema_decay>=0": float,
        "optim_g optim_d scheduler": dict,
        "pixel_opt perceptual_opt gan_opt ldl_opt": dict | None,
    },
    "val": {"val_freq>=1": int, "save_img pbar": bool, "suffix": str | int | float | None, "metrics": dict | None},
    "logger": {
        "print_freq>=1 save_checkpoint_freq>=1 max_failed_saves>=1": int,
        "keep_last>=1": int | None,
        "keep_best": str | None,
        "use_tb_logger": bool,
        "wandb": dict | None,
    },
    "dist_params": {"backend": str, "port>=1": int, "timeout>=0": float},
    "datasets.*": _LOADER
    | {
        "dataroot_gt dataroot_lq meta_info_file meta_info": str | list[str] | None,
        "filename_tmpl": str,
        "gt_size>=1": int | None,
        "use_hflip use_rot": bool,
        "color": str | None,
        "mean std": list[float] | None,
    },
}
SECTIONS: dict[str, Table] = {section: _table(kinds) for section, kinds in _SECTIONS.items()}
_PATTERNS = {
    "": re.compile(r"network_\w+"),
    "path": re.compile(r"(pretrain_network|strict_load|param_key)_\w+"),
    "train": re.compile(r"optim_\w+|\w+_opt"),
}


def phase_of(name: object) -> str:
    """The phase of a data set by the name of its block: what stands before the first ``_``, see ``PHASES``."""
    return str(name).split("_")[0]


def fields_of(cls: type) -> set[str]:
    """Names of the fields of a dataclass of options."""
    return {field.name for field in dataclasses.fields(cls)}


def own_options(cls: type, block: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a data set's block that ``cls``, the dataclass of its options, must know, not the loader's."""
    own = fields_of(cls)
    return {key: value for key, value in block.items() if key in own or key not in LOADER_KEYS}


def known_in(keys: Sequence[str]) -> Table:
    """The options that BasicSR reads in the block that ``keys`` lead to; an empty table if it knows no such block."""
    return SECTIONS.get("datasets.*" if len(keys) == 2 and keys[0] == "datasets" else ".".join(keys), {})


@dataclasses.dataclass
class Findings:
    """What is wrong (``faults``) and what is merely odd (``notes``)."""

    faults: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def check_section(where: str, block: Mapping[str, Any], read: Collection[str], own: set[str], found: Findings) -> None:
    """Check a section of BasicSR's own: types of known keys; strange keys are faults only if near to a known one.

    ``where`` is its dotted name, "" for the top. ``read`` are words that the class in charge may read, ``own`` keys
    that it declares.
    """
    types, pattern = SECTIONS["datasets.*" if where.startswith("datasets.") else where], _PATTERNS.get(where)
    for key, value in block.items():
        option = f"{where}.{key}" if where else str(key)
        if key in types:
            (kind, least), faults = types[key], list[str]()
            fitted = convert(value, kind, option, faults)
            if not faults and least is not None and isinstance(fitted, int | float) and fitted < least:
                faults = [f"{option} is {value!r}, but it must be at least {least:g}"]
            elif not faults and key in _BELOW and fitted >= _BELOW[key]:
                faults = [f"{option} is {value!r}, but it must be below {_BELOW[key]}"]
            elif not faults and value == "" and where == "path":
                faults = [f"{option} is an empty text; give a file or folder, or leave it out"]
            found.faults += faults
        elif key not in read and key not in own and not (pattern and pattern.fullmatch(str(key))):
            known = {*types, *own}
            if is_near(key, known):
                found.faults.append(f"{option} is not an option; {did_you_mean(key, known)}")
            else:
                found.notes.append(f"{option} is not an option that the toolkit knows; it may have no effect")
