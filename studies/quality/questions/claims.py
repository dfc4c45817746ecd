"""The bridge against conditional diffusion, and what of the paper's claims holds."""

from collections.abc import Iterator, Mapping, Sequence

from studies.quality.questions import ablations, samplers, super_resolution
from studies.quality.study.markdown import LABELS, better, count, figure, missing, percent, provenance, shown, table
from studies.quality.study.outcomes import Difference, Outcome, Outcomes, difference, mean
from studies.quality.study.plan import Comparison

__all__ = ["CLOSE", "LONGER", "NAME", "best", "section", "soonest", "verdicts"]

NAME, LONGER = "claims", "longer"
CLOSE = 0.05  # of the best figure counts as reached
DATA = "crops"
BRIDGE, RIVAL = "i2sb", "diffusion"
_NAMES = {
    "i2sb": "I2SB",
    "i2sb_cond_x1": "I2SB that sees x1",
    "i2sb_cond_x1_share": "I2SB that sees x1, x1_share",
    "diffusion": "diffusion",
}
WALKS = {"log_snr": "log_snr", "dbim": "dbim", "ddim": "DDIM", "ddpm": "DDPM"}  # what names of other walks end in
Row = tuple[str, str, str]


def section(outcomes: Outcomes, plan: Comparison | None, name: str = NAME) -> str:
    """A table for each task: the methods and each bridge's difference from diffusion at each NFE."""
    there = outcomes.of(name)
    lines = missing(name, plan, there)
    if not there or plan is None:
        return "\n".join(lines)
    lines += [provenance(name, there), ""]
    if name == LONGER and "lpips" in there[0].metrics:
        lines += ["![LPIPS over NFE, trained longer](images/results_longer.png)", ""]
    for task in plan.tasks:
        found = outcomes.of(name, task)
        if found:
            lines += [f"### {_titled(task, name)}", "", _seeds(found, plan), "", _table(found), ""]
    lines += [f"### {_titled('The NFE at which each metric is best', name)}", "", _bests(outcomes, plan, name), ""]
    return "\n".join(lines)


def _titled(title: str, name: str) -> str:
    return title if name == NAME else f"{title}, trained longer"


def _seeds(found: Sequence[Outcome], plan: Comparison) -> str:
    if len(found) == 1:
        return f"1 of {len(plan.seeds)} seeds: intervals are over photographs alone."
    return f"{len(found)} of {len(plan.seeds)} seeds: intervals are over seeds and photographs."


def _network(group: str) -> str:
    """The network of a group, whichever way it walks."""
    return next((group.removesuffix(f"_{end}") for end in WALKS if group.endswith(f"_{end}")), group)


def _named(group: str) -> str:
    """What a group is called on the page: its network and, if it has others, its walk."""
    network = _network(group)
    walk = group.removeprefix(network).removeprefix("_")
    return _NAMES.get(network, network) + (f", {WALKS[walk]}" if walk else "")


def _bridges(found: Sequence[Outcome]) -> list[str]:
    """Networks, each a side of its own against diffusion."""
    return list(dict.fromkeys(_network(group) for group in found[0].groups if group.startswith(BRIDGE)))


def _walks(found: Sequence[Outcome], side: str) -> list[str]:
    """The ways to walk the network of a side."""
    return [group for group in found[0].groups if _network(group) == side]


def _walk(found: Sequence[Outcome], metric: str, side: str, nfe: int) -> str:
    """The way that is best at an NFE: each side is given its best."""
    values = {walk: mean(found, metric, walk, nfe, DATA) for walk in _walks(found, side)}
    known = {walk: value for walk, value in values.items() if value is not None}
    return (max if found[0].metrics[metric] else min)(known, key=known.get) if known else side


def _mean(found: Sequence[Outcome], metric: str, side: str, nfe: int) -> float | None:
    return mean(found, metric, _walk(found, metric, side, nfe), nfe, DATA)


def _gap(found: Sequence[Outcome], metric: str, nfe: int, bridge: str) -> Difference | None:
    """A bridge minus diffusion."""
    own, other = ((_walk(found, metric, side, nfe), nfe) for side in (bridge, RIVAL))
    return difference(found, metric, DATA, own, other)


def _nfes(found: Sequence[Outcome]) -> list[int]:
    """Those that every bridge and diffusion have."""
    sides = [
        {nfe for walk in _walks(found, side) for nfe in one.curve(walk)}
        for one in found
        for side in (*(_bridges(found) or [BRIDGE]), RIVAL)
    ]
    return sorted(set.intersection(*sides) - {None}) if sides else []


def _metrics(found: Sequence[Outcome]) -> dict[str, bool]:
    return {name: higher for name, higher in found[0].metrics.items() if name in LABELS}


