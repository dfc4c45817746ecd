"""What the figures of a training run cost: seconds of an iteration with and without them, A B A B in one process.

A is an iteration as it is; B one whose loss by time step is not gathered. Gathering it, and what is done at each line
of the log (the console's line, TensorBoard's scalars), are also timed on their own, as shares of the iterations.

    python -m studies.speed.training.training_log --out studies/speed/results/training_log.json
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch

from basicsr_ext.cli import main as basicsr
from basicsr_ext.models.loss_by_time import LossByTime
from basicsr_ext.models.restoration_model import RestorationModel
from basicsr_ext.options.file import load_yaml
from studies.timing import replaced

OPTIONS = Path(__file__).parents[3] / "options" / "i2sb_sr4x_plain.yml"
WARM_UP = 6  # iterations that are run and not counted


class Clock:
    """Seconds of the iterations, of every second one without the profile, and of the lines of the log."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {"with": [], "without": [], "line": [], "gather": []}
        self.count = 0
        self.gather = LossByTime.add

    def optimize(self, model: RestorationModel, current_iter: int) -> None:
        """Time one step of the optimiser."""
        self.count += 1
        start = time.perf_counter()
        self.unpatched(model, current_iter)
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        if self.count > WARM_UP:
            self.seconds["with" if self.count % 2 else "without"].append(time.perf_counter() - start)

    def note(self, losses: LossByTime, *what: object) -> None:
        """Gather in every second iteration."""
        if self.count % 2:
            start = time.perf_counter()
            self.gather(losses, *what)
            self.seconds["gather"].append(time.perf_counter() - start)

    def line(self, log: object, figures: dict) -> None:
        """Time one line of the log."""
        start = time.perf_counter()
        self.unpatched_line(log, figures)
        self.seconds["line"].append(time.perf_counter() - start)

    def run(self, opt: dict) -> None:
        """Train in the current folder with the clock in place."""
        from basicsr_ext import repairs

        repairs.apply()
        from basicsr.utils import MessageLogger

        Path("log.yml").write_text(json.dumps(opt))
        self.unpatched, self.unpatched_line = RestorationModel.optimize_parameters, MessageLogger.__call__
        with (
            replaced(RestorationModel, "optimize_parameters", lambda *a: self.optimize(*a)),
            replaced(LossByTime, "add", lambda *a: self.note(*a)),
            replaced(MessageLogger, "__call__", lambda *a: self.line(*a)),
        ):
            if code := basicsr(["train", "-opt", "log.yml"]):
                raise SystemExit(code)


def options(iterations: int, every: int) -> dict:
    """The option file, cut to a few iterations without validation."""
    opt = load_yaml(OPTIONS)
    del opt["datasets"]["val"], opt["val"]
    opt["train"]["total_iter"] = WARM_UP + 2 * iterations
    opt["logger"] |= {"print_freq": every, "save_checkpoint_freq": 1_000_000}
    return opt


def error_seconds(batch: int = 8, size: int = 64) -> float:
    """Seconds to compare a prediction of the option file's shape with its target, image by image."""
    prediction, target = torch.rand(2, batch, 3, size, size)
    times = []
    for _ in range(100):
        start = time.perf_counter()
        (prediction - target).square().flatten(1).mean(1)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def summary(seconds: dict[str, list[float]], every: int) -> dict[str, float]:
    """Ratios of neighbours, and the cost of a line."""
    ratios = [a / b for a, b in zip(seconds["with"], seconds["without"])]
    iteration, line = statistics.median(seconds["with"]), statistics.median(seconds["line"][1:])
    gather = statistics.median(seconds["gather"][1:]) + error_seconds()
    return {
        "pairs": len(ratios),
        "iteration_seconds": iteration,
        "ratio_with_to_without_median": statistics.median(ratios),
        "ratio_quartiles": [round(q, 4) for q in statistics.quantiles(ratios, n=4)],
        "gather_seconds_median": gather,
        "gather_share": gather / iteration,
        "line_seconds_median": line,
        "iterations_per_line": every,
        "line_share": line / (every * iteration),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=60, help="pairs of iterations")
    parser.add_argument("--every", type=int, default=10, help="iterations between two lines of the log")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    out, here, clock = args.out.resolve() if args.out else None, Path.cwd(), Clock()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            clock.run(options(args.iterations, args.every))
        finally:
            os.chdir(here)
    machine = {"machine": platform.machine(), "python": platform.python_version(), "torch": torch.__version__}
    machine |= {"threads": torch.get_num_threads(), "device": "cuda" if torch.cuda.is_available() else "cpu"}
    result = {"machine": machine, **summary(clock.seconds, args.every)}
    print(json.dumps(result, indent=1))
    if out:
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
