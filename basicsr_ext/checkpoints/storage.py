"""Checkpoints that are whole or absent: atomic saves, safe loads, and the newest pair to resume from."""

import argparse
import contextlib
import json
import os
import pickle
import re
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch

from basicsr_ext.checkpoints import checksums
from basicsr_ext.common import files
from basicsr_ext.common.errors import InputError, did_you_mean

AnyPath = str | os.PathLike[str]
CONFIGURATION = "config"  # key of the options beside the weights
_CONFIGURATIONS = (CONFIGURATION, "i2sb", "configuration")  # and of earlier versions
_CONTAINERS = ("params", "params_ema", "state_dict")  # of a network's tensors in a checkpoint
_FOREIGN_CONTAINERS = ("model_state_dict", "model", "net_g", "netG", "generator", "g", "ema", "model_ema", "ema_model")
_DAMAGE = (OSError, RuntimeError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error)
_NUMPY = [np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]]  # what makes numbers and arrays
_FOREIGN: list[Any] = [  # beside the weights of other toolkits; none of it runs code
    argparse.Namespace,
    np.dtype,
    np.ndarray,
    *{type(np.dtype(code)) for code in f"?{np.typecodes['AllInteger']}{np.typecodes['AllFloat']}"},
    *((make, f"numpy.{core}.multiarray.{make.__name__}") for make in _NUMPY for core in ("core", "_core")),
]
_TEXTS = {  # what a download gives in place of a checkpoint
    b"version https://git-lfs": "a pointer of Git LFS, whose file `git lfs pull` fetches",
    b"<": "a web page",
    b"{": "JSON, such as the index of a network in several files, which are to be joined into one",
}
_PLAIN = (str, bytes, bool, int, float, complex, type(None), torch.Tensor, torch.Size, torch.dtype, torch.device)


def plain(thing: Any, place: str = "state") -> Any:
    """Turn NumPy numbers and arrays inside containers into Python numbers and tensors, for ``weights_only=True``.

    Raises TypeError, which names the place, for anything but numbers, strings, tensors and containers of them.
    """
    if isinstance(thing, np.generic):
        return thing.item()
    if isinstance(thing, np.ndarray):
        return torch.from_numpy(thing.copy())
    if isinstance(thing, _PLAIN):
        return thing
    if isinstance(thing, Mapping):
        kind = type(thing) if isinstance(thing, OrderedDict | Counter) else dict
        return kind({plain(k, place): plain(v, f"{place}[{k!r}]") for k, v in thing.items()})
    for sequence in (list, tuple, set):
        if isinstance(thing, sequence):
            return sequence(plain(v, f"{place}[{i}]") for i, v in enumerate(thing))
    raise TypeError(f"{place} is a {type(thing).__name__}; a checkpoint holds numbers, strings, tensors and containers")


def atomic_save(thing: Any, path: AnyPath) -> str:
    """Write a checkpoint, whole or not at all (SaveError); returns the SHA-256 of what was written."""
    digest = ""

    def write(unfinished: Path) -> None:
        nonlocal digest
        with unfinished.open("wb") as file:
            hashing = files.HashingFile(file)
            torch.save(thing, cast(IO[bytes], hashing))  # it writes and flushes, no more
        digest = hashing.hexdigest()

    files.write_whole(path, write, durable=True)
    return digest


def save_safetensors(
    tensors: Mapping[str, torch.Tensor], path: AnyPath, metadata: Mapping[str, str] | None = None
) -> str:
    """Write the weights of one network and texts that describe them, whole or not at all (SaveError); its SHA-256."""
    from safetensors.torch import save_file

    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def write(unfinished: Path) -> None:
        unfinished.touch()
        mode = unfinished.stat().st_mode
        save_file(own, unfinished, {"format": "pt", **(metadata or {})})
        unfinished.chmod(mode)  # save_file leaves the file to its owner alone

    files.write_whole(path, write, durable=True)
    return files.digest(path)


def read_safetensors_metadata(path: AnyPath, option: str | None = None) -> dict[str, str]:
    """The texts that a safetensors file carries beside its tensors, by name; InputError if it cannot be read."""
    from safetensors import SafetensorError, safe_open

    said = f"{option}: " if option else ""
    try:
        with safe_open(os.fspath(path), "pt") as file:
            return file.metadata() or {}
    except FileNotFoundError as error:
        raise InputError(f"{said}no such checkpoint file: {path}; correct the path") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{said}checkpoint {path} is damaged or cut short ({error}); use another one") from error


