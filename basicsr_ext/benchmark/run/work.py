"""Restore what is not restored yet: method by method, shared out over the ranks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from basicsr_ext.benchmark import FORMAT
from basicsr_ext.benchmark.run.inputs import Image
from basicsr_ext.benchmark.run.methods import FolderMethod, Method
from basicsr_ext.benchmark.run.runners import Facts, Runner
from basicsr_ext.benchmark.run.settings import Benchmark
from basicsr_ext.benchmark.run.store import GIVEN, hash_of, save_picture
from basicsr_ext.common.batching import in_groups, shapes_of
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import digest
from basicsr_ext.common.text import listed
from basicsr_ext.images.pictures import read_picture
from basicsr_ext.models.acceleration import synchronize
from basicsr_ext.processes import collectives

_NEXT_SEED = 1_000_000_007  # from one draw of an image to the next, beyond the seeds of the first ones


class Made(NamedTuple):
    """A restored image C,H,W in [0, 1], what was measured meanwhile, and further pictures by name."""

    restored: Tensor
    note: dict[str, Any]
    extras: dict[str, Tensor]


class Outcome(NamedTuple):
    """``facts`` and, of methods that failed, ``reasons``, by the names of the methods."""

    facts: dict[str, Facts]
    reasons: dict[str, str]


def image_key(bench: Benchmark, method: Method, image: Image) -> str:
    """Everything that decides how an image is restored, as one digest."""
    if isinstance(method, FolderMethod):
        return hash_of([FORMAT, *map(digest, method.find(image.dataset, image.name))])
    settings = [FORMAT, method.identity, bench.tile, bench.options.trajectories, bench.draws]
    return hash_of([*settings, image.input_digest, _seed(bench, image)])


def _seed(bench: Benchmark, image: Image) -> int:
    """The seed that a test run gives the image."""
    return bench.options.manual_seed * 1_000_003 + image.index


def restore_all(bench: Benchmark, images: list[Image]) -> Outcome:
    """Restore every missing image by every method, even if one fails or some of its images cannot be saved."""
    outcome, todo = collectives.broadcast_object(_plan(bench, images) if collectives.is_main() else None)
    mine = {name: [found[k] for k in collectives.shard_indices(len(found))] for name, found in todo.items()}
    failed: dict[str, str] = {}
    count = sum(map(len, mine.values()))
    with tqdm(total=count, unit="image", disable=not (count and collectives.is_main()), file=sys.stderr) as bar:
        for method in bench.methods:
            if mine[method.name] and method.name not in outcome.reasons:
                reason = _restore(bench, method, mine[method.name], bar)
                failed |= {method.name: reason} if reason else {}
    for reasons in reversed(collectives.gather_objects(failed)):  # those of the first rank count
        outcome.reasons.update(reasons)
    return outcome


def _plan(bench: Benchmark, images: list[Image]) -> tuple[Outcome, dict[str, list[Image]]]:
    """What is to be restored; and every method with a network is tried on one call of it, which tells what it costs."""
    outcome, todo = Outcome({}, {}), {}
    for method in bench.methods:
        todo[method.name] = [image for image in images if not _whole(bench, method, image)]
        if isinstance(method, FolderMethod):
            continue
        key = hash_of([FORMAT, method.identity, bench.tile, images[0].input_digest])
        note = bench.store.read_note(bench.store.facts(method.name))
        if note.get("key") == key:
            outcome.facts[method.name] = Facts(*note["facts"][:4])  # earlier versions kept seconds as well
            continue
        try:
            runner = method.open(bench.device, bench.options.tile)
            outcome.facts[method.name] = runner.facts(_item(bench, images[0]))
        except Exception as error:  # a stranger's model fails in whatever way it likes
            outcome.reasons[method.name] = _said(error)
        else:
            note = {"key": key, "facts": list(outcome.facts[method.name])}
            bench.store.write_note(bench.store.facts(method.name), note)
    return outcome, todo


def _whole(bench: Benchmark, method: Method, image: Image) -> bool:
    path = bench.store.restored(method.name, image.dataset, image.name)
    return bench.store.whole(path, image_key(bench, method, image))


def _item(bench: Benchmark, image: Image) -> Any:
    return bench.datasets[image.dataset][image.index]


def _restore(bench: Benchmark, method: Method, images: list[Image], bar: tqdm) -> str | None:
    """Restore some images by one method; returns why it failed, if it did."""
    unsaved: list[str] = []
    runner, warm = None, set()  # for how many images at once: other numbers may compile anew
    for group, items in _groups(bench, method, images):
        bar.set_description_str(f"{method.name} {group[0].name}")
        try:
            if isinstance(method, FolderMethod):
                made = [Made(_copied(method, image), {}, {}) for image in group]
            else:
                runner = runner or method.open(bench.device, bench.options.tile)
                if len(items) not in warm:
                    runner.warm_up(items)
                    warm.add(len(items))
                made = _timed(bench, runner, group, items)
        except Exception as error:  # as above
            return _said(error)
        for image, one in zip(group, made):
            try:
                _keep(bench, method, image, one)
            except InputError as error:  # the next one may have a shorter name
                unsaved.append(str(error))
        bar.update(len(group))
    return f"{len(unsaved)} of {len(images)} images could not be saved: {listed(unsaved)}" if unsaved else None


def _groups(bench: Benchmark, method: Method, images: list[Image]) -> Iterator[tuple[list[Image], list[Any]]]:
    """Images that are restored at once, and what the data sets give of them: nothing for a folder's."""
    if isinstance(method, FolderMethod):
        yield from (([image], []) for image in images)
        return
    loaded = ((image, _item(bench, image)) for image in images)
    for group in in_groups(loaded, lambda pair: shapes_of(pair[1], GIVEN), bench.options.batch_size):
        yield [image for image, _ in group], [item for _, item in group]


