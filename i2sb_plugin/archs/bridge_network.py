"""What all networks of the bridge do around their layers: checks, condition, padding, folded pixels, time."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import ClassVar, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr_ext.common.contracts import NetworkContract
from basicsr_ext.common.errors import InputError, did_you_mean

__all__ = ["BridgeNetwork", "Unshuffle", "chosen_preset", "dtype_of", "float32", "time_embedding", "zeroed"]

T = TypeVar("T")
Layer = TypeVar("Layer", bound=nn.Module)
Unshuffle = Literal[1, 2, 4]


class BridgeNetwork(NetworkContract, nn.Module):
    """A network ``net(x, t, cond)`` whose layers, :meth:`predict`, see the condition as further channels of x.

    With ``unshuffle`` u the layers work on an image of 1/u of the height and width with u * u times the channels
    (pixel_unshuffle of ESPCN, 1609.05158, as FFDNet, 1710.04026, puts it first): about 1/u^2 of the cost. Each cell
    then draws its u * u pixels alone; with ``full_size`` a last convolution sees the pixels of neighbouring cells
    together.

    Args:
        in_channels: channels of xt.
        out_channels: channels of the prediction.
        cond_channels: channels of the condition; 0 for none.
        unshuffle: 1, 2 or 4.
        full_size: channels that the layers hand to a last convolution at full size; 0 for none.

    Raises:
        ValueError: a number that is not allowed; the message names the option.
    """

    takes_any_size: ClassVar[bool] = True
    first_weight: ClassVar[str | None] = None  # of the one layer that sees the input, its channels in their order

    def __init__(
        self, in_channels: int, out_channels: int, cond_channels: int, unshuffle: int, full_size: int = 0
    ) -> None:
        super().__init__()
        for option, value, least in (
            ("in_channels", in_channels, 1), ("out_channels", out_channels, 1), ("cond_channels", cond_channels, 0),
            ("full_size", full_size, 0),
        ):  # fmt: skip
            if value < least:
                raise InputError(f"network_g.{option} is {value}; it must be {least} or more")
        if unshuffle not in (1, 2, 4):
            raise InputError(f"network_g.unshuffle is {unshuffle}; it must be 1, 2 or 4")
        if full_size and unshuffle == 1:
            raise InputError(
                f"network_g.full_size is {full_size}, but with unshuffle 1 all layers are of full size; leave it out"
            )
        self.in_channels, self.out_channels, self.cond_channels = in_channels, out_channels, cond_channels
        self.unshuffle, self.shuffle = unshuffle, unshuffle
        self.layer_inputs = (in_channels + cond_channels) * unshuffle**2
        self.layer_outputs = (full_size or out_channels) * unshuffle**2
        self.full = zeroed(nn.Conv2d(full_size, out_channels, 3, padding=1)) if full_size else None

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """Predict from a noisy image.

        Args:
            x: image, (B, in_channels, H, W), about [-1, 1]; any size: it is padded to ``multiple`` and cropped back.
            t: times, (B,), in [0, 1000].
            cond: condition, (B, cond_channels, H, W), or None where ``cond_channels`` is 0.

        Returns:
            (B, out_channels, H, W) in the precision of x.

        Raises:
            ValueError: channels or sizes that do not fit the options.
        """
        self._check(x, t, cond)
        height, width = x.shape[2:]
        h = x if cond is None else torch.cat([x, cond], dim=1)
        down, right = self.padding(height, width)
        if torch.jit.is_tracing() or down or right:
            h = F.pad(h, (0, right, 0, down), mode="replicate")
        if self.unshuffle > 1:
            h = _unshuffled(h, self.unshuffle)
        h = self.predict(h, t)
        if self.shuffle > 1:
            h = F.pixel_shuffle(h, self.shuffle)
        if self.full:
            with float32(h):
                h = self.full(h.to(dtype_of(self.full)))
        return h[:, :, :height, :width].to(x.dtype)

    def predict(self, h: Tensor, t: Tensor) -> Tensor:
        """Map (B, layer_inputs, H/u, W/u) and times (B,) to (B, layer_outputs, H/u, W/u)."""
        raise NotImplementedError

    def last_layer(self, module: Layer) -> Layer:
        """Let the network predict 0 before it is trained: ``module`` with weights of zero, if none follows it."""
        return module if self.full else zeroed(module)

    def padding(self, height: int, width: int) -> tuple[int, int]:
        """How many rows and columns are added to an image of this size: below and to the right.

        Without a branch on the size, which tensors stand for where a graph of any size is traced.
        """
        return -height % self.multiple, -width % self.multiple

    def _check(self, x: Tensor, t: Tensor, cond: Tensor | None) -> None:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise InputError(
                f"network_g.in_channels is {self.in_channels} but the image has shape {tuple(x.shape)}; "
                f"it must be (B, {self.in_channels}, H, W)"
            )
        if t.shape != x.shape[:1]:
            raise InputError(f"the times have shape {tuple(t.shape)}; a batch of {x.shape[0]} needs ({x.shape[0]},)")
        given = 0 if cond is None else cond.shape[1]
        if given != self.cond_channels:
            raise InputError(
                f"network_g.cond_channels is {self.cond_channels} but the condition has {given} channels; "
                "set cond_channels to what is passed (0 for none)"
            )
        if cond is not None and cond.shape[2:] != x.shape[2:]:
            raise InputError(f"the condition is {tuple(cond.shape[2:])} pixels, the image {tuple(x.shape[2:])}")


def _unshuffled(x: Tensor, side: int) -> Tensor:
    """pixel_unshuffle; in a graph a convolution that picks the pixels, since its reshapes are not read alike."""
    if not torch.jit.is_tracing():
        return F.pixel_unshuffle(x, side)
    channels = int(x.shape[1])
    picks = torch.eye(side**2).reshape(side**2, 1, side, side).tolist()
    return F.conv2d(x, torch.tensor(channels * picks, dtype=x.dtype), stride=side, groups=channels)


def chosen_preset(presets: Mapping[str, T], name: str) -> T:
    """The preset of this name; InputError, which lists the known ones, if there is none."""
    if name not in presets:
        raise InputError(f"network_g.preset is {name!r}; {did_you_mean(name, presets)}")
    return presets[name]


def time_embedding(t: Tensor, channels: int) -> Tensor:
    """Sinusoids of the time, cosines first, computed in float32.

    Args:
        t: times, (B,), any unit; ADM's weights expect 0 to 1000.
        channels: number of output channels; an odd one ends with a zero.

    Returns:
        (B, channels), float32, in [-1, 1].

    Source: ADM (2105.05233), after Vaswani et al. (1706.03762) section 3.5.
    """
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    angle = t.float()[:, None] * torch.exp(-math.log(10000) * index / half)
    return F.pad(torch.cat([angle.cos(), angle.sin()], dim=1), (0, channels % 2))


def zeroed(module: Layer) -> Layer:
    """Set all parameters of ``module`` to zero and return it."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def dtype_of(module: nn.Module) -> torch.dtype:
    """The type of its first weights."""
    return next(module.parameters()).dtype


def float32(x: Tensor) -> torch.autocast | nullcontext:
    """Context without automatic casts (which a device such as meta does not know)."""
    return torch.autocast(x.device.type, enabled=False) if x.device.type != "meta" else nullcontext()