def _table(found: Sequence[Outcome]) -> str:
    nfes, rows = _nfes(found), []
    order = [name for name in LABELS if name in _metrics(found)]
    bridges = _bridges(found)
    walks = [walk for side in (*bridges, RIVAL) for walk in _walks(found, side)]
    for metric in order:
        for walk in walks:
            cells = [figure(metric, mean(found, metric, walk, nfe, DATA)) for nfe in nfes]
            rows.append([f"{LABELS[metric]}, {_named(walk)}", *cells])
        for bridge in bridges:
            gaps = [_gap(found, metric, nfe, bridge) for nfe in nfes]
            title = "difference" if len(walks) == 2 else "difference of the best walks"
            title += f", {_named(bridge)}" if len(bridges) > 1 else ""
            rows.append([title, *[shown(metric, gap, found[0].metrics[metric]) for gap in gaps]])
    return table(["NFE", *map(str, nfes)], rows)


def best(found: Sequence[Outcome], metric: str, side: str) -> tuple[int, float] | None:
    """NFE and figure where the mean over seeds is best; the least NFE of equal ones."""
    curve = {nfe: _mean(found, metric, side, nfe) for nfe in _nfes(found)}
    known = {nfe: value for nfe, value in curve.items() if value is not None}
    if not known:
        return None
    nfe = (max if found[0].metrics[metric] else min)(known, key=lambda nfe: known[nfe])
    return nfe, known[nfe]


def soonest(found: Sequence[Outcome], metric: str, side: str, level: float) -> int | None:
    """The least NFE whose figure (lower is better) is not above ``level``; None if there is none."""
    curve = {nfe: _mean(found, metric, side, nfe) for nfe in _nfes(found)}
    return next((nfe for nfe, value in curve.items() if value is not None and value <= level), None)


def _bests(outcomes: Outcomes, plan: Comparison, name: str) -> str:
    tasks = {task: found for task in plan.tasks if (found := outcomes.of(name, task))}
    order = [name for name in LABELS if any(name in found[0].metrics for found in tasks.values())]
    rows = []
    for task, found in tasks.items():
        for side in (*_bridges(found), RIVAL):
            tops = [best(found, metric, side) if metric in found[0].metrics else None for metric in order]
            cells = [f"{top[0]} ({figure(metric, top[1])})" if top else "" for metric, top in zip(order, tops)]
            rows.append([f"{task}, {_named(side)}", *cells])
    return table(["task", *[LABELS[metric] for metric in order]], rows)


def verdicts(outcomes: Outcomes, plans: Mapping[str, Comparison]) -> str:
    """Each claim of the paper, whether it holds, and the figures that show it; nothing here is written by hand."""
    rows = []
    for name in (NAME, LONGER):
        tasks = {task: found for task in plans[name].tasks if (found := outcomes.of(name, task))}
        if name == NAME or tasks:
            begun = "" if name == NAME else f"Trained {plans[name].longer} times as long. "
            rows += [(begun + claim, *rest) for claim, *rest in _fewer_steps(tasks)]
        if name == NAME:
            rows += [_by_ddim(outcomes), *_few_steps(tasks)]
    rows += [*super_resolution.verdicts(outcomes), *samplers.verdicts(outcomes), *ablations.verdicts(outcomes)]
    lines = ["| claim of the paper | holds here? | figures |", "| --- | --- | --- |"]
    return "\n".join([*lines, *["| " + " | ".join(row) + " |" for row in rows]])


def _by_ddim(outcomes: Outcomes) -> Row:
    """The same networks with diffusion's walk of first order, of the one seed that has it."""
    signs: dict[int, list[int]] = {}
    for one in outcomes.of(samplers.SOLVERS):
        other = next((o for o in outcomes.of(NAME, one.task) if o.seed == one.seed), None)
        if other is None or not samplers.same_network(one, other, RIVAL) or "lpips" not in other.metrics:
            continue
        both = samplers.joined(other, one)
        for nfe in (nfe for nfe in one.curve("diffusion_ddim") if nfe in other.curve(BRIDGE)):
            gap = difference([both], "lpips", DATA, (BRIDGE, nfe), ("diffusion_ddim", nfe))
            signs.setdefault(nfe, []).append(better(gap, False))
    every = [sign for row in signs.values() for sign in row]
    return (
        "It is better than diffusion at equal NFE where diffusion walks by DDIM, of seed 0 alone: LPIPS, tasks x NFE, "
        "intervals off zero",
        count(every.count(1), len(every)),
        _listed(f"NFE {nfe}: {row.count(1)} better, {row.count(-1)} worse" for nfe, row in signs.items()),
    )


def _measured(tasks: dict[str, list[Outcome]], metric: str) -> dict[str, list[Outcome]]:
    """Tasks whose sides all have figures."""
    return {
        task: found
        for task, found in tasks.items()
        if metric in found[0].metrics and all(best(found, metric, side) for side in (*_bridges(found), RIVAL))
    }


