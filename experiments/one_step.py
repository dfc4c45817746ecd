"""Why one step of the bridge is below its regression twin: networks between the two, one difference at a time."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.markdown import figure, missing, provenance, shown, table
from experiments.outcomes import Outcome, Outcomes, difference, mean
from experiments.plan import Comparison

__all__ = ["NAME", "section"]

NAME = "one_step"
TWIN = "regression_l2"
DATA = "crops"
NETWORKS = {  # what each shares with the twin
    TWIN: "sees x1 alone, learns x0 - x1",
    "i2sb_nodes_1": "sees x1 alone; learns it divided by sigma",
    "i2sb": "sees x1 in one of 1,000 samples, else xt of other nodes",
    "i2sb_weighted": "the same; errors count as errors of x0, not divided by sigma",
    "i2sb_predicts_x0": "the same; predicts x0 itself",
    "i2sb_ot_ode": "sees x1 in one of 1,000, else xt without noise",
}


def section(outcomes: Outcomes, plan: Comparison | None) -> str:
    """PSNR of one evaluation by each network, and how far it is from the twin's."""
    there = outcomes.of(NAME)
    lines = missing(NAME, plan, there)
    if not there:
        return "\n".join(lines)
    lines += [provenance(NAME, there), "", _table(there), ""]
    return "\n".join(lines)


def _table(found: Sequence[Outcome]) -> str:
    twin = (TWIN, next(iter(found[0].curve(TWIN)), None))
    rows = []
    for name, what in NETWORKS.items():
        own = (name, next(iter(found[0].curve(name)), None))
        value = mean(found, "psnr", *own, DATA)
        if value is not None:
            gap = "" if name == TWIN else shown("psnr", difference(found, "psnr", DATA, own, twin), True)
            rows.append([name, figure("psnr", value), gap, what])
    return table(["network", "PSNR-Y at NFE 1, dB", f"minus {TWIN}", "what it sees and learns"], rows)
