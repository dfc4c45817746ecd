"""Seconds of a training iteration by part, in the real training loop, and images per second of the data set.

Runs ``basicsr train`` on a shortened copy of an option file in a temporary folder, with a stop-watch around the
network's forward pass, the backward pass, the optimiser's step, the weight average and the wait for data. What is left
of an iteration beside the first four (data, noise, target, loss, clipping, schedule, log) is the loop's own share.

    OMP_NUM_THREADS=1 python -m studies.speed.training.loop --preset small --out studies/speed/results/loop.json
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch

from basicsr_ext.cli import main as basicsr
from basicsr_ext.models.restoration_model import RestorationModel
from basicsr_ext.options.file import load_yaml
from i2sb_plugin.archs.adm_unet_arch import PRESETS
from i2sb_plugin.data.paired_degradation_dataset import PairedDegradationDataset
from studies.timing import machine, replaced, write

OPTIONS = Path(__file__).parents[3] / "options" / "i2sb_sr4x_plain.yml"
PARTS = ("forward", "backward", "optimiser", "average")
WARM_UP = 5  # iterations that are run and not counted


class StopWatch:
    """Seconds of each part of each iteration; an iteration lasts until the next one starts to optimise."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.begun: dict[str, float] = {}
        self.parts: dict[str, defaultdict[int, float]] = {
            part: defaultdict(float) for part in (*PARTS, "optimize", "waiting")
        }

    def begin(self, part: str) -> None:
        """Start the clock of ``part``."""
        _finish()
        self.begun[part] = time.perf_counter()

    def end(self, part: str) -> None:
        """Add the seconds since :meth:`begin` to ``part`` of the iteration that runs."""
        _finish()
        self.parts[part][len(self.starts) - 1] += time.perf_counter() - self.begun[part]

    def timed(self, part: str, function: Callable) -> Callable:
        """``function`` with its seconds added to ``part``."""

        def run(*args: object, **kwargs: object) -> object:
            self.begin(part)
            result = function(*args, **kwargs)
            self.end(part)
            return result

        return run

    def watch(self, optimize: Callable) -> Callable:
        """``optimize_parameters`` that starts an iteration, with the parts of its model timed from the first on."""

        def run(model: RestorationModel, current_iter: int) -> None:
            if not self.starts:
                model.net_g.register_forward_pre_hook(lambda *_: self.begin("forward"))
                model.net_g.register_forward_hook(lambda *_: self.end("forward"))
                model.optimizer_g.register_step_pre_hook(lambda *_: self.begin("optimiser"))
                model.optimizer_g.register_step_post_hook(lambda *_: self.end("optimiser"))
                model.model_ema = self.timed("average", model.model_ema)
            _finish()
            self.starts.append(time.perf_counter())
            self.timed("optimize", optimize)(model, current_iter)

        return run

    def summary(self) -> dict[str, float]:
        """Medians over the counted iterations, seconds, and the share outside the four parts."""
        counted = range(WARM_UP, len(self.starts) - 1)
        whole = [self.starts[k + 1] - self.starts[k] for k in counted]
        inside = [sum(self.parts[part][k] for part in PARTS) for k in counted]
        outside = [1 - part / total for part, total in zip(inside, whole)]
        between = [total - self.parts["optimize"][k] for k, total in zip(counted, whole)]
        return {
            "iterations": len(counted),
            "iteration_seconds": statistics.median(whole),
            **{f"{part}_seconds": statistics.median(self.parts[part][k] for k in counted) for part in PARTS},
            "data_and_log_seconds": statistics.median(between),
            "waiting_share_overall": sum(self.parts["waiting"][k] for k in counted) / sum(whole),
            "outside_share_median": statistics.median(outside),
            "outside_share_overall": 1 - sum(inside) / sum(whole),
            "outside_share_min": min(outside),
            "outside_share_max": max(outside),
        }


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def options(file: Path, preset: str, batch: int, size: int, workers: int, decode: bool, iterations: int) -> dict:
    """The option file, cut to a few iterations without validation."""
    opt = load_yaml(file)
    del opt["datasets"]["val"], opt["val"]
    opt["network_g"]["preset"] = preset
    loading = {"num_worker_per_gpu": workers, "cache": not decode}
    opt["datasets"]["train"] |= {"batch_size_per_gpu": batch, "gt_size": size, **loading}
    opt["train"]["total_iter"] = WARM_UP + iterations + 1
    opt["logger"] |= {"print_freq": 10, "save_checkpoint_freq": 1_000_000}
    return opt


