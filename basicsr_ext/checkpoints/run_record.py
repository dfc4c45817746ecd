"""The options of a run as data: kept for each start in ``options.json`` of its folder, and compared on resuming.

BasicSR's copy of the option file and the command in its head are for people: overrides cannot be told from them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import write_whole
from basicsr_ext.common.plain_json import finite, json_text
from basicsr_ext.common.versions import versions_of

RECORD = "options.json"
_FORMAT = 1
# What may change without a change of the weights: where things lie, what is logged, how fast data come.
_HARMLESS = re.compile(
    r"name|root_path|notes|start|is_train|auto_resume|manual_seed_drawn|plugins|dist|dist_params|rank|world_size"
    r"|path|logger|val|datasets\.(?!train\b)[^.]+"
    r"|datasets\.train\.(name|phase|num_worker_per_gpu|prefetch_mode|num_prefetch_queue|pin_memory|persistent_workers"
    r"|cache)"
)
_ABSENT = "not given"


def option_text(opt: Mapping[str, Any]) -> str:
    """Resolved options as JSON, for a training state and the record of a run."""
    return json.dumps(finite(opt, as_text=True), default=str)


def write_options(opt: Mapping[str, Any]) -> None:
    """Add a start to the record of a run: time, first iteration, versions, resolved options; SaveError if it cannot."""
    path = Path(opt["path"]["experiments_root"], RECORD)
    try:
        starts = _read(path)
    except InputError:  # a resumed run goes on all the same; what a person could still read stays
        starts = []
        path.replace(path.with_name(f"{RECORD}.damaged"))
    begun = {"time": datetime.now().astimezone().isoformat(timespec="seconds"), "iteration": opt["start"]["iter"]}
    starts.append({**begun, "versions": versions_of(), "options": json.loads(option_text(opt))})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json_text({"format": _FORMAT, "starts": starts}), durable=True)


def read_options(folder: str | Path) -> dict[str, Any] | None:
    """Resolved options of the last start of the run in ``folder``; InputError if its record is damaged.

    None if it has no record, as runs of earlier versions.
    """
    starts = _read(Path(folder, RECORD))
    return starts[-1]["options"] if starts else None


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        if path.exists() and not path.is_file():  # a pipe, which nobody may write
            raise OSError("it is not a file")
        found = json.loads(path.read_text(encoding="utf-8-sig"))
        starts = found["starts"]
        if found["format"] != _FORMAT or not starts or not all(isinstance(start["options"], dict) for start in starts):
            raise ValueError(f"its format is {found['format']}, not {_FORMAT}, or it has no starts")
        return list(starts)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        said = f"the record {path} of a run is damaged ({error}); remove it to have the option file beside it read"
        raise InputError(f"{said}, or say with -opt FILE what the network was trained with") from error


def changed_options(saved: str, opt: Mapping[str, Any]) -> list[str]:
    """Lines ``train.optim_g.lr: 0.001 -> 0.002`` for every option that matters to the weights and differs.

    ``saved`` are the options of the save, as :func:`option_text` gives them, ``opt`` the resolved ones of now.
    """
    before, now = dict(_leaves(json.loads(saved))), dict(_leaves(json.loads(option_text(opt))))
    values = {key: (before.get(key, _ABSENT), now.get(key, _ABSENT)) for key in [*before, *now]}
    return [f"{key}: {old} -> {new}" for key, (old, new) in values.items() if old != new]


def changed_versions(saved: Mapping[str, str]) -> list[str]:
    """Lines ``torch: 2.4.0 -> 2.5.0`` for every package that differs."""
    now = versions_of()
    return [f"{k}: {v} -> {now.get(k, _ABSENT)}" for k, v in saved.items() if v != now.get(k)]


def _leaves(block: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if where and _HARMLESS.fullmatch(where):
        return
    if isinstance(block, Mapping) and block:
        for key, value in block.items():
            yield from _leaves(value, f"{where}.{key}" if where else str(key))
    elif where:
        yield where, block
