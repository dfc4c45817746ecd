"""Plots of docs/results.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.quality.study.markdown import LABELS
from studies.quality.study.outcomes import Outcome, Outcomes, mean

__all__ = ["claims_name", "draw"]

DATA = "crops"
MARKERS = "os^Dv<>PX*"  # beside ten colours: no two methods look alike


def claims_name(metric: str) -> str:
    """File of the plot of a metric over NFE."""
    return f"results_claims_{metric}.png"


def draw(outcomes: Outcomes, folder: Path) -> list[Path]:
    """Write every plot that there are figures for."""
    folder.mkdir(parents=True, exist_ok=True)
    claims, samplers = _by_task(outcomes.of("claims")), _by_task(outcomes.of("samplers"))
    written = []
    for metric in LABELS:
        sides = {task: ["i2sb", "diffusion"] for task in claims}
        written += _panels(claims, sides, metric, folder / claims_name(metric))
    walks = {task: found[0].groups for task, found in samplers.items()}
    written += _panels(samplers, walks, "lpips", folder / "results_samplers.png")
    longer = _by_task(outcomes.of("longer"))
    networks = {task: found[0].groups for task, found in longer.items()}
    written += _panels(longer, networks, "lpips", folder / "results_longer.png")
    written += _planes(outcomes.of("super_resolution"), folder / "results_super_resolution.png")
    return written


def _by_task(found: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    return {task: [one for one in found if one.task == task] for task in dict.fromkeys(one.task for one in found)}


def _panels(
    tasks: Mapping[str, Sequence[Outcome]], groups: Mapping[str, Sequence[str]], metric: str, target: Path
) -> list[Path]:
    """One panel for each task: a metric over NFE, a thick line for the mean over seeds, thin ones for the seeds."""
    from matplotlib.figure import Figure

    tasks = {task: found for task, found in tasks.items() if metric in found[0].metrics}
    if not tasks:
        return []
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(max(7.2, 3.6 * columns), max(3.6, 2.9 * rows)), layout="constrained")
    for number, (task, found) in enumerate(tasks.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        for colour, group in enumerate(groups[task]):
            _line(axes, found, metric, group, f"C{colour % 10}", "o-" if colour < 10 else "s--")
        axes.set(xscale="log", title=task)
        ticks = sorted({nfe for group in groups[task] for nfe in found[0].curve(group) if nfe})
        axes.set_xticks(ticks, [str(nfe) for nfe in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    less = "" if next(iter(tasks.values()))[0].metrics[metric] else " (less is better)"
    names = figure.axes[0].get_legend_handles_labels()
    figure.legend(*names, loc="outside upper center", ncols=4, fontsize=8)
    figure.supxlabel("network evaluations")
    figure.supylabel(LABELS[metric] + less)
    figure.savefig(target, dpi=80)
    return [target]


def _line(axes: Any, found: Sequence[Outcome], metric: str, group: str, colour: str, style: str) -> None:
    nfes = [nfe for nfe in found[0].curve(group) if nfe]
    points = [(nfe, value) for nfe in nfes if (value := mean(found, metric, group, nfe, DATA)) is not None]
    if not points:
        return
    axes.plot(*zip(*points), style, color=colour, markersize=3, label=group)
    for one in found if len(found) > 1 else ():
        own = [(nfe, value) for nfe in nfes if (value := mean([one], metric, group, nfe, DATA)) is not None]
        if own:
            axes.plot(*zip(*own), "-", color=colour, linewidth=0.6, alpha=0.5)


def _planes(found: Sequence[Outcome], target: Path) -> list[Path]:
    """The perception-distortion plane of each data set; methods that differ in NFE are joined by a line."""
    from matplotlib.figure import Figure

    if not found or not {"psnr", "lpips"} <= set(found[0].metrics):
        return []
    datasets = found[0].datasets
    figure = Figure(figsize=(4.4 * len(datasets) + 1.8, 4.2), layout="constrained")
    for place, dataset in enumerate(datasets):
        axes = figure.add_subplot(1, len(datasets), place + 1)
        for number, group in enumerate(found[0].groups):
            _curve(axes, found, group, dataset, f"C{number % 10}", MARKERS[(number + number // 10) % len(MARKERS)])
        axes.set(title=dataset, xlabel="PSNR-Y (dB)")
        axes.grid(alpha=0.3)
        axes.margins(0.12)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.axes[0].set_ylabel("LPIPS (less is better)")
    figure.savefig(target, dpi=80)
    return [target]


def _curve(axes: Any, found: Sequence[Outcome], group: str, dataset: str, colour: str, marker: str) -> None:
    points = {}
    for nfe in found[0].curve(group):
        pair = [mean(found, metric, group, nfe, dataset) for metric in ("psnr", "lpips")]
        if None not in pair:
            points[nfe] = pair
    if not points:
        return
    axes.plot(*zip(*points.values()), f"{marker}-", color=colour, markersize=5, linewidth=1, label=group)
    for nfe, pair in points.items() if len(points) > 1 else ():
        axes.annotate(str(nfe), pair, xytext=(4, 3), textcoords="offset points", fontsize=7, color=colour)
