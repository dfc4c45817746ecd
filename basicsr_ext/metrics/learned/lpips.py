"""LPIPS, by the package lpips."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal
from unittest import mock

import numpy as np
from torch import nn

from basicsr_ext.images.arrays import to_rgb
from basicsr_ext.metrics.base import METRICS, Metric, Sample
from basicsr_ext.metrics.learned.images import exact, metric_device
from basicsr_ext.metrics.learned.networks import TRUNKS, loaded, trunk
from basicsr_ext.metrics.learned.weights import WeightsFile

__all__ = ["LPIPS", "lpips_distance"]

_TRUNK_OF = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}


def _build(net: str, path: Path) -> nn.Module:
    import lpips

    name = _TRUNK_OF[net]
    zoo = SimpleNamespace(**{name: lambda pretrained: SimpleNamespace(features=trunk(name, path))})
    with mock.patch.object(lpips.pretrained_networks, "tv", zoo), warnings.catch_warnings():  # it would download
        warnings.simplefilter("ignore")
        return lpips.LPIPS(net=net, verbose=False)


_BUILDERS = {net: partial(_build, net) for net in _TRUNK_OF}


def lpips_distance(net: str, first: np.ndarray, second: np.ndarray, chosen: str | None = None) -> float:
    """LPIPS v0.1 of two images H,W,C uint8 of one size, in OpenCV's order.

    Args:
        net: alex, vgg or squeeze.
        first: an image.
        second: another.
        chosen: the option ``weights``.

    Raises:
        InputError: the weights are missing or wrong.

    """
    model, device = loaded(_BUILDERS[net], TRUNKS[_TRUNK_OF[net]], chosen), metric_device()
    with exact():
        return float(model(*(to_rgb(image).to(device) / 127.5 - 1 for image in (first, second))))


@METRICS.register("lpips")
@dataclass
class LPIPS(Metric):
    """Learned perceptual distance, version 0.1; RGB, the whole image.

    Source: Zhang et al., CVPR 2018 (1801.03924).
    """

    net: Literal["alex", "vgg", "squeeze"] = "alex"  # the trunk; papers on restoration report alex
    crop_border: int = 0  # pixels left out at every edge
    weights: str | None = None  # file of the trunk, or folder that has it

    packages: ClassVar[tuple[str, ...]] = ("lpips",)
    extra: ClassVar[str] = "perceptual"

    def weights_files(self) -> list[WeightsFile]:
        """The trunk; the linear layers are part of the package."""
        return [TRUNKS[_TRUNK_OF[self.net]]]

    def measure(self, sample: Sample) -> float:
        """The distance between the restored image and the ground truth."""
        first, second = (self.cropped(image, sample) for image in (sample.restored, sample.gt))
        return lpips_distance(self.net, first, second, self.weights)

    def identity(self) -> dict[str, Any]:
        """With the version of the linear layers and the colour space."""
        return super().identity() | {"version": "0.1", "colour space": "RGB"}
