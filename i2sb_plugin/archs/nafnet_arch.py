"""NAFNet (Chen et al., 2204.04676) that knows the time, as the bridge's network."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from basicsr_ext.common.errors import InputError
from i2sb_plugin.archs.bridge_network import (
    BridgeNetwork,
    Unshuffle,
    chosen_preset,
    dtype_of,
    float32,
    time_embedding,
)

__all__ = ["PRESETS", "ConditionalNAFNet", "NAFNetLayout"]


@dataclasses.dataclass(frozen=True)
class NAFNetLayout:
    """Size and shape of the network; every field is an option of :class:`ConditionalNAFNet` and described there."""

    width: int = 32
    encoder_blocks: Sequence[int] = (2, 2, 4, 8)
    middle_blocks: int = 12
    decoder_blocks: Sequence[int] = (2, 2, 2, 2)
    unshuffle: Unshuffle = 1
    full_size: int = 0
    pool_size: int | None = None

    def __post_init__(self) -> None:
        """Refuse a layout that cannot be built, naming the option."""
        if self.width < 2:
            raise InputError(f"network_g.width is {self.width}; it must be 2 or more")
        if self.pool_size is not None and self.pool_size < 1:
            raise InputError(f"network_g.pool_size is {self.pool_size}; it must be the side of the crops, or left out")
        if not self.encoder_blocks or min(self.encoder_blocks) < 0:
            raise InputError(
                f"network_g.encoder_blocks is {list(self.encoder_blocks)}; give the number of blocks of each level, "
                "such as [1, 1, 1, 4]"
            )
        if self.middle_blocks < 0:
            raise InputError(f"network_g.middle_blocks is {self.middle_blocks}; it must be 0 or more")
        if len(self.decoder_blocks) != len(self.encoder_blocks) or min(self.decoder_blocks) < 0:
            raise InputError(
                f"network_g.decoder_blocks is {list(self.decoder_blocks)}; it must have a number for each of the "
                f"{len(self.encoder_blocks)} levels of encoder_blocks"
            )

    @property
    def widths(self) -> list[int]:
        """Channels of each level, the finest first, and of the middle."""
        return [self.width * 2**level for level in range(len(self.encoder_blocks) + 1)]

    @property
    def windows(self) -> list[int | None]:
        """Side of what each of these levels takes its means over, in its own pixels; None for the whole image."""
        sizes = [self.unshuffle * 2**level for level in range(len(self.encoder_blocks) + 1)]
        return [None if self.pool_size is None else -(-self.pool_size // size) for size in sizes]


_SMALL = NAFNetLayout(32, (1, 1, 1, 4), 1, (1, 1, 1, 1))
PRESETS: dict[str, NAFNetLayout] = {
    "fast": dataclasses.replace(_SMALL, unshuffle=2),
    "small": _SMALL,
    "base": NAFNetLayout(32),  # the layout of the paper's denoiser, at both of its widths
    "large": NAFNetLayout(64),
}


@ARCH_REGISTRY.register()
class ConditionalNAFNet(BridgeNetwork):
    """NAFNet whose blocks are scaled and shifted by the time, for images of any size and any number of channels.

    A U-Net without activation functions: channels are gated by each other and weighted by their mean over the whole
    image. The last convolution starts at zero: an untrained network predicts 0. Options left at None come from the
    preset.

    Args:
        in_channels: channels of xt.
        out_channels: channels of the prediction.
        cond_channels: channels of the condition, which the first convolution sees after those of xt; 0 for none.
        preset: 'fast' ('small' with ``unshuffle`` 2: a quarter of its cost), 'small', 'base' (the paper's denoiser of
            width 32) or 'large' (the same of width 64).
        width: channels of the finest level; each further level doubles them and halves the size.
        encoder_blocks: blocks of each level on the way down, the finest level first.
        middle_blocks: blocks at the coarsest size.
        decoder_blocks: blocks of each level on the way up, in the order of ``encoder_blocks``: the finest level first.
        unshuffle: 2 or 4: the layers work on an image of a half or a quarter of the height and width, whose channels
            hold its pixels, at about a quarter or a sixteenth of the cost; 1 for full size.
        full_size: channels of a last convolution at full size, after unshuffled layers, such as 16; 0 for none.
        pool_size: side of the training crops in pixels. In a larger image each pixel's channels are then weighted by
            their mean over that much around it, as in the crops, and tiles larger than the crops agree better with the
            whole image, for two cumulative sums in each block; None for the mean over the whole image or tile.

    Raises:
        ValueError: an option that cannot be built; the message names it.

    Source: NAFNet (2204.04676) section 3; scale and shift by the time as in Refusion (2304.08291) section 4; means
    over the size of the crops: TLC (2112.04491) section 3.
    """

    first_weight: ClassVar[str | None] = "first.weight"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        cond_channels: int = 0,
        preset: str = "small",
        width: int | None = None,
        encoder_blocks: Sequence[int] | None = None,
        middle_blocks: int | None = None,
        decoder_blocks: Sequence[int] | None = None,
        unshuffle: Unshuffle | None = None,
        full_size: int | None = None,
        pool_size: int | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "width": width, "encoder_blocks": encoder_blocks, "middle_blocks": middle_blocks,
            "decoder_blocks": decoder_blocks, "unshuffle": unshuffle, "full_size": full_size,
            "pool_size": pool_size,
        }  # fmt: skip
        changes = {name: value for name, value in options.items() if value is not None}
        layout = dataclasses.replace(chosen_preset(PRESETS, preset), **changes)
        super().__init__(in_channels, out_channels, cond_channels, layout.unshuffle, layout.full_size)
        self.layout = layout
        self.multiple = layout.unshuffle * 2 ** len(layout.encoder_blocks)
        self._build()

    def _build(self) -> None:
        layout, widths, windows = self.layout, self.layout.widths, self.layout.windows
        time_channels = 4 * layout.width
        self.time_embed = nn.Sequential(
            nn.Linear(layout.width, time_channels), nn.SiLU(), nn.Linear(time_channels, time_channels), nn.SiLU()
        )
        self.first = nn.Conv2d(self.layer_inputs, layout.width, 3, padding=1)
        self.encoder = nn.ModuleList(
            Blocks(width, count, time_channels, window)
            for width, count, window in zip(widths, layout.encoder_blocks, windows)
        )
        self.downs = nn.ModuleList(nn.Conv2d(width, 2 * width, 2, stride=2) for width in widths[:-1])
        self.middle = Blocks(widths[-1], layout.middle_blocks, time_channels, windows[-1])
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * width, 4 * width, 1, bias=False), nn.PixelShuffle(2)) for width in widths[:-1]
        )
        self.decoder = nn.ModuleList(
            Blocks(width, count, time_channels, window)
            for width, count, window in zip(widths, layout.decoder_blocks, windows)
        )
        self.last = self.last_layer(nn.Conv2d(layout.width, self.layer_outputs, 3, padding=1))

    def predict(self, h: Tensor, t: Tensor) -> Tensor:
        """Run the U-Net; the embedding of the time is computed in the precision of the weights."""
        with float32(h):
            emb = self.time_embed(time_embedding(t, self.layout.width).to(dtype_of(self.time_embed)))
        h = self.first(h.to(dtype_of(self.first)))
        skips = []
        for blocks, down in zip(self.encoder, self.downs):
            h = blocks(h, emb)
            skips.append(h)
            h = down(h)
        h = self.middle(h, emb)
        for blocks, up in zip(reversed(self.decoder), reversed(self.ups)):
            h = blocks(up(h) + skips.pop(), emb)
        return self.last(h)

    def compiled_parts(self) -> Iterator[nn.Module]:
        """The blocks."""
        return (module for module in self.modules() if isinstance(module, NAFBlock))


class Blocks(nn.ModuleList):
    """Blocks of one level in a row."""

    def __init__(self, width: int, count: int, time_channels: int, window: int | None) -> None:
        super().__init__(NAFBlock(width, time_channels, window) for _ in range(count))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Apply all blocks to x (B, width, H, W)."""
        for block in self:
            x = block(x, emb)
        return x


