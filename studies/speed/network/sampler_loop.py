"""Seconds and memory of the sampling loop alone, with a network that costs nothing, against a straightforward loop.

Straightforward: algorithm 2 as it reads. Coefficients are taken from float32 tables at every step and spread over the
batch, each operation makes a new tensor, and every point and prediction is kept for the log (or, in the second
comparison, nothing is). Both draw the same noise and run in one process in the order A B A B ...; each figure is a
ratio of neighbours.

    OMP_NUM_THREADS=1 python -m studies.speed.network.sampler_loop --out studies/speed/results/sampler_loop.json
"""

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from i2sb_plugin import samplers
from i2sb_plugin.bridge import Bridge

BRIDGE = Bridge.one_clock(1000)
MEMORY_SIDE = 2048  # pixels of the image whose peak memory is read
MIB = 2**20


def straightforward(x1: Tensor, steps: list[int], keep: bool) -> Tensor:
    """Algorithm 2 without care for time or memory; with ``keep``, all points and predictions stay in a list."""
    sigma = BRIDGE.sigma.float()
    log = []
    xt = x1
    for step, previous in itertools.pairwise(steps):
        now = torch.full((len(xt),), step)
        std = sigma[now].reshape(-1, 1, 1, 1)
        x0 = (xt - std * free(xt)).clamp(-1, 1)
        std_previous = sigma[torch.full((len(xt),), previous)].reshape(-1, 1, 1, 1)
        between = std**2 - std_previous**2
        mean = between / std**2 * x0 + std_previous**2 / std**2 * xt
        xt = mean
        if previous > 0:
            xt = mean + (std_previous**2 * between / std**2).sqrt() * torch.randn_like(xt)
        if keep:
            log.append((xt, x0))
    return xt


def ours(x1: Tensor, steps: list[int], callback: samplers.Callback | None = None) -> Tensor:
    """The sampler ``ancestral`` with the same network."""

    def predict_x0(xt: Tensor, step: int) -> Tensor:
        return BRIDGE.x0_from(xt, free(xt), torch.full((len(xt),), step))

    return samplers.ancestral(predict_x0, BRIDGE, x1, steps, clip=True, callback=callback)


def noise(like: Tensor, times: int) -> None:
    """The draws of a walk and nothing else."""
    for _ in range(times):
        torch.randn_like(like)


def free(xt: Tensor) -> Tensor:
    """A network that costs nothing: eps = 0, without memory of its own."""
    return torch.zeros((), dtype=xt.dtype).expand_as(xt)


def paired(first: Callable[[], object], second: Callable[[], object], pairs: int) -> dict:
    """Ratios of seconds, first by second, of neighbouring runs, after one run of each to warm up."""
    runs = {"first": [], "second": []}
    for k in range(pairs + 1):
        for name, function in (("first", first), ("second", second)):
            torch.manual_seed(0)
            start = time.perf_counter()
            function()
            if k > 0:
                runs[name].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(runs["first"], runs["second"])]
    medians = {name: statistics.median(values) for name, values in runs.items()}
    spread = {"ratio_median": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
    return spread | {"first_seconds": medians["first"], "second_seconds": medians["second"], "pairs": pairs}


def measure(size: int, batch: int, nfe: int, pairs: int) -> list[dict]:
    """Compare times at one size; rows for the results."""
    x1 = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    steps = samplers.step_grid(BRIDGE, nfe)
    common = {"batch": batch, "size": size, "nfe": nfe}
    seen = []

    def watch(step: int, xt: Tensor, x0: Tensor) -> None:
        if step % 100 == 0:
            seen.append(xt.clone())
            del seen[:-10]

    comparisons = {
        "straightforward, keeps all / ours": (lambda: straightforward(x1, steps, True), lambda: ours(x1, steps)),
        "straightforward, keeps none / ours": (lambda: straightforward(x1, steps, False), lambda: ours(x1, steps)),
        "ours, callback copies each 100th step / ours": (lambda: ours(x1, steps, watch), lambda: ours(x1, steps)),
        "noise alone / ours": (lambda: noise(x1, len(steps) - 2), lambda: ours(x1, steps)),
    }
    rows = [{"what": what} | common | paired(*pair, pairs) for what, pair in comparisons.items()]
    torch.manual_seed(0)
    slow = straightforward(x1, steps, False)
    torch.manual_seed(0)
    rows.append({"what": "largest difference"} | common | {"value": (slow - ours(x1, steps)).abs().max().item()})
    return rows


def memory(what: str, nfe: int) -> float:
    """Peak memory of a process that samples one large image, beyond x1 itself, in images."""
    command = [sys.executable, "-m", "studies.speed.network.sampler_loop", "--memory-of", what, "--nfe", str(nfe)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak(what: str, nfe: int) -> float:
    """What :func:`memory` asks of its process."""
    x1 = torch.zeros(1, 3, MEMORY_SIDE, MEMORY_SIDE)
    steps = samplers.step_grid(BRIDGE, nfe)
    small = x1[..., :64, :64].contiguous()
    run = {"ours": ours, "straightforward": lambda x, s: straightforward(x, s, True)}[what]
    run(small, steps)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
    before = resident("VmRSS")
    run(x1, steps)
    return (resident("VmHWM") - before) / (x1.numel() * x1.element_size())


def resident(field: str) -> int:
    """Bytes of this process's memory by a field of Linux's ``/proc/self/status``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}; this needs Linux")


def quick() -> list[str]:
    """The comparison at a small size, in seconds; lines to print."""
    rows = measure(64, 1, 100, 3)
    return [f"{row['what']}: {row['ratio_median']:.2f}" for row in rows if "ratio_median" in row]


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    lines = ["| what | value (least to most) |", "| --- | --- |"]
    for row in rows:
        if "ratio_median" in row:
            value = f"{row['ratio_median']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
            lines.append(f"| seconds: {row['what']} | {value} |")
        elif row["what"] == "largest difference":
            lines.append(f"| largest difference of the two results, of 2 | {row['value']:.0e} |")
        else:
            lines.append(f"| {row['what']}, NFE {row['nfe']} | {row['value']:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--nfe", type=int, default=999)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory-of", choices=("ours", "straightforward"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        print(peak(args.memory_of, args.nfe))
        return
    rows = measure(args.size, args.batch, args.nfe, args.pairs)
    for what in ("ours", "straightforward"):
        for nfe in (5, 20):
            rows.append({"what": f"peak memory in images, {what}", "nfe": nfe, "value": memory(what, nfe)})
    print(json.dumps(rows, indent=1))
    if args.out:
        machine = {"machine": platform.machine(), "python": platform.python_version(), "torch": torch.__version__}
        machine |= {"threads": torch.get_num_threads(), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
        args.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
