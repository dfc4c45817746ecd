"""Super-resolution of pictures unlike those that the study trained on: what goes wrong, in figures and pictures.

    python -m studies.quality.questions.robustness --work study

Writes docs/images/results_robustness.jpg and studies/quality/results/robustness.json;
``python -m studies.quality.pages`` then puts both into docs/results.md.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError

HERE = Path(__file__).parents[1]
IMAGES = HERE.parents[1] / "docs" / "images"
SIDE = 96
LIMIT = 300_000  # bytes
SAMPLE = "astronaut"
TASK = "sr4x"
STEPS = (1, 5, 100)
BRIGHTER = {"night": 6}  # how much on the sheet
TEXTURE, LOST, MADE_UP, RINGING, SHIFT, BLOTCHES = (
    1.25,
    0.75,
    1.0,
    4.0,
    2.0,
    0.05,
)  # where a fault gets its name; see `faults`


def pictures() -> dict[str, tuple[str, Tensor]]:
    """Name -> how it is made, and the picture 3,SIDE,SIDE in [0, 1]; all from scikit-image or made up."""
    from skimage import data

    generator = np.random.default_rng(0)
    camera = np.asarray(data.astronaut())[40 : 40 + 2 * SIDE : 2, 150 : 150 + 2 * SIDE : 2] / 255
    light = 0.06 * camera**1.5
    night = light + np.sqrt(light * 0.004 + 0.008**2) * generator.standard_normal(light.shape)
    horse = np.asarray(data.horse(), float)
    return {
        "text": ("skimage.data.text(), a part", _rgb(data.text()[30 : 30 + SIDE, 190 : 190 + SIDE] / 255)),
        "page": ("skimage.data.page(), a part", _rgb(data.page()[50 : 50 + SIDE, 100 : 100 + SIDE] / 255)),
        "night": (
            "skimage.data.astronaut() x: light y = 0.06 x^1.5 plus N(0, 0.004 y + 0.008^2), 256 levels",
            _rgb(np.round(night.clip(0, 1) * 255) / 255),
        ),
        "line art": ("outline of skimage.data.horse(), drawn by OpenCV, 2 pixels wide", _rgb(_outline(horse))),
        "noise": ("uniform numbers, each channel by itself", _rgb(generator.random((SIDE, SIDE, 3)))),
        "grey": ("one grey, 128 of 255", _rgb(np.full((SIDE, SIDE), 128 / 255))),
    }


def _outline(shape: np.ndarray) -> np.ndarray:
    """Black lines on white along the border of a silhouette."""
    inside = cv2.resize((shape < 0.5).astype(np.uint8), (SIDE - 8, SIDE - 8), interpolation=cv2.INTER_AREA)
    inside = cv2.copyMakeBorder(inside, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=0)
    lines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.full((SIDE, SIDE), 255, np.uint8), lines, -1, 0, 2) / 255


def _rgb(pixels: np.ndarray) -> Tensor:
    planes = pixels if pixels.ndim == 3 else pixels[:, :, None].repeat(3, 2)
    return torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1))).float()


def faults(restored: Tensor, original: Tensor) -> dict[str, float | None]:
    """What went wrong, in numbers; both images 3,H,W in [0, 1].

    Returns:
        ``texture``: root mean square of what a 3 x 3 mean removes, divided by the original's (None for a flat one);
        ``flat``: the same in grey levels where the original is flat over 17 x 17: made up (None if it is flat nowhere);
        ``ringing``: grey levels by which it leaves the range of the original's 7 x 7 surroundings, 99th percentile;
        ``shift``: the largest difference of a channel's mean, in grey levels;
        ``blotches``: root mean square of the colours' errors (less their mean over the channels) averaged over 9 x 9,
        divided by the original's mean.

    """
    detail, wanted = (_detail(image) for image in (restored, original))
    flat = (_around(original, 8) == -_around(-original, 8)).all(0)
    over = torch.maximum(restored - _around(original, 3), -_around(-original, 3) - restored).clamp(min=0)
    scale = wanted.square().mean().sqrt().item()
    error = restored - original
    colour = torch.nn.functional.avg_pool2d((error - error.mean(0, keepdim=True))[None], 9, 1)
    return {
        "texture": detail.square().mean().sqrt().item() / scale if scale > 1e-6 else None,
        "flat": 255 * detail[:, flat].square().mean().sqrt().item() if flat.any() else None,
        "ringing": 255 * torch.quantile(over.flatten(), 0.99).item(),
        "shift": 255 * error.mean((1, 2)).abs().max().item(),
        "blotches": (colour.square().mean().sqrt() / original.mean()).item(),
    }


def _detail(image: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(image[None], (1, 1, 1, 1), mode="replicate")
    return image - torch.nn.functional.avg_pool2d(padded, 3, 1)[0]


def _around(image: Tensor, reach: int) -> Tensor:
    """The largest value of the surroundings."""
    return torch.nn.functional.max_pool2d(image[None], 2 * reach + 1, 1, reach)[0]


def names(found: dict[str, float | None]) -> list[str]:
    """The faults that these figures amount to."""
    texture, flat = found["texture"], found["flat"]
    made_up = (texture is not None and texture > TEXTURE) or (flat is not None and flat > MADE_UP)
    signs = {
        "made-up texture": made_up,
        "detail lost": texture is not None and texture < LOST,
        "ringing": found["ringing"] > RINGING,
        "shift of brightness or colour": found["shift"] > SHIFT,
        "coloured blotches": found["blotches"] > BLOTCHES,
    }
    return [name for name, there in signs.items() if there]


def usable(weights: str | None) -> dict[str, dict[str, Any]]:
    """PSNR on the Y channel, and LPIPS if its weights are installed; prints if they are missing."""
    from basicsr_ext.metrics import build_metrics
    from studies.quality.study.study import METRICS, Y

    blocks = {"psnr": METRICS["psnr"] | Y, "lpips": METRICS["lpips"]}
    try:
        build_metrics(blocks, weights)
    except InputError as error:
        print(f"without lpips: {error}")
        del blocks["lpips"]
    return blocks


def measure(restored: Tensor, original: Tensor, blocks: dict[str, Any], weights: str | None) -> dict[str, Any]:
    """The metrics and the faults of one image."""
    from basicsr_ext.images.arrays import to_image
    from basicsr_ext.metrics import Sample, build_metrics

    figures: dict[str, Any] = {}
    for name, metric in build_metrics(blocks, weights).items():
        metric.update(Sample(0, name, to_image(restored), gt=to_image(original)))
        figures[name] = metric.compute()
    return figures | faults(restored, original)


def run(work: Path, images: Path, results: Path, weights: str | None) -> dict[str, Any]:
    """Restore every picture; writes the sheet and the figures, and returns the latter."""
    from basicsr_ext.benchmark.report.records import environment
    from i2sb_plugin.space import lift
    from studies.quality.study import sheets

    network = sheets.load(work, "i2sb", TASK)
    blocks, rows, sheet = usable(weights), [], []
    for name, (made, original) in pictures().items():
        small, _ = sheets.degraded(original, {"type": "sr4x_bicubic"})
        columns = {"bicubic": lift(small[None], 4, "bicubic")[0].clamp(0, 1)}
        columns |= {f"I2SB, NFE {n}": network(small, seed=0, nfe=n, sampler="ancestral") for n in STEPS}
        for column, restored in columns.items():
            found = measure(restored, original, blocks, weights)
            rows.append({"picture": name, "made": made, "method": column, **_rounded(found), "faults": names(found)})
        gain = BRIGHTER.get(name, 1)
        sheet.append([image * gain for image in (sheets.enlarged(small, SIDE), *columns.values(), original)])
    shown = sheets.save(sheet, ["degraded", *columns, "original"], images / "results_robustness.jpg", LIMIT)
    record = {"trained": sheets.trained_for(work, "i2sb", TASK), "seed": 0, "side": SIDE, "shown": shown}
    record |= {"environment": environment(), "rows": rows}
    results.mkdir(parents=True, exist_ok=True)
    (results / "robustness.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def _rounded(found: dict[str, float | None]) -> dict[str, float | None]:
    """Four digits; None for what is not finite, such as the PSNR of an exact image."""
    return {k: None if v is None or not np.isfinite(v) else float(f"{v:.4g}") for k, v in found.items()}


def main() -> int:
    """Restore, measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default="study", help="folder of the study")
    parser.add_argument("--results", default=str(HERE / "results"), help="folder for the figures")
    parser.add_argument("--images", default=str(IMAGES), help="folder for the sheet")
    parser.add_argument("--weights", default=os.environ.get("BASICSR_WEIGHTS"), help="folder of the metrics' weights")
    args = parser.parse_args()
    repairs.apply()
    try:
        record = run(Path(args.work), Path(args.images), Path(args.results), args.weights)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in record["rows"]:
        print(f"{row['picture']}, {row['method']}: {', '.join(row['faults']) or 'nothing'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
