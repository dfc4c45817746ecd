"""The network on a GPU against guided-diffusion: training, sampling, memory, profile and distance from the floor.

One command of a few minutes that needs torch, numpy and this repository alone; BasicSR may be missing.

    python -m benchmarks.gpu --guided ../guided-diffusion --out benchmarks/results/gpu.json
    python -m benchmarks.gpu --quick       # small sizes, on a CPU too: the way is tried, its figures say nothing

Ours: bf16, channels_last, parts compiled, fused AdamW, average in one call. The other side trains as it was released:
float32 (with TF32) or its own fp16 with loss scale and norms, AdamW, the average tensor by tensor; and samples in fp16.
Results are written after every part, so that a run that is cut short keeps what it has.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib.util
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from basicsr_ext import acceleration
from basicsr_ext.cuda_graphs import GraphedNetwork
from benchmarks.timing import machine, paired, write

__all__ = ["main", "sections"]
Row = dict[str, object]


def stand_in_for_basicsr() -> None:
    """Let the network be imported without BasicSR, which only keeps a register of it."""
    if importlib.util.find_spec("basicsr") is not None:
        return
    registry = types.ModuleType("basicsr.utils.registry")
    registry.ARCH_REGISTRY = types.SimpleNamespace(register=lambda: lambda cls: cls)
    sys.modules |= {name: types.ModuleType(name) for name in ("basicsr", "basicsr.utils")}
    sys.modules["basicsr.utils.registry"] = registry


class Bench:
    """Sizes, device and times of one run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.gpu = self.device.type == "cuda"
        self.guided: Path | None = args.guided
        self.quick: bool = args.quick
        self.size = 32 if args.quick else 256
        self.repeats = 1 if args.quick else args.repeats
        self.presets = (
            {"tiny": 2} if args.quick else {"adm256": args.batch, "base": 4 * args.batch, "small": 8 * args.batch}
        )

    def network(self, preset: str) -> nn.Module:
        from benchmarks.unet_sides import awake_network

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
    from benchmarks.unet_sides import Trainer, ema_together

    chosen = acceleration.choose(bench.device, {"precision": "bf16", "compile": bench.gpu, **wishes})
    chosen.start()
    trainer = Trainer(chosen.prepare(net), {"fused": True}, ema_together, chosen.autocast)
    x, t = bench.batch(count)
    return lambda: trainer.step(x, t)


def guided_step(bench: Bench, net: nn.Module, count: int, half: bool) -> Callable[[], None]:
    """A training step of guided-diffusion's module as its own loop makes it."""
    from benchmarks.unet_sides import guided, guided_ema, guided_package

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
        "ours, every block recomputed": lambda net: our_step(bench, recomputing(net), count),
    }
    if bench.guided:
        ways["guided-diffusion, float32"] = lambda net: guided_step(bench, net, count, half=False)
        ways |= {"guided-diffusion, fp16": lambda net: guided_step(bench, net, count, half=True)} if bench.gpu else {}
    for way, make in ways.items():
        step = make(bench.network(preset))
        times = bench.seconds(step)
        memory = bench.peak(step)
        row = {"what": "training", "preset": preset, "way": way, "batch": count, "size": bench.size, **times}
        yield row | {"ms_per_image": 1e3 * times["seconds"] / count, "gib_per_image": memory and memory / count}
        del step
        bench.free()


def folding(net: nn.Module) -> nn.Module:
    """The network with ``network_g.fold_upsampling: true``."""
    from i2sb_plugin.archs.adm_unet_blocks import Upsample

    for module in net.modules():
        if isinstance(module, Upsample):
            module.fold = True
    return net


def recomputing(net: nn.Module) -> nn.Module:
    """The network with every block computed again in the backward pass."""
    from i2sb_plugin.archs.recompute import Recompute

    net.recompute = Recompute(True)
    return net


def our_forward(bench: Bench, net: nn.Module, x: Tensor, t: Tensor, graph: bool) -> Callable[[], object]:
    """One network evaluation of ours; with ``graph`` replayed as a CUDA graph, as ``val.cuda_graph`` does."""
    chosen = acceleration.choose(bench.device, {"precision": "bf16", "compile": bench.gpu})
    net = chosen.prepare(net.eval())
    if chosen.precision != "fp32":  # the weights once, not at every call
        net.input_blocks.bfloat16(), net.middle_block.bfloat16(), net.output_blocks.bfloat16()

    evaluate = GraphedNetwork(net) if graph else net

    def call() -> Tensor:
        with torch.inference_mode(), chosen.autocast():
            return evaluate(x, t)

    return call


