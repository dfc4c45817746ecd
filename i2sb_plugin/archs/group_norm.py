"""GroupNorm whose gradient takes few passes over images that lie pixel by pixel in a CPU's memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["PixelwiseGroupNorm", "is_pixelwise"]


def is_pixelwise(x: Tensor) -> bool:
    """Whether x (B, C, H, W) is on a CPU and lies pixel by pixel, and not channel by channel."""
    pixelwise = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return pixelwise and x.device.type == "cpu"


class PixelwiseGroupNorm(torch.autograd.Function):
    """torch's GroupNorm of x (B, C, H, W) in channels_last, with a gradient of its own; the gradient has none.

    With y = w (x - m) r + b and n values in a group: dx = w r dy - (r / n) sum(w dy) - (x - m) (r^3 / n)
    sum(w dy (x - m)), the sums over the group.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        """Normalise in ``groups`` groups of channels."""
        batch, channels, height, width = x.shape
        y, mean, rstd = torch.native_group_norm(x, weight, bias, batch, channels, height * width, groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias; one new image is made, in which all passes but the sums work."""
        x, weight, mean, rstd = ctx.saved_tensors
        batch, channels, height, width = x.shape
        groups, pixels = mean.shape[1], height * width
        x, dy = (v.permute(0, 2, 3, 1).reshape(batch, pixels, channels) for v in (x, gradients[0]))

        def grouped(v: Tensor) -> Tensor:
            return v.view(batch, groups, channels // groups)

        def spread(v: Tensor) -> Tensor:
            return v[:, :, None].expand(batch, groups, channels // groups).reshape(batch, 1, channels)

        image = dy * x
        sums, products = dy.sum(1), image.sum(1)
        level, slope = grouped(sums * weight).sum(2), grouped(products * weight).sum(2)
        slope = (level * mean - slope) * rstd**3 * (groups / (pixels * channels))
        level = -slope * mean - level * rstd * (groups / (pixels * channels))
        torch.mul(x, spread(slope), out=image).add_(spread(level)).addcmul_(dy, spread(rstd) * weight)
        d_weight = (grouped(products) - grouped(sums) * mean[:, :, None]).mul(rstd[:, :, None]).sum(0).flatten()
        return image.view(batch, height, width, channels).permute(0, 3, 1, 2), d_weight, sums.sum(0), None, None
