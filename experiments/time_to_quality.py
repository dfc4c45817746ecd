"""How much sooner a few steps have the quality of a hundred ancestral ones: the same network, the same crops.

    python -m experiments.time_to_quality --work study

For each task and metric it takes from ``experiments/results`` the walk of the fewest evaluations whose figure is no
worse than that of 100 ancestral steps, restores a photograph of scikit-image with both in turns, and writes the ratios
of their seconds to experiments/results/time_to_quality.json; ``python -m experiments.pages`` puts them into
docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from basicsr_ext import compat
from basicsr_ext.errors import InputError
from experiments.markdown import LABELS, figure, machine, shown, table
from experiments.outcomes import Difference, Outcome, Outcomes, difference, mean
from experiments.plan import Study, read
from experiments.samplers import DATA, NAME, joined, walks

__all__ = ["FILE", "REFERENCE", "quickest", "section"]

HERE = Path(__file__).parent
FILE = "time_to_quality.json"
REFERENCE = ("i2sb", 100)  # of `claims`: ancestral, uniform spacing
METRICS = ("lpips", "dists", "patch_fid")
SEED, PAIRS = 0, 7


def quickest(outcomes: Outcomes, task: str, metric: str) -> dict[str, Any] | None:
    """The walk of the fewest evaluations that is no worse than the reference, on the network of seed 0.

    Returns:
        ``setting`` (its own name is ``i2sb`` for the ancestral walk of ``claims``), ``nfe``, ``value``, ``reference``
        and ``difference``; None where a file or the metric is missing.

    """
    units = [next((o for o in outcomes.of(name, task) if o.seed == SEED), None) for name in (NAME, "claims")]
    if None in units or metric not in units[1].metrics or 100 not in units[1].curve(REFERENCE[0]):
        return None
    both = [joined(*units)]
    wanted = mean(both, metric, *REFERENCE, DATA)
    for nfe, setting in sorted(_choices(both[0]), key=lambda choice: choice[0]):
        value = mean(both, metric, setting, nfe, DATA)
        if value is not None and value <= wanted:
            gap = difference(both, metric, DATA, (setting, nfe), REFERENCE)
            found = {"task": task, "metric": metric, "setting": setting, "nfe": nfe, "value": value}
            return found | {"reference": wanted, "difference": list(gap)}
    raise AssertionError("the reference is as good as itself")


def _choices(one: Outcome) -> Iterator[tuple[int, str]]:
    for setting in walks(one):
        for nfe in one.curve(setting):
            yield nfe, setting


def _timed(work: Path, study: Study, found: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of the reference and of what was found, in turns."""
    from benchmarks.timing import paired
    from experiments import sheets
    from i2sb_plugin.data.image_io import decode_image
    from i2sb_plugin.data.sample_photographs import prepare

    path = prepare(work / "data/photographs") / "val/astronaut.png"
    clean = decode_image(path.read_bytes(), path.name)[:, 84:148, 92:156]
    lq, mask = sheets.degraded(clean, study.tasks[found["task"]]["degradation"])
    network = sheets.load(work, "i2sb", found["task"])
    methods = {**study.comparisons[NAME]["methods"], **study.comparisons["claims"]["methods"]}

    def walk(setting: str, nfe: int) -> None:
        network(lq, mask, seed=SEED, **{**methods[setting]["flags"], "nfe": nfe})

    return paired(lambda: walk(*REFERENCE), lambda: walk(found["setting"], found["nfe"]), PAIRS)


def section(results: Path) -> str:
    """The table of docs/results.md, from the stored file."""
    file = results / FILE
    if not file.is_file():
        return "Not there yet: `python -m experiments.time_to_quality --work study` makes it.\n"
    record = json.loads(file.read_text())
    rows = []
    for one in record["rows"]:
        values = [figure(one["metric"], one[key]) for key in ("reference", "value")]
        gap = shown(one["metric"], Difference(*one["difference"]), False)
        ratio = f"{one['ratio_median']:.1f} ({one['ratio_min']:.1f} to {one['ratio_max']:.1f})"
        setting = "ancestral" if one["setting"] == REFERENCE[0] else one["setting"]
        rows.append([one["task"], LABELS[one["metric"]], values[0], setting, str(one["nfe"]), values[1], gap, ratio])
    head = ["task", "metric", "100 ancestral steps", "as good", "NFE", "its figure", "difference", "times faster"]
    lines = [
        "The walk of the fewest evaluations whose figure is no worse than that of 100 ancestral steps, found on the "
        "same network and crops; seconds of restoring one photograph with both in turns, median (least to most).\n",
        f"- Command: `python -m experiments.time_to_quality --work study`; seed {record['seed']}.",
        f"- Machine: {machine([record['environment']])}.\n",
        table(head, rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Find, time, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default="study", help="folder of the study")
    parser.add_argument("--results", default=str(HERE / "results"), help="folder of the figures")
    parser.add_argument("--study", default=str(HERE / "study.yml"))
    args = parser.parse_args()
    compat.apply()
    from basicsr_ext.benchmark.records import environment

    results = Path(args.results)
    try:
        study, _ = read(args.study)
        outcomes, rows = Outcomes(results, study.tasks), []
        for task in study.tasks:
            for found in filter(None, (quickest(outcomes, task, metric) for metric in METRICS)):
                rows.append(found | _timed(Path(args.work), study, found))
                print(
                    f"{task}, {found['metric']}: {found['setting']}, NFE {found['nfe']}, {rows[-1]['ratio_median']:.1f}"
                )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    record = {"seed": SEED, "environment": environment(SimpleNamespace(device="auto")), "rows": rows}
    (results / FILE).write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
