"""Restore what is not restored yet: method by method, shared out over the ranks, with the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from basicsr_ext import distributed
from basicsr_ext.benchmark.inputs import Image
from basicsr_ext.benchmark.memory import PeakMemory
from basicsr_ext.benchmark.methods import FolderMethod, Method
from basicsr_ext.benchmark.runners import Facts
from basicsr_ext.benchmark.settings import Benchmark
from basicsr_ext.benchmark.store import FORMAT, Store, hash_of, save_picture
from basicsr_ext.errors import InputError
from basicsr_ext.pictures import read_picture
from basicsr_ext.records import digest

__all__ = ["Outcome", "image_key", "restore_all"]


_NEXT_SEED = 1_000_000_007  # from one draw of an image to the next, beyond the seeds of the first ones


class Outcome(NamedTuple):
    """``facts`` and, of methods that failed, ``reasons``, by the names of the methods."""

    facts: dict[str, Facts]
    reasons: dict[str, str]


def image_key(bench: Benchmark, method: Method, image: Image) -> str:
    """Everything that decides how an image is restored, as one digest."""
    if isinstance(method, FolderMethod):
        path = method.find(image.dataset, image.name)
        return hash_of([FORMAT, digest(path) if path else None])
    settings = [FORMAT, method.identity, bench.options.tile, bench.options.trajectories, bench.draws]
    return hash_of([*settings, image.input_digest, _seed(bench, image)])


def _seed(bench: Benchmark, image: Image) -> int:
    """The seed that a test run gives the image."""
    return bench.options.manual_seed * 1_000_003 + image.index


def restore_all(bench: Benchmark, store: Store, images: list[Image]) -> Outcome:
    """Restore every image that is not there yet by every method; a method that fails leaves the others alone.

    Raises:
        InputError: a file can not be written.

    """
    outcome, todo = distributed.broadcast_object(_plan(bench, store, images) if distributed.is_main() else None)
    failed: dict[str, str] = {}
    with _Clock(outcome.facts, todo, images) as clock:
        for method in bench.methods:
            mine = [todo[method.name][k] for k in distributed.shard_indices(len(todo.get(method.name, ())))]
            if mine and method.name not in outcome.reasons:
                reason = _restore(bench, store, method, mine, clock)
                failed |= {method.name: reason} if reason else {}
    for reasons in distributed.gather_objects(failed):
        outcome.reasons.update({name: reason for name, reason in reasons.items() if name not in outcome.reasons})
    return outcome


def _plan(bench: Benchmark, store: Store, images: list[Image]) -> tuple[Outcome, dict[str, list[Image]]]:
    """What is to be restored; and try every method that has work on one network call, since that tells how long."""
    outcome, todo = Outcome({}, {}), {}
    for method in bench.methods:
        missing = [image for image in images if not _whole(bench, store, method, image)]
        todo[method.name] = missing
        if isinstance(method, FolderMethod):
            continue
        key = hash_of([FORMAT, method.identity, bench.options.tile, images[0].input_digest])
        note = store.read_note(store.facts(method.name))
        if note is not None and note.get("key") == key:
            outcome.facts[method.name] = Facts(*note["facts"])
            continue
        try:
            outcome.facts[method.name] = _warm(bench, method, images[0])[1]
        except Exception as error:  # a stranger's model fails in whatever way it likes
            outcome.reasons[method.name] = _said(error)
        else:
            store.write_note(store.facts(method.name), {"key": key, "facts": list(outcome.facts[method.name])})
    return outcome, todo


def _whole(bench: Benchmark, store: Store, method: Method, image: Image) -> bool:
    path = store.restored(method.name, image.dataset, image.name)
    return store.whole(path, image_key(bench, method, image)) is not None


def _warm(bench: Benchmark, method: Method, image: Image) -> tuple[Any, Facts]:
    runner = method.open(bench.device, bench.options.tile)
    return runner, runner.warm_up(bench.datasets[image.dataset][image.index])


def _restore(bench: Benchmark, store: Store, method: Method, images: list[Image], clock: _Clock) -> str | None:
    """Restore some images by one method; returns why it failed, if it did."""
    runner = None
    for image in images:
        clock.begin(method, image)
        try:
            if isinstance(method, FolderMethod):
                restored, note, extras = _copied(method, image), {"seconds": None, "peak_memory": None}, {}
            else:
                runner = runner or _warm(bench, method, image)[0]
                restored, note, extras = _timed(bench, runner, image)
        except Exception as error:  # as above
            return _said(error)
        path = store.restored(method.name, image.dataset, image.name)
        save_picture(path, restored)
        files = {name: store.extra(method.name, image.dataset, image.name, name) for name in extras}
        for name, file in files.items():
            save_picture(file, extras[name])
        note |= {"key": image_key(bench, method, image), "sha256": digest(path)}
        note["extras"] = {name: store.relative(file) for name, file in files.items()}
        store.write_note(path, note)
        clock.end(method, image)
    return None


def _timed(bench: Benchmark, runner: Any, image: Image) -> tuple[torch.Tensor, dict[str, Any], dict[str, torch.Tensor]]:
    item, seed = bench.datasets[image.dataset][image.index], _seed(bench, image)
    with PeakMemory(runner.device) as memory:
        runner.synchronize()
        start = time.perf_counter()
        restored, extras = runner.restore(item, seed)
        runner.synchronize()
        seconds = time.perf_counter() - start
    if restored.shape[-2:] != (image.height, image.width):
        size = " x ".join(map(str, reversed(restored.shape[-2:])))
        raise InputError(f"{image.name} is restored to {size}, but measures {image.width} x {image.height}")
    walk = runner.walk(item, seed) if bench.options.trajectories else None
    extras = {**extras, **({} if walk is None else {"walk": walk}), **_draws(bench, runner, item, seed, restored)}
    return restored, {"seconds": seconds, "peak_memory": memory.bytes}, extras


def _draws(bench: Benchmark, runner: Any, item: Any, seed: int, first: torch.Tensor) -> dict[str, torch.Tensor]:
    """The image restored with further seeds, by ``draw1`` and so on; one alone from a method that draws nothing."""
    found: dict[str, torch.Tensor] = {}
    for k in range(1, bench.draws):
        found[f"draw{k}"] = runner.restore(item, seed + k * _NEXT_SEED)[0]
        if torch.equal(found[f"draw{k}"], first):
            break
    return found


def _copied(method: FolderMethod, image: Image) -> torch.Tensor:
    path = method.find(image.dataset, image.name)
    if path is None:
        raise InputError(f"{method.folder} has no image for {image.name}")
    picture = read_picture(path)
    return picture.colours if picture.alpha is None else torch.cat([picture.colours, picture.alpha])


def _said(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text.splitlines()[0]}"


class _Clock:
    """A bar over the seconds that the restorations of this rank are expected to take."""

    def __init__(self, facts: Mapping[str, Facts], todo: Mapping[str, list[Image]], images: list[Image]) -> None:
        self._facts, self._first = facts, images[0]
        shares = {name: [found[k] for k in distributed.shard_indices(len(found))] for name, found in todo.items()}
        self._count = sum(map(len, shares.values()))
        self._left = {name: sum(map(self._pixels, found)) for name, found in shares.items() if name in facts}
        self._pace = {name: fact.seconds / self._pixels(self._first) for name, fact in facts.items()}
        self._done, self._start = 0, time.perf_counter()
        layout = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}, {postfix}]"
        quiet = not (self._count and distributed.is_main())
        self._bar = tqdm(total=self._count, bar_format=layout, disable=quiet, file=sys.stderr)

    def __enter__(self) -> _Clock:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @staticmethod
    def _pixels(image: Image) -> int:
        return image.width * image.height

    @property
    def seconds_left(self) -> float:
        """Expected from the pace of each method: of its images so far, or of its one network call before."""
        return sum(pixels * self._pace[name] for name, pixels in self._left.items())

    def begin(self, method: Method, image: Image) -> None:
        """Show what is restored now."""
        minutes, seconds = divmod(round(self.seconds_left), 60)
        self._bar.set_description_str(f"{method.name} {image.name}", refresh=False)
        self._bar.set_postfix_str(f"{minutes}:{seconds:02d} left")
        self._since = time.perf_counter()

    def end(self, method: Method, image: Image) -> None:
        """Count an image, and correct the pace of its method."""
        if method.name in self._left:
            self._left[method.name] -= self._pixels(image)
            self._pace[method.name] = (time.perf_counter() - self._since) / self._pixels(image)
        self._bar.update()
