"""The options that BasicSR itself reads: names, types and least values, by section."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, Optional, Union, get_args

__all__ = ["LOADER_KEYS", "SECTIONS", "is_known", "section_keys", "section_types", "whole_keys"]

# Optional and Union are spelt out: these annotations are evaluated at run time on Python 3.10 too
_OptStr = Optional[str]  # noqa: UP045
_OptBlock = Optional[dict]  # noqa: UP045

# name -> (type, least value or None)
_TOP: dict[str, tuple[Any, float | None]] = {
    "name": (str, None),
    "model_type": (str, None),
    "scale": (Union[int, float], 1),  # noqa: UP007
    "num_gpu": (Union[Literal["auto"], int], 0),  # noqa: UP007
    "manual_seed": (Optional[int], 0),  # noqa: UP045
    "find_unused_parameters": (bool, None),
    "plugins": (Optional[list[str]], None),  # noqa: UP045
    "datasets": (dict, None),
    "network_g": (dict, None),
    "network_d": (dict, None),
    "path": (_OptBlock, None),
    "train": (_OptBlock, None),
    "val": (_OptBlock, None),
    "logger": (_OptBlock, None),
    "dist_params": (_OptBlock, None),
}
_PATH: dict[str, tuple[Any, float | None]] = {
    "pretrain_network_g": (_OptStr, None),
    "pretrain_network_d": (_OptStr, None),
    "strict_load_g": (bool, None),
    "strict_load_d": (bool, None),
    "param_key_g": (_OptStr, None),
    "param_key_d": (_OptStr, None),
    "resume_state": (_OptStr, None),
    "ignore_resume_networks": (Union[str, list[str], None], None),  # noqa: UP007
    "experiments_root": (_OptStr, None),
    "results_root": (_OptStr, None),
}
_TRAIN: dict[str, tuple[Any, float | None]] = {
    "total_iter": (int, 1),
    "warmup_iter": (int, -1),
    "ema_decay": (float, 0),
    "optim_g": (dict, None),
    "optim_d": (dict, None),
    "scheduler": (dict, None),
    "pixel_opt": (_OptBlock, None),
    "perceptual_opt": (_OptBlock, None),
    "gan_opt": (_OptBlock, None),
    "ldl_opt": (_OptBlock, None),
    "net_d_iters": (int, 1),
    "net_d_init_iters": (int, 0),
}
_VAL: dict[str, tuple[Any, float | None]] = {
    "val_freq": (int, 1),
    "save_img": (bool, None),
    "suffix": (Union[str, int, float, None], None),  # noqa: UP007
    "pbar": (bool, None),
    "metrics": (_OptBlock, None),
}
_LOGGER: dict[str, tuple[Any, float | None]] = {
    "print_freq": (int, 1),
    "save_checkpoint_freq": (int, 1),
    "keep_last": (Optional[int], 1),  # noqa: UP045
    "keep_best": (_OptStr, None),
    "save_safetensors": (bool, None),
    "max_failed_saves": (int, 1),
    "use_tb_logger": (bool, None),
    "wandb": (_OptBlock, None),
}
_DIST: dict[str, tuple[Any, float | None]] = {
    "backend": (str, None),
    "port": (int, 1),
    "timeout": (float, 0),
}
_LOADER: dict[str, tuple[Any, float | None]] = {
    "name": (str, None),
    "type": (str, None),
    "phase": (str, None),
    "scale": (Union[int, float], 1),  # noqa: UP007
    "io_backend": (dict, None),
    "num_worker_per_gpu": (int, 0),
    "batch_size_per_gpu": (int, 1),
    "dataset_enlarge_ratio": (Union[Literal["auto"], int, float], 1),  # noqa: UP007
    "prefetch_mode": (Optional[Literal["cpu", "cuda"]], None),  # noqa: UP045
    "num_prefetch_queue": (int, 1),
    "pin_memory": (bool, None),
    "persistent_workers": (bool, None),
    "use_shuffle": (bool, None),
}
_DATASET: dict[str, tuple[Any, float | None]] = {
    **_LOADER,
    "dataroot_gt": (Union[str, list[str], None], None),  # noqa: UP007
    "dataroot_lq": (Union[str, list[str], None], None),  # noqa: UP007
    "meta_info_file": (Union[str, list[str], None], None),  # noqa: UP007
    "meta_info": (Union[str, list[str], None], None),  # noqa: UP007
    "filename_tmpl": (str, None),
    "gt_size": (Optional[int], 1),  # noqa: UP045
    "use_hflip": (bool, None),
    "use_rot": (bool, None),
    "color": (_OptStr, None),
    "mean": (Optional[list[float]], None),  # noqa: UP045
    "std": (Optional[list[float]], None),  # noqa: UP045
}
SECTIONS: dict[str, dict[str, tuple[Any, float | None]]] = {
    "": _TOP,
    "path": _PATH,
    "train": _TRAIN,
    "val": _VAL,
    "logger": _LOGGER,
    "dist_params": _DIST,
    "datasets.*": _DATASET,
}
_PATTERNS = {
    "": re.compile(r"network_\w+"),
    "path": re.compile(r"(pretrain_network|strict_load|param_key)_\w+"),
    "train": re.compile(r"optim_\w+|\w+_opt"),
}
LOADER_KEYS = frozenset(_LOADER)


def section_types(section: str) -> dict[str, tuple[Any, float | None]]:
    """Return name -> (type, least value) of a section: "", "path", "train", "val", "logger", "datasets.*"."""
    return SECTIONS[section]


def whole_keys(section: str) -> list[str]:
    """Names of the options of a section whose value is a whole number, never a fraction."""
    kinds = {name: get_args(kind) or (kind,) for name, (kind, _) in SECTIONS[section].items()}
    return [name for name, parts in kinds.items() if int in parts and float not in parts]


def section_keys(section: str, key: object) -> bool:
    """Tell whether BasicSR reads ``key`` in ``section``, by name or by pattern (``network_*``, ``*_opt``)."""
    pattern = _PATTERNS.get(section)
    return key in SECTIONS[section] or bool(pattern and isinstance(key, str) and pattern.fullmatch(key))


def is_known(keys: Sequence[str]) -> bool:
    """Tell whether a path of keys such as ("train", "ema_decay") is one of the options that BasicSR reads."""
    *parents, key = keys
    section = ".".join(parents)
    if len(parents) == 2 and parents[0] == "datasets":
        section = "datasets.*"
    return section in SECTIONS and section_keys(section, key)
