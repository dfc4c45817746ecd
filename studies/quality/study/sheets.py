"""Pictures for docs/results.md: scikit-image's photographs, restored by the networks of a study."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from basicsr_ext.benchmark.report.records import environment
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.seeds import seed_from
from basicsr_ext.images.decode import decode_image
from i2sb_plugin import Restorer
from i2sb_plugin.data.photographs import prepare
from i2sb_plugin.degradations import build_degradation
from i2sb_plugin.space import lift
from studies.quality.study.plan import Study

__all__ = ["COLUMNS", "compose", "degraded", "draw", "enlarged", "load", "save", "trained_for"]

SIDE = 64  # pixels, as in training
LIMIT = 150_000  # bytes of a sheet
SEED = 0
PLACES = {"astronaut": (84, 92), "chelsea": (78, 48), "coffee": (200, 160)}  # top, left of what is shown
COLUMNS = {  # caption -> network and its flags
    "diffusion, NFE 10": ("diffusion", {"nfe": 10, "order": 2}),
    "I2SB, NFE 1": ("i2sb", {"nfe": 1, "sampler": "ancestral"}),
    "I2SB, NFE 5": ("i2sb", {"nfe": 5, "sampler": "ancestral"}),
    "I2SB, NFE 10": ("i2sb", {"nfe": 10, "sampler": "ancestral"}),
    "I2SB, NFE 100": ("i2sb", {"nfe": 100, "sampler": "ancestral"}),
}


def draw(work: Path, study: Study, images: Path, results: Path) -> list[str]:
    """Write ``results_<task>.png`` for each task whose networks are trained, and what they are to ``sheets.json``.

    Returns:
        A line for each task: the file, or what is missing.

    """
    record = results / "sheets.json"
    known = json.loads(record.read_text()) if record.is_file() else {}
    about = environment()
    lines = []
    for task in study.tasks:
        trained = {network: trained_for(work, network, task) for network in ("i2sb", "diffusion")}
        if None in trained.values():
            absent = [f"{name}-{task}-{SEED}" for name, record in trained.items() if record is None]
            lines.append(f"results_{task}.png: {', '.join(absent)} not trained in {work}")
            continue
        shown = _sheet(work, study.tasks[task]["degradation"], task, images / f"results_{task}.png")
        known[task] = {"trained": trained, "seed": SEED, "photographs": shown, "environment": about}
        lines.append(f"results_{task}.png")
    if known:
        results.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(known, indent=1) + "\n")
    return lines


def trained_for(work: Path, network: str, task: str) -> dict[str, Any] | None:
    """Iterations and seconds of a network of the study; None if its training is not done."""
    file = work / "trained" / f"{network}-{task}-{SEED}.json"
    record = json.loads(file.read_text()) if file.is_file() else {}
    return record if record.get("iterations") and _weights(work, network, task).is_file() else None


def _weights(work: Path, network: str, task: str) -> Path:
    return work / "experiments" / f"{network}-{task}-{SEED}" / "models/net_g_latest.pth"


def load(work: Path, network: str, task: str) -> Restorer:
    """A network of the study; InputError if it is missing."""
    path = _weights(work, network, task)
    if not path.is_file():
        raise InputError(
            f"{path} is missing; run: python -m studies.quality.study --data DIR --work {work} "
            f"--results NEW --only 'claims-{task}-{SEED}'"
        )
    return Restorer.load(path)


def degraded(image: Tensor, block: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    """What of an image C,H,W in [0, 1] is left, and the hole: the same for every network, and drawn unlike its walk."""
    found = build_degradation(dict(block))(image, torch.Generator().manual_seed(seed_from("degradation", SEED)))
    return found.lq.clamp(0, 1), found.mask


def _sheet(work: Path, block: Mapping[str, Any], task: str, target: Path) -> list[str]:
    folder = prepare(work / "data/photographs") / "val"
    networks = {name: load(work, name, task) for name, _ in COLUMNS.values()}
    rows = []
    for name, (top, left) in PLACES.items():
        whole = decode_image((folder / f"{name}.png").read_bytes(), name)
        clean = whole[:, top : top + SIDE, left : left + SIDE]
        lq, mask = degraded(clean, block)
        restored = [networks[network](lq, mask, seed=SEED, **flags) for network, flags in COLUMNS.values()]
        rows.append([enlarged(lq, SIDE), *restored, clean])
    return list(PLACES)[: save(rows, ["degraded", *COLUMNS, "original"], target, LIMIT)]


def enlarged(image: Tensor, side: int) -> Tensor:
    """A smaller image C,h,w with its pixels as squares."""
    return image if image.shape[-1] == side else lift(image[None], side // image.shape[-1], "nearest")[0]


def save(rows: Sequence[Sequence[Tensor]], captions: Sequence[str], target: Path, limit: int) -> int:
    """Write rows of images to a PNG or JPEG: as many, from the first, as ``limit`` bytes hold. Returns how many."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for count in range(len(rows), 0, -1):
        Image.fromarray(compose(rows[:count], captions)).save(target, optimize=True, quality=80, subsampling=0)
        if target.stat().st_size <= limit:
            break
    return count


def compose(rows: Sequence[Sequence[Tensor]], captions: Sequence[str], zoom: int = 2) -> np.ndarray:
    """Images C,H,W in [0, 1], all of one size, under captions: H,W,3 of uint8, each pixel ``zoom`` x ``zoom``."""
    gap, head = 4, 20
    side = zoom * rows[0][0].shape[-1]
    page = np.full((head + len(rows) * (side + gap) - gap, len(captions) * (side + gap) - gap, 3), 255, np.uint8)
    for column, caption in enumerate(captions):
        left = column * (side + gap)
        cv2.putText(page, caption, (left, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
        for row, images in enumerate(rows):
            pixels = (images[column].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            top = head + row * (side + gap)
            page[top : top + side, left : left + side] = pixels.repeat(zoom, 0).repeat(zoom, 1)
    return page
