"""Checkpoints that are whole or absent: atomic saves, safe loads, and the newest pair to resume from."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from basicsr_ext.errors import InputError, did_you_mean

__all__ = [
    "SaveError",
    "atomic_save",
    "load_best",
    "load_checkpoint",
    "load_state",
    "load_weights",
    "network_labels",
    "newest_checkpoint",
    "newest_resumable",
    "plain",
    "read_safetensors_metadata",
    "remove_unfinished",
    "resumable_iterations",
    "save_best",
    "save_safetensors",
]

_PLAIN = (str, bytes, bool, int, float, complex, type(None), torch.Tensor, torch.Size, torch.dtype, torch.device)


class SaveError(OSError):
    """A file could not be written; what lay under its name before is untouched."""


def plain(thing: Any, place: str = "state") -> Any:
    """Turn NumPy numbers and arrays inside containers into Python numbers and tensors.

    What remains loads with ``torch.load(weights_only=True)``.

    Raises:
        TypeError: Something else than numbers, strings, tensors and containers of them; names its place.

    """
    if isinstance(thing, np.generic):
        return thing.item()
    if isinstance(thing, np.ndarray):
        return torch.from_numpy(thing.copy())
    if isinstance(thing, Mapping):
        kind = type(thing) if isinstance(thing, OrderedDict | Counter) else dict
        return kind({plain(k, place): plain(v, f"{place}[{k!r}]") for k, v in thing.items()})
    if isinstance(thing, list | tuple | set) and not isinstance(thing, torch.Size):
        kind = next(k for k in (list, tuple, set) if isinstance(thing, k))
        return kind(plain(v, f"{place}[{i}]") for i, v in enumerate(thing))
    if isinstance(thing, _PLAIN):
        return thing
    raise TypeError(f"{place} is a {type(thing).__name__}; a checkpoint holds numbers, strings, tensors and containers")


def atomic_save(thing: Any, path: str | os.PathLike[str]) -> None:
    """Write a checkpoint so that its name never stands for half a file, even if the process or the machine dies.

    Raises:
        SaveError: Names the file and the cause; a file that had this name before is untouched.

    """

    def write(unfinished: Path) -> None:
        with unfinished.open("wb") as file:
            torch.save(thing, file)

    _save_whole(path, write)


def save_safetensors(
    tensors: Mapping[str, torch.Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write the weights of one network, whole or not at all, with texts that describe them.

    Raises:
        SaveError: Names the file and the cause; a file that had this name before is untouched.

    """
    from safetensors.torch import save_file

    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def write(unfinished: Path) -> None:
        unfinished.touch()
        mode = unfinished.stat().st_mode
        save_file(own, unfinished, {"format": "pt", **(metadata or {})})
        unfinished.chmod(mode)  # save_file leaves the file to its owner alone

    _save_whole(path, write)


def _save_whole(path: str | os.PathLike[str], write: Callable[[Path], None]) -> None:
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        write(unfinished)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except Exception as error:
        cause = error if isinstance(error, OSError) or not isinstance(error.__context__, OSError) else error.__context__
        unfinished.unlink(missing_ok=True)
        raise SaveError(f"cannot save {path}: {cause}; the files saved before it are untouched") from error


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_unfinished(*folders: str | os.PathLike[str]) -> None:
    """Delete what saves that were killed left behind."""
    for folder in folders:
        for leftover in Path(folder).glob(".*.unfinished"):
            leftover.unlink(missing_ok=True)


def read_safetensors_metadata(path: str | os.PathLike[str], option: str | None = None) -> dict[str, str]:
    """The texts that a safetensors file carries beside its tensors, by name.

    Raises:
        InputError: The file is missing, damaged or cut short.

    """
    from safetensors import SafetensorError, safe_open

    said = f"{option}: " if option else ""
    try:
        with safe_open(os.fspath(path), "pt") as file:
            return file.metadata() or {}
    except FileNotFoundError as error:
        raise InputError(f"{said}no such checkpoint file: {path}") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{said}checkpoint {path} is damaged or cut short ({error}); use another one") from error


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise RuntimeError(str(error)) from error


def _torch_load(path: Path, mmap: bool) -> Any:
    if path.stat().st_size == 0:
        raise EOFError("the file is empty")
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(path))


def load_checkpoint(path: str | os.PathLike[str], option: str | None = None, mmap: bool = False) -> Any:
    """Load a checkpoint onto the CPU, unpickling tensors and plain containers only.

    Args:
        path: File written by ``torch.save``, or one that ends in ``.safetensors``: a bare state dict.
        option: The option that names the file, for the message.
        mmap: Map the tensors from the file instead of reading them.

    Raises:
        InputError: The file is missing, empty, cut short, damaged, or holds pickled objects of other kinds.

    """
    path, said = Path(path), f"{option}: " if option else ""
    if not path.is_file():
        raise InputError(f"{said}no such checkpoint file: {path}")
    try:
        return _torch_load(path, mmap)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign or zipfile.is_zipfile(path):
            kind = foreign.group(1) if foreign else "other objects than tensors and plain containers"
            raise InputError(
                f"{said}checkpoint {path} holds {kind}, which is not loaded because it can run code; "
                "save its state dict alone"
            ) from error
        raise InputError(f"{said}{path} is not a checkpoint that torch can read; replace it") from error
    except Exception as error:
        known = isinstance(error, OSError | RuntimeError | EOFError)
        cause = str(error).splitlines()[0].split(". ")[0] if known and str(error) else "it is no file of torch.save"
        raise InputError(f"{said}checkpoint {path} is damaged or cut short ({cause}); use another one") from error


