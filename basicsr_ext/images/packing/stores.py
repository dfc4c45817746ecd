"""Where crops are written: an LMDB of BasicSR's layout, or a folder of PNG files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lmdb

from basicsr_ext.images.packing.crops import Crop, Cutting


class FolderStore:
    """PNG files, which the workers write; the meta information lies beside the folder, where no data set reads it."""

    def __init__(self, part: Path, cutting: Cutting) -> None:
        self.part, self.cutting = part, cutting
        self.meta, self.level = part.with_name(f"{part.name.removesuffix('.part')}_meta_info.txt"), ""

    def __enter__(self) -> FolderStore:
        return self

    def __exit__(self, *exception: object) -> None:
        for left in self.part.rglob(".*.unfinished"):  # of a process that was killed
            left.unlink()

    def count(self) -> int | None:
        """Number of crops that are safely there; None if every line of the record is right."""
        return None

    def write(self, crops: Iterable[Crop]) -> None:
        """Store crops that are not yet in their files."""

    def finish(self, lines: Iterable[list[Any]]) -> int:
        """Write ``name.png (h,w,c) level`` for each crop of the record, as BasicSR's tools do; returns their number."""
        count = 0
        with self.meta.open("w", encoding="utf-8", errors="surrogateescape") as file:
            for key, (height, width, channels) in (crop for line in lines for crop in line[1]):
                file.write(f"{key}.{self.cutting.extension} ({height},{width},{channels}){self.level}\n")
                count += 1
        return count


class LmdbStore(FolderStore):
    """An LMDB of BasicSR's layout, with ``meta_info.txt``."""

    def __init__(self, part: Path, cutting: Cutting) -> None:
        super().__init__(part, cutting)
        self.meta, self.level = part / "meta_info.txt", f" {0 if cutting.raw else cutting.compression}"
        self._environment = lmdb.open(str(part), map_size=2**40)  # bytes that it may grow to, as BasicSR's

    def __exit__(self, *exception: object) -> None:
        self._environment.close()

    def count(self) -> int:
        """Number of crops that are safely there."""
        return self._environment.stat()["entries"]

    def write(self, crops: Iterable[Crop]) -> None:
        """Store all of them or none."""
        with self._environment.begin(write=True) as transaction:
            for crop in crops:
                transaction.put(crop.key.encode("ascii"), crop.content)
