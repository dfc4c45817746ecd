"""One evaluation of the fast network with a perceptual term against full-size ones, after equal seconds of training."""

from collections.abc import Sequence

from studies.quality.study.markdown import LABELS, figure, missing, provenance, shown, table
from studies.quality.study.outcomes import Difference, Outcome, Outcomes, difference, mean
from studies.quality.study.plan import Comparison

__all__ = ["NAME", "NETWORKS", "OPTIONS", "RIVALS", "against", "best_walk", "section"]

NAME, RIVALS, OPTIONS, NETWORKS = "equal_seconds", "rivals", "options", "any_network"
NEW, OLD = "dial_0.5", ("full", "full_cond")
HIGHER = {"psnr": True, "lpips": False, "dists": False, "patch_fid": False}
READING = f"""Each network trains for the same CPU seconds. The full-size network learns eps, as best for the task:
`full_cond` sees x1 too, and a quarter of its samples lie at x1. The fast one sees x1 and a dial, with a preconditioned
target and LPIPS as a term; it is one network, whose dial is set when it restores. The first table of a data set holds,
for each task, what one evaluation of `{NEW}` has over the full-size network: in PSNR over one evaluation, in the other
metrics over the walk, of whichever NFE, that has the lowest LPIPS on this very data set, which favours the full-size
network. `lowest` compares with the lowest figure of that metric over all of its walks.
"""


def section(outcomes: Outcomes, plan: Comparison | None, name: str = NAME) -> str:
    """What one evaluation has over the best walks, then every figure."""
    there = outcomes.of(name)
    lines = missing(name, plan, there)
    if not there or plan is None:
        return "\n".join(lines)
    lines += [provenance(name, there), ""]
    if name == NAME:
        lines += [READING]
        for dataset in there[0].datasets:
            lines += [f"### One evaluation against the best walk: {dataset}", ""]
            lines += [_verdicts(outcomes, plan, dataset), ""]
    for task in plan.tasks:
        found = outcomes.of(name, task)
        for dataset in found[0].datasets if found else ():
            lines += [f"### {task}, {dataset}", "", _table(found, dataset), ""]
    return "\n".join(lines)


def best_walk(found: Sequence[Outcome], dataset: str, metric: str = "lpips") -> tuple[str, int] | None:
    """Full-size network and NFE with the lowest figure, on the data set that it is judged on."""
    walks = [(group, nfe) for group in OLD if group in found[0].groups for nfe in found[0].curve(group)]
    known = {walk: value for walk in walks if (value := mean(found, metric, *walk, dataset)) is not None}
    return min(known, key=lambda walk: known[walk]) if known else None


def against(found: Sequence[Outcome], dataset: str) -> dict[str, Difference | None]:
    """Metric -> one evaluation of the fast network minus the full-size network's."""
    walk = best_walk(found, dataset)
    gaps = {}
    for metric in HIGHER if walk else ():
        nfe = 1 if metric == "psnr" else walk[1]
        gaps[metric] = difference(found, metric, dataset, (NEW, 1), (walk[0], nfe))
        lowest = best_walk(found, dataset, metric) if metric in ("dists", "patch_fid") else None
        if lowest:
            gaps[f"{metric}, lowest"] = difference(found, metric, dataset, (NEW, 1), lowest)
    return gaps


def _verdicts(outcomes: Outcomes, plan: Comparison, dataset: str) -> str:
    columns = ["psnr", "lpips", "dists", "dists, lowest", "patch_fid", "patch_fid, lowest"]
    rows = []
    for task in plan.tasks:
        if found := outcomes.of(NAME, task):
            walk, gaps = best_walk(found, dataset), against(found, dataset)
            cells = [shown(kind := name.split(",")[0], gaps.get(name), HIGHER[kind]) for name in columns]
            rows.append([task, f"{walk[0]}, {walk[1]}" if walk else "", *cells])
    head = [LABELS[name.split(",")[0]] + name[len(name.split(",")[0]) :] for name in columns]
    return table(["task", "best walk: network, NFE", *head], rows)


def _table(found: Sequence[Outcome], dataset: str) -> str:
    order = [name for name in LABELS if name in found[0].metrics]
    rows = []
    for group in found[0].groups:
        for nfe, name in found[0].curve(group).items():
            cells = [figure(metric, mean(found, metric, group, nfe, dataset)) for metric in order]
            method = found[0].methods[name]
            cost = f"{method['flops'] / 1e9:.1f}" if method["flops"] else ""
            cost = [f"{method['parameters'] / 1e6:.2f}", cost, f"{method['seconds_per_image']:.2f}"]
            rows.append([group, str(nfe or ""), *cells, *cost])
    head = [*[LABELS[metric] for metric in order], "million parameters", "GFLOP of an image", "s of an image"]
    return table(["method", "NFE", *head], rows)
