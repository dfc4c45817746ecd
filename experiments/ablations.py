"""What each choice of the bridge is worth: networks that differ from the default in one option."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from experiments.markdown import LABELS, better, count, figure, missing, provenance, shown, table
from experiments.outcomes import Outcome, Outcomes, difference, mean
from experiments.plan import Comparison

__all__ = ["BY_TASK", "NAME", "section", "verdicts"]

NAME = "ablations"
BY_TASK = "conditioning"  # one of the choices, in every task
DEFAULT = "i2sb"
DATA = "crops"
AGAINST = {"i2sb_released": "i2sb_beta_0.3"}  # networks that differ in more than one option from the default
Row = tuple[str, str, str]


def section(outcomes: Outcomes, plan: Comparison | None, name: str = NAME) -> str:
    """A table for each metric: differences to the default at each NFE; and how often they are off zero."""
    there = outcomes.of(name)
    lines = missing(name, plan, there)
    if not there:
        return "\n".join(lines)
    lines += [provenance(name, there), ""]
    for task in dict.fromkeys(one.task for one in there):
        found = outcomes.of(name, task)
        lines += [f"### {task}: what to change", "", _summary(found), ""]
        for metric in (name for name in LABELS if name in found[0].metrics):
            lines += [f"### {task}: {LABELS[metric]}, difference to the default", "", _table(found, metric), ""]
    return "\n".join(lines)


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


def _summary(found: Sequence[Outcome]) -> str:
    metrics = [name for name in ("lpips", "dists", "psnr") if name in found[0].metrics]
    rows = []
    for name, base in _pairs(found):
        signs = {metric: _signs(found, metric, name, base) for metric in metrics}
        cells = [f"{row.count(1)} better, {row.count(-1)} worse" for row in signs.values()]
        first = signs.get("lpips", [])
        rows.append([_titled(name, base), *cells, _advice(first)])
    nfes = len(found[0].curve(DEFAULT))
    heads = [f"{LABELS[metric]}, of {nfes} NFE" for metric in metrics]
    return table(["network", *heads, "by LPIPS"], rows)


def _signs(found: Sequence[Outcome], metric: str, name: str, base: str) -> list[int]:
    higher = found[0].metrics[metric]
    gaps = [difference(found, metric, DATA, (name, nfe), (base, nfe)) for nfe in found[0].curve(DEFAULT)]
    return [better(gap, higher) for gap in gaps if gap]


def _advice(signs: Sequence[int]) -> str:
    """Change where it is better at half of the NFE or more, and nowhere worse."""
    if not signs:
        return ""
    if 2 * signs.count(1) >= len(signs) and -1 not in signs:
        return "change"
    return "keep" if 1 not in signs else "depends on NFE"


def verdicts(outcomes: Outcomes) -> Iterator[Row]:
    """The network that was trained without noise against the default, at equal NFE above 1."""
    for task in dict.fromkeys(one.task for one in outcomes.of(NAME)):
        found = outcomes.of(NAME, task)
        if "i2sb_ot_ode" not in found[0].groups or "lpips" not in found[0].metrics:
            continue
        nfes = [nfe for nfe in found[0].curve(DEFAULT) if nfe and nfe > 1]
        gaps = {nfe: difference(found, "lpips", DATA, (DEFAULT, nfe), ("i2sb_ot_ode", nfe)) for nfe in nfes}
        signs = [better(gap, False) for gap in gaps.values() if gap]
        yield (
            f"SDE against OT-ODE, {task}, a network for each: the SDE better in LPIPS, NFE with intervals off zero",
            count(signs.count(1), len(signs)),
            f"worse in {signs.count(-1)}; SDE minus OT-ODE: "
            + "; ".join(f"NFE {nfe} {shown('lpips', gap, False)}" for nfe, gap in gaps.items() if gap),
        )
