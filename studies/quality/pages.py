"""Write docs/results.md, a page for each of its questions, the plots and the sheets from the figures of a study.

    python -m studies.quality.pages

Every figure comes from ``studies/quality/results/*.json``; what is missing there is named with the command that makes
it. Sheets are drawn again where the networks of the study are at hand (``--work``).
"""

import argparse
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError
from studies.quality import findings
from studies.quality.figures import claims_name, draw
from studies.quality.questions import (
    ablations,
    claims,
    equal_seconds,
    error_spectrum,
    one_step,
    samplers,
    super_resolution,
    texture,
    time_to_quality,
)  # fmt: skip
from studies.quality.questions.robustness import BLOTCHES, BRIGHTER, LOST, MADE_UP, RINGING, SHIFT, TEXTURE
from studies.quality.study.data import TRAINED
from studies.quality.study.markdown import LABELS, figure, machine, percent, table, training
from studies.quality.study.outcomes import Outcomes
from studies.quality.study.plan import Comparison, Study, read

__all__ = ["main", "written"]

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
START = """# Results

What of the paper's claims holds at desk scale: one small network for each task, trained on the same batches by the
same code. The networks are small and their training is short: the figures compare methods, they do not compete with
published ones.
"""
ADVICE = """What follows for your own runs: [which sampler and which options to take](samplers.md#which-to-take).
"""
METHOD = f"""## How it was made

    python -m studies.quality.study --data DIR
    python -m studies.quality.questions.texture --work study
    python -m studies.quality.questions.error_spectrum --work study
    python -m studies.quality.questions.time_to_quality --work study
    python -m studies.quality.questions.robustness --work study
    python -m studies.quality.pages --work study

from `studies/quality/study.yml`; DIR holds BSDS500, Set5 and Set14. Figures are stored in `studies/quality/results/`,
and existing ones are not made again: move them away first, or give another folder with `--results`.

What is equal and what is not. Within a section every network has the same iterations and batches; the super-resolution
section has twice as many as the others, `esrgan` continues from `rrdbnet` for as many again, and "trained longer" says
how long. BasicSR's own networks train by their own loss in fp32, without gradient clipping, at the learning rate and
crop size of the study instead of those of their option files; ESRGAN has no perceptual loss, whose weights would have
to be downloaded. The bridge's noise (beta 0.02) was chosen beforehand on three of scikit-image's photographs; nothing
was tuned for the other networks. Trained on: {TRAINED}.
"""
READING = """## How to read the tables

Lower is better for LPIPS (AlexNet), DISTS and patch-FID (AlexNet features of 32 x 32 patches), higher for PSNR and SSIM
(on the Y channel for super-resolution). Brackets are 95 % intervals of paired differences. One seed: bootstrap over
photographs (crops of one photograph count as one). Several: Student's t from a two-way layout of seeds and photographs.
**Bold**: better, and the interval is off zero; *italic*: worse. Patch-FID belongs to a set of images: its brackets are
the smallest and largest value over the seeds, and nothing is bold; with so few patches it is biased upwards, equally
for all methods of a comparison. Intervals are not corrected for their number.
"""
LINK = "[What was compared, and how to read the tables](../results.md#how-to-read-the-tables).\n"
LONGER = """Three bridges: one that sees xt alone, and two that see x1 beside it, as diffusion does; with `x1_share`
a quarter of the samples are at x1. Each network is given the best of its walks at each NFE, on the crops that it is
compared on. Which bridges to train this long was chosen by the shorter trainings, on the same photographs. Their
walks by `log_snr` and `dbim` were added after `ancestral` alone had been compared with diffusion's three.
"""
CPU = """Seconds of training are wall-clock, of two processes at once on two CPU cores that also did other work:
they show what to expect there and say nothing about the speed of the code ([performance.md](performance.md)).
"""
FAULTS = f"""Night is shown {BRIGHTER["night"]} times as bright. Detail: root mean square of what a 3 x 3 mean
removes, divided by the original's. Made up: detail where the original is flat over 17 x 17 pixels, in grey levels.
Ringing: how far the result leaves the range of the original's 7 x 7 surroundings, 99th percentile, in grey levels.
Shift: of a channel's mean, in grey levels. Blotches: errors of colour averaged over 9 x 9 pixels, as a share of the
mean brightness. A fault is named where detail is above {TEXTURE} or made up above {MADE_UP} (made-up texture), detail
is below {LOST} (detail lost), ringing above {RINGING}, shift above {SHIFT}, blotches above {percent(BLOTCHES)}.
"""


