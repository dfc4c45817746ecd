"""Train and compare everything of ``study.yml``; an interrupted study goes on where it stopped.

    python -m studies.quality.study --data DIR            everything; hours on two CPU cores
    python -m studies.quality.study --data DIR --minutes 9    as much of it as nine minutes allow
    python -m studies.quality.study --data DIR --paces    only how long an iteration takes, for equal seconds: alone
    python -m studies.quality.study --quick               every line of it, a few iterations each: ten minutes

Networks and pictures go to ``study/``, figures to ``studies/quality/results/``; ``python -m studies.quality.pages``
then writes docs/results.md. A longer study (``--iterations``) goes on from the networks of a shorter one.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from basicsr_ext import repairs
from basicsr_ext.common import plugins
from basicsr_ext.common.cores import usable_cores
from basicsr_ext.common.errors import InputError
from basicsr_ext.options import check
from studies.quality.study.data import Photographs
from studies.quality.study.plan import Unit, merged, read

HERE = Path(__file__).parents[1]
STOPPED = 75  # exit code of a run that a signal ended, with its state saved
ITERATIONS, CROPS = 800, 40
PACE = (10, 110)  # iterations of the two trainings by which the seconds of one are measured
QUICK = {"iterations": 2, "crops": 2, "nfe": 2}
METRICS = {
    "psnr": {"type": "calculate_psnr", "crop_border": 0},
    "ssim": {"type": "calculate_ssim", "crop_border": 0},
    "lpips": {"type": "lpips"},
    "dists": {"type": "dists"},
    "patch_fid": {"type": "patch_fid", "features": "alexnet", "patch": 32, "stride": 16},
}
Y = {"crop_border": 4, "test_y_channel": True}  # of super-resolution, as its tables have it


class Stopped(Exception):
    """The time is over; ``seconds`` of the CPU were spent until then."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds


