"""Ways to walk one trained bridge: which is best at each NFE, and which should be the default."""

from collections.abc import Iterator, Sequence

from studies.quality.study.markdown import LABELS, better, count, figure, missing, provenance, shown, table
from studies.quality.study.outcomes import Outcome, Outcomes, difference, mean
from studies.quality.study.plan import Comparison

__all__ = [
    "DEFAULT",
    "FAMILIES",
    "NAME",
    "best_setting",
    "joined",
    "same_network",
    "section",
    "suggestions",
    "verdicts",
]

NAME = "samplers"
DEFAULT = "ancestral"
ODE = "ot_ode"
SOLVERS = "solvers"  # comparison of diffusion's walks
DATA = "crops"
FAMILIES = {
    "super-resolution": ("sr4x",),
    "JPEG": ("jpeg10",),
    "deblurring": ("deblur",),
    "inpainting": ("inpaint_center", "inpaint_freeform"),
    "denoising": ("denoise",),
}
COST = (
    "Cost of one crop: operations, and seconds on the machine above in batches of ten, the least of all walks with "
    "that many evaluations (network and crops are the same, but other work ran during some)."
)
Row = tuple[str, str, str]


def section(outcomes: Outcomes, plan: Comparison | None) -> str:
    """The suggested defaults, the best setting at each NFE, and the order of diffusion's own walk."""
    there = outcomes.of(NAME)
    lines = missing(NAME, plan, there)
    if not there:
        return "\n".join(lines)
    lines += [provenance(NAME, there), "", "![LPIPS of each walk](images/results_samplers.png)", ""]
    lines += ["### Suggested defaults", "", _suggested(outcomes), ""]
    lines += ["### The best setting at each NFE", "", COST + _candidates(there), "", _table(there), ""]
    lines += ["### Diffusion: DDIM minus the second-order solver, LPIPS", ""]
    if solvers := outcomes.of(SOLVERS):
        lines += [provenance(SOLVERS, solvers), ""]
    lines += [_orders(outcomes), ""]
    return "\n".join(lines)


def _settings(found: Sequence[Outcome], nfe: int) -> list[str]:
    return [group for group in found[0].groups if nfe in found[0].curve(group)]


def _candidates(there: Sequence[Outcome]) -> str:
    """Which settings were walked at the most evaluations, if not all were."""
    most = _nfes(there)[-1]
    walked = [group for group in there[0].groups if all(most in one.curve(group) for one in there)]
    left = [group for group in there[0].groups if group not in walked]
    least = min((max(nfe for one in there for nfe in one.curve(group) if nfe) for group in left), default=most)
    if not left:
        return ""
    return f" Beyond {least} evaluations only {', '.join(walked)} were walked: the best there is the best of these."


def _nfes(found: Sequence[Outcome]) -> list[int]:
    return sorted({nfe for group in found[0].groups for nfe in found[0].curve(group) if nfe})


def best_setting(found: Sequence[Outcome], metric: str, nfe: int) -> tuple[str, float] | None:
    """Setting and figure that are best at an NFE; the first of equal ones."""
    values = {group: mean(found, metric, group, nfe, DATA) for group in _settings(found, nfe)}
    known = {group: value for group, value in values.items() if value is not None}
    if not known:
        return None
    name = (max if found[0].metrics[metric] else min)(known, key=lambda group: known[group])
    return name, known[name]


def _table(there: Sequence[Outcome]) -> str:
    rows = []
    order = [metric for metric in ("lpips", "psnr") if metric in there[0].metrics]
    for task in dict.fromkeys(one.task for one in there):
        found = [one for one in there if one.task == task]
        for nfe in _nfes(found):
            cells: list[str] = []
            for metric in order:
                top = best_setting(found, metric, nfe)
                gap = difference(found, metric, DATA, (top[0], nfe), (DEFAULT, nfe)) if top else None
                same = top is not None and top[0] == DEFAULT
                gap_cell = "" if same else shown(metric, gap, found[0].metrics[metric])
                cells += [top[0], figure(metric, top[1]), gap_cell] if top else ["", "", ""]
            rows.append([task, str(nfe), *_cost(there, nfe), *cells])
    heads = [head for metric in order for head in ("setting", LABELS[metric], f"against {DEFAULT}")]
    return table(["task", "NFE", "GFLOP", "seconds", *heads], rows)


def _cost(there: Sequence[Outcome], nfe: int) -> list[str]:
    """Operations and seconds of a crop at an NFE."""
    facts = [one.methods[name] for one in there for group in one.groups if (name := one.curve(group).get(nfe))]
    flops, seconds = ([f[key] for f in facts if f[key] is not None] for key in ("flops", "seconds_per_image"))
    return [f"{min(flops) / 1e9:.1f}" if flops else "", f"{min(seconds):.2g}" if seconds else ""]


