"""Parts of ADM's U-Net (2105.05233), with the parameter names of its published weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i2sb_plugin.archs.bridge_network import zeroed
from i2sb_plugin.archs.group_norm import PixelwiseGroupNorm, is_pixelwise

__all__ = [
    "GROUPS",
    "AttentionBlock",
    "Downsample",
    "GroupNorm32",
    "ResBlock",
    "Stage",
    "Upsample",
]

GROUPS = 32  # of every GroupNorm: fixed by the published weights


class GroupNorm32(nn.GroupNorm):
    """GroupNorm of 32 groups in float32 whatever the precision of its input, with what ADM lets follow it.

    Compiled, it is one pass for the moments and one for all the rest, in the memory layout of its input; the plain
    path is the reference.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(GROUPS, channels, eps=1e-5)

    def forward(
        self, x: Tensor, shift: Tensor | None = None, scale: Tensor | None = None, silu: bool = False
    ) -> Tensor:
        """Normalise x (B, C, ...), then ``(1 + scale) * x + shift`` (B, C), then SiLU; in the precision of x."""
        wide = torch.promote_types(x.dtype, torch.float32)
        if torch.compiler.is_compiling():
            y = self._in_one_pass(x.to(wide), *self._affine(wide, shift, scale))
        elif is_pixelwise(x):
            gain, offset = (v.expand(x.shape[:2]) for v in self._affine(wide, shift, scale))
            y = PixelwiseGroupNorm.apply(x.to(wide), gain, offset, self.num_groups, self.eps)
        else:
            y = F.group_norm(x.to(wide), self.num_groups, self.weight.to(wide), self.bias.to(wide), self.eps)
            if shift is not None and scale is not None:
                y = torch.addcmul(_like(shift, x), y, 1 + _like(scale, x))
        y = y.to(x.dtype)
        return F.silu(y, inplace=not y.requires_grad) if silu else y

    def _affine(self, wide: torch.dtype, shift: Tensor | None, scale: Tensor | None) -> tuple[Tensor, Tensor]:
        """What is multiplied and added after normalising, (C) or with a scale (B, C)."""
        gain, offset = self.weight.to(wide), self.bias.to(wide)
        if shift is None or scale is None:
            return gain, offset
        more = 1 + scale.to(wide)
        return gain * more, offset * more + shift.to(wide)

    def _in_one_pass(self, x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
        var, mean = torch.var_mean(x.unflatten(1, (self.num_groups, -1)), list(range(2, x.ndim + 1)), correction=0)
        each = self.num_channels // self.num_groups
        gain = torch.rsqrt(var + self.eps).repeat_interleave(each, dim=1) * gain
        return x * _like(gain, x) + _like(offset - mean.repeat_interleave(each, dim=1) * gain, x)


def _like(vector: Tensor, x: Tensor) -> Tensor:
    """(B, C) with as many axes as x."""
    return vector.reshape(*vector.shape, *[1] * (x.ndim - 2))


class PointwiseConv(nn.Conv2d):
    """Convolution of one pixel: in channels_last a product of two matrices, whose gradient is quicker as one."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, 1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PointwiseConv:
        """Keep the strides of a matrix in every layout, as its gradient has them, so that none has to be copied."""
        super()._apply(fn, recurse)
        self.weight.data = self.weight.data.flatten(1)[:, :, None, None]
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out_channels, H, W)."""
        if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class Downsample(nn.Module):
    """Halve height and width: a strided convolution, or the mean of 2x2 where ``learned`` is false."""

    def __init__(self, channels: int, learned: bool) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if learned else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H/2, W/2)."""
        return self.op(x)


class Upsample(nn.Module):
    """Double height and width by repeating pixels, followed by a convolution where ``learned`` is true.

    ``fold`` takes both at once from the small image; None does so on a CPU alone.
    """

    fold: bool | None = None

    def __init__(self, channels: int, learned: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if learned else nn.Identity()

    def forward(self, x: Tensor, conv: nn.Module | None = None) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W); ``conv`` of the caller takes the place of its own."""
        conv = conv or self.conv
        fold = x.device.type == "cpu" if self.fold is None else self.fold
        if fold and not torch.jit.is_tracing() and isinstance(conv, nn.Conv2d):
            return _doubled_and_convolved(x, conv)
        return conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _doubled_and_convolved(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 3x3 convolution of the doubled image, taken from x (B, C, H, W) itself: 4 products for each pixel, not 9.

    Where pixels repeat, the taps that meet the same one can be added up before: row by row (w2, w2 + w1, w1 + w0, w0),
    and column by column the same, are the kernel of a transposed convolution with stride 2.
    """
    kernel = F.pad(conv.weight.flip(2, 3), (1, 1, 1, 1))
    kernel = kernel[:, :, :-1] + kernel[:, :, 1:]
    kernel = (kernel[..., :-1] + kernel[..., 1:]).transpose(0, 1)
    return F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1)


class ResBlock(nn.Module):
    """Two convolutions with the time embedding between them, added to the input.

    With ``resample`` (an :class:`Upsample` or :class:`Downsample` without weights) the size changes after the first
    normalisation, and on the skip path too.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        time_channels: int,
        scale_shift: bool,
        dropout: float = 0.0,
        resample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(
            GroupNorm32(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(time_channels, 2 * out_channels if self.scale_shift else out_channels)
        )
        self.out_layers = nn.Sequential(
            GroupNorm32(out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else PointwiseConv(channels, out_channels)
        self.resample = nn.Identity() if resample is None else resample

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x (B, C, H, W) and the time embedding (B, time_channels) to (B, out_channels, H', W')."""
        norm, _, conv = self.in_layers
        h = norm(x, silu=True)
        h = self.resample(h, conv) if isinstance(self.resample, Upsample) else conv(self.resample(h))
        norm, _, dropout, conv = self.out_layers
        shift = self.emb_layers(emb).to(h.dtype)
        if self.scale_shift:
            scale, shift = shift.chunk(2, dim=1)
            h = norm(h, shift, scale, silu=True)
        else:
            h = norm(h + _like(shift, h), silu=True)
        return conv(dropout(h)).add_(self.skip_connection(self.resample(x)))


class AttentionBlock(nn.Module):
    """Self-attention over the pixels, added to the input.

    Legacy order of the 3C channels of ``qkv``: [head][q, k, v][channel]; new order: [q, k, v][head][channel].
    """

    def __init__(self, channels: int, heads: int, new_order: bool) -> None:
        super().__init__()
        self.heads = heads
        self.new_order = new_order
        self.norm = GroupNorm32(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)
        zeroed(self.proj_out)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x (B, C, H, W) to the same shape; ``emb`` is not used."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        qkv = F.linear(tokens, self.qkv.weight.squeeze(-1), self.qkv.bias)
        if self.new_order:
            q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        else:
            q, k, v = qkv.unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = F.linear(h, self.proj_out.weight.squeeze(-1), self.proj_out.bias)
        return x + h.transpose(1, 2).unflatten(2, x.shape[2:])


class Stage(nn.Sequential):
    """Layers in a row; those that know the time get its embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]  # a row of layers takes x alone
        """Apply all layers to x (B, C, H, W)."""
        for layer in self:
            x = layer(x, emb) if isinstance(layer, (ResBlock, AttentionBlock)) else layer(x)
        return x
