"""Seconds of the U-Net and of its training step, against the plain formulation with the same weights.

Plain: attention by einsum, contiguous memory, AdamW and EMA tensor by tensor. Both run in one process in the order
A B A B ..., and every figure is a ratio of neighbours, so that a machine that slows down slows both.

    python benchmarks/unet.py --preset tiny small --out benchmarks/results/unet.json
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from i2sb_plugin.archs.adm_unet_arch import PRESETS, ADMUNet
from i2sb_plugin.archs.adm_unet_blocks import AttentionBlock

EMA_DECAY = 0.999


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


def ema_per_tensor(average: list[Tensor], current: list[Tensor]) -> None:
    for a, p in zip(average, current):
        a.sub_((1 - EMA_DECAY) * (a - p))


def ema_together(average: list[Tensor], current: list[Tensor]) -> None:
    torch._foreach_lerp_(average, current, 1 - EMA_DECAY)


class Trainer:
    """One network with its optimiser and its average."""

    def __init__(self, net: ADMUNet, adamw: dict, ema: Callable[[list[Tensor], list[Tensor]], None]) -> None:
        self.net = net.train()
        self.parameters = list(net.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, **adamw)
        self.average = [p.detach().clone() for p in self.parameters]
        self.ema = ema

    def gradients(self, x: Tensor, t: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        (self.net(x, t) - x).square().mean().backward()

    def update(self) -> None:
        self.optimizer.step()

    def average_weights(self) -> None:
        self.ema(self.average, [p.detach() for p in self.parameters])

    def step(self, x: Tensor, t: Tensor) -> None:
        self.gradients(x, t)
        self.update()
        self.average_weights()


def seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def paired(reference: Callable[[], object], ours: Callable[[], object], pairs: int, device: torch.device) -> dict:
    """Run A B A B ... after one unmeasured pair; ratios above 1 mean that ours is faster."""
    reference()
    ours()
    times = [(seconds(reference, device), seconds(ours, device)) for _ in range(pairs)]
    ratios = [a / b for a, b in times]
    return {
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "plain_seconds": statistics.median(a for a, _ in times),
        "seconds": statistics.median(b for _, b in times),
        "pairs": pairs,
    }


def measure(preset: str, args: argparse.Namespace, device: torch.device) -> list[dict]:
    torch.manual_seed(0)
    net = ADMUNet(preset=preset).to(device)
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)  # a zero convolution would hide what lies before it
    x = torch.randn(args.batch, 3, args.size, args.size, device=device)
    t = torch.rand(args.batch, device=device) * 1000
    rows = []

    def add(what: str, result: dict, **more: object) -> None:
        rows.append({"preset": preset, "what": what, "batch": args.batch, "size": args.size, **result, **more})
        print(markdown(rows[-1]), flush=True)

    layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    for name, layout in layouts.items():
        a, b = plain(net).eval(), copy.deepcopy(net).eval().to(memory_format=layout)
        with torch.inference_mode():
            difference = float((a(x, t) - b(x, t)).abs().max())
            result = paired(lambda a=a: a(x, t), lambda b=b: b(x, t), args.pairs, device)
        add(f"forward, {name}", result, max_abs_difference=difference)
    reference = Trainer(plain(net), {"foreach": False, "fused": False}, ema_per_tensor)
    for name, layout in layouts.items():
        ours = Trainer(copy.deepcopy(net).to(memory_format=layout), {"fused": True}, ema_together)
        add(
            f"training step, {name}",
            paired(lambda: reference.step(x, t), lambda o=ours: o.step(x, t), args.pairs, device),
        )
    add("AdamW alone", paired(reference.update, ours.update, args.pairs, device))
    add("EMA alone", paired(reference.average_weights, ours.average_weights, args.pairs, device))
    return rows


def markdown(row: dict) -> str:
    ratio = f"{row['ratio_median']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
    shape = f"{row['batch']} x {row['size']} x {row['size']}"
    return (
        f"| {row['preset']} | {row['what']} | {shape} | {row['plain_seconds']:.4f} | {row['seconds']:.4f} | {ratio} |"
    )


def machine(device: torch.device) -> dict:
    """What ran it, without names of hosts."""
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", choices=list(PRESETS), default=["tiny", "small"])
    parser.add_argument("--batch", type=int, default=4, help="images in a batch")
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--pairs", type=int, default=9, help="measured pairs per figure")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    print("| preset | what | batch | plain, s | ours, s | plain / ours |\n|---|---|---|---|---|---|")
    rows = [row for preset in args.preset for row in measure(preset, args, device)]
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"machine": machine(device), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
