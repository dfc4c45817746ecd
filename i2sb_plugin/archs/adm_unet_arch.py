"""The U-Net of ADM (Dhariwal and Nichol, 2105.05233), with the parameter names of its published weights."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from basicsr_ext.common.errors import InputError
from i2sb_plugin.archs.adm_unet_blocks import (
    GROUPS,
    AttentionBlock,
    Downsample,
    GroupNorm32,
    ResBlock,
    Stage,
    Upsample,
)
from i2sb_plugin.archs.bridge_network import (
    BridgeNetwork,
    Unshuffle,
    chosen_preset,
    dtype_of,
    float32,
    time_embedding,
)
from i2sb_plugin.archs.recompute import Recompute

__all__ = ["PRESETS", "ADMUNet", "UNetLayout"]


@dataclasses.dataclass(frozen=True)
class UNetLayout:
    """Size and shape of the network; every field is an option of :class:`ADMUNet` and described there."""

    model_channels: int = 256
    num_res_blocks: int = 2
    channel_mult: Sequence[float] = (1, 1, 2, 2, 4, 4)
    attention_ds: Sequence[int] = (8, 16, 32)
    middle_attention: bool = True
    num_heads: int = 4
    num_head_channels: int = 64
    num_heads_upsample: int = -1
    use_scale_shift_norm: bool = True
    resblock_updown: bool = True
    conv_resample: bool = True
    use_new_attention_order: bool = False
    dropout: float = 0.0
    unshuffle: Unshuffle = 1
    full_size: int = 0

    def __post_init__(self) -> None:
        """Refuse a layout that cannot be built, naming the option."""
        if not self.channel_mult:
            raise InputError("network_g.channel_mult is empty; give one number per level, such as [1, 2, 2, 2]")
        for option in ("model_channels", "num_res_blocks"):
            if getattr(self, option) < 1:
                raise InputError(f"network_g.{option} is {getattr(self, option)}; it must be 1 or more")
        if not 0 <= self.dropout < 1:
            raise InputError(f"network_g.dropout is {self.dropout}; it must be in [0, 1)")
        for mult, width in zip(self.channel_mult, self.widths):
            if width < GROUPS or width % GROUPS:
                raise InputError(
                    f"network_g.model_channels {self.model_channels} times channel_mult {mult} gives {width} channels; "
                    f"GroupNorm needs a multiple of {GROUPS}"
                )
        self._check_attention()

    def _check_attention(self) -> None:
        reachable = [2**level for level in range(len(self.channel_mult))]
        wrong = [ds for ds in self.attention_ds if ds not in reachable]
        if wrong:
            raise InputError(
                f"network_g.attention_ds has {wrong}; with {len(reachable)} levels in channel_mult the down-sampling "
                f"factors are {reachable}"
            )
        attending = {self.widths[reachable.index(ds)] for ds in self.attention_ds}
        attending |= {self.widths[-1]} if self.middle_attention else set()
        if self.num_head_channels != -1:
            self._check_heads("num_head_channels", self.num_head_channels, attending)
        else:
            self._check_heads("num_heads", self.num_heads, attending)
            self._check_heads("num_heads_upsample", self.decoder_heads, attending)

    @staticmethod
    def _check_heads(option: str, value: int, widths: set[int]) -> None:
        wrong = [width for width in sorted(widths) if value < 1 or width % value]
        if wrong:
            raise InputError(f"network_g.{option} is {value}; it must divide the channels that attend, here {wrong}")

    @property
    def widths(self) -> list[int]:
        """Channels of each level, the finest first."""
        return [int(mult * self.model_channels) for mult in self.channel_mult]

    @property
    def decoder_heads(self) -> int:
        """Number of heads in the decoder where ``num_head_channels`` is -1."""
        return self.num_heads if self.num_heads_upsample == -1 else self.num_heads_upsample


# For a CPU: nothing attends, so that what is learnt on small crops holds for images of any size.
_TINY = UNetLayout(32, 1, (1, 1, 2, 2), (), middle_attention=False, resblock_updown=False)
PRESETS: dict[str, UNetLayout] = {
    "fast": dataclasses.replace(_TINY, unshuffle=2),
    "tiny": _TINY,
    "small": UNetLayout(64, 2, (1, 2, 2, 3), (8,), num_head_channels=32),
    "base": UNetLayout(128, 2, (1, 1, 2, 3, 4), (8, 16)),
    "adm256": UNetLayout(256, 2, (1, 1, 2, 2, 4, 4), (8, 16, 32)),
}


@ARCH_REGISTRY.register()
class ADMUNet(BridgeNetwork):
    """U-Net of ADM for images of any size and any number of channels.

    Names, shapes and order of the parameters are those of guided-diffusion, so that ADM and I2SB weights load with
    ``strict=True``. The last convolution of every block and of the network starts at zero: an untrained network
    predicts 0. Options left at None come from the preset.

    Args:
        in_channels: channels of xt.
        out_channels: channels of the prediction.
        cond_channels: channels of the condition, which the first convolution sees after those of xt; 0 for none.
        preset: 'fast' ('tiny' with ``unshuffle`` 2: a quarter of its cost), 'tiny', 'small', 'base' or 'adm256' (ADM's
            network for 256x256 images, as used by I2SB).
        model_channels: channels that ``channel_mult`` multiplies; each product must be a multiple of 32.
        num_res_blocks: residual blocks per level (the decoder has one more).
        channel_mult: one factor per level, the finest level first; each further level halves the size.
        attention_ds: down-sampling factors (powers of two) of the levels whose blocks attend. For ADM's
            ``attention_resolutions`` divide its ``image_size`` by each of them.
        middle_attention: whether the middle block attends, as ADM's always does.
        num_heads: attention heads, where ``num_head_channels`` is -1.
        num_head_channels: channels per attention head, or -1.
        num_heads_upsample: attention heads in the decoder, where ``num_head_channels`` is -1; -1 for ``num_heads``.
        use_scale_shift_norm: the time scales and shifts the second normalisation instead of being added before it.
        resblock_updown: change sizes inside residual blocks instead of by convolutions of their own.
        conv_resample: those convolutions learn; otherwise mean and repetition alone.
        use_new_attention_order: order of q, k, v and heads, see :class:`AttentionBlock`.
        dropout: rate of dropout inside residual blocks, in [0, 1).
        checkpoint: recompute blocks in the backward pass: less memory, up to a third more time. true for all of them,
            or the GiB that the activations inside blocks may take: as many recompute as that needs.
        fold_upsampling: take the convolutions of enlarged images from the small ones, with 4 products for each pixel
            instead of 9; None for yes on a CPU, no on a GPU, where it is not measured yet.
        unshuffle: 2 or 4: the layers work on an image of a half or a quarter of the height and width, whose channels
            hold its pixels, at about a quarter or a sixteenth of the cost; 1 for full size.
        full_size: channels of a last convolution at full size, after unshuffled layers, such as 16; 0 for none.

    Raises:
        ValueError: an option that cannot be built; the message names it.

    Source: ADM (2105.05233) section 3; I2SB (2302.05872) section 4.
    """

    first_weight: ClassVar[str | None] = "input_blocks.0.0.weight"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        cond_channels: int = 0,
        preset: str = "small",
        model_channels: int | None = None,
        num_res_blocks: int | None = None,
        channel_mult: Sequence[float] | None = None,
        attention_ds: Sequence[int] | None = None,
        middle_attention: bool | None = None,
        num_heads: int | None = None,
        num_head_channels: int | None = None,
        num_heads_upsample: int | None = None,
        use_scale_shift_norm: bool | None = None,
        resblock_updown: bool | None = None,
        conv_resample: bool | None = None,
        use_new_attention_order: bool | None = None,
        dropout: float | None = None,
        checkpoint: bool | float = False,
        fold_upsampling: bool | None = None,
        unshuffle: Unshuffle | None = None,
        full_size: int | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if value is not None}
        fields = {field.name for field in dataclasses.fields(UNetLayout)}
        changes = {name: value for name, value in given.items() if name in fields}
        layout = dataclasses.replace(chosen_preset(PRESETS, preset), **changes)
        super().__init__(in_channels, out_channels, cond_channels, layout.unshuffle, layout.full_size)
        self.layout = layout
        if checkpoint < 0:
            raise InputError(f"network_g.checkpoint is {checkpoint}; give true, false or a number of GiB from 0")
        self.recompute = Recompute(checkpoint)
        self.multiple = layout.unshuffle * 2 ** (len(layout.widths) - 1)
        self._build(self.layer_inputs, self.layer_outputs)
        for module in self.modules():
            if isinstance(module, Upsample):
                module.fold = fold_upsampling

    @classmethod
    def speed_lines(cls, device: str) -> list[str]:
        """What is chosen on ``device``, 'cpu' or 'cuda', for ``basicsr doctor``."""
        small = "from the small one" if device == "cpu" else "from the enlarged one: not yet measured"
        return [
            f"convolutions of enlarged images {small} (network_g.fold_upsampling)",
            "no activation recomputed (network_g.checkpoint)",
        ]

    def _build(self, in_channels: int, out_channels: int) -> None:
        layout = self.layout
        widths = layout.widths
        self.time_channels = 4 * layout.model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(layout.model_channels, self.time_channels),
            nn.SiLU(),
            nn.Linear(self.time_channels, self.time_channels),
        )
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(in_channels, widths[0], 3, padding=1))])
        skips = self._build_encoder(widths[0])
        middle: list[nn.Module] = [self._res_block(widths[-1], widths[-1]) for _ in range(2)]
        if layout.middle_attention:
            middle.insert(1, self._attention(widths[-1], layout.num_heads))
        self.middle_block = Stage(*middle)
        self.output_blocks = nn.ModuleList()
        self._build_decoder(skips)
        self.out = nn.Sequential(
            GroupNorm32(widths[0]), nn.SiLU(), self.last_layer(nn.Conv2d(widths[0], out_channels, 3, padding=1))
        )

    def _build_encoder(self, channels: int) -> list[int]:
        """Append the encoder's stages; return the channels that each stage hands to the decoder."""
        skips = [channels]
        for level, width in enumerate(self.layout.widths):
            for _ in range(self.layout.num_res_blocks):
                self.input_blocks.append(self._stage(channels, width, level, self.layout.num_heads))
                channels = width
                skips.append(channels)
            if level < len(self.layout.widths) - 1:
                self.input_blocks.append(Stage(self._resample(Downsample, channels)))
                skips.append(channels)
        return skips

    def _build_decoder(self, skips: list[int]) -> None:
        channels = skips[-1]
        for level, width in reversed(list(enumerate(self.layout.widths))):
            for block in range(self.layout.num_res_blocks + 1):
                stage = self._stage(channels + skips.pop(), width, level, self.layout.decoder_heads)
                channels = width
                if level and block == self.layout.num_res_blocks:
                    stage.append(self._resample(Upsample, channels))
                self.output_blocks.append(stage)

    def _stage(self, channels: int, width: int, level: int, heads: int) -> Stage:
        layers: list[nn.Module] = [self._res_block(channels, width)]
        if 2**level in self.layout.attention_ds:
            layers.append(self._attention(width, heads))
        return Stage(*layers)

    def _res_block(self, channels: int, width: int, resample: nn.Module | None = None) -> ResBlock:
        layout = self.layout
        return ResBlock(channels, width, self.time_channels, layout.use_scale_shift_norm, layout.dropout, resample)

    def _attention(self, channels: int, heads: int) -> AttentionBlock:
        layout = self.layout
        heads = heads if layout.num_head_channels == -1 else channels // layout.num_head_channels
        return AttentionBlock(channels, heads, layout.use_new_attention_order)

    def _resample(self, kind: type[Downsample] | type[Upsample], channels: int) -> nn.Module:
        if self.layout.resblock_updown:
            return self._res_block(channels, channels, kind(channels, learned=False))
        return kind(channels, learned=self.layout.conv_resample)

    def padding(self, height: int, width: int) -> tuple[int, int]:
        """Up to ``multiple``, and further where the coarsest level would be a single pixel."""
        down, right = super().padding(height, width)
        if GROUPS in self.layout.widths[-2:]:  # where a group of one value has no norm
            right += self.multiple * ((height + down == self.multiple) & (width + right == self.multiple))
        return down, right

    def predict(self, h: Tensor, t: Tensor) -> Tensor:
        """Run the U-Net; what the time and the last convolution need is computed in the precision of the weights."""
        with float32(h):
            emb = self.time_embed(time_embedding(t, self.layout.model_channels).to(dtype_of(self.time_embed)))
        h = self._torso(h.to(dtype_of(self.input_blocks)), emb)
        with float32(h):
            norm, _, conv = self.out
            return conv(norm(h.to(dtype_of(conv)), silu=True))

    def _torso(self, h: Tensor, emb: Tensor) -> Tensor:
        run = self.recompute.plan([*self.input_blocks, self.middle_block, *self.output_blocks], h)
        skips = []
        for k in range(len(self.input_blocks)):
            h = run(k, h, emb)
            skips.append(h)
        h = run(len(skips), h, emb)
        for k in range(len(skips) + 1, len(skips) + 1 + len(self.output_blocks)):
            h = run(k, torch.cat([h, skips.pop()], dim=1), emb)
        return h

    def compiled_parts(self) -> Iterator[nn.Module]:
        """What lies between the convolutions, and alone gains by compilation: norm, scale and shift, SiLU."""
        return (module for module in self.modules() if isinstance(module, GroupNorm32))
