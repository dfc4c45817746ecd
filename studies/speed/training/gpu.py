"""The network on a GPU against guided-diffusion: training, sampling, memory, profile and distance from the floor.

One command of a few minutes that needs torch, numpy and this repository alone; BasicSR may be missing, and then the
training loop is not measured.

    python -m studies.speed.training.gpu --guided ../guided-diffusion --out studies/speed/results/gpu.json
    python -m studies.speed.training.gpu --quick       # small sizes, on a CPU too: tries the way, figures say nothing

Ours: bf16, channels_last, parts compiled, fused AdamW, average in one call. The other side trains as it was released:
float32 (with TF32) or its own fp16 with loss scale and norms, AdamW, the average tensor by tensor; and samples in fp16.
Results are written after every part, so that a run that is cut short keeps what it has.
"""

import argparse
import contextlib
import copy
import gc
import importlib.util
import io
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from basicsr_ext.models import acceleration
from studies.timing import machine, write

__all__ = ["main", "sections", "table"]
Row = dict[str, object]
FAILURES = (RuntimeError, AttributeError, ImportError)  # of a compiler, of memory, of another release of torch


def stand_in_for_basicsr() -> bool:
    """Let the network be imported without BasicSR, which only keeps a register of it; True if BasicSR is there."""
    if importlib.util.find_spec("basicsr") is not None:
        return True
    registry = types.ModuleType("basicsr.utils.registry")
    registry.ARCH_REGISTRY = types.SimpleNamespace(register=lambda: lambda cls: cls)
    sys.modules |= {name: types.ModuleType(name) for name in ("basicsr", "basicsr.utils")}
    sys.modules["basicsr.utils.registry"] = registry
    return False


