"""DISTS, by the package DISTS-pytorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import nn

from basicsr_ext.images.arrays import to_rgb
from basicsr_ext.metrics.base import METRICS, Metric, Sample
from basicsr_ext.metrics.learned.images import exact, metric_device
from basicsr_ext.metrics.learned.networks import TRUNKS, loaded, trunk
from basicsr_ext.metrics.learned.weights import WeightsFile

__all__ = ["DISTS", "build_dists"]


def build_dists(path: Path) -> nn.Module:
    """The package's network with VGG16's trunk from ``path``; takes two B,3,H,W RGB in [0, 1]."""
    from DISTS_pytorch import DISTS_pt

    zoo = SimpleNamespace(vgg16=lambda pretrained: SimpleNamespace(features=trunk("vgg16", path)))
    with mock.patch.object(DISTS_pt, "models", zoo):  # it would download
        model = DISTS_pt.DISTS(load_weights=False)
    # The package looks for its own file in the root of the environment, where pip may not have put it
    found = torch.load(Path(DISTS_pt.__file__).with_name("weights.pt"), map_location="cpu", weights_only=True)
    model.alpha.data, model.beta.data = found["alpha"], found["beta"]
    return model


@METRICS.register("dists")
@dataclass
class DISTS(Metric):
    """Distance of structure and texture; RGB, the whole image at its own size.

    Source: Ding et al., TPAMI 2020 (2004.07728).
    """

    crop_border: int = 0  # pixels left out at every edge
    weights: str | None = None  # file of VGG16, or folder that has it

    packages: ClassVar[tuple[str, ...]] = ("DISTS_pytorch",)
    extra: ClassVar[str] = "perceptual"

    def weights_files(self) -> list[WeightsFile]:
        """VGG16's trunk; the weights of the layers are part of the package."""
        return [TRUNKS["vgg16"]]

    def measure(self, sample: Sample) -> float:
        """The distance between the restored image and the ground truth."""
        model, device = loaded(build_dists, TRUNKS["vgg16"], self.weights), metric_device()
        pair = (self.cropped(image, sample) for image in (sample.restored, sample.gt))
        with exact():
            return float(model(*(to_rgb(image).to(device) / 255 for image in pair)))

    def identity(self) -> dict[str, Any]:
        """With the colour space."""
        return super().identity() | {"colour space": "RGB"}