class NAFBlock(nn.Module):
    """Spatial mixing, then channel mixing, each normalised, scaled and shifted by the time, and added to its input.

    Both start at zero, so that an untrained block passes its input on. Source: NAFNet (2204.04676) figure 3 and eq. 6.
    """

    def __init__(self, width: int, time_channels: int, window: int | None = None) -> None:
        super().__init__()
        self.window = window
        self.time = nn.Linear(time_channels, 4 * width)
        self.mix_norm = nn.LayerNorm(width, eps=1e-6)
        self.mix_in = nn.Conv2d(width, 2 * width, 1)
        self.mix_near = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.weigh = nn.Conv2d(width, width, 1)
        self.mix_out = nn.Conv2d(width, width, 1)
        self.mix_gain = nn.Parameter(torch.zeros(width, 1, 1))
        self.feed_norm = nn.LayerNorm(width, eps=1e-6)
        self.feed_in = nn.Conv2d(width, 2 * width, 1)
        self.feed_out = nn.Conv2d(width, width, 1)
        self.feed_gain = nn.Parameter(torch.zeros(width, 1, 1))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x (B, width, H, W) and the time embedding (B, time_channels) to the shape of x."""
        mix_scale, mix_shift, feed_scale, feed_shift = self.time(emb)[..., None, None].chunk(4, dim=1)
        h = _normed(x, self.mix_norm) * (1 + mix_scale) + mix_shift
        h = _gated(self.mix_near(self.mix_in(h)))
        h = h * _centred(self.weigh(_means(h, self.window)), h)
        x = x + self.mix_out(h) * self.mix_gain
        h = _normed(x, self.feed_norm) * (1 + feed_scale) + feed_shift
        return x + self.feed_out(_gated(self.feed_in(h))) * self.feed_gain


def _normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """The norm of each pixel over the channels of x (B, C, H, W)."""
    return F.layer_norm(x.permute(0, 2, 3, 1), norm.normalized_shape, norm.weight, norm.bias, norm.eps).permute(
        0, 3, 1, 2
    )


def _means(x: Tensor, window: int | None) -> Tensor:
    """Means over each square in x (B, C, H, W): (B, C, H - window + 1, W - window + 1); one where x is no larger."""
    if window is None or (not torch.jit.is_tracing() and max(x.shape[2:]) <= window):
        return x.mean((2, 3), keepdim=True)
    sums, count = x.float(), 1
    for dim, border in ((2, (0, 0, 1, 0)), (3, (1, 0))):
        size = x.shape[dim]
        reach = size + (window - size) * (window < size)  # the smaller one, without a branch on the size
        until = F.pad(sums.cumsum(dim), border)
        sums = until.narrow(dim, reach, size - reach + 1) - until.narrow(dim, 0, size - reach + 1)
        count = count * reach
    return (sums / count).to(x.dtype)


def _centred(means: Tensor, like: Tensor) -> Tensor:
    """Each square at its middle, those at the border repeated up to the size of ``like``; one serves all pixels."""
    down, right = (size - there for size, there in zip(like.shape[2:], means.shape[2:]))
    if not torch.jit.is_tracing() and means.shape[2:] == (1, 1):
        return means
    return F.pad(means, (right - right // 2, right // 2, down - down // 2, down // 2), mode="replicate")


def _gated(x: Tensor) -> Tensor:
    """SimpleGate: one half of the channels times the other."""
    left, right = x.chunk(2, dim=1)
    return left * right