def measure_loop(opt: dict) -> dict[str, float]:
    """Train in the current folder and return the stop-watch's summary."""
    Path("loop.yml").write_text(json.dumps(opt))
    from basicsr.data.prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher

    watch = StopWatch()
    with (
        replaced(CPUPrefetcher, "next", watch.timed("waiting", CPUPrefetcher.next)),
        replaced(CUDAPrefetcher, "next", watch.timed("waiting", CUDAPrefetcher.next)),
        replaced(RestorationModel, "optimize_parameters", watch.watch(RestorationModel.optimize_parameters)),
        replaced(torch.Tensor, "backward", watch.timed("backward", torch.Tensor.backward)),
    ):
        code = basicsr(["train", "-opt", "loop.yml"])
    if code:
        raise SystemExit(code)
    return watch.summary()


def measure_dataset(opt: dict, images: int, cache: bool) -> float:
    """Training crops per second, one process, decoding each photograph every time unless ``cache``."""
    block = {**opt["datasets"]["train"], "phase": "train", "scale": opt["scale"], "cache": cache}
    dataset = PairedDegradationDataset(block)
    for index in range(len(dataset)):
        dataset[index]
    start = time.perf_counter()
    for k in range(images):
        dataset[k % len(dataset)]
    return images / (time.perf_counter() - start)


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    names = [*(f"{part}, s" for part in PARTS), "outside the four", "waiting for data"]
    lines = [f"| network | iteration, s | {' | '.join(names)} |", "|" + " --- |" * (len(names) + 2)]
    for row in rows:
        values = " | ".join(f"{row[f'{part}_seconds']:.4f}" for part in PARTS)
        share = " | ".join(f"{100 * row[f'{part}_share_overall']:.1f} %" for part in ("outside", "waiting"))
        network = f"{row['preset']}, {row['batch']} x {row['size']}^2"
        lines.append(f"| {network} | {row['iteration_seconds']:.4f} | {values} | {share} |")
    return "\n".join(lines)


def quick() -> list[dict]:
    """A few iterations of the smallest network, in seconds."""
    return [measured("tiny", 1, 32, iterations=5)]


def measured(
    preset: str,
    batch: int,
    size: int,
    workers: int = 0,
    decode: bool = False,
    iterations: int = 30,
    images: int = 0,
    file: Path = OPTIONS,
) -> dict:
    """One row: ``iterations`` of training in a temporary folder, and crops per second of ``images`` of the data set."""
    result = {"preset": preset, "batch": batch, "size": size, "workers": workers, "decode": decode}
    opt, here = options(file, **result, iterations=iterations), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            result |= measure_loop(opt)
            if images:
                result["dataset_images_per_second"] = measure_dataset(opt, images, cache=False)
                result["dataset_images_per_second_cached"] = measure_dataset(opt, images, cache=True)
        finally:
            os.chdir(here)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--options", type=Path, default=OPTIONS, help="option file to shorten")
    parser.add_argument("--preset", choices=list(PRESETS), default="small")
    parser.add_argument("--batch", type=int, default=4, help="images in a batch")
    parser.add_argument("--size", type=int, default=64, help="height and width of the crops in pixels")
    parser.add_argument("--iterations", type=int, default=30, help="counted iterations")
    parser.add_argument("--images", type=int, default=200, help="training crops taken from the data set")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images")
    parser.add_argument("--decode", action="store_true", help="decode the photographs every time; else keep them")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    out = args.out.resolve() if args.out else None
    how = {"workers": args.workers, "decode": args.decode, "iterations": args.iterations, "images": args.images}
    result = measured(args.preset, args.batch, args.size, **how, file=args.options)
    print(table([result]))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    write(out, {"machine": machine("basicsr", device=device), "rows": [result]})


if __name__ == "__main__":
    main()