def sampling(bench: Bench, preset: str, count: int) -> Iterator[Row]:
    """Milliseconds per image and network evaluation."""
    from benchmarks.unet_sides import guided

    x, t = bench.batch(count)
    ways: dict[str, Callable[[nn.Module], Callable[[], object]]] = {
        "ours": lambda net: our_forward(bench, net, x, t, False),
        "ours, enlarged images folded": lambda net: our_forward(bench, folding(net), x, t, False),
    }
    if bench.gpu:
        ways["ours, CUDA graph"] = lambda net: our_forward(bench, net, x, t, True)
    if bench.guided:
        ways["guided-diffusion, fp16" if bench.gpu else "guided-diffusion, float32"] = lambda net: half(
            guided(net, bench.guided, bench.size).eval(), bench, x, t
        )
    for way, make in ways.items():
        call = make(bench.network(preset))
        times = bench.seconds(call)
        row = {"what": "sampling", "preset": preset, "way": way, "batch": count, "size": bench.size, **times}
        yield row | {"ms_per_image": 1e3 * times["seconds"] / count}
        del call
        bench.free()


def walks(bench: Bench, preset: str, count: int) -> Iterator[Row]:
    """Milliseconds per image and evaluation of walks, plain and with the network replayed (``val.cuda_graph``)."""
    chosen = acceleration.choose(bench.device, {"precision": "bf16", "compile": bench.gpu})
    net = chosen.prepare(bench.network(preset).eval())
    evaluations = 2 if bench.quick else 10
    for batch in dict.fromkeys((1, count)):
        x1, _ = bench.batch(batch)
        replayed = GraphedNetwork(net)
        plain, ours = (walk(bench, way, chosen, x1, evaluations) for way in (net, replayed))
        found = paired(plain, ours, bench.repeats, bench.device)
        each = {key: 1e3 * found[key] / batch / evaluations for key in ("reference_seconds", "seconds")}
        row = {"what": "walk", "preset": preset, "batch": batch, "size": bench.size, "evaluations": evaluations}
        row |= {"replayed": replayed.replayed > 0, "difference": float((plain() - ours()).abs().max())}
        yield row | found | {"ms_plain": each["reference_seconds"], "ms_replayed": each["seconds"]}
    bench.free()


def walk(
    bench: Bench, net: nn.Module, chosen: acceleration.Acceleration, x1: Tensor, evaluations: int
) -> Callable[[], Tensor]:
    """The restoration of a batch by ancestral steps, always with the same noise."""
    from i2sb_plugin import samplers
    from i2sb_plugin.bridge import Bridge

    bridge = Bridge.one_clock(1000)
    steps = samplers.step_grid(bridge, evaluations)

    def predict_x0(xt: Tensor, step: int) -> Tensor:
        node = torch.full((len(xt),), step)
        with chosen.autocast():
            prediction = net(xt, bridge.time(node).to(xt.device))
        return bridge.x0_from(xt, prediction.float(), node)

    def run() -> Tensor:
        with torch.no_grad():
            return samplers.ancestral(predict_x0, bridge, x1, steps, generator=torch.Generator().manual_seed(0))

    return run


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


def attempt(rows: Iterator[Row]) -> Iterator[Row]:
    """The rows, and a last one that says why if one of them could not be measured."""
    try:
        yield from rows
    except (RuntimeError, AttributeError, ImportError) as error:
        yield {"what": "failed", "error": str(error)[:500]}


def sections(bench: Bench) -> Iterator[Row]:
    """All rows in the order of their weight."""
    rows = [ceiling(bench)]
    yield rows[0]
    for preset, count in bench.presets.items():
        for part in (sampling, walks, training):
            for row in attempt(part(bench, preset, count)):
                rows.append(row)
                yield row
        yield floors(bench, preset, rows[0]["tflops"], rows)
        yield profile(bench, preset, count)
        bench.free()


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
    stand_in_for_basicsr()
    bench = Bench(args)
    rows: list[Row] = []
    for row in sections(bench):
        rows.append(row)
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        write(args.out, {"seed": 0, "quick": args.quick, "machine": machine(device=bench.device), "rows": rows})


if __name__ == "__main__":
    main()