def read_configuration(path: AnyPath, option: str | None = None) -> dict[str, Any]:
    """The options that a checkpoint carries beside its weights, ``network_g`` among them; empty if it carries none.

    They are a JSON text under :data:`CONFIGURATION` in the metadata of a safetensors file, or at the root of a .pth.
    Earlier versions wrote them under two other keys; any key will do. Raises InputError if the file is missing or
    damaged, or what stands under one of our keys is no configuration.
    """
    if is_safetensors(path):
        texts: Mapping[str, Any] = read_safetensors_metadata(path, option)
    else:
        loaded = load_checkpoint(path, option, mmap=True)
        texts = loaded if isinstance(loaded, Mapping) else {}
    for key, text in texts.items():
        ours = key in _CONFIGURATIONS
        if not ours and not (isinstance(text, str) and text.startswith("{")):
            continue
        try:
            found = json.loads(text)
            if isinstance(found, dict) and isinstance(found.get("network_g"), dict):
                return found
            if ours:
                raise ValueError("it is not that of a network")
        except (TypeError, ValueError) as error:
            said = f"{option} {path}" if option else path
            cure = "export it again, or give an option file"
            raise InputError(f"{said}: its configuration ({key}) is damaged: {error}; {cure}") from error
    return {}


def is_safetensors(path: AnyPath) -> bool:
    """Tell whether a file is one of safetensors, by its first bytes whatever its name; by its name if they are others'.

    Those are the length of the header and its brace. Zip archives and pickles, which torch writes, begin otherwise.
    """
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        start = file.read(9)
        if start[8:] == b"{" or start.startswith((b"PK", b"\x80")):
            return start[8:] == b"{"
    return Path(path).suffix == ".safetensors"


def _torch_load(path: Path, mmap: bool) -> Any:
    if path.stat().st_size == 0:
        raise EOFError("the file is empty")
    zipped = zipfile.is_zipfile(path)
    if not checksums.verify(path) and zipped:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
        if wrong is not None:  # which torch itself would not see
            raise RuntimeError(f"{wrong} in it does not have its CRC-32")
    if zipped:
        with zipfile.ZipFile(path) as archive:
            parts = {name.rsplit("/", 1)[-1] for name in archive.namelist()}
        if "constants.pkl" in parts or "data.pkl" not in parts:
            kind = "a TorchScript program" if "constants.pkl" in parts else "a zip archive, but none of torch"
            raise InputError(f"checkpoint {path} is {kind}; give the file of a network's state dict")
    if is_safetensors(path):
        from safetensors.torch import load_file

        return load_file(path)
    misnamed = path.suffix == ".safetensors"  # torch goes by the name, of a path alone
    with torch.serialization.safe_globals(_FOREIGN), path.open("rb") as file:
        source = cast(IO[bytes], file) if misnamed else path
        return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap and zipped and not misnamed)


def load_checkpoint(path: AnyPath, option: str | None = None, mmap: bool = False) -> Any:
    """Load a checkpoint onto the CPU, unpickling tensors and plain containers only, once its checksums are right.

    They are those of the record that lies with a save (see ``checksums``), else those of a torch file's parts. A file
    of safetensors is a bare state dict. ``option`` names the file in messages; with ``mmap`` tensors are
    mapped from the file instead of read. NumPy's numbers and arrays and an ``argparse.Namespace`` count as plain.
    Raises InputError if the file is missing, empty, cut short, damaged, or holds pickled objects of other kinds.
    """
    path, said = Path(path), f"{option}: " if option else ""
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file" if path.exists() else "no such checkpoint file"
        cure = "give the file in it that is meant" if path.is_dir() else "correct the path"
        raise InputError(f"{said}{kind}: {path}; {cure}")
    try:
        return _torch_load(path, mmap)
    except InputError as error:
        raise InputError(f"{said}{error}") from error
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign or zipfile.is_zipfile(path):
            kind = foreign.group(1) if foreign else "other objects than tensors and plain containers"
            why = "which is not loaded because it can run code; save its state dict alone"
            raise InputError(f"{said}checkpoint {path} holds {kind}, {why}") from error
        with path.open("rb") as file:
            start = file.read(64)
        what = next((what for sign, what in _TEXTS.items() if start.startswith(sign)), "not one that torch can read")
        raise InputError(f"{said}checkpoint {path} is {what}; replace it") from error
    except Exception as error:
        known = is_safetensors(path) or isinstance(error, _DAMAGE)
        cause = str(error).splitlines()[0].split(". ")[0] if known and str(error) else "it is no file of torch.save"
        raise InputError(f"{said}checkpoint {path} is damaged or cut short ({cause}); use another one") from error


