"""Makes the pictures of docs/tasks.md: every degradation of a photograph, and what a network trained on it restores.

    python -m docs.make.tasks --work FOLDER [--only jpeg blur_motion] [--iterations 1500]

Each picture shows lq (enlarged where it is smaller) and its restoration. A small network is trained for each on
scikit-image's photographs, about a minute on a CPU; the photographs that are shown are not among them.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from PIL import Image

from basicsr_ext import cli
from basicsr_ext.images.decode import decode_image
from basicsr_ext.images.pictures import Picture, write_picture
from i2sb_plugin import Restorer
from i2sb_plugin.data.photographs import prepare
from i2sb_plugin.degradations import build_degradation
from i2sb_plugin.degradations.masks import draw_mask
from i2sb_plugin.space import lift

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs/images"
SIDE = 112  # of the part that is shown, pixels
COLOURS = 64  # of a picture: a palette keeps the files small
TASKS: dict[str, dict[str, Any]] = {
    "jpeg": {"quality": 10},
    "jpeg_codec": {"quality": [10, 40]},
    "sr4x_pool": {},
    "sr4x_bicubic": {},
    "blur_uniform": {"size": 9},
    "blur_gauss": {"sigma": 2.0},
    "blur_motion": {"length": 15, "angle": 30},
    "blur_anisotropic": {"sigma_x": 4.0, "sigma_y": 1.0, "angle": 30},
    "blur_kernel": {"path": "kernel.npy"},
    "blur_released_uniform": {},
    "blur_released_gauss": {},
    "inpaint_center": {},
    "inpaint_freeform": {"area": [0.2, 0.3]},
    "inpaint_masks": {"masks": "masks"},
    "mixture": {},
    "noise_gauss": {"sigma": 0.196},
    "noise_poisson": {"peak": 20},
    "decolor": {},
    "compose": {"of": [{"type": "blur_gauss", "sigma": 1.0}, {"type": "noise_gauss", "sigma": 0.04}]},
    "real_esrgan": {},
}
SHOWN = {"decolor": ("coffee", 100, 30)}  # photograph, top, left
USUAL = ("astronaut", 40, 40)


def main() -> None:
    """Make the pictures that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS), help="degradations")
    parser.add_argument("--iterations", type=int, default=250, help="of each training")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    IMAGES.mkdir(exist_ok=True)
    os.chdir(arguments.work)
    photographs = prepare()
    make_kernel_and_masks()
    show("clean", *(crop(photographs, *place) for place in (USUAL, SHOWN["decolor"])))
    for name in arguments.only:
        clean = crop(photographs, *SHOWN.get(name, USUAL))
        lq, mask = build_degradation({"type": name, **TASKS[name]})(clean, torch.Generator().manual_seed(2))
        restorer = train(name, arguments.iterations)
        restored = restorer(lq.clamp(0, 1), mask, seed=0, nfe=1)
        show(f"task_{name}", lift(lq[None], SIDE // lq.shape[-1], "nearest")[0], restored)


def make_kernel_and_masks() -> None:
    """Write what two of the degradations read: a ring as a kernel, and masks of letters and strokes."""
    distance = np.hypot(*np.mgrid[-5:6, -5:6])
    np.save("kernel.npy", np.clip(1.5 - np.abs(distance - 4), 0, 1))
    for side, folder in ((SIDE, "masks"), (32, "masks_32")):
        Path(folder).mkdir(exist_ok=True)
        for number in range(20):
            mask = draw_mask(side, side, (0.05, 0.15), np.random.default_rng(number)) * 255
            cv2.putText(mask, "I2SB", (4, side // 2), cv2.FONT_HERSHEY_SIMPLEX, side / 60, 255, max(2, side // 30))
            write_picture(f"{folder}/{number:02d}.png", Picture(torch.from_numpy(mask)[None] / 255))


def crop(photographs: Path, name: str, top: int, left: int) -> torch.Tensor:
    """Part of a validation photograph: 3,SIDE,SIDE."""
    path = photographs / "val" / f"{name}.png"
    return decode_image(path.read_bytes(), str(path))[:, top : top + SIDE, left : left + SIDE]


def train(name: str, iterations: int) -> Restorer:
    """Train a small network on the degradation by `basicsr train`, unless its run is there."""
    checkpoint = Path("experiments", name, "models/net_g_latest.pth")
    if not checkpoint.is_file():
        Path(f"{name}.yml").write_text(yaml.safe_dump(options(name, iterations)))
        if cli.main(["train", "-opt", f"{name}.yml"]):
            raise SystemExit(f"the training of {name} failed")
    return Restorer.load(checkpoint)


def options(name: str, iterations: int) -> dict[str, Any]:
    """Option file of a training: that of super-resolution with another degradation and a small network."""
    degradation = {"type": name, **TASKS[name]}
    if name == "inpaint_masks":
        degradation["masks"] = "masks_32"
    opt = yaml.safe_load((ROOT / "options/i2sb_sr4x_plain.yml").read_text())
    opt |= {"name": name, "scale": build_degradation(degradation).scale, "num_gpu": 0}
    opt["datasets"] = {"train": {**opt["datasets"]["train"], "degradation": degradation, "gt_size": 32}}
    opt["datasets"]["train"] |= {"batch_size_per_gpu": 8, "dataset_enlarge_ratio": 1000, "cache": True}
    opt["network_g"] |= {"channel_mult": [1], "attention_ds": []}
    if name == "decolor":
        opt["bridge"] |= {"cond_x1": True}
        opt["network_g"] |= {"cond_channels": 3}
    if name.startswith("inpaint"):
        opt["train"]["bridge_opt"] |= {"per_hole": True}
    opt["train"] |= {"total_iter": iterations, "warmup_iter": 20, "ema_decay": 0.99}
    opt["train"]["optim_g"]["lr"] = 2e-3
    opt["train"]["scheduler"]["periods"] = [iterations]
    opt["logger"] |= {"save_checkpoint_freq": iterations, "use_tb_logger": False}
    del opt["val"]
    return opt


def show(name: str, *images: torch.Tensor) -> None:
    """Write images side by side with a white line between them, in few colours."""
    gap = torch.ones(3, SIDE, 4)
    row = torch.cat([part for image in images for part in (image.clamp(0, 1), gap)][:-1], -1)
    pixels = (row * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).quantize(COLOURS, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
