r"""Seconds of the U-Net and of its training step, against guided-diffusion's module or the plain formulation.

Both have the same weights and run in one process in the order A B A B ...; every figure is a ratio of neighbours, so
that a machine that slows down slows both. The training step is forward, backward, optimiser and weight average:
torch's AdamW and the average tensor by tensor on the other side, fused AdamW and one call on ours.

    OMP_NUM_THREADS=1 python -m studies.speed.network.unet --guided ../guided-diffusion \
        --out studies/speed/results/unet.json
"""

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path

import torch

from basicsr_ext.models import acceleration
from i2sb_plugin.archs.adm_unet_arch import PRESETS
from studies.speed.network.unet_sides import (
    Trainer,
    awake_network,
    ema_per_tensor,
    ema_together,
    guided,
    guided_ema,
    plain,
)
from studies.timing import machine, paired, seconds, write

WAYS = {
    "contiguous": {"channels_last": False, "compile": False},
    "channels_last": {"channels_last": True, "compile": False},
    "channels_last, compiled": {"channels_last": True, "compile": True},
}
HEAD = "| network | what | other, s | ours, s | other / ours | largest difference / std |"
__all__ = ["main", "measure", "quick", "table"]


def measure(preset: str, args: argparse.Namespace, device: torch.device) -> Iterator[dict]:
    """One row for each way of running each part; ``args`` as :func:`main` reads them."""
    net = awake_network(preset, **({} if PRESETS[preset].middle_attention else {"middle_attention": True})).to(device)
    x = torch.randn(args.batch, 3, args.size, args.size, device=device)
    t = torch.rand(args.batch, device=device) * 1000
    other = guided(net, args.guided, args.size) if args.guided else plain(net)
    against = "guided-diffusion" if args.guided else "plain formulation"
    common = {"preset": preset, "against": against, "batch": args.batch, "size": args.size}
    nets = {}
    for way in args.way:  # before any gradient, after which memory is handed out in another way
        wishes = {"precision": "fp32", "tf32": False, **WAYS[way]}
        ours = nets[way] = acceleration.choose(device, wishes).prepare(copy.deepcopy(net))
        with torch.inference_mode():
            first = seconds(lambda net=ours: net(x, t), device)
            a, b = other.eval()(x, t), ours.eval()(x, t)
            result = paired(lambda: other(x, t), lambda net=ours: net(x, t), args.pairs, device)
        difference = float((a - b).abs().max() / a.std())
        yield common | {"what": "forward", "way": way} | result | {"difference_of_std": difference, "first": first}
    reference = Trainer(other, {}, guided_ema(args.guided) if args.guided else ema_per_tensor)
    for way, ours in nets.items():
        other.load_state_dict(net.state_dict())
        trainer = Trainer(ours, {"fused": True}, ema_together)
        result = paired(lambda: reference.step(x, t), lambda ours=trainer: ours.step(x, t), args.pairs, device)
        yield common | {"what": "training step", "way": way} | result
    parts = {"AdamW alone": ("optimizer", "step"), "weight average alone": (None, "average_weights")}
    for what, (owner, name) in parts.items():
        a, b = (getattr(getattr(side, owner) if owner else side, name) for side in (reference, trainer))
        yield common | {"what": what, "way": "one kernel"} | paired(a, b, args.pairs, device)


def quick() -> list[dict]:
    """The comparison with the plain formulation at a small size, in seconds."""
    args = argparse.Namespace(batch=1, size=32, pairs=3, guided=None, way=["channels_last"])
    return list(measure("tiny", args, torch.device("cpu")))


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    return "\n".join([HEAD, "| --- | --- | --- | --- | --- | --- |", *map(_line, rows)])


def _line(row: dict) -> str:
    ratio = f"{row['ratio_median']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
    shape = f"{row['batch']} x {row['size']}^2"
    times = f"{row['reference_seconds']:.4f} | {row['seconds']:.4f}"
    difference = f"{row['difference_of_std']:.1e}" if "difference_of_std" in row else ""
    return f"| {row['preset']}, {shape} | {row['what']}, {row['way']} | {times} | {ratio} | {difference} |"


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", choices=list(PRESETS), default=["tiny", "small"])
    parser.add_argument("--way", nargs="+", choices=list(WAYS), default=list(WAYS), help="how ours runs")
    parser.add_argument("--guided", type=Path, help="checkout of guided-diffusion; without it our plain formulation")
    parser.add_argument("--batch", type=int, default=4, help="images in a batch")
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--pairs", type=int, default=9, help="measured pairs per figure")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    device = torch.device(args.device)
    rows = []
    for preset in args.preset:
        for row in measure(preset, args, device):
            rows.append(row)
            print(_line(row), flush=True)
    write(args.out, {"seed": 0, "machine": machine(device=device), "rows": rows})


if __name__ == "__main__":
    main()