def _keep(bench: Benchmark, method: Method, image: Image, made: Made) -> None:
    path = bench.store.restored(method.name, image.dataset, image.name)
    save_picture(path, made.restored)
    files = {name: bench.store.extra(method.name, image.dataset, image.name, name) for name in made.extras}
    for name, file in files.items():
        save_picture(file, made.extras[name])
    note = made.note | {"key": image_key(bench, method, image), "sha256": digest(path)}
    note["extras"] = {name: bench.store.relative(file) for name, file in files.items()}
    bench.store.write_note(path, note)


def _timed(bench: Benchmark, runner: Runner, images: list[Image], items: list[Any]) -> list[Made]:
    """Restore images at once; each takes an equal share of the seconds."""
    seeds = [_seed(bench, image) for image in images]
    on_gpu = runner.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(runner.device)
    synchronize(runner.device)
    start = time.perf_counter()
    found = runner.restore(items, seeds)
    synchronize(runner.device)
    seconds = (time.perf_counter() - start) / len(images)
    peak = torch.cuda.max_memory_allocated(runner.device) if on_gpu else None
    for image, (restored, _) in zip(images, found):
        if restored.shape[-2:] != (image.height, image.width):
            size = " x ".join(map(str, reversed(restored.shape[-2:])))
            raise InputError(f"{image.name} is restored to {size}, but measures {image.width} x {image.height}")
    draws = _draws(runner, bench.draws, items, seeds, [restored for restored, _ in found])
    note = {"seconds": seconds, "peak_memory": peak, "batch_size": len(images)}
    made = []
    for (restored, extras), item, seed, more in zip(found, items, seeds, draws):
        walk = runner.walk(item, seed) if bench.options.trajectories else None
        made.append(Made(restored, dict(note), {**extras, **({} if walk is None else {"walk": walk}), **more}))
    return made


def _draws(runner: Runner, count: int, items: list, seeds: list[int], first: list[Tensor]) -> list[dict[str, Tensor]]:
    """The images restored with further seeds, by ``draw1`` and so on; one alone where a method draws nothing."""
    found: list[dict[str, Tensor]] = [{} for _ in items]
    for k in range(1, count):
        restored = [image for image, _ in runner.restore(items, [seed + k * _NEXT_SEED for seed in seeds])]
        for draws, image in zip(found, restored):
            draws[f"draw{k}"] = image
        if all(map(torch.equal, restored, first)):
            break
    return found


def _copied(method: FolderMethod, image: Image) -> Tensor:
    (path,) = method.find(image.dataset, image.name)  # as was checked
    picture = read_picture(path)
    return picture.colours if picture.alpha is None else torch.cat([picture.colours, picture.alpha])


def _said(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text.splitlines()[0]}"
