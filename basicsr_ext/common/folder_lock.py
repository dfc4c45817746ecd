"""Keep two live runs out of a folder: ``.<name>.lock`` beside it, which the system drops when its process dies."""

import contextlib
import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from basicsr_ext.common.errors import InputError

_held: dict[Path, FileLock] = {}  # of this process: BasicSR's pipelines lie between those who hold and who release


def _lock(folder: str | Path) -> tuple[Path, FileLock]:
    path = Path(folder).absolute()
    path = path.with_name(f".{path.name}.lock")
    return path, FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)


def held_by(folder: str | Path) -> str | None:
    """Say which live process besides this one holds the run's ``folder``, or None; writes nothing."""
    path, lock = _lock(folder)
    if path not in _held and path.is_file():
        try:
            lock.acquire()
            lock.release()
        except Timeout:
            return path.read_text(encoding="utf-8").strip() or "another process"
        except OSError:  # a place that cannot be written: `hold` says so
            return None
    return None


def hold(folder: str | Path) -> None:
    """Hold the run's ``folder`` until :func:`release_all` or the end of this process; a fork of it holds nothing.

    Raises InputError if a live process holds the folder, or if the place cannot be written or locked.
    """
    path, lock = _lock(folder)
    if path in _held:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        if not path.exists():  # filelock takes a right that is missing for a lock
            raise InputError(f"{path.parent} cannot be written; choose another place") from error
        raise InputError(refusal(folder, held_by(folder) or "another process")) from error
    except OSError as error:
        cure = "choose another place"
        raise InputError(f"{path.parent} cannot be written or locked ({error.strerror}); {cure}") from error
    _held[path] = lock
    with contextlib.suppress(OSError):  # Windows lets nobody write a file that is locked
        path.write_text(f"pid {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")


def refusal(folder: str | Path, owner: str) -> str:
    """The message for a run that finds its folder held."""
    return f"name: a live run ({owner}) holds {folder}; wait for its end, stop it, or choose another name"


def release_all() -> None:
    """Let go of every folder that this process holds, and remove the lock files."""
    while _held:
        path, lock = _held.popitem()
        if lock.is_locked:  # not in a fork of the process that holds it
            path.unlink(missing_ok=True)
        lock.release()