def load_weights(path: str | os.PathLike[str], key: str | None = "params", option: str | None = None) -> dict[str, Any]:
    """Load the tensors of one network.

    A state dict that lies bare in the file is taken whatever ``key`` says; ``params_ema`` falls back to ``params``
    as in BasicSR. A leading ``module.`` is removed from the names.

    Args:
        path: File written by ``torch.save``, or one that ends in ``.safetensors``.
        key: Key of the state dict inside the file, or None for the file's root.
        option: The option that names the file, for the message.

    Raises:
        InputError: The file cannot be loaded or has no such key; lists the keys that it has.

    """
    loaded = load_checkpoint(path, option)
    said = f"{option}: " if option else ""
    if not isinstance(loaded, Mapping):
        raise InputError(f"{said}{path} holds a {type(loaded).__name__}, not the weights of a network")
    holders = [k for k, v in loaded.items() if isinstance(v, Mapping)]
    if key is not None and key not in holders and "params" in holders:
        key = "params" if key == "params_ema" else key
    if key is not None and holders:
        if key not in holders:
            raise InputError(f"{said}{path} has no weights under the key {key!r}; {did_you_mean(key, holders)}")
        loaded = loaded[key]
    return {str(k).removeprefix("module."): v for k, v in loaded.items()}


def network_labels(opt: Mapping[str, Any]) -> list[str]:
    """Labels of the networks that a resumed run loads, such as ``net_g``."""
    ignored = opt["path"].get("ignore_resume_networks") or ()
    return [f"net_{k.removeprefix('network_')}" for k in opt if k.startswith("network_") and k not in ignored]


def resumable_iterations(opt: Mapping[str, Any]) -> list[int]:
    """Iterations with a training state in the run's folder, newest first; files with other names are ignored."""
    folder = Path(opt["path"]["training_states"])
    found = (re.fullmatch(r"(\d+)\.state", p.name) for p in folder.glob("*.state")) if folder.is_dir() else ()
    return sorted((int(m.group(1)) for m in found if m), reverse=True)


def load_state(path: str | os.PathLike[str], option: str | None = None) -> dict[str, Any]:
    """Load a training state.

    Raises:
        InputError: The file cannot be loaded, or is no training state (a network's file, say).

    """
    state = load_checkpoint(path, option)
    lacking = [
        k for k in ("epoch", "iter", "optimizers", "schedulers") if not isinstance(state, dict) or k not in state
    ]
    if lacking:
        said = f"{option}: " if option else ""
        raise InputError(
            f"{said}{path} is not a training state (it lacks {', '.join(lacking)}); "
            "give a file training_states/*.state, or give a network's file as path.pretrain_network_*"
        )
    return state


def _best_file(state: Path) -> Path:
    return state.with_name(f"{state.stem}.best.json")


def save_best(opt: Mapping[str, Any], best: Mapping[str, Any] | None, iteration: int) -> None:
    """Keep the best metrics beside the state of an iteration, because BasicSR validates after it has saved.

    Args:
        opt: Options of the run.
        best: ``best_metric_results`` of the model; None removes what an earlier pass through the iteration left.
        iteration: The iteration of the state; without such a state nothing is written.

    """
    folder = opt["path"].get("training_states")
    state = Path(folder or "") / f"{iteration}.state"
    if not folder or not state.is_file():
        return
    path = _best_file(state)
    if best is None:
        path.unlink(missing_ok=True)
        return
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(plain(best, "best_metric_results")), encoding="utf-8")
    os.replace(unfinished, path)


def load_best(state: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The best metrics that :func:`save_best` kept beside a state, or None."""
    try:
        return json.loads(_best_file(Path(state)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _pairs(opt: Mapping[str, Any]) -> Iterator[tuple[Path, list[Path]]]:
    labels = network_labels(opt)
    for iteration in resumable_iterations(opt):
        nets = [Path(opt["path"]["models"]) / f"{label}_{iteration}.pth" for label in labels]
        yield Path(opt["path"]["training_states"]) / f"{iteration}.state", nets


def newest_resumable(opt: Mapping[str, Any]) -> tuple[Path | None, list[str]]:
    """Find the newest training state that loads together with its networks.

    Returns:
        The state's path, or None if there is none, and one sentence per newer file that was passed over.

    """
    passed_over = []
    for state, nets in _pairs(opt):
        try:
            load_state(state)
            for net in nets:
                load_checkpoint(net, mmap=True)
        except InputError as error:
            passed_over.append(f"passed over {state.name}: {error}")
        else:
            return state, passed_over
    return None, passed_over


def newest_checkpoint(opt: Mapping[str, Any]) -> Path | None:
    """The network file of the highest iteration in the run's folder, or None."""
    folder = Path(opt["path"].get("models") or "")
    found = [(re.fullmatch(r"net_\w+?_(\d+)\.pth", p.name), p) for p in folder.glob("net_*.pth")]
    numbered = sorted((int(match.group(1)), path.name, path) for match, path in found if match)
    return numbered[-1][2] if numbered else None