class Bench:
    """Sizes, device and times of one run."""

    def __init__(self, args: argparse.Namespace, basicsr: bool) -> None:
        self.basicsr = basicsr
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.gpu = self.device.type == "cuda"
        self.guided: Path | None = args.guided
        self.quick: bool = args.quick
        self.size = 32 if args.quick else 256
        self.repeats = 1 if args.quick else args.repeats
        self.budget = 0.001 if args.quick else 16.0  # GiB of activations
        self.presets = (
            {"tiny": 2} if args.quick else {"adm256": args.batch, "base": 4 * args.batch, "small": 8 * args.batch}
        )

    def network(self, preset: str) -> nn.Module:
        from studies.speed.network.unet_sides import awake_network

        attends = {} if preset != "tiny" else {"middle_attention": True}
        return awake_network(preset, **attends).to(self.device)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, 3, self.size, self.size, device=self.device)
        return x, torch.rand(count, device=self.device) * 1000

    def wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object], warm: int = 3) -> dict[str, float]:
        """Median and extremes of ``repeats`` runs after ``warm`` unmeasured ones; and the first one, with compiling."""
        times = []
        for _ in range(warm + self.repeats):
            self.wait()
            start = time.perf_counter()
            run()
            self.wait()
            times.append(time.perf_counter() - start)
        kept = sorted(times[warm:])
        return {"seconds": kept[len(kept) // 2], "min": kept[0], "max": kept[-1], "first": times[0]}

    def peak(self, run: Callable[[], object]) -> float | None:
        """GiB that one run takes at most above what lay there before; None on a CPU."""
        if not self.gpu:
            return None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        self.wait()
        return (torch.cuda.max_memory_allocated() - before) / 2**30

    def free(self) -> None:
        gc.collect()
        if self.gpu:
            torch.cuda.empty_cache()


def flops(net: nn.Module, size: int) -> tuple[int, int]:
    """Operations of one image, forward and forward with backward; a multiplication with its sum counts as two."""
    from torch.utils.flop_counter import FlopCounterMode

    net = copy.deepcopy(net).to("meta")
    x, t = torch.zeros(1, 3, size, size, device="meta"), torch.ones(1, device="meta")
    with FlopCounterMode(display=False) as forward:
        y = net(x, t)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    return forward.get_total_flops(), forward.get_total_flops() + backward.get_total_flops()


def ceiling(bench: Bench) -> Row:
    """What the card reaches at best: a product of square bf16 matrices, and a copy (bytes read and written)."""
    side, size = (256, 2**20) if bench.quick else (8192, 2**31)
    a, b = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    product = bench.seconds(lambda: a @ b)["seconds"]
    source = torch.ones(size, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    copied = bench.seconds(lambda: target.copy_(source))["seconds"]
    return {"what": "ceiling", "tflops": 2 * side**3 / product / 1e12, "copy_tb_per_s": 2 * size / copied / 1e12}


def our_step(bench: Bench, net: nn.Module, count: int, **wishes: object) -> Callable[[], None]:
    """A training step of ours on ``count`` images."""
    from studies.speed.network.unet_sides import Trainer, ema_together

    chosen = acceleration.choose(bench.device, {"precision": "bf16", "compile": bench.gpu, **wishes})
    chosen.start()
    trainer = Trainer(chosen.prepare(net), {"fused": True}, ema_together, chosen.autocast)
    x, t = bench.batch(count)
    return lambda: trainer.step(x, t)


def guided_step(bench: Bench, net: nn.Module, count: int, half: bool) -> Callable[[], None]:
    """A training step of guided-diffusion's module as its own loop makes it."""
    from studies.speed.network.unet_sides import guided, guided_ema, guided_package

    model = guided(net, bench.guided, bench.size).train()
    model.dtype = torch.float16 if half else torch.float32
    mixed = guided_package(bench.guided, "fp16_util").MixedPrecisionTrainer(model=model, use_fp16=half)
    optimizer = torch.optim.AdamW(mixed.master_params, lr=1e-5, weight_decay=0.0)
    average, update = copy.deepcopy(mixed.master_params), guided_ema(bench.guided)
    x, t = bench.batch(count)

    def step() -> None:
        mixed.zero_grad()
        mixed.backward((model(x, t).float() - x).square().mean())
        if mixed.optimize(optimizer):
            update(average, mixed.master_params)

    return step


def training(bench: Bench, preset: str, count: int) -> Iterator[Row]:
    """Milliseconds and memory per image of a training step, ours in three ways and the other side's in two."""
    ways: dict[str, Callable[[nn.Module], Callable[[], None]]] = {
        "ours": lambda net: our_step(bench, net, count),
        "ours, enlarged images folded": lambda net: our_step(bench, folding(net), count),
        "ours, not compiled": lambda net: our_step(bench, net, count, compile=False),
        "ours, every block recomputed": lambda net: our_step(bench, recomputing(net, True), count),
        "ours, recomputed to a budget": lambda net: our_step(bench, recomputing(net, bench.budget), count),
    }
    if bench.guided:
        ways["guided-diffusion, float32"] = lambda net: guided_step(bench, net, count, half=False)
        ways |= {"guided-diffusion, fp16": lambda net: guided_step(bench, net, count, half=True)} if bench.gpu else {}
    yield from each_way(bench, "training", preset, count, ways)


def each_way(
    bench: Bench, what: str, preset: str, count: int, ways: dict[str, Callable[[nn.Module], Callable[[], object]]]
) -> Iterator[Row]:
    """A row for each way to run the network of a preset; one that fails says why and leaves the others alone."""
    for way, make in ways.items():
        row: Row = {"what": what, "preset": preset, "way": way, "batch": count, "size": bench.size}
        try:
            run = make(bench.network(preset))
            times, memory = bench.seconds(run), bench.peak(run)
        except FAILURES as error:
            yield failed(error, **row)
        else:
            each = {"ms_per_image": 1e3 * times["seconds"] / count, "gib_per_image": memory and memory / count}
            yield row | times | each
            del run
        bench.free()


def folding(net: nn.Module) -> nn.Module:
    """The network with ``network_g.fold_upsampling: true``."""
    from i2sb_plugin.archs.adm_unet_blocks import Upsample

    for module in net.modules():
        if isinstance(module, Upsample):
            module.fold = True
    return net


def recomputing(net: nn.Module, budget: bool | float) -> nn.Module:
    """The network with ``network_g.checkpoint``: blocks are computed again in the backward pass, all or to a budget."""
    from i2sb_plugin.archs.recompute import Recompute

    net.recompute = Recompute(budget)
    return net


def our_forward(bench: Bench, net: nn.Module, x: Tensor, t: Tensor, rounded: bool = False) -> Callable[[], object]:
    """One network evaluation as a restoration makes it.

    With ``rounded`` the weights are bf16 from the start, which restorations leave to autocast at every evaluation: what
    that costs.
    """
    chosen = acceleration.choose(bench.device, {"precision": "bf16", "compile": bench.gpu})
    net = chosen.prepare(net.eval())
    if rounded:
        net.input_blocks.bfloat16(), net.middle_block.bfloat16(), net.output_blocks.bfloat16()

    def call() -> Tensor:
        with torch.inference_mode(), chosen.autocast():
            return net(x, t)

    return call


def sampling(bench: Bench, preset: str, count: int) -> Iterator[Row]:
    """Milliseconds per image and network evaluation."""
    from studies.speed.network.unet_sides import guided

    x, t = bench.batch(count)
    ways: dict[str, Callable[[nn.Module], Callable[[], object]]] = {
        "ours": lambda net: our_forward(bench, net, x, t),
        "ours, weights rounded once": lambda net: our_forward(bench, net, x, t, rounded=True),
        "ours, enlarged images folded": lambda net: our_forward(bench, folding(net), x, t),
    }
    if bench.guided:
        ways["guided-diffusion, fp16" if bench.gpu else "guided-diffusion, float32"] = lambda net: half(
            guided(net, bench.guided, bench.size).eval(), bench, x, t
        )
    yield from each_way(bench, "sampling", preset, count, ways)


def half(model: nn.Module, bench: Bench, x: Tensor, t: Tensor) -> Callable[[], object]:
    """One evaluation of guided-diffusion's module, in its fp16 on a GPU."""
    if bench.gpu:
        model.dtype = torch.float16
        model.convert_to_fp16()

    def call() -> Tensor:
        with torch.inference_mode():
            return model(x, t)

    return call


def profile(bench: Bench, preset: str, count: int) -> Row:
    """Where the time of a training step goes: the kernels that take most of it."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    step = our_step(bench, bench.network(preset), count)
    for _ in range(2):
        step()
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.gpu else [])]
    with profiler(activities=kinds) as found:
        step()
        bench.wait()
    name = "self_device_time_total" if bench.gpu else "self_cpu_time_total"
    events = sorted(found.key_averages(), key=lambda e: getattr(e, name), reverse=True)
    total = sum(getattr(e, name) for e in events)
    top = [{"name": e.key[:80], "share": getattr(e, name) / max(total, 1), "calls": e.count} for e in events[:15]]
    return {"what": "profile", "preset": preset, "kernels": top}


def floors(bench: Bench, preset: str, tflops: float, rows: list[Row]) -> Row:
    """Milliseconds per image at the ceiling, and how many times that the measured ones are."""
    forward, both = flops(bench.network(preset), bench.size)
    floor = {"sampling": 1e3 * forward / tflops / 1e12, "training": 1e3 * both / tflops / 1e12}
    ours = [r for r in rows if r.get("preset") == preset and r["what"] in floor and str(r["way"]).startswith("ours")]
    times = {f"{r['what']}: {r['way']}": r["ms_per_image"] / floor[r["what"]] for r in ours}
    tera = {"forward_tflop": forward / 1e12, "training_tflop": both / 1e12}
    return {"what": "floor", "preset": preset, **tera, "floor_ms": floor, "times_the_floor": times}


def attempt(rows: Iterator[Row], **which: object) -> Iterator[Row]:
    """The rows, and a last one that says why if one of them could not be measured."""
    try:
        yield from rows
    except FAILURES as error:
        yield failed(error, **which)


def failed(error: BaseException, **which: object) -> Row:
    """The row of something that could not be measured."""
    return {**which, "what": "failed", "tried": which.get("what"), "error": str(error)[:500]}


def loop(bench: Bench, preset: str, count: int) -> Iterator[Row]:
    """The share of an iteration of ``basicsr train`` that is outside the network's work, and that waits for data."""
    from studies.speed.training.loop import measured

    workers, iterations = (0, 5) if bench.quick else (8, 30)
    with contextlib.redirect_stderr(io.StringIO()):
        found = measured(preset, count, bench.size, workers=workers, iterations=iterations)
    yield {"what": "loop", "preset": preset, "way": "ours", **found}


def sections(bench: Bench) -> Iterator[Row]:
    """All rows in the order of their weight."""
    rows = [ceiling(bench)]
    yield rows[0]
    for preset, count in bench.presets.items():
        for part in (sampling, training):
            for row in attempt(part(bench, preset, count), what=part.__name__, preset=preset):
                rows.append(row)
                yield row
        last = [(f, (bench, preset, *more)) for f, more in ((floors, (rows[0]["tflops"], rows)), (profile, (count,)))]
        for make, given in last:
            yield from attempt((make(*given) for _ in range(1)), what=make.__name__, preset=preset)
        bench.free()
    if bench.basicsr:
        preset, count = next(iter(bench.presets.items()))
        yield from attempt(loop(bench, preset, count), what="loop", preset=preset)


def table(rows: list[Row]) -> str:
    """The rows of networks as Markdown."""
    floor = {row["preset"]: row["times_the_floor"] for row in rows if row["what"] == "floor"}
    heads = ("network", "what", "way", "ms for an image (least to most)", "GiB for an image", "times the floor")
    lines = [f"| {' | '.join(heads)} | first call, s |", "|" + " --- |" * (len(heads) + 1)]
    for row in rows:
        if row["what"] not in ("sampling", "training"):
            continue
        low, high = (1e3 * row[end] / row["batch"] for end in ("min", "max"))
        times = floor.get(row["preset"], {}).get(f"{row['what']}: {row['way']}")
        memory = "" if row["gib_per_image"] is None else f"{row['gib_per_image']:.2f}"
        cells = [f"{row['preset']}, {row['batch']} x {row['size']}^2", row["what"], row["way"]]
        cells += [f"{row['ms_per_image']:.2f} ({low:.2f} to {high:.2f})", memory]
        cells += ["" if times is None else f"{times:.2f}", f"{row['first']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print every row and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guided", type=Path, help="checkout of guided-diffusion")
    parser.add_argument(
        "--batch", type=int, default=8, help="images of adm256; base takes 4 times, small 8 times as many"
    )
    parser.add_argument("--repeats", type=int, default=10, help="measured runs per figure")
    parser.add_argument("--quick", action="store_true", help="try the way at small sizes")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    there = stand_in_for_basicsr()
    bench = Bench(args, there)
    rows: list[Row] = []
    for row in sections(bench):
        rows.append(row)
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        write(args.out, {"seed": 0, "quick": args.quick, "machine": machine(device=bench.device), "rows": rows})


if __name__ == "__main__":
    main()
