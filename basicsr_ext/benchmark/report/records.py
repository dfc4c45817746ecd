"""The one source of every table, plot and page: ``records.json``."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from basicsr_ext.benchmark import FORMAT
from basicsr_ext.benchmark.report.statistics import bootstrap_mean, paired
from basicsr_ext.benchmark.run.inputs import Image
from basicsr_ext.benchmark.run.measure import Figures, Measured
from basicsr_ext.benchmark.run.methods import Method
from basicsr_ext.benchmark.run.settings import Benchmark
from basicsr_ext.benchmark.run.store import Store
from basicsr_ext.benchmark.run.work import Outcome
from basicsr_ext.common.versions import commit, versions_of
from basicsr_ext.metrics import Metric
from basicsr_ext.restoring.restorer import find_device

_CAPITALS = ("psnr", "ssim", "niqe", "lpips", "dists", "fid", "kid")

Found = Mapping[tuple[str, str], Figures]


def compose(bench: Benchmark, measured: Measured) -> dict[str, Any]:
    """Put together what was measured."""
    images, outcome, found = measured
    by_set = {name: [image for image in images if image.dataset == name] for name in bench.datasets}
    done = [method for method in bench.methods if method.name not in outcome.reasons]
    return {
        "format": FORMAT,
        "name": bench.options.name,
        "title": bench.options.title or bench.options.name,
        "environment": environment(bench.device),
        "protocol": {
            "seed": bench.options.manual_seed,
            **{name: vars(bench.options)[name] for name in ("scale", "tile", "batch_size", "baseline")},
            "metrics": {name: dict(block) for name, block in bench.options.metrics.items()},
            "intervals": f"95 %, percentile bootstrap over images, {bench.options.resamples} resamples",
            "significance": "Wilcoxon's signed-rank test, two-sided, not corrected for the number of comparisons",
        },
        "methods": [_method(method, outcome, found) for method in bench.methods],
        "datasets": [{"name": name, "images": [_image(bench.store, i) for i in ours]} for name, ours in by_set.items()],
        "metrics": [_metric(name, metric) for name, metric in bench.metrics.items()],
        "results": [_result(bench, m, by_set[name], found[m.name, name]) for m in done for name in by_set],
        "significance": _significance(bench, done, found),
    }


def environment(device: str = "auto") -> dict[str, Any]:
    """Versions, the device (``auto`` or a name of torch's), the processor and the commit of the code."""
    place = find_device(device)
    known = torch.cuda.get_device_name(place) if place.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    return {**versions_of(), "device": known, "cpu": _processor(), "commit": commit()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _method(method: Method, outcome: Outcome, found: Found) -> dict[str, Any]:
    facts, reason = outcome.facts.get(method.name), outcome.reasons.get(method.name)
    notes = [note for (name, _), figures in found.items() if name == method.name for note in figures.notes]
    seconds = [note["seconds"] for note in notes if note.get("seconds") is not None]
    peaks = [note["peak_memory"] for note in notes if note.get("peak_memory") is not None]
    return {
        "name": method.name,
        "label": method.label,
        "kind": method.kind,
        "group": method.group,
        "along": method.along,
        "nfe": facts.network_calls if facts and method.kind != "interpolation" else None,
        "sampler": facts.sampler if facts else None,
        "status": "failed" if reason else "done",
        "reason": reason,
        "parameters": facts.parameters if facts else None,
        "flops": facts.flops if facts else None,
        "seconds_per_image": sum(seconds) / len(seconds) if seconds else None,
        "peak_memory_mib": max(peaks) / 2**20 if peaks else None,
    }


def _image(store: Store, image: Image) -> dict[str, Any]:
    paths = {kind: store.relative(store.input(image.dataset, image.name, kind)) for kind in ("gt", "lq")}
    return {"name": image.name, **paths, "width": image.width, "height": image.height}


def _metric(name: str, metric: Metric) -> dict[str, Any]:
    word, _, rest = name.partition("_")
    label = word.upper() if word in _CAPITALS else word
    return {
        "name": name,
        "label": f"{label}-{rest.upper() if len(rest) == 1 else rest}" if rest else label,
        "unit": metric.unit,
        "digits": metric.digits,
        "higher_is_better": bool(metric.higher_is_better),
        "set_level": not metric.per_image,
        "provenance": metric.provenance(),
    }


def _result(bench: Benchmark, method: Method, images: list[Image], figures: Figures) -> dict[str, Any]:
    rows = []
    for k, image in enumerate(images):
        note, file = figures.notes[k], bench.store.restored(method.name, image.dataset, image.name)
        extras = note.get("extras", {})
        row = {"image": image.name, "file": bench.store.relative(file), "seconds": note.get("seconds")}
        row |= {name: values[k] for name, values in figures.values.items()}
        rows.append(row | {"trajectory": extras.get("walk"), "deviation": extras.get("std")})
    summary = {name: _summary(bench, figures, name) for name in bench.metrics}
    refused = {"refused": figures.refusals} if figures.refusals else {}
    return {"method": method.name, "dataset": images[0].dataset, "summary": summary, "images": rows, **refused}


def _summary(bench: Benchmark, figures: Figures, name: str) -> dict[str, float | None]:
    values = figures.values.get(name)
    if figures.sets[name] is None or values is None or None in values:
        return {"value": figures.sets[name], "low": None, "high": None}
    interval = bootstrap_mean(np.array(values), bench.options.resamples, bench.options.manual_seed)
    return {"value": figures.sets[name], "low": interval.low, "high": interval.high}


def _significance(bench: Benchmark, methods: list[Method], found: Found) -> list[dict[str, Any]]:
    base, rows = bench.options.baseline, []
    if base not in [method.name for method in methods]:
        return []
    for dataset in bench.datasets:
        for name in bench.metrics:
            reference = found[base, dataset].values.get(name)
            for method in methods:
                values = found[method.name, dataset].values.get(name)
                if method.name == base or not values or not reference or None in [*values, *reference]:
                    continue
                draws = bench.options.resamples, bench.options.manual_seed
                pair = paired(np.array(values), np.array(reference), *draws)
                place = {"dataset": dataset, "metric": name, "method": method.name, "baseline": base}
                rows.append(place | pair._asdict())
    return rows