class Runner:
    """Runs units of a study, several at once, each process on a thread of its own."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.study, self.units = read(args.study)
        self.quick: bool = args.quick
        self.work = Path(args.work).absolute()
        self.results = Path(args.results or (self.work / "results" if args.quick else HERE / "results")).absolute()
        self.iterations = args.iterations or (QUICK["iterations"] if args.quick else ITERATIONS)
        self.metrics = _usable(args.weights)
        self.weights = str(Path(args.weights).absolute()) if args.weights else None
        data = Path(args.data).absolute() if args.data else None
        self.photographs = Photographs(data, self.work / "data", QUICK["crops"] if args.quick else CROPS)
        self.workers: int = 1 if args.paces else args.workers
        self.threads = 1 if args.paces else max(1, usable_cores() // args.workers)  # of each process
        self.only_paces: bool = args.paces
        self.end = time.monotonic() + 60 * args.minutes if args.minutes else None
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def run(self, patterns: list[str]) -> int:
        """Do every unit that matches and is not done; returns 1 if one failed, 75 if the time was over, else 0.

        Raises:
            InputError: a pattern matches nothing, photographs are missing, or a network's options are wrong.

        """
        wanted = self._wanted()
        for pattern in patterns:
            if not any(fnmatch(unit.name, pattern) for unit in wanted):
                raise InputError(f"--only {pattern!r} matches none of: {', '.join(unit.name for unit in wanted)}")
        chosen = [unit for unit in wanted if any(fnmatch(unit.name, pattern) for pattern in patterns)]
        todo = [unit for unit in chosen if not self._done(unit)]
        self._check(todo)
        if self.only_paces:
            for unit in todo:
                for network in unit.networks if unit.what.seconds else ():
                    print(f"{network}-{unit.task}: {self._pace(network, unit):.4f} CPU s an iteration", flush=True)
            return 0
        print(f"{len(chosen)} units, {len(chosen) - len(todo)} done already", flush=True)
        failed: list[str] = []
        stopped: list[str] = []

        def do(unit: Unit) -> None:
            start = time.monotonic()
            try:
                self._unit(unit)
                print(f"{unit.name}: {time.monotonic() - start:.0f} s", flush=True)
            except Stopped:
                stopped.append(unit.name)
                print(f"{unit.name}: stopped; the same command goes on", flush=True)
            except subprocess.CalledProcessError as error:
                failed.append(unit.name)
                print(f"{unit.name}: failed, see {error.output}", flush=True)

        with ThreadPoolExecutor(self.workers) as pool:
            compared = []
            for unit in todo:  # its networks side by side, then the comparison, which waits for them
                for network in unit.networks:
                    pool.submit(self._train, network, unit)
                compared.append(pool.submit(do, unit))
            for future in compared:
                future.result()
        return 1 if failed else STOPPED if stopped else 0

    def _wanted(self) -> list[Unit]:
        """A quick study does each comparison for its first task and one more, the claims for all; with one seed."""
        if not self.quick:
            return self.units
        few = {unit.comparison: (*unit.what.tasks[:1], "inpaint_center") for unit in self.units}
        few["claims"] = tuple(self.study.tasks)
        return [unit for unit in self.units if unit.seed == 0 and unit.task in few[unit.comparison]]

    def _check(self, units: list[Unit]) -> None:
        """What can be known to be wrong before hours of training."""
        self.photographs.check({name for unit in units for name in unit.what.data})
        faults = []
        for network, task in dict.fromkeys((network, unit.task) for unit in units for network in unit.networks):
            options = self.study.options(network, task, 0, "check", str(self.photographs.training), self.iterations)
            options.pop("after", None)
            faults += [f"networks.{network} for {task}: {fault}" for fault in check.check(options, True)]
        if faults:
            raise InputError("; ".join(faults))

    def _file(self, unit: Unit) -> Path:
        return self.results / f"{unit.name}.json"

    def _done(self, unit: Unit) -> bool:
        path = self._file(unit)
        if not path.is_file():
            return False
        known = json.loads(path.read_text())
        there = {method["name"] for method in known["methods"]}
        shown = {result["dataset"] for result in known["results"]}
        whole = there >= self._names(unit) and shown >= set(self._datasets(unit))
        if unit.what.seconds:
            return known.get("seconds") == unit.what.seconds and whole
        return known["iterations"] >= self._iterations(unit) and whole

    def _datasets(self, unit: Unit) -> dict[str, Any]:
        """Blocks of the data sets that are at hand; a quick study takes crops for whole photographs."""
        sources = {name: "crops" if self.quick and name == "bsds" else name for name in unit.what.data}
        found = {name: self.photographs.dataset(source, self._degradation(unit)) for name, source in sources.items()}
        return {name: {**block, "name": name} for name, block in found.items() if block}

    def _names(self, unit: Unit) -> set[str]:
        """Of its methods, as ``basicsr benchmark`` calls them: one for each NFE of a list."""
        methods = {name: self._method(block, unit).get("flags", {}) for name, block in unit.what.methods.items()}
        lists = {name: nfe for name, flags in methods.items() if isinstance(nfe := flags.get("nfe"), list)}
        return {name for name in methods if name not in lists} | {
            f"{name}_nfe{nfe}" for name, steps in lists.items() for nfe in steps
        }

    def _iterations(self, unit: Unit, network: str | None = None) -> int:
        """Of a network of a unit: the study's, or as many as its seconds allow."""
        if unit.what.seconds and network and not self.quick:
            return max(1, round(unit.what.seconds / self._pace(network, unit)))
        return self.iterations * unit.what.longer

    def _pace(self, network: str, unit: Unit) -> float:
        """CPU seconds of an iteration: those of ``paces.json``, so that every machine trains as far; else measured.

        Measured by two short trainings, so that what a start takes does not count.
        """
        name, file = f"{network}-{unit.task}", self.results / "paces.json"
        with self._locks["paces"]:
            known = json.loads(file.read_text()) if file.is_file() else {}
            if name not in known:
                seconds = {}
                for count in PACE:
                    run = f"pace-{name}-{count}"
                    options = self._options(network, unit, run, count, None)
                    options["path"].pop("pretrain_network_g", None)
                    seconds[count] = self.call("train", run, options)
                known[name] = round((seconds[PACE[1]] - seconds[PACE[0]]) / (PACE[1] - PACE[0]), 5)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
            return known[name]

    def _unit(self, unit: Unit) -> None:
        trained = {network: self._train(network, unit) for network in unit.networks}
        datasets = self._datasets(unit)
        methods = {name: self._method(block, unit) for name, block in unit.what.methods.items()}
        metrics = {name: merged(block, {}) for name, block in self.metrics.items()}
        if self._scale(unit) > 1:
            for name in ("psnr", "ssim"):
                metrics[name] |= Y
        benchmark = {
            "name": unit.name,
            "scale": self._scale(unit),
            "manual_seed": unit.seed,
            "datasets": {f"test_{k}": block for k, block in enumerate(datasets.values())},
            "methods": methods,
            "metrics": metrics,
            "weights": self.weights,
            "batch_size": 10,
        }
        self.call("benchmark", unit.name, {key: value for key, value in benchmark.items() if value is not None})
        records = json.loads((self.work / "results" / unit.name / "records.json").read_text())
        self.results.mkdir(parents=True, exist_ok=True)
        outcome = {"unit": unit.name, "iterations": self._iterations(unit), "data": self.photographs.source}
        if unit.what.seconds:
            outcome["seconds"] = unit.what.seconds
        outcome |= {"crops of a photograph": self.photographs.pieces}
        outcome |= {"trained": trained, **_condensed(records)}
        self._file(unit).write_text(json.dumps(outcome, separators=(",", ":")).replace('],"', '],\n"') + "\n")

    def _degradation(self, unit: Unit) -> dict[str, Any]:
        return self.study.tasks[unit.task]["degradation"]

    def _scale(self, unit: Unit) -> int:
        return self.study.tasks[unit.task].get("scale", 1)

    def _method(self, block: Mapping[str, Any], unit: Unit) -> dict[str, Any]:
        """The block of ``basicsr benchmark``; a quick study walks two steps at most."""
        block = dict(block)
        network = block.pop("network", None)
        if network is None:
            return block
        block.pop("tasks", None)
        run = _run_name(network, unit)
        flags = dict(block.pop("flags", {}))
        if self.quick and isinstance(flags.get("nfe"), list):
            flags["nfe"] = [nfe for nfe in flags["nfe"] if nfe <= QUICK["nfe"]] or [QUICK["nfe"]]
        return {"weights": str(self.work / "experiments" / run / "models/net_g_latest.pth"), "flags": flags, **block}

    def _train(self, network: str, unit: Unit) -> dict[str, Any]:
        """Train a network as far as the unit asks; returns how long it took, over all sessions."""
        iterations = self._iterations(unit, network)
        run = _run_name(network, unit)
        after = self.study.network(network).get("after")
        if after:
            self._train(after, unit)
        with self._locks[run]:
            record = self.work / "trained" / f"{run}.json"
            known = {"iterations": 0, "seconds": 0.0, "cpu seconds": 0.0}
            known |= json.loads(record.read_text()) if record.is_file() else {}
            if known["iterations"] >= iterations:
                return known
            start, spent = time.monotonic(), 0.0
            try:
                options = self._options(network, unit, run, iterations, after)
                spent = self.call("train", run, options, "--auto_resume")
                known["iterations"] = iterations
            except Stopped as stopped:
                spent = stopped.seconds
                raise
            finally:
                known["cpu seconds"] = round(known["cpu seconds"] + spent, 1)
                known["seconds"] = round(known["seconds"] + time.monotonic() - start, 1)
                known["processes at once"] = self.workers
                record.parent.mkdir(parents=True, exist_ok=True)
                record.write_text(json.dumps(known) + "\n")
            return known

    def _options(self, network: str, unit: Unit, run: str, iterations: int, after: str | None) -> dict[str, Any]:
        dataroot = str(self.photographs.training)
        options = self.study.options(network, unit.task, unit.seed, run, dataroot, iterations)
        if options.pop("after", None):
            first = self.work / "experiments" / _run_name(after, unit)
            options["path"] |= {"pretrain_network_g": str(first / "models/net_g_latest.pth")}
        if self.quick:
            options["datasets"]["train"]["batch_size_per_gpu"] = 1
        return options

    def call(self, command: str, name: str, options: Mapping[str, Any], *flags: str) -> float:
        """Run ``basicsr``; its CPU seconds. Stopped if the time is over, CalledProcessError if it fails."""
        if self.end and time.monotonic() > self.end:
            raise Stopped
        folder = self.work / "options"
        folder.mkdir(parents=True, exist_ok=True)
        file, log = folder / f"{name}.yml", folder / f"{name}.log"
        file.write_text(yaml.safe_dump(json.loads(json.dumps(options)), sort_keys=False))
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        words = [sys.executable, "-m", "basicsr_ext", command, "-opt", str(file), *flags]
        with log.open("a") as output:
            process = subprocess.Popen(words, cwd=self.work, stdout=output, stderr=output, env=environment)
        code, seconds = _waited(process, self.end)
        if code == STOPPED:
            raise Stopped(seconds)
        if code:
            raise subprocess.CalledProcessError(code, words, output=str(log))
        return seconds


