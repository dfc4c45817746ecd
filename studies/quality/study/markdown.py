"""Figures, tables and the lines that say where they come from, in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from studies.quality.study.outcomes import Difference, Outcome
from studies.quality.study.plan import Comparison

__all__ = [
    "LABELS",
    "better",
    "count",
    "figure",
    "machine",
    "missing",
    "percent",
    "provenance",
    "sentence",
    "shown",
    "table",
    "training",
]

LABELS = {"lpips": "LPIPS", "dists": "DISTS", "patch_fid": "patch-FID", "psnr": "PSNR", "ssim": "SSIM"}
_DIGITS = {"psnr": 2, "patch_fid": 1}
_DATA = {
    "crops": "{n} crops of 64 x 64 of the validation photographs",
    "bsds": "{n} validation photographs of BSDS500",
    "set5": "Set5",
    "set14": "Set14",
}


def figure(metric: str, value: float | None, sign: bool = False) -> str:
    """A number with the digits of its metric; empty for None."""
    if value is None:
        return ""
    return f"{value:{'+' if sign else ''}.{_DIGITS.get(metric, 3)}f}"


def shown(metric: str, found: Difference | None, higher: bool) -> str:
    """A difference with its interval; bold where it is off zero for the better, italic for the worse."""
    if found is None:
        return ""
    text = figure(metric, found.value, True)
    if found.low is not None:
        text += f" [{figure(metric, found.low, True)}, {figure(metric, found.high, True)}]"
    verdict = better(found, higher)
    mark = {1: "**", 0: "", -1: "*"}[verdict]
    return f"{mark}{text}{mark}"


def better(found: Difference | None, higher: bool) -> int:
    """1 where a is better than b for sure, -1 where it is worse, 0 where the interval holds zero."""
    return 0 if found is None else found.decided * (1 if higher else -1)


def count(part: int, whole: int) -> str:
    """A verdict from how often a claim holds."""
    if not whole:
        return "not known yet"
    return "yes" if part == whole else "no" if not part else f"in {part} of {whole}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; every column after the first holds figures."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _command(comparison: str) -> str:
    """What makes a comparison."""
    return f"`python -m studies.quality.study --data DIR --only '{comparison}-*'`"


def missing(comparison: str, plan: Comparison | None, found: Sequence[Outcome]) -> list[str]:
    """Lines for the results that are missing, by seed and task; none if nothing is missing."""
    there = {(one.seed, one.task) for one in found}
    parts = []
    for seed in plan.seeds if plan else ():
        absent = [task for task in plan.tasks if (seed, task) not in there]
        if absent:
            parts.append(f"seed {seed}: " + ("all tasks" if len(absent) == len(plan.tasks) else ", ".join(absent)))
    if plan and not parts:
        return []
    what = "; ".join(parts) or "everything"
    return [f"Missing: {what}. {_command(comparison)} makes it, then `python -m studies.quality.pages`.", ""]


def percent(share: float, sign: bool = False) -> str:
    """A share as the house writes it."""
    return f"{round(100 * share) + 0:{'+' if sign else ''}d} %"


def sentence(numbers: Iterable[float], digits: int = 0) -> str:
    """One number, or the least and the most."""
    low, high = min(found := list(numbers)), max(found)
    ends = [f"{end:,.{digits}f}" for end in (low, high)]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def provenance(comparison: str, outcomes: Sequence[Outcome]) -> str:
    """Command, seeds, data, iterations, seconds of training, machine and versions, all from the files."""
    contents = [one.content for one in outcomes]
    trained = [record for content in contents for record in content["trained"].values()]
    sizes = {name: _images(outcomes, name) for one in outcomes for name in one.datasets}
    data = ", ".join(_DATA.get(name, name).format(n=n) for name, n in sizes.items())
    lines = [
        f"- Command: {_command(comparison)}; seed {', '.join(map(str, sorted({one.seed for one in outcomes})))}.",
        f"- Photographs of {' / '.join(sorted({c['data'] for c in contents}))}. Compared on: {data}.",
        f"- Training: {training(trained)}.",
        f"- Machine: {machine([c['environment'] for c in contents])}.",
    ]
    return "\n".join(lines)


def training(records: Sequence[Mapping[str, Any]]) -> str:
    """How long networks were trained."""
    if not records:
        return "none"
    iterations, seconds = (sentence([record[key] for record in records]) for key in ("iterations", "seconds"))
    at_once = sentence([record.get("processes at once", 1) for record in records])
    return f"{iterations} iterations, {seconds} s for each network, {at_once} processes at once"


def machine(environments: Sequence[Mapping[str, Any]]) -> str:
    """Kind of machine and versions, each once."""
    kinds = sorted({f"{one['cpu']}, {one['device']}" for one in environments})
    versions = sorted({one["torch"] for one in environments})
    commits = sorted({one.get("commit") or "unknown" for one in environments})
    return f"{' / '.join(kinds)}; torch {' / '.join(versions)}; commit {', '.join(commits)}"


def _images(outcomes: Sequence[Outcome], dataset: str) -> int:
    for one in outcomes:
        for result in one.content["results"]:
            if result["dataset"] == dataset and result["images"]:
                return len(next(iter(result["images"].values())))
    return 0
