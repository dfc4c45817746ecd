"""Read a pickled ``argparse.Namespace`` of plain values and paths, and nothing that could run code."""

import os
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

from basicsr_ext.common.errors import InputError

__all__ = ["load_namespace"]

LARGEST = 1 << 20  # bytes; the release's options take less than one kilobyte
_LONGEST_PATH = 4096
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
_SCALARS = (type(None), bool, int, float, str, bytes)


def _path_text(*parts: str) -> str:
    """Join the parts that a path was pickled as; paths of another system cannot be built here."""
    if sum(map(len, parts)) > _LONGEST_PATH:  # a few bytes could ask for doubled texts without end
        raise pickle.UnpicklingError("a path that is too long")
    return "/".join(part.rstrip("/\\") for part in parts) or ("/" if parts else ".")


class _Options(Namespace):
    """A namespace that takes plain attributes only."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise pickle.UnpicklingError("a Namespace with a state that is no dict of names")
        vars(self).update(state)


class _Unpickler(pickle.Unpickler):
    """Resolves two kinds of classes: Namespace, and those of pathlib, which become texts."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("argparse", "Namespace"):
            return _Options
        if module.split(".")[0] == "pathlib" and name in _PATHS:
            return lambda *parts: _path_text(*parts)  # a new function each time: a pickle can set attributes of it
        raise _Refused(f"{module.replace('__builtin__', 'builtins')}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused(f"the persistent object {pid!r}")


class _Refused(Exception):
    """Names what a pickle wanted to have loaded."""


def load_namespace(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read ``options.pkl`` of the release: names to None, bool, int, float, text or containers of these.

    Paths become texts. No function and no class that the file names is loaded, so that nothing in it can run.

    Raises:
        InputError: The file is missing, damaged, no pickled Namespace, or asks for anything else (which is named).

    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise InputError(
                f"{path} is {size} bytes long; the options of a run take a few hundred; "
                "give the options.pkl of the release"
            )
        with path.open("rb") as file:
            loaded = _Unpickler(file).load()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the options.pkl of the release") from error
    except _Refused as error:
        raise InputError(
            f"{path} asks to load {error}, which is refused because it can run code: the options of a run are an "
            "argparse.Namespace of plain values and paths; do not trust this file"
        ) from None
    except InputError:
        raise
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise InputError(
            f"{path} is no pickled options, or is damaged ({error or type(error).__name__}); fetch it again"
        ) from error
    if not isinstance(loaded, _Options):
        raise InputError(f"{path} holds {type(loaded).__name__}, not an argparse.Namespace; give the run's options.pkl")
    strange = [name for name, value in vars(loaded).items() if not _is_plain(value)]
    if strange:
        raise InputError(f"{path}: {', '.join(strange)} is no plain value; give the options.pkl of the release")
    return dict(vars(loaded))


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(part) in _SCALARS for pair in value.items() for part in pair)
    return type(value) in _SCALARS or (type(value) in (list, tuple, set) and all(type(v) in _SCALARS for v in value))