def _waited(process: subprocess.Popen, end: float | None) -> tuple[int, float]:
    """Exit code and CPU seconds of a process, which is stopped when the time is over."""
    asked = False
    while True:
        found, status, usage = os.wait4(process.pid, os.WNOHANG)
        if found:
            process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it
            return STOPPED if asked else process.returncode, usage.ru_utime + usage.ru_stime
        if end and time.monotonic() > end and not asked:
            process.send_signal(signal.SIGTERM)
            asked = True
        time.sleep(0.2)


def _run_name(network: str, unit: Unit) -> str:
    longer, seconds = unit.what.longer, unit.what.seconds
    end = f"-{seconds:g}s" if seconds else f"-x{longer}" if longer > 1 else ""
    return f"{network}-{unit.task}-{unit.seed}{end}"


def _usable(weights: str | None) -> dict[str, Any]:
    """Metrics whose weights are at hand; says which are not."""
    from basicsr_ext.metrics import build_metrics

    found = {}
    for name, block in METRICS.items():
        try:
            build_metrics({name: block}, weights)
            found[name] = block
        except InputError as error:
            print(f"without {name}: {error}", flush=True)
    return found


def _condensed(records: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``records.json`` the pages need: no paths, five digits."""
    names = [metric["name"] for metric in records["metrics"]]
    shown = ("name", "label", "higher_is_better")
    keep = ("name", "group", "nfe", "sampler", "parameters", "flops", "seconds_per_image", "status", "reason")
    results = []
    for result in records["results"]:
        images = {
            name: [_rounded(row[name]) for row in result["images"]] for name in names if name in result["images"][0]
        }
        summary = {name: {key: _rounded(value) for key, value in result["summary"][name].items()} for name in names}
        results.append({"method": result["method"], "dataset": result["dataset"], "summary": summary, "images": images})
    return {
        "environment": records["environment"],
        "protocol": records["protocol"],
        "metrics": [{key: metric[key] for key in shown} for metric in records["metrics"]],
        "methods": [{key: method[key] for key in keep} for method in records["methods"]],
        "results": results,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def main() -> int:
    """Run the study; 1 if a unit failed, 75 if the time was over before the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder with BSDS500, Set5, Set14; scikit-image's photographs without it")
    parser.add_argument("--study", default=str(HERE / "study.yml"))
    parser.add_argument("--only", nargs="+", default=["*"], help="names of units with wildcards, such as 'claims-*-0'")
    parser.add_argument("--iterations", type=int, help=f"of each network; {ITERATIONS} if left out")
    parser.add_argument("--minutes", type=float, help="stop after them, with everything saved")
    parser.add_argument("--workers", type=int, default=2, help="units at once")
    parser.add_argument("--work", default="study", help="folder for networks and pictures")
    parser.add_argument("--results", help="folder for the figures")
    parser.add_argument("--weights", default=os.environ.get("BASICSR_WEIGHTS"), help="folder of the metrics' weights")
    parser.add_argument("--paces", action="store_true", help="measure what equal seconds need, train nothing")
    parser.add_argument("--quick", action="store_true", help="every line, a few iterations each")
    args = parser.parse_args()
    try:
        for option in ("iterations", "minutes", "workers"):
            value = getattr(args, option)
            if value is not None and value <= 0:
                raise InputError(f"--{option} is {value}; it must be above 0")
        repairs.apply()
        plugins.load_entry_points()
        return Runner(args).run(args.only)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
