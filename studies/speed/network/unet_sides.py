"""The two sides of the comparisons of the U-Net: ours, and what it is measured against, with the same weights.

Against is either our own network in the plain formulation of ADM, or guided-diffusion's module from a checkout
(https://github.com/openai/guided-diffusion), of which nothing is kept here.
"""

import copy
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from i2sb_plugin.archs.adm_unet_arch import ADMUNet
from i2sb_plugin.archs.adm_unet_blocks import AttentionBlock

EMA_DECAY = 0.999
Ema = Callable[[list[Tensor], list[Tensor]], None]


def awake_network(preset: str, seed: int = 0, **options: object) -> ADMUNet:
    """A network whose last layers are drawn like all others: at zero they would hide what lies before them."""
    torch.manual_seed(seed)
    net = ADMUNet(preset=preset, **options)
    for module in net.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and not weight.is_meta and not weight.any():
            module.reset_parameters()
    return net


class PlainAttention(AttentionBlock):
    """Attention as ADM states it: two einsums around a softmax."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        tokens = x.reshape(batch, channels, -1)
        qkv = self.qkv(self.norm(tokens))
        width = channels // self.heads
        if self.new_order:
            q, k, v = (part.reshape(batch * self.heads, width, -1) for part in qkv.chunk(3, dim=1))
        else:
            q, k, v = qkv.reshape(batch * self.heads, 3 * width, -1).split(width, dim=1)
        weight = torch.einsum("bct,bcs->bts", q * width**-0.25, k * width**-0.25)
        h = torch.einsum("bts,bcs->bct", weight.float().softmax(-1).to(weight.dtype), v)
        return (tokens + self.proj_out(h.reshape(batch, channels, -1))).reshape(x.shape)


def plain(net: ADMUNet) -> ADMUNet:
    """The same weights in the plain formulation."""
    net = copy.deepcopy(net).to(memory_format=torch.contiguous_format)
    for module in net.modules():
        if isinstance(module, AttentionBlock):
            module.__class__ = PlainAttention
    return net


def guided_package(checkout: Path, module: str) -> object:
    """A module of guided-diffusion, from the folder of a checkout."""
    if not (checkout / "guided_diffusion" / "unet.py").is_file():
        raise SystemExit(f"--guided {checkout}: there is no guided_diffusion/unet.py in it")
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    return importlib.import_module(f"guided_diffusion.{module}")


def guided(net: ADMUNet, checkout: Path, size: int) -> nn.Module:
    """guided-diffusion's own module with the weights of ``net``, in float32."""
    layout = net.layout
    model = guided_package(checkout, "unet").UNetModel(
        image_size=size,
        in_channels=net.in_channels,
        model_channels=layout.model_channels,
        out_channels=net.out[2].out_channels,
        num_res_blocks=layout.num_res_blocks,
        attention_resolutions=tuple(layout.attention_ds),
        channel_mult=tuple(layout.channel_mult),
        conv_resample=layout.conv_resample,
        num_heads=layout.num_heads,
        num_head_channels=layout.num_head_channels,
        use_scale_shift_norm=layout.use_scale_shift_norm,
        resblock_updown=layout.resblock_updown,
        use_new_attention_order=layout.use_new_attention_order,
    )
    model.load_state_dict(net.state_dict())
    return model.to(next(net.parameters()).device)


def guided_ema(checkout: Path) -> Ema:
    """guided-diffusion's update of the average, tensor by tensor."""
    update = guided_package(checkout, "nn").update_ema
    return lambda average, current: update(average, current, rate=EMA_DECAY)


def ema_per_tensor(average: list[Tensor], current: list[Tensor]) -> None:
    """The average, tensor by tensor."""
    for a, p in zip(average, current):
        a.mul_(EMA_DECAY).add_(p, alpha=1 - EMA_DECAY)


def ema_together(average: list[Tensor], current: list[Tensor]) -> None:
    """The average as BasicSR is repaired to take it: one call."""
    torch._foreach_lerp_(average, current, 1 - EMA_DECAY)


class Trainer:
    """One network with its optimiser and its average."""

    def __init__(self, net: nn.Module, adamw: dict, ema: Ema, autocast: Callable[[], torch.autocast] | None = None):
        self.net = net.train()
        self.parameters = list(net.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, **adamw)
        self.average = [p.detach().clone() for p in self.parameters]
        self.ema = ema
        self.autocast = autocast or (lambda: torch.autocast("cpu", enabled=False))

    def gradients(self, x: Tensor, t: Tensor) -> None:
        """Forward and backward pass of a squared error."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            y = self.net(x, t)
        (y.float() - x).square().mean().backward()

    def average_weights(self) -> None:
        """One update of the average."""
        self.ema(self.average, [p.detach() for p in self.parameters])

    def step(self, x: Tensor, t: Tensor) -> None:
        """Forward, backward, optimiser, average."""
        self.gradients(x, t)
        self.optimizer.step()
        self.average_weights()
