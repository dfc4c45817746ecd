"""The bytes of an image file, whatever its kind: opened, read whole or piece by piece, and taken apart."""

import os
import stat
import struct
from pathlib import Path
from typing import BinaryIO

from basicsr_ext.common.errors import InputError

LARGEST = 178_956_970  # pixels, as in Pillow: beyond it, a file of a few kilobytes may ask for gigabytes


class FileContent:
    """The bytes of an open file, read piece by piece where they are looked at."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self._size = file, os.fstat(file.fileno()).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        self.file.seek(start)
        return self.file.read(max(0, stop - start))


Content = bytes | FileContent


def read_content(path: str | os.PathLike[str]) -> bytes:
    """All bytes of an image file; InputError naming it if it is missing, forbidden, or no plain file."""
    with open_file(path) as file:
        return file.read()


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open an image file; InputError naming it if it is missing, forbidden, or no plain file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise InputError(f"{path}: is no file; correct the path")
        return Path(path).open("rb", buffering=1 << 13)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; correct the path") from error
    except OSError as error:
        cure = "check the path and who may read it"
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {cure}") from error


def unpack(form: str, content: Content, place: int) -> tuple[int, ...]:
    """Numbers of the struct ``form`` that begin at ``place``; struct.error if the bytes end before."""
    return struct.unpack(form, content[place : place + struct.calcsize(form)])
