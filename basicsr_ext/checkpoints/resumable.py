"""From which save a run goes on: the newest one that is whole, with the best metrics that belong to it."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr_ext.checkpoints import checksums
from basicsr_ext.checkpoints.storage import load_checkpoint, load_state, plain
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import write_whole


def network_labels(opt: Mapping[str, Any]) -> list[str]:
    """Labels of the networks that a resumed run loads, such as ``net_g``."""
    ignored = opt["path"].get("ignore_resume_networks") or ()
    return [f"net_{k.removeprefix('network_')}" for k in opt if k.startswith("network_") and k not in ignored]


def resumable_iterations(opt: Mapping[str, Any]) -> list[int]:
    """Iterations with a training state in the run's folder, newest first; files with other names are ignored."""
    states = Path(opt["path"]["training_states"]).glob("*.state")
    return sorted((int(state.stem) for state in states if state.stem.isdecimal()), reverse=True)


def best_file(state: Path) -> Path:
    """Where the best metrics lie that belong to a state: there once its iteration has been validated."""
    return state.with_name(f"{state.stem}.best.json")


def save_best(opt: Mapping[str, Any], best: Mapping[str, Any] | None, iteration: int) -> None:
    """Keep the best metrics beside the state of an iteration, because BasicSR validates after it has saved.

    ``best`` is ``best_metric_results`` of the model; None removes what an earlier pass through the iteration left.
    Without a state of that iteration nothing is written. Raises SaveError if the file cannot be written.
    """
    folder = opt["path"].get("training_states")
    state = Path(folder or "") / f"{iteration}.state"
    if not folder or not state.is_file():
        return
    if best is None:
        best_file(state).unlink(missing_ok=True)
        return
    text = json.dumps(plain(best, "best_metric_results"))
    kept = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "best": text}
    write_whole(best_file(state), json.dumps(kept), durable=True)


def load_best(state: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The best metrics that :func:`save_best` kept beside a state; None if there are none, InputError if damaged."""
    path = best_file(Path(state))
    try:
        text = path.read_bytes().decode("utf-8")
        kept = json.loads(text)
        if json.dumps(kept) != text or hashlib.sha256(kept["best"].encode()).hexdigest() != kept["sha256"]:
            raise ValueError("it does not have its checksum")
        return json.loads(kept["best"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"the best metrics {path} are damaged ({error})"
        raise InputError(f"{said}; remove the file to go on without them") from error


def check_save(opt: Mapping[str, Any], iteration: int) -> Path:
    """Load a training state with its networks, and compare every file of its record; returns the state's path.

    Raises InputError if a file is missing, damaged or not listed in the record.
    """
    folder = Path(opt["path"]["training_states"])
    state = folder / f"{iteration}.state"
    nets = [Path(opt["path"]["models"]) / f"{label}_{iteration}.pth" for label in network_labels(opt)]
    record = folder / f"{iteration}.sha256"
    recorded = checksums.read_record(record) if record.is_file() else {}
    for path in (state, *nets):
        if recorded and path.is_file() and checksums.listed_name(path, folder) not in recorded:
            said = f"the record {record} does not list {path.name}"
            raise InputError(f"{said}; the save was not finished; use an earlier one")
    load_state(state)
    for path in (*nets, *(folder / name for name in recorded if name.endswith(".safetensors"))):
        load_checkpoint(path, mmap=True)
    load_best(state)
    return state


def newest_resumable(opt: Mapping[str, Any]) -> tuple[Path | None, list[str]]:
    """Find the newest training state that loads together with its networks; and a sentence per newer file passed over.

    A state without a record of checksums (of a save that was killed, or made by BasicSR alone) is taken only if none
    with a record is whole.
    """
    iterations, passed_over = resumable_iterations(opt), []
    bare = [i for i in iterations if not (Path(opt["path"]["training_states"]) / f"{i}.sha256").exists()]
    whole = [i for i in iterations if i not in bare]
    for iteration in whole + bare:
        try:
            state = check_save(opt, iteration)
        except InputError as error:
            passed_over.append(f"passed over {iteration}.state: {error}")
            continue
        unfinished = [i for i in bare if i > iteration]
        if iteration in whole:
            passed_over += [f"passed over {i}.state: no {i}.sha256, its save was not finished" for i in unfinished]
        elif whole:
            passed_over.append(f"takes {iteration}.state, which has no record of checksums: it loads, no more is known")
        return state, passed_over
    return None, passed_over
