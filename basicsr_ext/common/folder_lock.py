"""Keep two live runs out of one folder: a lock that the system drops when its process dies."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import IO

from basicsr_ext.common.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["held_by", "hold", "release_all"]

_held: dict[Path, IO[str]] = {}


def _lock_file(folder: str | Path) -> Path:
    folder = Path(folder).absolute()
    return folder.with_name(f".{folder.name}.lock")


def held_by(folder: str | Path) -> str | None:
    """Say which live process holds the run's ``folder``, or None; writes nothing."""
    path = _lock_file(folder)
    if fcntl is None or path in _held or not path.is_file():
        return None
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return file.read().strip() or "another process"
    return None


def hold(folder: str | Path) -> str | None:
    """Hold the run's ``folder`` until the process ends or ``release_all``; ``.<name>.lock`` lies beside it.

    Returns a note if the platform has no file locks. Raises InputError if a live process holds the folder or if the
    place can not be written.
    """
    path = _lock_file(folder)
    if path in _held:
        return None
    if fcntl is None:
        return f"this platform has no file locks: do not start a second run in {folder}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise InputError(
            f"{path.parent} can not be written ({error.strerror}); choose another current folder"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise InputError(refusal(folder, owner)) from error
    file.truncate(0)
    file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _held[path] = file
    return None


def refusal(folder: str | Path, owner: str) -> str:
    """The message for a run that finds its folder held."""
    return f"name: a live run ({owner}) holds {folder}; wait for its end, stop it, or choose another name"


def release_all() -> None:
    """Let go of every folder that this process holds."""
    while _held:
        _held.popitem()[1].close()
