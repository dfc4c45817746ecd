"""Files that are whole or absent: written beside their place, then renamed; and their digests."""

import contextlib
import errno
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from basicsr_ext.common.errors import InputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CURES = {
    **dict.fromkeys(_FULL, "free some space"),
    errno.ENAMETOOLONG: "shorten its name",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "choose another folder, or allow writing there"),
    **dict.fromkeys((errno.EROFS, errno.ENOTDIR, errno.EEXIST), "choose another folder"),
    **dict.fromkeys((errno.EISDIR, errno.EILSEQ), "choose another name"),
}


class SaveError(InputError, OSError):
    """A file could not be written, perhaps since the disk is ``full``; what lay under its name before is untouched."""

    full: bool = False


class HashingFile:
    """A file opened for writing, with the SHA-256 of what was written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.flush = file.flush
        self.hexdigest = self._hash.hexdigest

    def write(self, data: bytes) -> int:
        """Write and hash; returns the number of bytes."""
        self._hash.update(data)
        return self._file.write(data)


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


@functools.lru_cache(maxsize=1 << 16)
def _digest_at(path: Path, changed: int, size: int) -> str:
    return digest(path)


def known_digest(path: str | os.PathLike[str]) -> str:
    """:func:`digest` of a file that may be asked for often: read again only when its size or time has changed."""
    status = os.stat(path)
    return _digest_at(Path(path), status.st_mtime_ns, status.st_size)


def write_whole(
    path: str | os.PathLike[str], content: bytes | str | Callable[[Path], object], durable: bool = False
) -> None:
    """Write a file so that its name never stands for half of it, even if the process or the machine dies.

    ``content`` is bytes, a text (written as UTF-8; what of a file's name is none, as an escape), or a function that
    writes the file whose path it is given.
    ``durable`` is for what a run must not lose: wait until the disk has it, so that it outlasts a power cut (a rename
    alone outlasts a kill), and make no folder, since one that is missing was there before.
    Raises SaveError with the file and the cause; a file that had this name before is untouched.
    """
    path = Path(path)
    short = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]  # the name itself may be as long as names can be
    unfinished = path.with_name(f".{short}.{os.getpid()}.unfinished")
    try:
        if not durable:
            path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes | str):
            unfinished.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
        else:
            content(unfinished)
        if durable:
            _sync(unfinished, os.O_RDWR)
        os.replace(unfinished, path)
        if durable and os.name == "posix":
            _sync(path.parent, os.O_RDONLY)  # the rename
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if not isinstance(error, Exception):
            raise
        reason, number = str(error), None
        for cause in (error.__context__, error):  # the system's words and number, without the temporary name
            if isinstance(cause, OSError) and cause.strerror:
                reason, number = f"{cause.strerror} (errno {cause.errno})", cause.errno
        cure = f"{_CURES[number]}; " if number in _CURES else ""
        failure = SaveError(f"cannot save {path}: {reason}; {cure}the files saved before it are untouched")
        failure.strerror, failure.full = reason, number in _FULL
        raise failure from error


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_unfinished(*folders: str | os.PathLike[str]) -> None:
    """Delete what saves that were killed left behind."""
    for folder in folders:
        for leftover in Path(folder).glob(".*.unfinished"):
            leftover.unlink(missing_ok=True)
