"""The saves of one run: every file of an iteration, then the record that makes them one whole save."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from basicsr.utils.logger import get_root_logger

from basicsr_ext.checkpoints import checksums
from basicsr_ext.checkpoints.resumable import save_best
from basicsr_ext.common import files
from basicsr_ext.common.errors import did_you_mean
from basicsr_ext.common.files import SaveError, write_whole

LATEST = -1
_NUMBERED = re.compile(r"(?:net_.+_)?(\d+)\.(?:pth|safetensors|state|sha256|best\.json)")


def saves_of(model: Any) -> Saves:
    """The saves of a model; made at its first save."""
    if "_saves" not in vars(model):
        model._saves = Saves(model.opt)
    return model._saves


def option_faults(opt: Mapping[str, Any]) -> list[str]:
    """What ``logger.keep_best`` could not do: it names no metric, or validations fall between two saves."""
    logger, val = opt["logger"], opt.get("val") or {}
    wanted, metrics = logger.get("keep_best"), val.get("metrics") or {}
    if wanted is None:
        return []
    said = f"logger.keep_best is {wanted!r}, "
    if wanted not in metrics:
        return [f"{said}which val.metrics does not measure; {did_you_mean(wanted, metrics)}"]
    if val["val_freq"] % logger["save_checkpoint_freq"]:
        return [
            f"{said}but val.val_freq is {val['val_freq']} and logger.save_checkpoint_freq is "
            f"{logger['save_checkpoint_freq']}: what is validated must be saved; make the first a multiple of the other"
        ]
    return []


class Saves:
    """Writes the files of a save one by one; :meth:`commit` checks them and makes them count.

    ``logger.max_failed_saves`` failures in a row (1 where it is not given) stop the run. After a whole save
    ``logger.keep_last`` removes all but the newest ones, and never the one that is best in ``logger.keep_best``.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        logger = opt.get("logger") or {}
        self.models, self.states = Path(opt["path"]["models"]), Path(opt["path"]["training_states"])
        self.max_failures = logger.get("max_failed_saves") or 1
        self.keep_last: int | None = logger.get("keep_last")
        self.keep_best: str | None = logger.get("keep_best")
        self.failures = 0
        self.newest_whole: int | None = None  # iteration of the newest save that this process finished
        self._iteration: int | None = None
        self._digests: dict[Path, str] = {}
        self._failed = False

    def write(self, iteration: int, path: Path, save: Callable[[Path], str]) -> None:
        """Write a file of the save of an iteration (-1: that of the run's end); after a failure its rest is left out.

        ``save`` writes it, whole or not at all, and returns its SHA-256. Raises SaveError if the run ends for it.
        """
        if iteration != self._iteration:
            self._iteration, self._digests, self._failed = iteration, {}, False
        if self._failed:
            return
        try:
            self._digests[path] = save(path)
        except SaveError as error:
            self._fail(error)

    def commit(self, iteration: int, best: Mapping[str, Any] | None = None) -> None:
        """Read every file of the save again, write its record, point ``latest`` to it and remove what is too old.

        ``best`` is ``best_metric_results`` of the model. Raises SaveError if a file does not read back as it was
        written, or the record could not be, and the run ends for it.
        """
        if self._failed or iteration != self._iteration:
            return
        try:
            for path, digest in self._digests.items():
                _compare(path, digest)
            names = {checksums.listed_name(path, self.states): digest for path, digest in self._digests.items()}
            write_whole(self.states / f"{iteration}.sha256", checksums.record_text(names), durable=True)
        except SaveError as error:
            self._fail(error)
            return
        self.failures, self.newest_whole = 0, iteration
        self._point_latest(iteration)
        if self.keep_last is not None:
            self._remove_old(iteration, best or {})

    def keep_metrics(self, opt: Mapping[str, Any], best: Mapping[str, Any], iteration: int) -> None:
        """Keep the best metrics of a validation beside the save of its iteration; SaveError if the run ends for it."""
        try:
            save_best(opt, best, iteration)
        except SaveError as error:
            self._count(error)

    def _fail(self, error: SaveError) -> None:
        """Leave out the rest of a save, and free its space unless an earlier save of the same iteration is at stake."""
        self._failed = True
        if self._iteration != LATEST and not (self.states / f"{self._iteration}.sha256").exists():
            _remove(self._digests)
        self._count(error)

    def _count(self, error: SaveError) -> None:
        self.failures += 1
        row = f"failed saves in a row: {self.failures}, logger.max_failed_saves is {self.max_failures}"
        if self._iteration != LATEST and self.failures < self.max_failures:
            get_root_logger().error(f"{error}; {row}: training goes on")
            return
        ends = "the run ends" if self._iteration == LATEST else f"the run stops at iteration {self._iteration} ({row})"
        newest = max((int(p.stem) for p in self.states.glob("*.sha256") if p.stem.isdigit()), default=None)
        onward = "start again" if newest is None else f"go on from iteration {newest} with --auto_resume"
        raise SaveError(f"{error}; {ends}. Put that right, then {onward}") from error

    def _point_latest(self, iteration: int) -> None:
        """Let ``net_*_latest`` be the networks of a whole save: another name of the same file, a copy where need be."""
        for path in self._digests:
            if path.parent != self.models:
                continue
            latest = path.with_name(f"{path.stem.removesuffix(str(iteration))}latest{path.suffix}")
            try:
                _link(path, latest)
            except OSError as error:
                get_root_logger().warning(f"{latest} stays as it was, {path.name} is newer: {error}")

    def _remove_old(self, newest: int, best: Mapping[str, Any]) -> None:
        numbered: dict[int, list[Path]] = {}
        for path in [*self.models.iterdir(), *self.states.iterdir()]:
            if found := _NUMBERED.fullmatch(path.name):
                numbered.setdefault(int(found[1]), []).append(path)
        whole = sorted((i for i in numbered if i <= newest and (self.states / f"{i}.sha256").exists()), reverse=True)
        kept = set(whole[: self.keep_last])
        kept |= {record[self.keep_best]["iter"] for record in best.values() if self.keep_best in record}
        for iteration in [i for i in numbered if i < newest and i not in kept]:
            # the record goes first: a save that is half removed is not a whole one
            _remove(sorted(numbered[iteration], key=lambda p: p.suffix != ".sha256"))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _compare(path: Path, digest: str) -> None:
    try:
        found = files.digest(path)
    except OSError as error:
        raise SaveError(f"cannot save {path}: it cannot be read back: {error.strerror}") from error
    if found != digest:
        raise SaveError(f"cannot save {path}: it reads back otherwise than it was written; look after the disk")


def _link(path: Path, name: Path) -> None:
    """Give a file a second name in place of what had that name, in one step."""
    if name.exists() and os.path.samefile(path, name):
        return

    def link(unfinished: Path) -> None:
        unfinished.unlink(missing_ok=True)
        try:
            os.link(path, unfinished)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, unfinished)

    write_whole(name, link, durable=True)
