"""One example of every registered degradation, with the files that some of them need."""

import functools
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

from i2sb_plugin.degradations import DEGRADATIONS, build_degradation

NAMES = DEGRADATIONS.keys()
SIZES = [(48, 96), (33, 47)]  # the second one: odd sides


@functools.cache
def folder():
    """A kernel, and masks of the two sizes, made once in a folder that goes with the process."""
    holder = tempfile.TemporaryDirectory()
    root = Path(holder.name)
    kernel = np.random.default_rng(0).random((5, 3))
    np.save(root / "kernel.npy", kernel)
    for height, width in SIZES:
        masks = root / f"{height}x{width}"
        masks.mkdir()
        for number in range(3):
            mask = np.zeros((height, width), np.uint8)
            mask[4 + number : 20, 3 : 20 + number] = 255
            cv2.imwrite(str(masks / f"{number}.png"), mask)
    return holder, root


def example(name, size=SIZES[0]):
    """Options of the degradation ``name`` that fit images of ``size``."""
    root = folder()[1]
    masks = str(root / f"{size[0]}x{size[1]}")
    needed = {
        "blur_kernel": {"path": str(root / "kernel.npy")},
        "inpaint_masks": {"masks": masks},
        "compose": {"of": [{"type": "blur_gauss", "sigma": [0.5, 2]}, {"type": "noise_gauss", "sigma": [0, 0.1]}]},
    }
    return {"type": name, **needed.get(name, {})}


def build(name, size=SIZES[0]):
    """Degradation ``name`` for images of ``size``."""
    return build_degradation(example(name, size))


def image(*shape, seed=0):
    """Noise in [0,1]."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def generator(seed=7):
    """Seeded generator."""
    return torch.Generator().manual_seed(seed)