def _fewer_steps(tasks: dict[str, list[Outcome]]) -> Iterator[Row]:
    """The bridge needs fewer steps than diffusion, in three readings; of several bridges each counts."""
    tasks = _measured(tasks, "lpips")
    bridges = list(dict.fromkeys(bridge for found in tasks.values() for bridge in _bridges(found))) or [BRIDGE]
    cases = {(task, bridge): found for task, found in tasks.items() for bridge in _bridges(found)}
    names = {case: case[0] if len(bridges) == 1 else f"{case[0]}, {_named(case[1])}" for case in cases}
    reached = {case: [_reached(found, side) for side in (case[1], RIVAL)] for case, found in cases.items()}
    less = sum(bridge[0] < other[0] for bridge, other in reached.values())
    yield (
        f"It needs fewer steps than diffusion: NFE until LPIPS is within {percent(CLOSE)} of its own best",
        count(less, len(reached)),
        _listed(
            f"{names[case]} {bridge[0]} (best {bridge[1]:.3f}) against {other[0]} (best {other[1]:.3f})"
            for case, (bridge, other) in reached.items()
        ),
    )
    tops = {case: best(found, "lpips", RIVAL) for case, found in cases.items()}
    sooner = {case: (soonest(cases[case], "lpips", case[1], value), nfe) for case, (nfe, value) in tops.items()}
    yield (
        "It needs fewer steps than diffusion: NFE until its LPIPS is that of diffusion at its best",
        count(sum(bridge is not None and bridge < other for bridge, other in sooner.values()), len(sooner)),
        _listed(f"{names[case]} {_or_never(bridge)} against {other}" for case, (bridge, other) in sooner.items()),
    )
    for bridge in bridges:
        which = "It" if len(bridges) == 1 else _named(bridge)
        yield from (_equal_nfe(_measured(tasks, metric), metric, bridge, which) for metric in ("lpips", "dists"))
    yield _control(tasks)


def _control(tasks: dict[str, list[Outcome]]) -> Row:
    """Whether the rival is trained well enough to gain from what it is said to need."""
    lost = {}
    for task, found in tasks.items():
        last = _mean(found, "lpips", RIVAL, _nfes(found)[-1])
        if last is not None:
            lost[task] = last / best(found, "lpips", RIVAL)[1] - 1
    return (
        f"No claim, a control: diffusion gains from steps, its LPIPS at the last NFE at most {percent(CLOSE)} above "
        "its best; where it does not, the bridge's lead at many NFE says little",
        count(sum(loss <= CLOSE for loss in lost.values()), len(lost)),
        _listed(f"{task} {percent(loss, True)}" for task, loss in lost.items()),
    )


def _reached(found: Sequence[Outcome], side: str) -> tuple[int, float]:
    """The least NFE that is close to the side's own best LPIPS, and that best."""
    _, value = best(found, "lpips", side)
    return soonest(found, "lpips", side, value * (1 + CLOSE)), value


def _equal_nfe(tasks: dict[str, list[Outcome]], metric: str, bridge: str, which: str) -> Row:
    signs: dict[int, list[int]] = {}
    for found in tasks.values():
        for nfe in _nfes(found):
            gap = _gap(found, metric, nfe, bridge)
            signs.setdefault(nfe, []).append(better(gap, found[0].metrics[metric]))
    every = [sign for row in signs.values() for sign in row]
    parts = [f"{nfe}: {row.count(1)}, {row.count(-1)}" for nfe, row in signs.items()]
    return (
        f"{which} is better than diffusion at equal NFE: {LABELS[metric]}, tasks x NFE, intervals off zero",
        count(every.count(1), len(every)),
        f"tasks better, worse of {len(tasks)} at NFE " + _listed(parts) if parts else "",
    )


def _few_steps(tasks: dict[str, list[Outcome]]) -> Iterator[Row]:
    """Few steps lose little."""
    for metric in ("lpips", "patch_fid"):
        for nfe in (5, 10):
            lost = {}
            for task, found in _measured(tasks, metric).items():
                few, many = (_mean(found, metric, BRIDGE, steps) for steps in (nfe, 100))
                if few is not None and many:
                    lost[task] = few / many - 1
            yield (
                f"Few steps lose little: {LABELS[metric]} at NFE {nfe} at most {percent(CLOSE)} above that at 100",
                count(sum(loss <= CLOSE for loss in lost.values()), len(lost)),
                _listed(f"{task} {percent(loss, True)}" for task, loss in lost.items()),
            )


def _or_never(nfe: int | None) -> str:
    return "never" if nfe is None else str(nfe)


def _listed(parts: Iterator[str] | Sequence[str]) -> str:
    return "; ".join(parts)
