"""Measure restored images from their files; what was measured before is read from the notes beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from basicsr_ext.benchmark.run.inputs import Image, folder_faults, prepare
from basicsr_ext.benchmark.run.methods import Method
from basicsr_ext.benchmark.run.runners import Facts
from basicsr_ext.benchmark.run.settings import Benchmark
from basicsr_ext.benchmark.run.store import Store, hash_of
from basicsr_ext.benchmark.run.work import Outcome, restore_all
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.plain_json import finite
from basicsr_ext.metrics import Cost, Metric, Sample
from basicsr_ext.metrics.samples import known_operator
from basicsr_ext.processes import collectives


class Figures(NamedTuple):
    """Of one method on one data set: by metric, the figure of each image in order, and that of the whole set.

    None stands where there is no figure; ``refusals`` says why, by metric. ``notes`` are those of the images.
    """

    values: dict[str, list[float | None]]
    sets: dict[str, float | None]
    refusals: dict[str, str]
    notes: list[dict[str, Any]]


class Measured(NamedTuple):
    """All that a benchmark found out; ``figures`` by method and data set, without methods that failed."""

    store: Store
    images: list[Image]
    outcome: Outcome
    figures: dict[tuple[str, str], Figures]


def restore_and_measure(bench: Benchmark) -> Measured:
    """Restore what is not restored yet by every method, and measure it; shared out over the ranks.

    Raises:
        InputError: an image can not be read or written, or a folder of restored images lacks one.

    """
    store = Store(bench.folder)
    images = prepare(bench.datasets, store)
    if faults := folder_faults(bench.methods, images):
        raise InputError("\n  - ".join(["folders of restored images", *faults]))
    outcome = restore_all(bench, store, images)
    collectives.barrier()
    found = {}
    for method in bench.methods:
        for dataset in bench.datasets if method.name not in outcome.reasons else ():
            chosen = [image for image in images if image.dataset == dataset]
            found[method.name, dataset] = measure(bench, store, method, chosen, outcome.facts.get(method.name))
    return Measured(store, images, outcome, found)


def measure(bench: Benchmark, store: Store, method: Method, images: list[Image], facts: Facts | None) -> Figures:
    """Measure the images of one data set, shared out over the ranks; the same figures on every rank.

    Raises:
        InputError: a file can not be read or written.

    """
    metrics: Mapping[str, Metric] = bench.metrics
    keys = {name: hash_of(metric.identity()) for name, metric in metrics.items()}
    refusals: dict[str, str] = {}
    for metric in metrics.values():
        metric.records.clear()
    for k in collectives.shard_indices(len(images)):
        cost = _cost_at(facts, images[k], images[0])
        _measure_image(bench, keys, store, method, images[k], refusals, cost)
    for shared in collectives.gather_objects(refusals):
        refusals.update({name: reason for name, reason in shared.items() if name not in refusals})
    for records in collectives.gather_objects({name: metric.records for name, metric in metrics.items()}):
        for name, metric in metrics.items():
            metric.records.update(records[name])
    notes = [store.read_note(store.restored(method.name, image.dataset, image.name)) or {} for image in images]
    return _figures(metrics, images, refusals, notes)


def _figures(
    metrics: Mapping[str, Metric], images: list[Image], refusals: dict[str, str], notes: list[dict[str, Any]]
) -> Figures:
    values: dict[str, list[float | None]] = {}
    sets: dict[str, float | None] = {}
    for name, metric in metrics.items():
        if metric.per_image:
            values[name] = [finite(metric.records.get(image.index)) for image in images]  # PSNR may be infinite
        sets[name] = None
        if name not in refusals:
            try:
                sets[name] = finite(metric.compute())
            except InputError as error:
                refusals[name] = str(error)
    return Figures(values, sets, refusals, notes)


def _cost_at(facts: Facts | None, image: Image, first: Image) -> Cost | None:
    """Parameters and FLOPs for an image; FLOPs were counted on ``first`` and taken to grow with the pixels."""
    if facts is None:
        return None
    share = image.width * image.height / (first.width * first.height)
    return Cost(None, None, facts.parameters, facts.flops * share, facts.network_calls)


def _measure_image(
    bench: Benchmark,
    keys: Mapping[str, str],
    store: Store,
    method: Method,
    image: Image,
    refusals: dict[str, str],
    cost: Cost | None,
) -> None:
    path = store.restored(method.name, image.dataset, image.name)
    note = store.read_note(path) or {}
    known, sample = dict(note.get("measured", {})), None
    for name, metric in bench.metrics.items():
        place = hash_of([keys[name], image.gt_digest, image.input_digest])
        if (held := _held(known.get(name), place, store)) is not None:
            metric.records[image.index] = held
            continue
        sample = sample or _sample(bench, store, path, image, note, cost)
        try:
            metric.update(sample)
        except InputError as error:
            refusals.setdefault(name, str(error))
            continue
        known[name] = _kept(metric.records[image.index], place, store, method, image, name)
    if known != note.get("measured"):
        store.write_note(path, {**note, "measured": known})


def _held(entry: Any, place: str, store: Store) -> Any:
    """What is kept of an image under the key ``place``; None if there is nothing."""
    if not isinstance(entry, dict) or entry.get("key") != place:
        return None
    if "array" not in entry:
        return float(entry["value"]) if entry.get("value") is not None else None
    file = store.root / entry["array"]
    if not file.is_file():
        return None
    held = np.load(file, allow_pickle=False)
    if isinstance(held, np.ndarray):
        return held
    with held:
        return {key: value if value.ndim else value.item() for key, value in held.items()}


def _kept(record: Any, place: str, store: Store, method: Method, image: Image, name: str) -> dict[str, Any]:
    """The entry of a note: a number in it, arrays in a file beside it; other kinds are measured again."""
    if isinstance(record, (np.ndarray, dict)):
        ending = "npz" if isinstance(record, dict) else "npy"
        file = store.root / "measured" / method.name / image.dataset / f"{image.name}.{name}.{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            np.savez(file, **record) if isinstance(record, dict) else np.save(file, record)
        except OSError as error:
            raise InputError(f"{file}: can not be written ({error.strerror or error}); make space there") from error
        return {"key": place, "array": store.relative(file)}
    if isinstance(record, (int, float)) and math.isfinite(record):
        return {"key": place, "value": float(record)}
    return {}


def _sample(
    bench: Benchmark, store: Store, path: Path, image: Image, note: Mapping[str, Any], cost: Cost | None
) -> Sample:
    paths = [path, *(store.input(image.dataset, image.name, kind) for kind in ("gt", "lq"))]
    restored, gt, lq = (_read(file) for file in paths)
    if cost is not None:
        cost = replace(cost, seconds=note.get("seconds"), peak_memory=note.get("peak_memory"))
    more = [_read(store.root / file) for name, file in note.get("extras", {}).items() if name.startswith("draw")]
    draws = (restored, *more) if more else None
    dataset, mask = bench.datasets[image.dataset], None
    if any("operator" in metric.needs for metric in bench.metrics.values()):
        mask = dataset[image.index].get("mask")
    hole = None if mask is None else mask[0].numpy() > 0.5
    operator = known_operator(dataset, mask)
    return Sample(image.index, image.name, restored, gt, lq, operator, hole, draws, cost)


def _read(path: Path) -> np.ndarray:
    """H,W,C uint8 in OpenCV's order."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise InputError(f"{path} can not be read; remove it and start again")
    return pixels if pixels.ndim == 3 else pixels[:, :, None]
