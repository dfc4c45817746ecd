"""Files that are whole or absent: written beside their place, then renamed; and their digests."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from basicsr_ext.common.errors import InputError


class HashingFile:
    """A file opened for writing, with the SHA-256 of what was written to it."""

    def __init__(self, file: object) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Write and hash; returns the number of bytes."""
        self._hash.update(data)
        return self._file.write(data)  # type: ignore[attr-defined]

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._file.flush()  # type: ignore[attr-defined]

    def hexdigest(self) -> str:
        """The SHA-256 so far, 64 hexadecimal digits."""
        return self._hash.hexdigest()


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


class SaveError(InputError, OSError):
    """A file could not be written; what lay under its name before is untouched."""


def atomic_write_text(text: str, path: str | os.PathLike[str]) -> str:
    """Write a text as :func:`atomic_save` writes a checkpoint: UTF-8, whole or not at all."""

    def write(unfinished: Path) -> str:
        unfinished.write_bytes(text.encode("utf-8"))
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    return _save_whole(path, write)


def _save_whole(path: str | os.PathLike[str], write: Callable[[Path], str]) -> str:
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        digest = write(unfinished)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except Exception as error:
        cause = error if isinstance(error, OSError) or not isinstance(error.__context__, OSError) else error.__context__
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise SaveError(f"cannot save {path}: {_reason(cause)}; the files saved before it are untouched") from error
    return digest


def _reason(cause: BaseException) -> str:
    """The system's words for an error (``No space left on device``) and its number, without the temporary name."""
    if isinstance(cause, OSError) and cause.strerror:
        return f"{cause.strerror} (errno {cause.errno})"
    return str(cause)


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


@functools.lru_cache(maxsize=1 << 16)
def _digest_at(path: Path, changed: int, size: int) -> str:
    return digest(path)


def known_digest(path: str | os.PathLike[str]) -> str:
    """:func:`digest` of a file that may be asked for often: read again only when its size or time has changed."""
    status = os.stat(path)
    return _digest_at(Path(path), status.st_mtime_ns, status.st_size)
