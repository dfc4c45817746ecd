r"""Seconds of one evaluation of the bridge's networks against what else enlarges a photograph four times.

One result of ``--size`` x ``--size`` pixels: the bridge's networks work on the enlarged image, the others enlarge by
themselves. All run as `basicsr restore` runs them on a CPU, untrained, in the order A B A B.

    OMP_NUM_THREADS=1 python -m studies.speed.network.rivals --out studies/speed/results/rivals.json
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from basicsr_ext import repairs
from basicsr_ext.models import acceleration
from i2sb_plugin.archs.adm_unet_arch import ADMUNet
from i2sb_plugin.archs.nafnet_arch import ConditionalNAFNet
from studies.timing import machine, paired, write

SCALE = 4
_SEEING_X1 = {"in_channels": 3, "out_channels": 3, "cond_channels": 3}
OURS = {"ADMUNet, fast": (ADMUNet, {"preset": "fast"}),
        "ADMUNet, fast, channel_mult [1, 1, 1]": (ADMUNet, {"preset": "fast", "channel_mult": [1, 1, 1]}),
        "ConditionalNAFNet, fast": (ConditionalNAFNet, {"preset": "fast"}),
        "ADMUNet, tiny": (ADMUNet, {"preset": "tiny"})}  # fmt: skip
_SWINIR = {"upscale": SCALE, "img_size": 64, "window_size": 8, "img_range": 1.0, "depths": [6] * 4, "embed_dim": 60,
           "num_heads": [6] * 4, "mlp_ratio": 2, "upsampler": "pixelshuffledirect"}  # fmt: skip
RIVALS = {  # as they are released
    "Real-ESRGAN's compact network (animevideo-v3)": ("SRVGGNetCompact", {"num_conv": 16, "upscale": SCALE}),
    "Real-ESRGAN's compact network (general-x4v3)": ("SRVGGNetCompact", {"num_conv": 32, "upscale": SCALE}),
    "SwinIR-light": ("SwinIR", _SWINIR),
    "RRDBNet (Real-ESRGAN x4plus, ESRGAN)": ("RRDBNet", {"num_in_ch": 3, "num_out_ch": 3, "scale": SCALE}),
}
__all__ = ["main", "measure", "table"]


def _ready(net: nn.Module) -> nn.Module:
    return acceleration.choose(torch.device("cpu"), {"precision": "fp32"}).prepare(net.eval())


def _facts(net: nn.Module, *inputs: torch.Tensor) -> dict[str, float]:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net(*inputs)
    return {"parameters": sum(p.numel() for p in net.parameters()), "flops": float(counter.get_total_flops())}


def measure(size: int, pairs: int, ours: list[str], rivals: list[str]) -> Iterator[dict[str, Any]]:
    """One row for each of our networks against each rival; ``ratio`` above 1: ours is faster."""
    repairs.apply()
    from basicsr.utils.registry import ARCH_REGISTRY

    torch.manual_seed(0)
    image, t, low = torch.rand(1, 3, size, size), torch.tensor([1000.0]), torch.rand(1, 3, size // SCALE, size // SCALE)
    sides: dict[str, tuple[nn.Module, tuple[torch.Tensor, ...]]] = {
        name: (_ready(OURS[name][0](**_SEEING_X1, **OURS[name][1])), (image, t, image)) for name in ours
    }
    sides |= {name: (_ready(ARCH_REGISTRY.get(RIVALS[name][0])(**RIVALS[name][1])), (low,)) for name in rivals}
    facts = {name: _facts(net, *inputs) for name, (net, inputs) in sides.items()}
    with torch.inference_mode():
        for own in ours:
            for other in rivals:
                (a, x), (b, y) = sides[other], sides[own]
                result = paired(lambda a=a, x=x: a(*x), lambda b=b, y=y: b(*y), pairs)
                yield {"what": own, "reference": other, "size": size, **result,
                       "facts": facts[own], "reference_facts": facts[other]}  # fmt: skip


def quick() -> list[dict[str, Any]]:
    """The smaller ones at a small size, in seconds."""
    return list(measure(64, 3, ["ADMUNet, fast"], list(RIVALS)[:1]))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each of ours, a column for each rival."""
    rivals = list(dict.fromkeys(row["reference"] for row in rows))
    lines = ["| | parameters, million | GFLOP | s |" + "".join(f" {name} / this |" for name in rivals)]
    lines.append("| --- " * (4 + len(rivals)) + "|")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["what"], {})[row["reference"]] = row
    for name, others in found.items():
        cells = [f"{o['ratio_median']:.2f} ({o['ratio_min']:.2f} to {o['ratio_max']:.2f})" for o in others.values()]
        first = next(iter(others.values()))
        lines.append(_line(name, first["facts"], first["seconds"], cells))
    last = list(found.values())[-1]
    for name, row in last.items():
        lines.append(_line(name, row["reference_facts"], row["reference_seconds"], ["" for _ in rivals]))
    return "\n".join(lines)


def _line(name: str, facts: dict[str, float], seconds: float, cells: list[str]) -> str:
    shown = [name, f"{facts['parameters'] / 1e6:.2f}", f"{facts['flops'] / 1e9:.1f}", f"{seconds:.3f}", *cells]
    return "| " + " | ".join(shown) + " |"


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="height and width of the result, in pixels")
    parser.add_argument("--pairs", type=int, default=7, help="measured pairs per figure")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    rows = list(measure(args.size, args.pairs, list(OURS), list(RIVALS)))
    print(table(rows))
    write(args.out, {"seed": 0, "machine": machine("basicsr"), "rows": rows})


if __name__ == "__main__":
    main()
