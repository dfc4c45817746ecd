"""Plots for papers, from the records of a benchmark."""

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Records = Mapping[str, Any]


def draw(path: Path, records: Records) -> Iterator[str]:
    """Write ``plot_<data set>.png`` beside the records at ``path``; yields a line for each, or what is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        yield "note: no plots, since matplotlib is not installed; run: pip install 'basicsr-i2sb[plots]'"
        return
    for dataset in records["datasets"]:
        target = path.with_name(f"plot_{dataset['name']}.png")
        if plot(records, dataset["name"], target):
            yield f"plot: {target}"


def plot(records: Records, dataset: str, target: Path) -> bool:
    """Write quality against seconds, and the perception-distortion plane where there are figures of both kinds.

    Distortion is the first metric of which more is better (PSNR), perception the first of which less is better (LPIPS,
    NIQE). Methods of one group, which differ in their network evaluations, are joined by a line.
    Returns False if there is nothing to plot.
    """
    from matplotlib.figure import Figure

    results = {result["method"]: result["summary"] for result in records["results"] if result["dataset"] == dataset}
    distortion = next((m for m in records["metrics"] if m["higher_is_better"]), None)
    perception = next((m for m in records["metrics"] if not m["higher_is_better"]), None)
    seconds = {method["name"]: method["seconds_per_image"] for method in records["methods"]}
    planes = []
    if distortion and perception:
        pairs = {n: (_at(s, distortion), _at(s, perception)) for n, s in results.items()}
        planes.append((_label(distortion), f"{_label(perception)} (less is better)", False, pairs))
    if distortion:
        pairs = {n: (seconds[n], _at(s, distortion)) for n, s in results.items()}
        planes.append(("seconds per image", _label(distortion), True, pairs))
    planes = [plane for plane in planes if any(None not in pair for pair in plane[3].values())]
    if not planes:
        return False
    figure = Figure(figsize=(5.2 * len(planes), 4.2), layout="constrained")
    for number, plane in enumerate(planes):
        _plane(figure.add_subplot(1, len(planes), number + 1), records["methods"], *plane)
    figure.suptitle(dataset)
    figure.savefig(target, dpi=150)
    return True


def _at(summary: Mapping[str, Any], metric: Mapping[str, Any]) -> float | None:
    return summary[metric["name"]]["value"]


def _label(metric: Mapping[str, Any]) -> str:
    return f"{metric['label']} ({metric['unit']})" if metric["unit"] else metric["label"]


def _plane(axes: Any, methods: list[Mapping[str, Any]], x: str, y: str, log: bool, pairs: Mapping[str, Any]) -> None:
    groups: dict[str, list[tuple[float, float]]] = {}
    for method in methods:
        pair = pairs.get(method["name"], (None, None))
        if None in pair:
            continue
        axes.plot(*pair, "o", color="C0" if method["group"] else "C1")
        axes.annotate(method["label"].replace("$", r"\$"), pair, textcoords="offset points", xytext=(5, 4), fontsize=8)
        if method["group"]:
            groups.setdefault(method["group"], []).append(pair)
    for points in groups.values():
        axes.plot(*zip(*points), "-", color="C0", linewidth=1)
    axes.set(xlabel=x, ylabel=y, xscale="log" if log else "linear")
    axes.grid(alpha=0.3)
    axes.margins(x=0.3, y=0.1)
