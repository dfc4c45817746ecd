"""From the ``metrics.json`` of test runs to a table, and from their images to a sheet."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from basicsr_ext.benchmark.report.sheets import write_sheet
from basicsr_ext.common.errors import InputError

__all__ = [
    "load_runs",
    "run",
    "sheet",
    "table",
]

LABELS = {"psnr_y": "PSNR-Y (dB)", "ssim_y": "SSIM-Y", "seconds": "seconds per image"}
DIGITS = {"psnr_y": 2, "ssim_y": 4, "seconds": 3}


def load_runs(folders: list[str | Path]) -> list[dict]:
    """Read ``metrics.json`` of each results folder; the folder itself is added under ``folder``.

    Raises:
        InputError: a folder holds no ``metrics.json``, or one that is not ours.
    """
    runs = []
    for folder in map(Path, folders):
        path = folder / "metrics.json"
        if not path.is_file():
            raise InputError(f"{path} does not exist; `basicsr test -opt FILE` writes it (RestorationModel, I2SBModel)")
        try:
            run = json.loads(path.read_text())
            runs.append(run | {"folder": folder, "datasets": dict(run["datasets"])})
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a result of `basicsr test`: {error}; test again") from None
    return runs


def table(runs: list[dict]) -> str:
    """Markdown: a row for each run and data set, a column for each metric that any of them has."""
    rows = [(run["name"], name, data["mean"]) for run in runs for name, data in run["datasets"].items()]
    metrics = list(dict.fromkeys(metric for _, _, means in rows for metric in means))
    metrics.sort(key=lambda metric: metric == "seconds")
    lines = [["run", "data set", *(LABELS.get(m, m) for m in metrics)], ["---", "---", *["---:"] * len(metrics)]]
    for run, name, means in rows:
        cells = [f"{means[m]:.{DIGITS.get(m, 4)}f}" if m in means else "" for m in metrics]
        lines.append([run, name, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sheet(runs: list[dict], originals: str | Path, path: str | Path, crop: int = 160) -> None:
    """Write a picture: a row for each image, a column for each run and one for the originals, captioned.

    Args:
        runs: as from :func:`load_runs`; all must hold the saved images of the same data set.
        originals: folder with the original photographs, of the same names.
        path: of the PNG to write.
        crop: side of the central square that is shown of each image, in pixels; it is shown twice as large.

    Raises:
        InputError: a run saved no images, or an image is missing.
    """
    name = next(iter(runs[0]["datasets"]))
    stems = [record["image"] for record in runs[0]["datasets"][name]["images"]]
    columns = [(run["name"], [_saved(run, name, stem) for stem in stems]) for run in runs]
    columns.append(("original", [_find(Path(originals), stem) for stem in stems]))
    write_sheet(columns, path, crop)


def _saved(run: dict, dataset: str, stem: str) -> Path:
    for record in run["datasets"].get(dataset, {"images": []})["images"]:
        if record["image"] == stem and "file" in record:
            return Path(record["file"])
    raise InputError(f"{run['folder']} holds no image {stem!r} of {dataset!r}; test with `val.save_img: true`")


def _find(folder: Path, stem: str) -> Path:
    for path in sorted(folder.glob(f"{stem}.*")):
        return path
    raise InputError(f"{folder} holds no image named {stem!r}; the originals need the names of the restored images")


def run(rest: list[str]) -> int:
    """Run ``basicsr report``: print the table, say where the images are, and write a sheet if asked."""
    parser = argparse.ArgumentParser(prog="basicsr report", description="Compare finished tests in a table.")
    parser.add_argument("runs", nargs="+", metavar="RESULTS", help="results folder of a test, such as results/bicubic")
    parser.add_argument("--sheet", metavar="PNG", help="also write a picture of the restored images side by side")
    parser.add_argument("--originals", metavar="FOLDER", help="the original photographs, for --sheet")
    parser.add_argument("--crop", type=int, default=160, help="side of the part shown in the sheet, in pixels")
    args = parser.parse_args(rest)
    if args.sheet and not args.originals:
        raise InputError("--sheet needs --originals FOLDER, the folder of the original photographs")
    runs = load_runs(args.runs)
    print(table(runs))
    for run in runs:
        print(f"images of {run['name']}: {run['folder'] / 'visualization'}")
    if args.sheet:
        sheet(runs, args.originals, args.sheet, args.crop)
        print(f"sheet: {args.sheet}")
    return 0