def written(results: Path, study: Study) -> dict[str, str]:
    """The pages by their path below docs/, from the files of ``results`` alone."""
    outcomes, plans = Outcomes(results, study.tasks), _plans(study)
    parts = _sections(results, study, outcomes, plans)
    pages = {f"results/{name}.md": _page(title, text) for name, (title, text) in parts.items()}
    on_cpu = any(one.content["environment"]["device"].startswith("CPU") for one in outcomes.all)
    front = [START, "## Findings\n", findings.table(parts["claims"][1]), ADVICE, "## The figures\n"]
    front += [_contents(parts), METHOD, *([CPU] if on_cpu else []), READING]
    return {"results.md": "\n".join(part.rstrip("\n") + "\n" for part in front), **pages}


def _sections(results: Path, study: Study, outcomes: Outcomes, plans: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Title and text of each question, by the name of its page."""
    by_task, free = ablations.BY_TASK, ablations.NOISE_FREE
    longer = claims.section(outcomes, plans.get(claims.LONGER), claims.LONGER)
    crops = "\n".join([*_plots(outcomes), claims.section(outcomes, plans[claims.NAME])])
    return {
        "claims": ("The claims of the paper", claims.verdicts(outcomes, plans)),
        "pictures": ("Pictures", _sheets(results, study)),
        "diffusion": ("I2SB against conditional diffusion", crops),
        "longer": ("The same, trained longer", f"{LONGER}\n{longer}"),
        "super_resolution": (
            "Super-resolution",
            super_resolution.section(outcomes, plans.get(super_resolution.NAME)),
        ),
        "equal_seconds": (
            "Equal seconds of training: a cheaper network, one evaluation",
            equal_seconds.section(outcomes, plans.get(equal_seconds.NAME)) + "\n" + error_spectrum.section(results),
        ),
        "rivals": (
            "The fast bridge beside its rivals, with the same network and term",
            equal_seconds.section(outcomes, plans.get(equal_seconds.RIVALS), equal_seconds.RIVALS),
        ),
        "term_options": (
            "Options beside the perceptual term",
            equal_seconds.section(outcomes, plans.get(equal_seconds.OPTIONS), equal_seconds.OPTIONS),
        ),
        "any_network": (
            "Any network in the bridge, after equal seconds",
            equal_seconds.section(outcomes, plans.get(equal_seconds.NETWORKS), equal_seconds.NETWORKS),
        ),
        "texture": ("What DISTS holds against drawn detail", texture.section(results)),
        "one_step": ("Why one step is below its twin", one_step.section(outcomes, plans.get(one_step.NAME))),
        "ablations": ("Ablations", ablations.section(outcomes, plans.get(ablations.NAME))),
        "conditioning": ("A network that sees x1 too", ablations.section(outcomes, plans.get(by_task), by_task)),
        "without_noise": (
            "A network that is trained without noise",
            ablations.section(outcomes, plans.get(free), free),
        ),
        "samplers": ("Samplers", samplers.section(outcomes, plans.get(samplers.NAME))),
        "time_to_quality": ("Time to the quality of 100 ancestral steps", time_to_quality.section(results)),
        "robustness": ("Out of the training range", _robustness(results)),
    }


def _page(title: str, text: str) -> str:
    """A section as a page of its own, one folder further down and one level further up."""
    text = re.sub(r"^##(#+) ", r"#\1 ", text, flags=re.MULTILINE).replace("](images/", "](../images/")
    return f"# {title}\n\n{LINK}\n" + text.rstrip("\n") + "\n"


def _contents(parts: dict[str, tuple[str, str]]) -> str:
    return "\n".join(f"- [{title}](results/{name}.md)" for name, (title, _) in parts.items()) + "\n"


def _plans(study: Study) -> dict[str, Any]:
    return {name: Comparison(**block) for name, block in study.comparisons.items()}


def _plots(outcomes: Outcomes) -> list[str]:
    known = {metric for one in outcomes.of("claims") for metric in one.metrics}
    return [f"![{LABELS[m]} over NFE](images/{claims_name(m)})\n" for m in LABELS if m in known]


def _sheets(results: Path, study: Study) -> str:
    file = results / "sheets.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    lines = [
        "Parts of scikit-image's photographs, which no network was trained on, enlarged twice: degraded, conditional "
        "diffusion at NFE 10, I2SB at NFE 1, 5, 10 and 100, the original. Made by "
        "`python -m studies.quality.pages --work study` from the networks of `claims`."
    ]
    absent = [f"`{task}`" for task in study.tasks if task not in known]
    if absent:
        lines.append(f"No picture yet of {', '.join(absent)}: `python -m studies.quality.pages --work study` makes it.")
    for task in study.tasks:
        if task not in known:
            continue
        one = known[task]
        facts = [training(list(one["trained"].values())), f"seed {one['seed']}", machine([one["environment"]])]
        lines.append(f"**{task}**: {', '.join(one['photographs'])}. {'; '.join(facts)}.")
        lines.append(f"![{task}: degraded, diffusion, I2SB, original](images/results_{task}.png)")
    return "\n\n".join(lines) + "\n"


def _robustness(results: Path) -> str:
    file = results / "robustness.json"
    if not file.is_file():
        return "Missing: `python -m studies.quality.questions.robustness --work study` makes it.\n"
    record = json.loads(file.read_text())
    made = {row["picture"]: row["made"] for row in record["rows"]}
    rows = []
    for row in record["rows"]:
        psnr = "exact" if row.get("psnr", 0) is None else figure("psnr", row.get("psnr"))
        cells = [psnr, figure("lpips", row.get("lpips")), figure("psnr", row["texture"])]
        cells += [figure("patch_fid", row[name]) for name in ("flat", "ringing", "shift")]
        cells.append(f"{100 * row['blotches']:.1f} %")
        rows.append([f"{row['picture']}, {row['method']}", *cells, ", ".join(row["faults"]) or "nothing named"])
    head = [
        "picture, method",
        "PSNR-Y",
        "LPIPS",
        "detail",
        "made up",
        "ringing",
        "shift",
        "blotches",
        "what goes wrong",
    ]
    lines = [
        "The network of super-resolution on pictures unlike those that it was trained on, "
        f"{record['side']} x {record['side']} pixels, reduced 4 times.\n",
        f"- Command: `python -m studies.quality.questions.robustness --work study`; seed {record['seed']}.",
        f"- Training: {training([record['trained']])}.",
        f"- Machine: {machine([record['environment']])}.",
        *[f"- {name}: {how}." for name, how in made.items()],
        f"\nFrom top to bottom: {', '.join(list(made)[: record['shown']])}.\n",
        "![degraded, bicubic, I2SB, original](images/results_robustness.jpg)\n",
        FAULTS,
        table(head, rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Draw and write; prints the suggested defaults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default=str(HERE / "results"), help="folder of the figures")
    parser.add_argument("--study", default=str(HERE / "study.yml"))
    parser.add_argument("--work", help="folder of the networks; without it the sheets stay as they are")
    parser.add_argument("--docs", default=str(DOCS), help="folder for results.md, results/ and images/")
    args = parser.parse_args()
    repairs.apply()
    results, docs = Path(args.results), Path(args.docs)
    try:
        if not results.is_dir():
            raise InputError(f"--results: {results} is missing; run python -m studies.quality.study first")
        study, _ = read(args.study)
        if args.work:
            from studies.quality.study import sheets

            print(*sheets.draw(Path(args.work), study, docs / "images", results), sep="\n")
        outcomes = Outcomes(results, study.tasks)
        if importlib.util.find_spec("matplotlib") is None:
            raise InputError("matplotlib is not installed; run: pip install matplotlib")
        print(*draw(outcomes, docs / "images"), sep="\n")
        for name, text in written(results, study).items():
            (docs / name).parent.mkdir(parents=True, exist_ok=True)
            (docs / name).write_text(text)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for one in samplers.suggestions(outcomes):
        setting = one["setting"] if one["change"] else samplers.DEFAULT
        print(f"suggested for {one['family']}: {setting}, NFE {one['nfe']}")
    print(f"{len(outcomes.all)} results: {docs / 'results.md'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
