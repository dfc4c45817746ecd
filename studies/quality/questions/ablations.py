"""What each choice of the bridge is worth: networks that differ from the default in one option."""

from collections.abc import Iterator, Sequence

from studies.quality.study.markdown import LABELS, better, count, figure, missing, provenance, shown, table
from studies.quality.study.outcomes import Outcome, Outcomes, difference, mean
from studies.quality.study.plan import Comparison

__all__ = ["BY_TASK", "NAME", "NOISE_FREE", "section", "verdicts"]

NAME = "ablations"
BY_TASK = "conditioning"  # one of the choices, in several tasks
NOISE_FREE = "trained_ot_ode"  # another
DEFAULT = "i2sb"
DATA = "crops"
PREFERRED = {"deblur": "the paper prefers the ODE", "jpeg10": "the paper prefers the SDE"}
AGAINST = {"i2sb_released": "i2sb_beta_0.3"}  # networks that differ in more than one option from the default
Row = tuple[str, str, str]


def section(outcomes: Outcomes, plan: Comparison | None, name: str = NAME) -> str:
    """A table for each metric: differences from the default at each NFE, and how often they are off zero."""
    there = outcomes.of(name)
    lines = missing(name, plan, there)
    if not there:
        return "\n".join(lines)
    lines += [provenance(name, there), ""]
    for task in dict.fromkeys(one.task for one in there):
        found, between = outcomes.of(name, task), _between_seeds(outcomes, task)
        lines += [f"### {_titled_by(task, name)}: what to change", "", _said(between) + _summary(found, between), ""]
        for metric in (name for name in LABELS if name in found[0].metrics):
            title = f"{_titled_by(task, name)}: {LABELS[metric]}, difference from the default"
            lines += [f"### {title}", "", _table(found, metric), ""]
    return "\n".join(lines)


def _titled_by(task: str, name: str) -> str:
    return task if name == NAME else f"{task}, {name}"


def _between_seeds(outcomes: Outcomes, task: str) -> dict[str, float]:
    """By metric, by how much the default's own trainings by several seeds differ at most; empty for one seed."""
    seeds = outcomes.of("claims", task)
    if len(seeds) < 2:
        return {}
    apart: dict[str, float] = {}
    for metric in (name for name in LABELS if name in seeds[0].metrics):
        for nfe in seeds[0].curve(DEFAULT):
            values = [value for one in seeds if (value := mean([one], metric, DEFAULT, nfe, DATA)) is not None]
            apart[metric] = max(apart.get(metric, 0.0), max(values) - min(values)) if values else apart.get(metric, 0.0)
    return apart


def _said(between: dict[str, float]) -> str:
    """What one seed cannot tell."""
    alone = "One seed each: intervals are over photographs, not over trainings."
    if not between:
        return f"{alone}\n\n"
    parts = ", ".join(f"{figure(metric, value)} {LABELS[metric]}" for metric, value in between.items())
    return (
        f"{alone} Trainings of the default by other seeds (`claims`) differ by up to {parts} at one NFE; this table "
        "counts differences that are off zero and larger than that.\n\n"
    )


def _pairs(found: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Each network and the one it is compared with."""
    others = [name for name in found[0].groups if name != DEFAULT]
    pairs = [(name, DEFAULT) for name in others]
    return pairs + [(name, base) for name, base in AGAINST.items() if {name, base} <= set(others)]


def _table(found: Sequence[Outcome], metric: str) -> str:
    nfes, higher = list(found[0].curve(DEFAULT)), found[0].metrics[metric]
    rows = [[f"{DEFAULT} itself", *[figure(metric, mean(found, metric, DEFAULT, nfe, DATA)) for nfe in nfes]]]
    for name, base in _pairs(found):
        gaps = [difference(found, metric, DATA, (name, nfe), (base, nfe)) for nfe in nfes]
        rows.append([_titled(name, base), *[shown(metric, gap, higher) for gap in gaps]])
    return table(["NFE", *map(str, nfes)], rows)


def _titled(name: str, base: str) -> str:
    return name if base == DEFAULT else f"{name} against {base}"


def _summary(found: Sequence[Outcome], between: dict[str, float]) -> str:
    metrics = [name for name in ("lpips", "dists", "psnr") if name in found[0].metrics]
    rows = []
    for name, base in _pairs(found):
        signs = {metric: _signs(found, metric, name, base, between.get(metric, 0.0)) for metric in metrics}
        cells = [f"{row.count(1)} better, {row.count(-1)} worse" for row in signs.values()]
        first = signs.get("lpips", [])
        rows.append([_titled(name, base), *cells, _advice(first)])
    nfes = len(found[0].curve(DEFAULT))
    heads = [f"{LABELS[metric]}, of {nfes} NFE" for metric in metrics]
    return table(["network", *heads, "by LPIPS"], rows)


def _signs(found: Sequence[Outcome], metric: str, name: str, base: str, least: float) -> list[int]:
    """1 for better and -1 for worse by more than ``least``, at each NFE."""
    higher = found[0].metrics[metric]
    gaps = [difference(found, metric, DATA, (name, nfe), (base, nfe)) for nfe in found[0].curve(DEFAULT)]
    return [better(gap, higher) * (abs(gap.value) > least) for gap in gaps if gap]


def _advice(signs: Sequence[int]) -> str:
    """Change where it is better at half of the NFE or more, and nowhere worse."""
    if not signs:
        return ""
    if 2 * signs.count(1) >= len(signs) and -1 not in signs:
        return "change"
    return "keep" if 1 not in signs else "depends on NFE"


def verdicts(outcomes: Outcomes) -> Iterator[Row]:
    """The network that was trained without noise against the default, at equal NFE above 1, task by task."""
    for found in ([one] for name in (NAME, NOISE_FREE) for one in outcomes.of(name)):
        if "i2sb_ot_ode" not in found[0].groups or "lpips" not in found[0].metrics:
            continue
        task, ode = found[0].task, found[0].task == "deblur"
        nfes = [nfe for nfe in found[0].curve(DEFAULT) if nfe and nfe > 1]
        gaps = {nfe: difference(found, "lpips", DATA, (DEFAULT, nfe), ("i2sb_ot_ode", nfe)) for nfe in nfes}
        signs = [better(gap, False) * (-1 if ode else 1) for gap in gaps.values() if gap]
        said = PREFERRED.get(task)
        yield (
            f"SDE against OT-ODE, {task}, a network for each: the {'ODE' if ode else 'SDE'} better in LPIPS, "
            "NFE with intervals off zero" + (f" ({said})" if said else ""),
            count(signs.count(1), len(signs)),
            f"worse in {signs.count(-1)}; SDE minus OT-ODE: "
            + "; ".join(f"NFE {nfe} {shown('lpips', gap, False)}" for nfe, gap in gaps.items() if gap),
        )
