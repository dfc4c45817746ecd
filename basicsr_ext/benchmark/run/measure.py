"""Measure restored images from their files; what was measured before is read from the notes beside them."""

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from basicsr_ext.benchmark.run.inputs import Image, folder_faults, prepare
from basicsr_ext.benchmark.run.methods import Method
from basicsr_ext.benchmark.run.runners import Facts
from basicsr_ext.benchmark.run.settings import Benchmark
from basicsr_ext.benchmark.run.store import Store, hash_of, read_stored
from basicsr_ext.benchmark.run.work import Outcome, restore_all
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import write_whole
from basicsr_ext.common.plain_json import finite
from basicsr_ext.metrics import Cost, Sample
from basicsr_ext.metrics.build import share_records
from basicsr_ext.metrics.samples import known_operator
from basicsr_ext.processes import collectives

_WHOLE = "*"  # name of an array that is a whole record


class Figures(NamedTuple):
    """Of one method on one data set: by metric, the figure of each image in order, and that of the whole set.

    None stands where there is no finite figure; ``refusals`` says why, by metric. ``notes`` are those of the images.
    """

    values: dict[str, list[float | None]]
    sets: dict[str, float | None]
    refusals: dict[str, str]
    notes: list[dict[str, Any]]


class Measured(NamedTuple):
    """All that a benchmark found out; ``figures`` by method and data set, without methods that failed."""

    images: list[Image]
    outcome: Outcome
    figures: dict[tuple[str, str], Figures]


def restore_and_measure(bench: Benchmark) -> Measured:
    """Restore and measure what is not there yet, shared out over the ranks, or raises InputError if a file fails."""
    images = prepare(bench.datasets, bench.store)
    if faults := folder_faults(bench.methods, images):
        raise InputError("\n  - ".join(["folders of restored images", *faults]))
    outcome = restore_all(bench, images)
    collectives.barrier()
    found = {}
    for method in bench.methods:
        for dataset in bench.datasets if method.name not in outcome.reasons else ():
            chosen = [image for image in images if image.dataset == dataset]
            found[method.name, dataset] = _measure(bench, method, chosen, outcome.facts.get(method.name))
    return Measured(images, outcome, found)


def _measure(bench: Benchmark, method: Method, images: list[Image], facts: Facts | None) -> Figures:
    """Measure the images of one data set, shared out over the ranks; the same figures on every rank."""
    found = Figures({}, {}, {}, [])
    for metric in bench.metrics.values():
        metric.records.clear()
        metric.unmeasured.clear()
    keys = {name: hash_of(metric.identity()) for name, metric in bench.metrics.items()}
    for k in collectives.shard_indices(len(images)):
        cost = _cost_at(facts, images[k], images[0]) if facts else None
        _measure_image(bench, method, images[k], cost, keys)
    share_records(bench.metrics)
    for name, metric in bench.metrics.items():
        if metric.per_image:
            found.values[name] = [metric.records.get(image.index) for image in images]
        found.sets[name] = None
        if metric.unmeasured:
            first = metric.unmeasured[min(metric.unmeasured)][1]
            found.refusals[name] = metric.all_notes()[-1] if metric.records else first
        try:
            found.sets[name] = finite(metric.compute())
        except Exception as error:  # as a metric of single images
            found.refusals.setdefault(name, str(error))
    files = (bench.store.restored(method.name, image.dataset, image.name) for image in images)
    found.notes.extend(bench.store.read_note(file) for file in files)
    return found


def _cost_at(facts: Facts, image: Image, first: Image) -> Cost:
    """Parameters and FLOPs for an image; FLOPs were counted on ``first`` and taken to grow with the pixels."""
    share = image.width * image.height / (first.width * first.height)
    return Cost(None, None, facts.parameters, facts.flops * share, facts.network_calls)


def _measure_image(bench: Benchmark, method: Method, image: Image, cost: Cost | None, keys: dict[str, str]) -> None:
    """Let every metric take an image, or what its note holds under the key of the metric and the image."""
    path = bench.store.restored(method.name, image.dataset, image.name)
    note = bench.store.read_note(path)
    known, sample = dict(note.get("measured", {})), None
    for name, metric in bench.metrics.items():
        place = hash_of([keys[name], image.gt_digest, image.input_digest])
        if (held := held_record(known.get(name), place, bench.store)) is not None:
            metric.records[image.index] = held
            continue
        sample = sample or _sample(bench, path, image, note, cost)
        metric.take(sample)
        if image.index in metric.unmeasured:
            continue
        file = bench.store.root / "measured" / method.name / image.dataset / f"{image.name}.{name}"
        known[name] = kept_record(metric.records[image.index], place, bench.store, file)
    if known != note.get("measured"):
        bench.store.write_note(path, {**note, "measured": known})


def held_record(entry: Any, place: str, store: Store) -> Any:
    """What a note's ``entry`` keeps of an image under the key ``place``; None if there is nothing."""
    if not isinstance(entry, dict) or entry.get("key") != place:
        return None
    file = store.root / entry.get("arrays", "")
    if not file.is_file():
        return entry.get("value")
    with np.load(file, allow_pickle=False) as held:
        record = {key: value if value.ndim else value.item() for key, value in held.items()}
    return record.get(_WHOLE, record)


def kept_record(record: Any, place: str, store: Store, file: Path) -> dict[str, Any]:
    """The entry of a note: a number in it, arrays in a file of the name ``file``; other kinds are measured again."""
    if isinstance(record, (np.ndarray, dict)):
        file, content = file.with_name(f"{file.name}.npz"), io.BytesIO()
        np.savez(content, **(record if isinstance(record, dict) else {_WHOLE: record}))
        write_whole(file, content.getvalue())
        return {"key": place, "arrays": store.relative(file)}
    return {"key": place, "value": record} if isinstance(record, float) and math.isfinite(record) else {}


def _sample(bench: Benchmark, path: Path, image: Image, note: dict[str, Any], cost: Cost | None) -> Sample:
    paths = [path, *(bench.store.input(image.dataset, image.name, kind) for kind in ("gt", "lq"))]
    restored, gt, lq = (read_stored(file) for file in paths)
    if cost is not None:
        cost = replace(cost, seconds=note.get("seconds"), peak_memory=note.get("peak_memory"))
    files = [file for name, file in note.get("extras", {}).items() if name.startswith("draw")]
    draws = (restored, *(read_stored(bench.store.root / file) for file in files)) if files else None
    dataset, mask = bench.datasets[image.dataset], None
    if any("operator" in metric.needs for metric in bench.metrics.values()):
        mask = dataset[image.index].get("mask")
    hole = None if mask is None else mask[0].numpy() > 0.5
    operator = known_operator(dataset, mask)
    return Sample(image.index, image.name, restored, gt, lq, operator, hole, draws, cost)