def load_weights(path: AnyPath, key: str | None = "params", option: str | None = None) -> dict[str, Any]:
    """Load the tensors of one network, without what other toolkits put around them and their names.

    A state dict that lies bare in the file is taken whatever ``key`` says. ``params`` and ``params_ema`` stand in for
    each other, and so do ``state_dict``, the names of other toolkits such as ``generator`` (for ``params_ema`` those of
    averages first), or the only container of tensors in the file, for both. The prefixes ``module.`` and
    ``_orig_mod.`` (of parallel and compiled networks) and the counter ``n_averaged`` of averaged ones are removed. A
    ``key`` of None is the file's root. Raises InputError as :func:`load_checkpoint`, or listing the keys if there is no
    such one.
    """
    return weights_in(load_checkpoint(path, option), f"{option}: {path}" if option else str(path), key)


def weights_in(loaded: Any, source: str, key: str | None = "params") -> dict[str, Any]:
    """:func:`load_weights` of a checkpoint that is loaded already; ``source`` names it in messages."""
    if not isinstance(loaded, Mapping):
        cure = "give the .pth or .safetensors of a network"
        raise InputError(f"{source} holds a {type(loaded).__name__}, not the weights of a network; {cure}")
    if {"optimizers", "schedulers"} <= loaded.keys():
        raise InputError(f"{source} is a training state; give the network of its iteration, models/net_*.pth")
    mappings = {str(k): v for k, v in loaded.items() if isinstance(v, Mapping)}
    holders = [k for k, v in mappings.items() if _holds_tensors(v)] or list(mappings)  # no counters, no settings
    if holders and not any(torch.is_tensor(value) for value in loaded.values()):
        names = sorted((*_CONTAINERS, *_FOREIGN_CONTAINERS), key=lambda k: ("ema" in k) != ("ema" in str(key)))
        known = [k for k in (key, *names) if k in holders] or (holders if len(holders) == 1 else [])
        if not known or key not in (*known[:1], None, *_CONTAINERS):
            raise InputError(f"{source} has no weights under the key {key!r}; {did_you_mean(key, holders)}")
        loaded = loaded[known[0]]
    bare = {re.sub(r"^(module\.)+", "", str(name).replace("_orig_mod.", "")): value for name, value in loaded.items()}
    bare.pop("n_averaged", None)
    found = {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in bare.items()}
    for name, value in found.items():
        if torch.is_tensor(value) and (why := _unusable(value)):
            raise InputError(f"{source}: {name} {why}")
    return found


def _holds_tensors(block: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, torch.Tensor | np.ndarray) for value in block.values())


def _unusable(value: torch.Tensor) -> str | None:
    """Why a tensor can be no weight of any network; None if it can."""
    if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.is_meta:
        kinds = {"quantised": value.is_quantized, "complex": value.is_complex(), "empty (meta)": value.is_meta}
        kind = next((kind for kind, is_it in kinds.items() if is_it), "sparse")
        return f"is {kind}; give the file of a network with plain tensors, of 16 or 32 bits"
    if value.is_floating_point() and value.float().isnan().any():
        return "holds NaN: these are weights of a run that diverged; give another file"
    return None


def load_state(path: AnyPath, option: str | None = None) -> dict[str, Any]:
    """Load a training state; InputError if the file cannot be loaded, or is none (a network's file, say)."""
    state = load_checkpoint(path, option)
    wanted = ("epoch", "iter", "optimizers", "schedulers")
    if missing := [key for key in wanted if not isinstance(state, dict) or key not in state]:
        said = f"{option}: {path}" if option else path
        cure = "give a file training_states/*.state, or give a network's file as path.pretrain_network_*"
        raise InputError(f"{said} is not a training state ({', '.join(missing)} missing); {cure}")
    return state


def newest_checkpoint(opt: Mapping[str, Any]) -> Path | None:
    """The network file of the highest iteration in the run's folder, or None."""
    folder = Path(opt["path"].get("models") or "")
    found = [(re.fullmatch(r"net_\w+?_(\d+)\.pth", path.name), path) for path in folder.glob("net_*.pth")]
    return max(((int(match[1]), path) for match, path in found if match), default=(0, None))[1]
