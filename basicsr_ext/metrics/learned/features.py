"""Networks that turn an image into a vector, for distances between sets of images."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from basicsr_ext.images.arrays import to_rgb
from basicsr_ext.metrics.learned.networks import TRUNKS, exact, loaded, metric_device, normalized, trunk
from basicsr_ext.metrics.learned.weights import WeightsFile, fill

_VIEWS = 32  # computed at once
_INCEPTION = WeightsFile(
    "weights-inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "Apache-2.0, TensorFlow models",
)
_INCEPTION_PYTORCH = WeightsFile(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "Apache-2.0, TensorFlow models",
)


@dataclass(frozen=True)
class Features:
    """A network that turns images into vectors."""

    file: WeightsFile
    build: Callable[[Path], nn.Module]  # from the path of the file
    run: Callable[[nn.Module, Tensor], Tensor]  # B,3,H,W RGB in [0, 255] to B,D
    least: int = 1  # the smallest side that it takes, in pixels
    packages: tuple[str, ...] = ()  # modules that it needs beside torch_fidelity


def _inception(path: Path) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Empty(FeatureExtractorInceptionV3):
        """Takes whatever its constructor reads, which would unpickle anything: it is given a file without tensors."""

        def load_state_dict(self, state: Any, strict: bool = False, assign: bool = False) -> Any:
            return super().load_state_dict(state, strict=False)

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    net = Empty("inception", ["2048"], feature_extractor_weights_path=nothing)
    return fill(net, _INCEPTION.load(str(path)), path, "the FID's Inception")


def _inception_pytorch(path: Path) -> nn.Module:
    """torchvision's network with the blocks that clean-fid changes; its own constructor would download weights."""
    from cleanfid import inception_pytorch as theirs
    from torchvision.models import inception_v3

    net = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    net.Mixed_5b = theirs.FIDInceptionA(192, pool_features=32)
    net.Mixed_5c, net.Mixed_5d = (theirs.FIDInceptionA(inputs, pool_features=64) for inputs in (256, 288))
    for letter, channels in zip("bcde", (128, 160, 160, 192)):
        setattr(net, f"Mixed_6{letter}", theirs.FIDInceptionC(768, channels_7x7=channels))
    net.Mixed_7b, net.Mixed_7c = theirs.FIDInceptionE_1(1280), theirs.FIDInceptionE_2(2048)
    fill(net, _INCEPTION_PYTORCH.load(str(path)), path, "the FID's Inception")
    net.fc = nn.Identity()
    return net


def _pooled(net: nn.Module, rgb: Tensor) -> Tensor:
    return net(normalized(rgb)).mean(dim=(2, 3))


def _inception_layer(layer: str) -> Callable[[nn.Module, Tensor], Tensor]:
    def run(net: Any, rgb: Tensor) -> Tensor:
        net.features_list = [layer]  # it stops at the last one
        return net(rgb.to(torch.uint8))[0]

    return run


def _legacy_pytorch(net: nn.Module, rgb: Tensor) -> Tensor:
    """The images as clean-fid's mode of that name resizes them."""
    from cleanfid.resize import build_resizer

    resize = build_resizer("legacy_pytorch")
    images = [torch.from_numpy(resize(image.permute(1, 2, 0).cpu().numpy())).permute(2, 0, 1) for image in rgb]
    return net(2 * (torch.stack(images).to(rgb.device) / 255) - 1)


FEATURES: dict[str, Features] = {
    "inception": Features(_INCEPTION, _inception, _inception_layer("2048")),
    "inception_pytorch": Features(_INCEPTION_PYTORCH, _inception_pytorch, _legacy_pytorch, packages=("cleanfid",)),
    # without the last pooling
    "alexnet": Features(TRUNKS["alexnet"], lambda path: trunk("alexnet", path)[:12], _pooled, least=31),
    "vgg16": Features(TRUNKS["vgg16"], lambda path: trunk("vgg16", path)[:30], _pooled, least=16),
}
for _layer in ("64", "192", "768"):  # shallower layers of the FID's network
    FEATURES[f"inception_{_layer}"] = replace(FEATURES["inception"], run=_inception_layer(_layer))


def features(name: str, views: list[np.ndarray], chosen: str | None = None) -> np.ndarray:
    """Vectors N,D float32 of the N views H,W,C uint8 of one image; they do not depend on which images come with it.

    ``name`` is one of :data:`FEATURES`; the views have one size and OpenCV's order of channels; ``chosen`` is the
    option ``weights``. Raises InputError if the weights are missing or wrong.
    """
    spec = FEATURES[name]
    net, device = loaded(spec.build, spec.file, chosen), metric_device()
    with exact():
        rgb = torch.cat([to_rgb(view) for view in views])
        rows = [spec.run(net, part.to(device)).float().cpu() for part in rgb.split(_VIEWS)]
    return torch.cat(rows).numpy()
