"""Super-resolution against other methods: distortion and perception."""

from collections.abc import Iterator, Sequence

from studies.quality.study.markdown import LABELS, better, count, figure, missing, provenance, shown, table
from studies.quality.study.outcomes import Outcome, Outcomes, difference, mean
from studies.quality.study.plan import Comparison

__all__ = ["NAME", "best_nfe", "section", "verdicts"]

NAME = "super_resolution"
BRIDGES = (
    "i2sb", "i2sb_dbim", "i2sb_cond_x1", "i2sb_x1_share", "i2sb_cond_x1_share", "i2sb_cond_x1_half", "i2sb_cond_x1_most"
)  # fmt: skip
TWIN = "regression_l2"
REGRESSION = ("regression_l1", "regression_l2", "msrresnet", "swinir", "rrdbnet")
ASKED = 0.15  # dB, of one step below its twin
PERCEPTION = ("lpips", "dists", "patch_fid")
COST = (("parameters", 1e6, 2), ("flops", 1e9, 1))  # keys, units and digits
Row = tuple[str, str, str]


def section(outcomes: Outcomes, plan: Comparison | None) -> str:
    """A table for each data set, the plane, and I2SB against the regression models."""
    there = outcomes.of(NAME)
    lines = missing(NAME, plan, there)
    if not there:
        return "\n".join(lines)
    lines += [provenance(NAME, there), ""]
    lines += ["![Perception against distortion](images/results_super_resolution.png)", ""]
    for dataset in there[0].datasets:
        lines += [f"### {dataset}", "", _table(there, dataset), ""]
    lines += ["### One step against the L2 twin, the best NFE against regression", ""]
    lines += ["The best NFE of a metric is that of its lowest figure on the other data sets. " + _ends(there), ""]
    lines += [_twin(there), "", _rivals(there), ""]
    return "\n".join(lines)


def _ends(found: Sequence[Outcome]) -> str:
    seeds = "seeds and images" if len(found) > 1 else "images of the one seed"
    return f"Intervals: paired bootstrap over {seeds}; patch-FID belongs to a set and has none."


def _table(found: Sequence[Outcome], dataset: str) -> str:
    order = [name for name in LABELS if name in found[0].metrics]
    rows = []
    for group in found[0].groups:
        for nfe, name in found[0].curve(group).items():
            cells = [figure(metric, mean(found, metric, group, nfe, dataset)) for metric in order]
            if not any(cells):
                continue
            facts = found[0].methods[name]
            steps = str(nfe) if facts["group"] else ""
            cost = [f"{facts[key] / unit:.{digits}f}" if facts[key] else "" for key, unit, digits in COST]
            rows.append([group, steps, *cells, *cost])
    names = [LABELS[metric] + ("-Y" if metric in ("psnr", "ssim") else "") for metric in order]
    return table(["method", "NFE", *names, "parameters, million", "GFLOP of an image"], rows)


def best_nfe(found: Sequence[Outcome], dataset: str, bridge: str, metric: str = "lpips") -> int | None:
    """NFE at which a bridge has its lowest figure on the other data sets: not chosen by what it is judged on."""
    others = [name for name in found[0].datasets if name != dataset] or [dataset]
    curve = {nfe: [mean(found, metric, bridge, nfe, name) for name in others] for nfe in found[0].curve(bridge)}
    known = {nfe: sum(values) for nfe, values in curve.items() if None not in values}
    return min(known, key=lambda nfe: known[nfe]) if known else None


def _regression(found: Sequence[Outcome]) -> dict[str, int | None]:
    """Regression models that were compared, and the NFE under which their figures lie."""
    return {name: next(iter(found[0].curve(name))) for name in REGRESSION if name in found[0].groups}


