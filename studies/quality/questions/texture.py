"""What DISTS holds against drawn detail: its terms by stage of VGG, between the L2 twin and a bridge.

    python -m studies.quality.questions.texture --work study

DISTS (Ding et al., TPAMI 2020, eq. 8) is a sum over six stages, the image itself and five of VGG16, each with a term of
texture (the means of its maps) and one of structure (their correlations). For each data set of the comparison
``super_resolution`` the script takes bridges at the NFE of their least LPIPS, the regression twin, and the mean of both
images, and writes the terms to studies/quality/results/texture.json; ``python -m studies.quality.pages`` puts them into
docs/results.md.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError
from studies.quality.study.markdown import figure, machine, table

__all__ = ["FILE", "section", "terms"]

HERE = Path(__file__).parents[1]
FILE = "texture.json"
UNIT = "super_resolution-sr4x-0"
TWIN, BRIDGES = "regression_l2", ("i2sb", "i2sb_cond_x1", "i2sb_cond_x1_share")
SHARES = (0.0, 0.5, 1.0)  # of the bridge's image, the rest of the twin's


def terms(restored: np.ndarray, gt: np.ndarray, weights: str | None) -> np.ndarray:
    """The terms of DISTS of two images H,W,3 uint8: 2,6 float64, texture and structure by stage; their sum is DISTS."""
    from basicsr_ext.images.arrays import to_rgb
    from basicsr_ext.metrics.learned.dists import build_dists
    from basicsr_ext.metrics.learned.networks import TRUNKS, exact, loaded, metric_device

    model, tiny = loaded(build_dists, TRUNKS["vgg16"], weights), 1e-6
    whole = float(model.alpha.sum() + model.beta.sum())
    found: list[list[float]] = [[], []]
    with exact():
        maps = [model.forward_once(to_rgb(image).to(metric_device()) / 255) for image in (restored, gt)]
        alphas, betas = (part.split(model.chns, 1) for part in (model.alpha / whole, model.beta / whole))
        for x, y, alpha, beta in zip(*maps, alphas, betas):
            mean_x, mean_y = (part.mean((2, 3), keepdim=True) for part in (x, y))
            products = mean_x * mean_y, mean_x.square() + mean_y.square()
            texture = (2 * products[0] + tiny) / (products[1] + tiny)
            shared = (x * y).mean((2, 3), keepdim=True) - products[0]
            spread = sum((p - m).square().mean((2, 3), keepdim=True) for p, m in ((x, mean_x), (y, mean_y)))
            structure = (2 * shared + tiny) / (spread + tiny)
            found[0].append(float((alpha * (1 - texture)).sum()))
            found[1].append(float((beta * (1 - structure)).sum()))
    return np.array(found)


def run(work: Path, weights: str | None) -> dict[str, Any]:
    """The terms of every bridge that was compared.

    Raises:
        InputError: the comparison has not been made, or weights are missing.

    """
    folder = work / "results" / UNIT
    file = folder / "records.json"
    if not file.is_file():
        command = f"python -m studies.quality.study --data DIR --work {work} --results NEW --only 'super_resolution*'"
        raise InputError(f"{file} is missing; run: {command}")
    records = json.loads(file.read_text())
    rows = []
    for dataset in records["datasets"]:
        for bridge in BRIDGES:
            walk, images = _best(records, bridge, dataset["name"]), dataset["images"]
            for share in SHARES if walk else ():
                values = [_blended(folder, dataset["name"], image, walk, share, weights) for image in images]
                texture, structure = np.mean(values, 0).tolist()
                row = {"dataset": dataset["name"], "images": len(images), "walk": walk, "share": share}
                rows.append(row | {"texture": texture, "structure": structure})
    facts = {"twin": TWIN, "seed": records["protocol"]["seed"]}
    return facts | {"environment": records["environment"], "rows": rows}


def _best(records: dict[str, Any], bridge: str, dataset: str) -> str | None:
    """Name of the walk of a bridge with the least LPIPS."""
    groups = {method["name"]: method["group"] for method in records["methods"]}
    lpips = {
        result["method"]: result["summary"]["lpips"]["value"]
        for result in records["results"]
        if result["dataset"] == dataset and groups[result["method"]] == bridge
    }
    return min(lpips, key=lambda name: lpips[name]) if lpips else None


def _blended(
    folder: Path, dataset: str, image: dict[str, Any], walk: str, share: float, weights: str | None
) -> np.ndarray:
    name = image["name"]
    paths = [folder / image["gt"], *(folder / "restored" / one / dataset / f"{name}.png" for one in (walk, TWIN))]
    gt, drawn, mean = (cv2.imread(str(path), cv2.IMREAD_COLOR) for path in paths)
    return terms((share * drawn + (1 - share) * mean).round().astype(np.uint8), gt, weights)


def section(results: Path) -> str:
    """The page: the terms, texture by stage."""
    file = results / FILE
    if not file.is_file():
        return "Missing: `python -m studies.quality.questions.texture --work study` makes it.\n"
    record = json.loads(file.read_text())
    rows = []
    for row in record["rows"]:
        what = f"{row['dataset']}, {row['walk']}, {row['share']:.0%}"
        parts = [_dists(row), *row["texture"], sum(row["structure"])]
        rows.append([what, *[figure("dists", part) for part in parts]])
    sizes = dict.fromkeys(f"{row['images']} images of {row['dataset']}" for row in record["rows"])
    lines = [
        f"DISTS is a sum of terms: texture (means of the maps) at six stages from the image itself to the deepest of "
        f"VGG16, and structure. Each row mixes the given share of a bridge's image, at the NFE of its lowest LPIPS, "
        f"into that of {record['twin']}; {', '.join(sizes)}.\n",
        "- Command: `python -m studies.quality.questions.texture --work study`, on the images of `super_resolution`, "
        f"with its trainings; seed {record['seed']}.",
        f"- Machine: {machine([record['environment']])}.\n",
        table(["image", "DISTS", *[f"texture {k}" for k in range(6)], "structure"], rows) + "\n",
        _read_out(record["rows"]) + "\n",
    ]
    return "\n".join(lines) + "\n"


def _dists(row: dict[str, Any]) -> float:
    return sum(row["texture"]) + sum(row["structure"])


def _read_out(rows: list[dict[str, Any]]) -> str:
    """At which stages drawn detail is nearer to the original than the twin's, and what half of it is worth."""
    lines = []
    for dataset, walk in dict.fromkeys((row["dataset"], row["walk"]) for row in rows):
        own = {row["share"]: row for row in rows if (row["dataset"], row["walk"]) == (dataset, walk)}
        if set(SHARES) <= own.keys():
            mean, half, drawn = (own[share] for share in SHARES)
            gaps = [a - b for a, b in zip(drawn["texture"], mean["texture"])]
            near, far = ([str(k) for k, gap in enumerate(gaps) if sign * gap > 5e-4] for sign in (-1, 1))
            lines.append(
                f"- {dataset}, {walk}: texture nearer to the original than the twin's at stages "
                f"{', '.join(near) or 'none'}, farther at {', '.join(far) or 'none'}; DISTS minus the twin's is "
                f"{figure('dists', _dists(drawn) - _dists(mean), True)}, with half of each image "
                f"{figure('dists', _dists(half) - _dists(mean), True)}."
            )
    return "\n".join(lines)


def main() -> int:
    """Compute and store; 2 if something is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default="study", help="folder of the study")
    parser.add_argument("--results", default=str(HERE / "results"), help="folder of the figures")
    parser.add_argument("--weights", default=os.environ.get("BASICSR_WEIGHTS"), help="folder of the metrics' weights")
    args = parser.parse_args()
    repairs.apply()
    try:
        record = run(Path(args.work), args.weights)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    target = Path(args.results) / FILE
    target.write_text(json.dumps(record, separators=(",", ":")).replace("},{", "},\n{") + "\n")
    print(target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
