"""LPIPS, by the package lpips."""

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from basicsr_ext.common.errors import InputError, did_you_mean
from basicsr_ext.images.arrays import to_rgb
from basicsr_ext.metrics.base import METRICS, Metric, Sample
from basicsr_ext.metrics.learned.networks import TRUNKS, exact, loaded, metric_device, trunk

_TRUNK_OF = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}


def _build(net: str, path: Path) -> nn.Module:
    """The package's network, made without weights, since it would download them; then filled."""
    import lpips

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # it calls torchvision in an old way
        model = lpips.LPIPS(net=net, pnet_rand=True, pretrained=False, verbose=False)
    model.to_empty(device="cpu").scaling_layer = lpips.ScalingLayer()
    linear = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    model.load_state_dict(torch.load(linear, map_location="cpu", weights_only=True), strict=False)
    state = trunk(_TRUNK_OF[net], path).state_dict()
    for part in model.net.children():  # its layers have the numbers that they have in the trunk
        part.load_state_dict({name: state[name] for name in part.state_dict()})
    return model


_BUILDERS = {net: partial(_build, net) for net in _TRUNK_OF}  # one object of each: networks are kept by it


def lpips_network(net: str, chosen: str | None = None) -> nn.Module:
    """LPIPS v0.1 by the trunk alex, vgg or squeeze: B numbers, as B,1,1,1, of two B,3,H,W RGB in [-1, 1].

    ``chosen`` is the option ``weights``. InputError: an unknown trunk, weights that are missing or wrong.
    """
    if net not in _TRUNK_OF:
        raise InputError(f"net of LPIPS is {net!r}; {did_you_mean(net, _TRUNK_OF)}")
    return loaded(_BUILDERS[net], TRUNKS[_TRUNK_OF[net]], chosen)


def lpips_distance(net: str, first: np.ndarray, second: np.ndarray, chosen: str | None = None) -> float:
    """LPIPS of two images H,W,C uint8 of one size, in OpenCV's order; see :func:`lpips_network`."""
    model, device = lpips_network(net, chosen), metric_device()
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

    packages = ("lpips",)
    extra = "perceptual"
    about = {"version": "0.1", "colour space": "RGB"}

    def __post_init__(self) -> None:
        self.files = (TRUNKS[_TRUNK_OF[self.net]],)  # the linear layers are part of the package

    def measure(self, sample: Sample) -> float:
        """The distance between the restored image and the ground truth."""
        return lpips_distance(self.net, *self.pair(sample), self.weights)