def _bridges(found: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Data sets, and the bridges that were compared there."""
    there = [bridge for bridge in BRIDGES if bridge in found[0].groups]
    return [(dataset, bridge) for dataset in found[0].datasets for bridge in there]


def _twin_gaps(found: Sequence[Outcome]) -> dict[str, tuple]:
    """Data set and bridge -> its one step minus the L2 twin in PSNR."""
    models, gaps = _regression(found), {}
    if TWIN in models:
        for dataset, bridge in _bridges(found):
            gap = difference(found, "psnr", dataset, (bridge, 1), (TWIN, models[TWIN]))
            gaps |= {f"{dataset}, {bridge}": gap} if gap else {}
    return gaps


def _twin(found: Sequence[Outcome]) -> str:
    gaps = _twin_gaps(found)
    rows = [[name, shown("psnr", gap, True), "yes" if gap.value >= -ASKED else "no"] for name, gap in gaps.items()]
    return table(["data set, bridge", "at NFE 1 minus regression_l2, PSNR-Y in dB", f"within {ASKED} dB"], rows)


def _rivals(found: Sequence[Outcome]) -> str:
    order = [metric for metric in PERCEPTION if metric in found[0].metrics]
    rows = []
    for dataset, bridge in _bridges(found):
        nfes = {metric: best_nfe(found, dataset, bridge, metric) for metric in order}
        for name, own in _regression(found).items():
            gaps = [difference(found, metric, dataset, (bridge, nfe), (name, own)) for metric, nfe in nfes.items()]
            cells = [shown(metric, gap, False) for metric, gap in zip(order, gaps)]
            steps = ", ".join("" if nfe is None else str(nfe) for nfe in nfes.values())
            rows.append([f"{dataset}, {bridge} minus {name}", steps, *cells])
    return table(["data set, models", "best NFE of each metric", *[LABELS[metric] for metric in order]], rows)


def verdicts(outcomes: Outcomes) -> Iterator[Row]:
    """Perception beats regression, while one step stays close to it."""
    found = outcomes.of(NAME)
    claims = ("Perception beats regression: I2SB at its best NFE against every regression model, {}",
              f"One step stays close to regression: PSNR-Y at most {ASKED} dB below the L2 twin")  # fmt: skip
    if not found:
        yield claims[0].format("LPIPS"), count(0, 0), ""
        yield claims[1], count(0, 0), ""
        return
    for metric in PERCEPTION:
        if metric in found[0].metrics:
            yield (claims[0].format(LABELS[metric]), *_against_all(found, metric))
    gaps = _twin_gaps(found)
    held = sum(gap.value >= -ASKED for gap in gaps.values())
    yield (
        claims[1],
        count(held, len(gaps)),
        "; ".join(f"{name} {shown('psnr', gap, True)} dB" for name, gap in gaps.items()),
    )


def _against_all(found: Sequence[Outcome], metric: str) -> tuple[str, str]:
    """How often each bridge is better, the best one first; a metric without intervals counts by its sign."""
    counts: dict[str, list[int]] = {}
    closest: dict[str, list[str]] = {}
    for dataset, bridge in _bridges(found):
        nfe = best_nfe(found, dataset, bridge, metric)
        pairs = [((bridge, nfe), (name, own)) for name, own in _regression(found).items() if nfe]
        gaps = [gap for pair in pairs if (gap := difference(found, metric, dataset, *pair))]
        wins = [(better(gap, False) if gap.intervals else int(gap.value < 0)) == 1 for gap in gaps]
        if gaps:
            counts.setdefault(bridge, []).extend(map(int, wins))
            worst = figure(metric, max(gap.value for gap in gaps), True)
            closest.setdefault(bridge, []).append(f"{dataset} {worst}")
    order = sorted(counts, key=lambda bridge: -sum(counts[bridge]))
    parts = [f"{b} {sum(counts[b])} of {len(counts[b])}, the closest {', '.join(closest[b])}" for b in order]
    every = [win for wins in counts.values() for win in wins]
    return count(sum(every), len(every)), "; ".join(parts)
