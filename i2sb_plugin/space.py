"""From BasicSR's pixels, in [0, 1] and small, to the bridge, in [-1, 1] at full size, and back."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LIFTS", "decode", "encode", "lift", "match_channels"]

LIFTS = ("bicubic", "bilinear", "nearest")


def lift(image: Tensor, scale: int, mode: str = "bicubic") -> Tensor:
    """Enlarge B,C,h,w to B,C,scale*h,scale*w; ``nearest`` is the release's way, ``bicubic`` starts nearer to x0.

    The bicubic kernel is Keys' with a = -0.5, as MATLAB's and PIL's (torch's own default is -0.75).

    Raises:
        ValueError: ``mode`` is not one of :data:`LIFTS`.
    """
    if mode not in LIFTS:
        raise ValueError(f"bridge.lift is {mode!r}; it must be one of {', '.join(LIFTS)}")
    if scale == 1:
        return image
    if torch.jit.is_tracing():  # into a graph, where no operator of every runtime is the one below
        return _lift_by_convolution(image, scale, mode)
    if mode == "nearest":
        return image.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    return F.interpolate(image, scale_factor=scale, mode=mode, align_corners=False, antialias=True)


def _lift_by_convolution(image: Tensor, scale: int, mode: str) -> Tensor:
    """What :func:`lift` gives, up to rounding: a kernel for each pixel of a cell, by what of it lies in the image."""
    places = [(k + 0.5) / scale - 0.5 for k in range(scale)]  # of the cell's pixels, from its middle
    lines = [[_KERNELS[mode](abs(x - place)) for x in range(-2, 3)] for place in places]
    kernels = [[[[y * x for x in across] for y in down]] for down in lines for across in lines]
    channels = int(image.shape[1])
    cells = F.conv2d(image, torch.tensor(channels * kernels), padding=2, groups=channels)
    inside = F.conv2d(torch.ones_like(image[:1, :1]), torch.tensor(kernels), padding=2)
    return F.pixel_shuffle(cells, scale) / F.pixel_shuffle(inside, scale)


def _cubic(distance: float) -> float:
    """Keys' kernel with a = -0.5 (1981, eq. 15)."""
    if distance <= 1:
        return (1.5 * distance - 2.5) * distance**2 + 1
    return max(0.0, 2 - distance) * (-0.5) * (distance - 1) * (2 - distance)


_KERNELS: dict[str, Callable[[float], float]] = {
    "bicubic": _cubic,
    "bilinear": lambda distance: max(0.0, 1 - distance),
    "nearest": lambda distance: float(distance < 0.5),
}


def encode(image: Tensor, scale: int = 1, mode: str = "bicubic") -> Tensor:
    """Lift B,C,h,w in [0, 1] to B,C,scale*h,scale*w in [-1, 1]."""
    return lift(image, scale, mode).mul(2).sub_(1)


def decode(x: Tensor, clamp: bool = True) -> Tensor:
    """B,C,H,W of the bridge, about [-1, 1], to an image clamped to [0, 1]; undoes :func:`encode` at scale 1.

    Without ``clamp`` it may leave [0, 1], as data may that have no bounds.
    """
    image = x.add(1).div_(2)
    return image.clamp_(0, 1) if clamp else image


def match_channels(x: Tensor, channels: int) -> Tensor:
    """Bring B,C,H,W to ``channels``, so that a bridge may join images of different channels.

    One channel is repeated; many become one by their mean; of more than wanted the first are taken (RGB of RGBA).

    Raises:
        ValueError: fewer channels, but more than one, than wanted.
    """
    have = x.shape[1]
    if have == channels:
        return x
    if have == 1:
        return x.expand(-1, channels, -1, -1)
    if channels == 1:
        return x.mean(1, keepdim=True)
    if have > channels:
        return x[:, :channels]
    raise ValueError(f"lq has {have} channels, gt {channels}; lq must have 1, {channels} or more")
