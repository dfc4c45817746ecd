"""Where crops are written: an LMDB of BasicSR's layout, or a folder of PNG files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from basicsr_ext.common.errors import InputError
from basicsr_ext.images.decode import decode_pixels
from basicsr_ext.images.packing.crops import Crop, Cutting

_MAP = 2**40  # bytes that an LMDB may grow to, as BasicSR's; the file is as large as its content


class FolderStore:
    """PNG files, which the workers write; the meta information lies beside the folder, where no data set reads it."""

    def __init__(self, part: Path, cutting: Cutting) -> None:
        self.part, self.cutting = part, cutting

    def __enter__(self) -> FolderStore:
        return self

    def __exit__(self, *exception: object) -> None:
        for left in self.part.rglob(f".*.{self.cutting.extension}.*"):  # of a process that was killed
            left.unlink()

    def count(self) -> int | None:
        """Number of crops that are safely there; None if every line of the record is right."""
        return None

    def put(self, crops: list[Crop]) -> None:
        """Take the crops of one image."""

    def commit(self) -> None:
        """Make safe what was put."""

    def finish(self, lines: Iterable[list[Any]]) -> int:
        """Write the meta information from the record; returns the number of crops."""
        beside = self.part.with_name(f"{self.part.name.removesuffix('.part')}_meta_info.txt")
        return _write_meta(beside, lines, self.cutting.extension, "")


class LmdbStore(FolderStore):
    """An LMDB of BasicSR's layout, with ``meta_info.txt``."""

    def __init__(self, part: Path, cutting: Cutting) -> None:
        import lmdb  # only those who write LMDB need it

        super().__init__(part, cutting)
        self._environment = lmdb.open(str(part), map_size=_MAP)
        self._held: list[Crop] = []

    def __exit__(self, *exception: object) -> None:
        self._environment.close()

    def count(self) -> int:
        """Number of crops that are safely there."""
        return self._environment.stat()["entries"]

    def put(self, crops: list[Crop]) -> None:
        """Take the crops of one image."""
        self._held += crops

    def commit(self) -> None:
        """Write what was put."""
        with self._environment.begin(write=True) as transaction:
            for crop in self._held:
                transaction.put(crop.key.encode("ascii"), crop.content)
        self._held = []

    def finish(self, lines: Iterable[list[Any]]) -> int:
        """Write ``meta_info.txt`` from the record; returns the number of crops."""
        level = 0 if self.cutting.raw else self.cutting.compression
        return _write_meta(self.part / "meta_info.txt", lines, self.cutting.extension, f" {level}")


def _write_meta(path: Path, lines: Iterable[list[Any]], extension: str, end: str) -> int:
    """Write ``name.png (h,w,c) level`` for each crop, as BasicSR's tools do; returns the number of crops."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for _, crops in lines:
            for key, (height, width, channels) in crops:
                file.write(f"{key}.{extension} ({height},{width},{channels}){end}\n")
                count += 1
    return count


@contextlib.contextmanager
def stored_crops(output: Path, kind: str, cutting: Cutting) -> Iterator[Callable[[str], bytes | None]]:
    """Lend what reads the file of a crop by its key, None where it is missing; InputError if the LMDB is damaged."""
    if kind == "folder":
        yield lambda key: _content(output / f"{key}.{cutting.extension}")
        return
    import lmdb

    try:
        with lmdb.open(str(output), readonly=True, lock=False) as environment, environment.begin() as transaction:
            yield lambda key: transaction.get(key.encode("ascii"))
    except lmdb.Error as error:
        raise InputError(f"{output} cannot be read: {error}; remove it and prepare it again") from error


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def same_pixels(stored: bytes | None, content: bytes) -> bool:
    """Whether two image files hold the same: other releases of OpenCV may write the same pixels in other bytes."""
    if stored is None or stored == content:
        return stored is not None
    try:
        return np.array_equal(decode_pixels(stored, "stored"), decode_pixels(content, "cut"))
    except InputError:
        return False
