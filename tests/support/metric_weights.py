"""Small files of random weights, laid out as the published ones are, for the real loading path."""

from pathlib import Path
from unittest import mock

import torch
import torchvision

NAMES = {
    "alexnet": "alexnet-owt-7be5be79.pth",
    "vgg16": "vgg16-397923af.pth",
    "squeezenet1_1": "squeezenet1_1-b8a52dc0.pth",
}
INCEPTION = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")


def _random(module: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Kaiming's normal weights and small biases, so that features depend on the image in every layer."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if value.dim() > 1:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        elif name.endswith("bias"):
            value.normal_(0, 0.1, generator=generator)
    return module.state_dict()


def trunk_state(name: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        part = getattr(torchvision.models, name)().features
    return {f"features.{key}": value for key, value in _random(part.to_empty(device="cpu"), 1).items()}


def inception_state() -> dict[str, torch.Tensor]:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Inception

    with mock.patch.object(Inception, "load_state_dict"), mock.patch("torch.load"):
        return _random(Inception("inception", ["2048"], feature_extractor_weights_path="none"), 2)


def write(root: Path) -> Path:
    """Write all files below ``root`` as torch's cache has them; returns ``root``."""
    folder = root / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for name, file in NAMES.items():
        torch.save(trunk_state(name), folder / file)
    squeezenet = torchvision.models.squeezenet1_1()  # whole, as torchvision's own loader wants it
    squeezenet.load_state_dict(torch.load(folder / NAMES["squeezenet1_1"]), strict=False)
    torch.save(squeezenet.state_dict(), folder / NAMES["squeezenet1_1"])
    torch.save(inception_state(), folder / INCEPTION[0])
    (folder / INCEPTION[1]).hardlink_to(folder / INCEPTION[0])
    return root
