"""At which fineness one evaluation of the fast network errs more, or less, than one of the full-size network.

    python -m studies.quality.questions.error_spectrum --work study

Takes the pictures of the comparison ``equal_seconds`` and splits the squared error of each by octaves of spatial
frequency: the orthonormal cosine transform (DCT-II) of the whole picture keeps the sum of squares, so that the parts
add up to the mean squared error. They go to studies/quality/results/error_spectrum.json;
``python -m studies.quality.pages`` puts them into docs/results/equal_seconds.md.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.fft import dctn

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError
from studies.quality.study.markdown import machine, table

__all__ = ["FILE", "section", "split"]

HERE = Path(__file__).parents[1]
FILE = "error_spectrum.json"
UNITS, DATASET = "equal_seconds-{}-0", "bsds"
FULL, FAST = ("full_nfe1", "full_cond_nfe1"), ("dial_1", "dial_0.5_nfe1", "dial_0")
OCTAVES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # bounds in cycles per pixel


def split(error: np.ndarray) -> np.ndarray:
    """Mean square of H,W,C by octave: (5,) float64, whose sum is the mean square of ``error``."""
    height, width = error.shape[:2]
    power = (dctn(error.astype(np.float64), axes=(0, 1), norm="ortho") ** 2).mean(2)
    frequency = np.hypot(np.arange(height)[:, None] / (2 * height), np.arange(width) / (2 * width))
    octave = np.searchsorted(OCTAVES, frequency, side="right") - 1
    return np.bincount(octave.ravel(), power.ravel(), len(OCTAVES) - 1) / (height * width)


def run(work: Path, tasks: list[str]) -> dict[str, Any]:
    """The split of every task that was compared.

    Raises:
        InputError: no task has been.

    """
    found: dict[str, Any] = {}
    environment = None
    for task in tasks:
        folder = work / "results" / UNITS.format(task)
        file = folder / "records.json"
        if not file.is_file():
            continue
        records = json.loads(file.read_text())
        environment = environment or records["environment"]
        there = [method["name"] for method in records["methods"] if method["name"] in FULL + FAST]
        images = next(data["images"] for data in records["datasets"] if data["name"] == DATASET)
        found[task] = {name: np.mean([_split(folder, name, one) for one in images], 0).tolist() for name in there}
    if not found:
        command = f"python -m studies.quality.study --data DIR --work {work} --results NEW --only 'equal_seconds-*-0'"
        raise InputError(f"{work}/results holds no pictures of {UNITS.format('*')}; run: {command}")
    return {"environment": environment, "dataset": DATASET, "images": len(images), "tasks": found}


def _split(folder: Path, method: str, image: dict[str, Any]) -> np.ndarray:
    paths = folder / "restored" / method / DATASET / f"{image['name']}.png", folder / image["gt"]
    restored, gt = (cv2.imread(str(path), cv2.IMREAD_COLOR).astype(np.float64) for path in paths)
    return split(restored - gt)


def section(results: Path) -> str:
    """Of the page: what the fast network's error has over the full-size network's, by octave."""
    title = "### Where one evaluation errs\n"
    file = results / FILE
    if not file.is_file():
        return f"{title}\nMissing: `python -m studies.quality.questions.error_spectrum --work study` makes it.\n"
    record = json.loads(file.read_text())
    rows = []
    for task, methods in record["tasks"].items():
        base = np.array(next(methods[name] for name in FULL if name in methods))
        rows.append([f"{task}, full size", *[f"{part:.2f}" for part in (*base, base.sum())]])
        for name in (name for name in FAST if name in methods):
            change = np.array(methods[name]) - base
            rows.append(
                [f"{task}, {name.removesuffix('_nfe1')}", *[f"{part:+.2f}" for part in (*change, change.sum())]]
            )
    bounds = ["below 1/32", "to 1/16", "to 1/8", "to 1/4", "above"]
    lines = [
        title,
        "Mean squared error at one evaluation, in squared grey levels, by spatial frequency in cycles per pixel; of "
        "the fast network, what it has over the full-size one.\n",
        "- Command: `python -m studies.quality.questions.error_spectrum --work study`, on the "
        f"{record['images']} pictures of {record['dataset']}, seed 0.",
        f"- Machine: {machine([record['environment']])}.\n",
        table(["task, network", *bounds, "all"], rows) + "\n",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Compute and store; 2 if nothing is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default="study", help="folder of the study")
    parser.add_argument("--results", default=str(HERE / "results"), help="folder of the figures")
    args = parser.parse_args()
    repairs.apply()
    from studies.quality.study.plan import read

    try:
        record = run(Path(args.work), list(read(str(HERE / "study.yml"))[0].tasks))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    target = Path(args.results) / FILE
    target.write_text(json.dumps(record, separators=(",", ":")).replace('},"', '},\n"') + "\n")
    print(target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
