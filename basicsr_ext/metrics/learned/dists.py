"""DISTS, by the package DISTS-pytorch."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from basicsr_ext.images.arrays import to_rgb
from basicsr_ext.metrics.base import METRICS, Metric, Sample
from basicsr_ext.metrics.learned.networks import TRUNKS, exact, loaded, metric_device, trunk

_STAGES = ((0, 4), (5, 9), (10, 16), (17, 23), (24, 30))  # layers of VGG16; what lies between is pooled in DISTS' way


def build_dists(path: Path) -> nn.Module:
    """The package's network with VGG16's trunk from ``path``; takes two B,3,H,W RGB in [0, 1]."""
    from DISTS_pytorch import DISTS_pt

    class Filled(DISTS_pt.DISTS):
        """Made without the constructor of the package, which downloads a trunk."""

        def __init__(self) -> None:
            nn.Module.__init__(self)
            layers, self.chns = trunk("vgg16", path), [3, 64, 128, 256, 512, 512]
            for k, (first, end) in enumerate(_STAGES):
                pool = [DISTS_pt.L2pooling(channels=self.chns[k])] if k else []
                self.add_module(f"stage{k + 1}", nn.Sequential(*pool, *layers[first:end]))
            self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, -1, 1, 1))
            self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, -1, 1, 1))
            # The package looks for its own file in the root of the environment, where pip may not have put it
            found = torch.load(Path(DISTS_pt.__file__).with_name("weights.pt"), map_location="cpu", weights_only=True)
            self.alpha, self.beta = nn.Parameter(found["alpha"]), nn.Parameter(found["beta"])

    return Filled()


def dists_network(chosen: str | None = None) -> nn.Module:
    """What :func:`build_dists` makes of the file ``chosen``, the option ``weights``; InputError if it is missing."""
    return loaded(build_dists, TRUNKS["vgg16"], chosen)


@METRICS.register("dists")
@dataclass
class DISTS(Metric):
    """Distance of structure and texture; RGB, the whole image at its own size.

    Source: Ding et al., TPAMI 2020 (2004.07728).
    """

    crop_border: int = 0  # pixels left out at every edge
    weights: str | None = None  # file of VGG16, or folder that has it

    packages = ("DISTS_pytorch",)
    extra = "perceptual"
    files = (TRUNKS["vgg16"],)  # the weights of its layers are part of the package
    about = {"colour space": "RGB"}

    def measure(self, sample: Sample) -> float:
        """The distance between the restored image and the ground truth."""
        model, device = dists_network(self.weights), metric_device()
        with exact():
            return float(model(*(to_rgb(image).to(device) / 255 for image in self.pair(sample))))
