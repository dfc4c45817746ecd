"""How much sooner a few steps reach the quality of a hundred ancestral ones: the same network, the same crops.

    python -m studies.quality.questions.time_to_quality --work study

For each task and metric it takes from ``studies/quality/results`` the walk with the fewest evaluations whose figure is
no worse than that of 100 ancestral steps, restores a crop of a photograph of scikit-image with both in turns, and
writes the ratios of their seconds to studies/quality/results/time_to_quality.json; ``python -m studies.quality.pages``
puts them into docs/results.md.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError
from studies.quality.questions.samplers import DATA, NAME, joined, same_network
from studies.quality.study.markdown import LABELS, figure, machine, shown, table
from studies.quality.study.outcomes import Difference, Outcome, Outcomes, difference, mean
from studies.quality.study.plan import Study, read

__all__ = ["FILE", "quickest", "section"]

HERE = Path(__file__).parents[1]
FILE = "time_to_quality.json"
REFERENCES = (("ancestral", 100), ("i2sb", 100))  # of `samplers` and of `claims`: the same walk
METRICS = ("lpips", "dists", "patch_fid")
SEED, PAIRS = 0, 5
ASKED = 5  # times
TIMED = "sr4x"  # task of the network that is timed


def quickest(outcomes: Outcomes, task: str, metric: str) -> dict[str, Any] | None:
    """The walk with the fewest evaluations that is no worse than the reference, on the network of seed 0.

    Returns:
        ``setting`` (its own name is ``i2sb`` for the ancestral walk of ``claims``), ``nfe``, ``value``, ``reference``
        and ``difference``; None where a file or the metric is missing.

    """
    units = [next((o for o in outcomes.of(name, task) if o.seed == SEED), None) for name in (NAME, "claims")]
    if units[0] is None or metric not in units[0].metrics:
        return None
    one = joined(*units) if units[1] and same_network(*units, "i2sb") else units[0]
    reference = next((walk for walk in REFERENCES if walk[1] in one.curve(walk[0])), None)
    if reference is None:
        return None
    wanted = mean([one], metric, *reference, DATA)
    for nfe, setting in sorted(_choices(one), key=lambda choice: choice[0]):
        value = mean([one], metric, setting, nfe, DATA)
        if value is not None and value <= wanted:
            gap = difference([one], metric, DATA, (setting, nfe), reference)
            found = {"task": task, "metric": metric, "setting": setting, "nfe": nfe, "value": value}
            return found | {"reference": wanted, "difference": list(gap)}
    raise AssertionError("the reference is as good as itself")


def _choices(one: Outcome) -> Iterator[tuple[int, str]]:
    for setting in one.groups:
        if setting != "diffusion":
            yield from ((nfe, setting) for nfe in one.curve(setting))


def _timed(work: Path, study: Study) -> Callable[[str, int], dict[str, float]]:
    """A stopwatch: seconds of the reference and of a walk, in turns, on one network, since weights cost no time."""
    from basicsr_ext.images.decode import decode_image
    from i2sb_plugin.data.photographs import prepare
    from studies.quality.study import sheets
    from studies.timing import paired

    path = prepare(work / "data/photographs") / "val/astronaut.png"
    clean = decode_image(path.read_bytes(), path.name)[:, 84:148, 92:156]
    lq, mask = sheets.degraded(clean, study.tasks[TIMED]["degradation"])
    network = sheets.load(work, "i2sb", TIMED)
    methods = {**study.comparisons[NAME]["methods"], **study.comparisons["claims"]["methods"]}

    def walk(setting: str, nfe: int) -> None:
        network(lq, mask, seed=SEED, **{**methods[setting]["flags"], "nfe": nfe})

    @cache
    def timed(setting: str, nfe: int) -> dict[str, float]:
        return paired(lambda: walk(*REFERENCES[0]), lambda: walk(setting, nfe), PAIRS)

    return timed


def section(results: Path) -> str:
    """The table of docs/results.md, from the stored file."""
    file = results / FILE
    if not file.is_file():
        return "Missing: `python -m studies.quality.questions.time_to_quality --work study` makes it.\n"
    record = json.loads(file.read_text())
    rows = []
    for one in record["rows"]:
        values = [figure(one["metric"], one[key]) for key in ("reference", "value")]
        gap = shown(one["metric"], Difference(*one["difference"]), False)
        ratio = f"{one['ratio_median']:.1f} ({one['ratio_min']:.1f} to {one['ratio_max']:.1f})"
        setting = REFERENCES[0][0] if one["setting"] == REFERENCES[1][0] else one["setting"]
        rows.append([one["task"], LABELS[one["metric"]], values[0], setting, str(one["nfe"]), values[1], gap, ratio])
    head = ["task", "metric", "100 ancestral steps", "as good", "NFE", "its figure", "difference", "times faster"]
    lines = [
        "The walk with the fewest evaluations whose mean figure is no worse than that of 100 ancestral steps, on the "
        "same network and crops (seed 0 of `samplers` and `claims`, which describe the training), and its difference "
        "with an interval. Times faster: by the seconds of restoring one crop of 64 x 64 pixels with both in turns, "
        "median (least to most), with the network of super-resolution, since the time does not depend on "
        "the weights.\n",
        f"- Command: `python -m studies.quality.questions.time_to_quality --work study`; seed {record['seed']}.",
        f"- Machine: {machine([record['environment']])}.\n",
        table(head, rows),
        *_slow(record["rows"]),
    ]
    return "\n".join(lines) + "\n"


def _slow(rows: list[dict[str, Any]]) -> list[str]:
    """Where the gain is small, and why."""
    found = [one for one in rows if one["ratio_median"] < ASKED]
    if not found:
        return []
    names = ", ".join(f"{one['task']} by {LABELS[one['metric']]} ({one['ratio_median']:.1f})" for one in found)
    return [
        f"\nLess than {ASKED} times faster: {names}. Every walk of `samplers` was tried at every NFE there: patch-FID "
        "measures texture, which the noise of each further step adds, and keeps falling up to 100 evaluations."
    ]


def main() -> int:
    """Find, time, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default="study", help="folder of the study")
    parser.add_argument("--results", default=str(HERE / "results"), help="folder of the figures")
    parser.add_argument("--study", default=str(HERE / "study.yml"))
    args = parser.parse_args()
    repairs.apply()
    from basicsr_ext.benchmark.report.records import environment

    results = Path(args.results)
    try:
        study, _ = read(args.study)
        outcomes, rows = Outcomes(results, study.tasks), []
        timed = _timed(Path(args.work), study)
        for task in study.tasks:
            for found in filter(None, (quickest(outcomes, task, metric) for metric in METRICS)):
                rows.append(found | timed(found["setting"], found["nfe"]))
                print(
                    f"{task}, {found['metric']}: {found['setting']}, NFE {found['nfe']}, {rows[-1]['ratio_median']:.1f}"
                )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    record = {"seed": SEED, "environment": environment(), "rows": rows}
    (results / FILE).write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
