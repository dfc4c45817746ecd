"""What `basicsr test` left in its results folders: a table of the figures, and the images side by side."""

import json
import os
from pathlib import Path
from typing import Any

from basicsr_ext.benchmark.report.sheets import write_sheet
from basicsr_ext.benchmark.report.tables import markdown_lines
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import listed
from basicsr_ext.images.headers import image_header
from basicsr_ext.images.inventory import by_stem, images_below, same_letters

_SHOWN = {"psnr_y": ("PSNR-Y (dB)", 2), "ssim_y": ("SSIM-Y", 4), "seconds": ("seconds per image", 3)}  # label, digits
_REST = 7  # pixels that an original may have beyond a multiple of the scale

Run = dict[str, Any]


def load_runs(folders: list[str | Path]) -> list[Run]:
    """Read ``metrics.json`` of results folders, or raises InputError; a folder itself is added under ``folder``."""
    runs = []
    for folder in map(Path, folders):
        folder = folder.parent if folder.name == "metrics.json" else folder
        path = folder / "metrics.json"
        if not path.is_file():
            raise InputError(f"{path} does not exist; `basicsr test -opt FILE` writes it (RestorationModel, I2SBModel)")
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            for data in run["datasets"].values():
                _ = [_cell(data["mean"], metric) for metric in data["mean"]], [one["image"] for one in data["images"]]
            runs.append({"name": run["name"], "folder": folder, "datasets": run["datasets"]})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} is not a result of `basicsr test`: {error}; test again") from None
    return runs


def table(runs: list[Run]) -> str:
    """Markdown: a row for each run and data set, a column for each metric that any of them has."""
    rows = [(run["name"], name, data["mean"]) for run in runs for name, data in run["datasets"].items()]
    metrics = list(dict.fromkeys(metric for _, _, means in rows for metric in means))
    metrics.sort(key=lambda metric: metric == "seconds")
    head = ["run", "data set", *(_SHOWN.get(metric, (metric, 4))[0] for metric in metrics)]
    return markdown_lines(head, [[run, name, *(_cell(means, m) for m in metrics)] for run, name, means in rows], 2)


def _cell(means: dict[str, float | None], metric: str) -> str:
    value = means.get(metric)  # none where there is no number, such as the PSNR of equal images
    return "" if value is None else f"{value:.{_SHOWN.get(metric, (metric, 4))[1]}f}"


def gaps(runs: list[Run]) -> list[str]:
    """What is known of figures that are not those of all images, such as the infinite PSNR of equal ones."""
    found = []
    for run in runs:
        for name, data in run["datasets"].items():
            for metric, about in data.get("metrics", {}).items():
                found += [f"{metric} of {run['name']} on {name}: {note}" for note in about.get("notes", ())]
    return found


def sheet(runs: list[Run], originals: str | Path, path: str | Path, crop: int = 160) -> None:
    """Write a PNG: a row for each image, a column for each run and one for the originals, captioned.

    ``runs`` are those of :func:`load_runs`, with saved images of the same data set; the folder ``originals`` has
    photographs of the same names. Of each image the central square of ``crop`` pixels is shown, twice as large.
    Raises InputError if a run saved no images, or an image is missing.
    """
    name = next(iter(runs[0]["datasets"]))
    stems = [record["image"] for record in runs[0]["datasets"][name]["images"]]
    columns = [(run["name"], [_saved(run, name, stem) for stem in stems]) for run in runs]
    columns.append(("original", _originals(Path(originals), stems)))
    for row in zip(*(files for _, files in columns)):
        sizes = [image_header(file)[:2] for file in row]
        if any(max(sides) - min(sides) > _REST for sides in zip(*sizes)):
            found = ", ".join(f"{file} {height}x{width}" for file, (height, width) in zip(row, sizes))
            raise InputError(f"what a row shows differs in size (height x width): {found}; give what they restore")
    if os.path.realpath(path) in {os.path.realpath(file) for _, files in columns for file in files}:
        raise InputError(f"--sheet {path} is one of the images to show; give another name")
    write_sheet(columns, path, crop)


def _saved(run: Run, dataset: str, stem: str) -> Path:
    for record in run["datasets"].get(dataset, {"images": []})["images"]:
        if record["image"] == stem and "file" in record:
            parts = Path(record["file"]).parts  # its folder may have been put aside since, and another lie in its place
            inside = (run["folder"].joinpath(*parts[k:]) for k in range(1, len(parts)))
            return next((file for file in inside if file.is_file()), Path(*parts))
    raise InputError(f"{run['folder']} holds no image {stem!r} of {dataset!r}; test with `val.save_img: true`")


def _originals(folder: Path, stems: list[str]) -> list[Path]:
    there = by_stem(images_below(folder)) if folder.is_dir() else {}
    fitting = {stem: there.get(same_letters(stem), []) for stem in stems}
    if missing := [stem for stem in stems if not fitting[stem]]:
        said = f"{folder} holds no image named {listed(map(repr, missing))}"
        raise InputError(f"{said}; the originals need the names of the restored images")
    if several := [stem for stem in stems if len(fitting[stem]) > 1]:
        raise InputError(f"{listed(fitting[several[0]])} all fit the restored {several[0]!r}; keep one of them")
    return [fitting[stem][0] for stem in stems]