def suggestions(outcomes: Outcomes) -> list[dict]:
    """For each family of tasks the setting and NFE with the lowest LPIPS (mean over its tasks).

    Returns:
        ``family``, ``setting``, ``nfe``, ``lpips``, ``psnr``, the ``default`` setting's LPIPS at that NFE, the
        differences to it by task, and whether to ``change`` it: each task's interval is off zero for the better.

    """
    found = []
    for family, tasks in FAMILIES.items():
        there = [units for task in tasks if (units := outcomes.of(NAME, task)) and "lpips" in units[0].metrics]
        choices = [(_over(there, "lpips", group, nfe), group, nfe) for group, nfe in _choices(there)]
        known = [choice for choice in choices if choice[0] is not None]
        if not known:
            continue
        lpips, group, nfe = min(known, key=lambda choice: choice[0])
        gaps = {}
        if group != DEFAULT:
            gaps = {u[0].task: difference(u, "lpips", DATA, (group, nfe), (DEFAULT, nfe)) for u in there}
        change = bool(gaps) and all(better(gap, False) == 1 for gap in gaps.values())
        found.append({
            "family": family, "setting": group, "nfe": nfe, "lpips": lpips, "psnr": _over(there, "psnr", group, nfe),
            "default": _over(there, "lpips", DEFAULT, nfe), "differences": gaps, "change": change,
        })  # fmt: skip
    return found


def _choices(there: Sequence[Sequence[Outcome]]) -> list[tuple[str, int]]:
    """Settings and NFE that every task of a family has."""
    every = [{(group, nfe): None for nfe in _nfes(units) for group in _settings(units, nfe)} for units in there]
    return [choice for choice in every[0] if all(choice in one for one in every)] if every else []


def _over(there: Sequence[Sequence[Outcome]], metric: str, group: str, nfe: int) -> float | None:
    values = [mean(units, metric, group, nfe, DATA) for units in there]
    return None if not values or None in values else sum(values) / len(values)


def _suggested(outcomes: Outcomes) -> str:
    rows = []
    for one in suggestions(outcomes):
        gaps = "; ".join(f"{task} {shown('lpips', gap, False)}" for task, gap in one["differences"].items())
        verdict = one["setting"] if one["change"] else DEFAULT
        figures = [figure("lpips", one["lpips"]), figure("psnr", one["psnr"]), gaps]
        rows.append([one["family"], one["setting"], str(one["nfe"]), *figures, f"{verdict}, NFE {one['nfe']}"])
    note = (
        f"The setting and NFE with the lowest LPIPS. It replaces `{DEFAULT}` only where the interval of the difference "
        "at that NFE is off zero in every task of the family; the choice was made on the same crops.\n\n"
    )
    head = ["tasks", "best setting", "NFE", "LPIPS", "PSNR", f"LPIPS against {DEFAULT}", "suggested default"]
    return note + table(head, rows)


def _orders(outcomes: Outcomes) -> str:
    """The first-order walk against the second-order one of `claims`, seed by seed, of the same network."""
    rows, heads = [], []
    for one in outcomes.of(SOLVERS):
        other = next((o for o in outcomes.of("claims", one.task) if o.seed == one.seed), None)
        if other is None or not same_network(one, other, "diffusion"):
            continue
        both = joined(one, other)
        nfes = [nfe for nfe in one.curve("diffusion_ddim") if nfe in other.curve("diffusion")]
        heads = heads or nfes
        gaps = [difference([both], "lpips", DATA, ("diffusion_ddim", nfe), ("diffusion", nfe)) for nfe in heads]
        rows.append([one.task, *[shown("lpips", gap, False) for gap in gaps]])
    needs = f"Needs `claims` and `{SOLVERS}` of the same task and seed, in one study.\n"
    return table(["NFE", *map(str, heads)], rows) if rows else needs


def same_network(one: Outcome, other: Outcome, network: str) -> bool:
    """Whether both files measured the same training of a network, and not another one with the same options."""
    trainings = [file.content["trained"].get(network) for file in (one, other)]
    return trainings[0] == trainings[1] is not None


def joined(one: Outcome, other: Outcome) -> Outcome:
    """Both files as one; the crops are the same."""
    content = {**one.content, **{key: [*one.content[key], *other.content[key]] for key in ("methods", "results")}}
    return Outcome(one.comparison, one.task, one.seed, content)


def verdicts(outcomes: Outcomes) -> Iterator[Row]:
    """SDE against OT-ODE by task as walks of a network that was trained with noise; the paper trains one for each."""
    for task in dict.fromkeys(one.task for one in outcomes.of(NAME)):
        found = outcomes.of(NAME, task)
        if "lpips" not in found[0].metrics or ODE not in found[0].groups:
            continue
        ode = task == "deblur"
        gaps = _sde_minus_ode(found)
        signs = [better(gap, False) * (-1 if ode else 1) for gap in gaps.values()]
        yield (
            f"SDE against OT-ODE, {task}, walks of one network: the {'ODE' if ode else 'SDE'} better in LPIPS, "
            "NFE with intervals off zero",
            count(signs.count(1), len(signs)),
            f"worse in {signs.count(-1)}; SDE minus OT-ODE: "
            + "; ".join(f"NFE {nfe} {shown('lpips', gap, False)}" for nfe, gap in gaps.items()),
        )


def _sde_minus_ode(found: Sequence[Outcome]) -> dict:
    nfes = [nfe for nfe in found[0].curve(ODE) if nfe in found[0].curve(DEFAULT)]
    gaps = {nfe: difference(found, "lpips", DATA, (DEFAULT, nfe), (ODE, nfe)) for nfe in nfes}
    return {nfe: gap for nfe, gap in gaps.items() if gap}
