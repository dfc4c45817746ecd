"""Why one step of the bridge is below its regression twin: networks between the two, one difference at a time."""

from collections.abc import Sequence

from studies.quality.study.markdown import figure, missing, provenance, shown, table
from studies.quality.study.outcomes import Outcome, Outcomes, difference, mean
from studies.quality.study.plan import Comparison

__all__ = ["NAME", "section"]

NAME = "one_step"
TWIN, ALONE, BRIDGE, SHARE = "regression_l2", "i2sb_nodes_1", "i2sb", "i2sb_x1_share"
DATA = "crops"
NETWORKS = {  # what each shares with the twin
    TWIN: "sees x1 alone, learns x0 - x1",
    ALONE: "sees x1 alone; learns it divided by sigma",
    BRIDGE: "sees x1 in one of 1,000 samples, otherwise xt of other nodes",
    "i2sb_weighted": "the same; errors count as errors of x0, not divided by sigma",
    "i2sb_predicts_x0": "the same; predicts x0 itself",
    "i2sb_ot_ode": "sees x1 in one of 1,000, otherwise xt without noise",
    SHARE: "sees x1 in one of 4, otherwise xt of other nodes",
}


def section(outcomes: Outcomes, plan: Comparison | None) -> str:
    """PSNR of one evaluation by each network, and how far it is from the twin's."""
    there = outcomes.of(NAME)
    lines = missing(NAME, plan, there)
    if not there:
        return "\n".join(lines)
    lines += [provenance(NAME, there), "", _table(there), "", _reason(there), ""]
    return "\n".join(lines)


def _reason(found: Sequence[Outcome]) -> str:
    """What the rows say of the two possible reasons, the target and the other nodes, and of the cure."""
    gaps = [difference(found, "psnr", DATA, _walk(found, name), _walk(found, TWIN)) for name in (ALONE, BRIDGE)]
    if None in gaps:
        return ""
    target, others = gaps[0].value, gaps[1].value - gaps[0].value
    cure = difference(found, "psnr", DATA, _walk(found, SHARE), _walk(found, BRIDGE))
    taken = f" A quarter of the samples at x1 ({SHARE}) gives back {figure('psnr', cure.value)} dB." if cure else ""
    return (
        f"The target alone ({ALONE} against {TWIN}) is worth {figure('psnr', target, True)} dB; that the same network "
        f"also serves all other nodes ({BRIDGE} against {ALONE}) is worth {figure('psnr', others, True)} dB.{taken}"
    )


def _walk(found: Sequence[Outcome], name: str) -> tuple[str, int | None]:
    """A network and the one NFE it was compared at."""
    return name, next(iter(found[0].curve(name)), None)


def _table(found: Sequence[Outcome]) -> str:
    twin = _walk(found, TWIN)
    rows = []
    for name, what in NETWORKS.items():
        own = _walk(found, name)
        value = mean(found, "psnr", *own, DATA)
        if value is not None:
            gap = "" if name == TWIN else shown("psnr", difference(found, "psnr", DATA, own, twin), True)
            rows.append([name, figure("psnr", value), gap, what])
    return table(["network", "PSNR-Y at NFE 1, dB", f"minus {TWIN}", "what it sees and learns"], rows)
