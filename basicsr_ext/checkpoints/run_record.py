"""The record of a run: ``options.json`` in its folder holds the resolved options of each of its starts, as data.

BasicSR's copy of the option file and the command in its head are for people: overrides cannot be told from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from basicsr_ext.checkpoints.option_changes import option_text
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import write_whole
from basicsr_ext.common.plain_json import json_text
from basicsr_ext.common.versions import versions_of

RECORD = "options.json"
_FORMAT = 1


def write_options(opt: Mapping[str, Any]) -> None:
    """Add a start to the record of a run, with its time, first iteration, versions and resolved options.

    Raises:
        SaveError: The record could not be written.
    """
    path = Path(opt["path"]["experiments_root"], RECORD)
    try:
        starts = _read(path)
    except InputError:  # a resumed run goes on all the same
        starts = []
    begun = {"time": datetime.now().astimezone().isoformat(timespec="seconds"), "iteration": opt["start"]["iter"]}
    starts.append({**begun, "versions": versions_of(), "options": json.loads(option_text(opt))})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json_text({"format": _FORMAT, "starts": starts}), durable=True)


def read_options(folder: str | Path) -> dict[str, Any] | None:
    """Resolved options of the last start of the run in ``folder``; None if it has no record, as earlier versions' runs.

    Raises:
        InputError: The record is damaged.
    """
    starts = _read(Path(folder, RECORD))
    return starts[-1]["options"] if starts else None


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        starts = found["starts"]
        if found["format"] != _FORMAT or not all(isinstance(start["options"], dict) for start in starts):
            raise ValueError(f"its format is {found['format']}, not {_FORMAT}")
        return list(starts)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the record {path} of a run is damaged ({error}); remove it to have the option file beside it read, or "
            "say with -opt FILE what the network was trained with"
        ) from error
