"""The option file of a benchmark, and everything that is wrong with it: found before anything is restored."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from basicsr_ext.benchmark.run.methods import Method, MethodOptions, NetworkMethod, expand
from basicsr_ext.benchmark.run.store import Store
from basicsr_ext.common import plugins
from basicsr_ext.common.errors import InputError, did_you_mean
from basicsr_ext.common.option_blocks import parse_block
from basicsr_ext.common.seeds import MOST_SEED
from basicsr_ext.metrics import Metric, build_metrics
from basicsr_ext.options.check import Findings
from basicsr_ext.options.file import apply_overrides, load_yaml
from basicsr_ext.options.parts import check_dataset, name_faults
from basicsr_ext.options.resolve import raise_faults, resolve_dataset
from basicsr_ext.preflight import checks, data, measures
from basicsr_ext.processes.launch import Launch

_LEAST = {"scale": 1, "manual_seed": 0, "tile": 0, "batch_size": 1, "draws": 2, "resamples": 100}
_TAKEN = ("image", "file", "seconds", "trajectory", "deviation")  # what a record of an image has of its own


@dataclass(frozen=True)
class BenchmarkOptions:
    """The file of a benchmark."""

    name: str  # of the folder below results/
    methods: Mapping[str, Any]  # name -> its block
    datasets: Mapping[str, Any]  # name -> its block, as in an option file for `basicsr test`
    metrics: Mapping[str, Any]  # name -> {type: name, its options}
    scale: int = 1  # of the restored images over the given ones
    title: str | None = None  # of the page; default: the name
    baseline: str | None = None  # method that the others are tested against
    num_gpu: Literal["auto"] | int = "auto"  # 0 for the CPU
    manual_seed: int = 0  # of the noise; an image gets the noise that `basicsr test` gives it
    plugins: list[str] | None = None  # importable modules, or files ending in .py
    tile: int | None = None  # side of the tiles in pixels of what a network sees; 0 for none; ~ for its own val.tile
    batch_size: int = 1  # images of one size that are restored at once; the same images but for rounding
    trajectories: bool = False  # also keep pictures of how each image came about, where a model shows them
    draws: int = 4  # seeds that each image is restored with where a metric compares them; the first gives the figures
    resamples: int = 2000  # draws of the bootstrap
    weights: str | None = None  # folder of the metrics' network weights
    results_root: str | None = None  # default: results, in the current folder

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if vars(self)[name] is not None and vars(self)[name] < least:
                raise ValueError(f"{name} is {vars(self)[name]}; it must be a whole number from {least}")
        if self.manual_seed > MOST_SEED:
            raise ValueError(f"manual_seed is {self.manual_seed}; it must be a whole number from 0 to {MOST_SEED}")


@dataclass(frozen=True)
class Benchmark:
    """A checked benchmark: ``datasets`` by their names; ``store`` is where everything goes."""

    options: BenchmarkOptions
    methods: list[Method]
    datasets: dict[str, Any]
    metrics: dict[str, Metric]
    store: Store
    device: str
    notes: list[str]

    @property
    def tile(self) -> int | str:
        """What the keys of restored images hold of ``options.tile``; 0 where each method has its own."""
        return "none" if self.options.tile == 0 else self.options.tile or 0

    @property
    def draws(self) -> int:
        """How often each image is restored: once unless a metric compares draws."""
        return self.options.draws if any("draws" in metric.needs for metric in self.metrics.values()) else 1


def read(path: str | Path, here: Launch, overrides: list[str] | None = None) -> Benchmark:
    """Read the option file, check it and all that it names, and build its data sets and metrics.

    Raises one InputError that lists every fault: unknown options, methods whose option file, weights or flags are
    wrong, data that is missing or does not suit a method, metrics that are unknown or miss what they need.
    """
    opt = load_yaml(path)
    entries = list(overrides or ())
    early = [entry for entry in entries if entry.lstrip("+ ").partition("=")[0].strip() == "plugins"]
    apply_overrides(opt, early)
    notes = [f"plugin {p.name} failed to load: {p.error}" for p in plugins.load_entry_points() if not p.ok]
    folder = Path(path).expanduser().parent
    if isinstance(opt.get("plugins"), list):
        plugins.load_listed(opt["plugins"], folder)
    apply_overrides(opt, [entry for entry in entries if entry not in early], _known)
    options, faults = parse_block(BenchmarkOptions, opt, "benchmark")
    raise_faults(Findings(faults), str(path))
    assert options is not None
    faults += name_faults("name", options.name)
    if options.weights is not None and not Path(options.weights).expanduser().is_dir():
        faults.append(f"weights is {options.weights!r}, but there is no such folder; correct the path")
    methods = _methods(options, folder, faults)
    metrics = _metrics(options, faults)
    faults += checks.device_faults({"num_gpu": options.num_gpu}, here)
    datasets = _datasets(options, methods, metrics, faults, notes)
    raise_faults(Findings(faults), str(path))
    root = Path(options.results_root or "results").expanduser()
    device = "cpu" if options.num_gpu == 0 else "auto"
    return Benchmark(options, methods, datasets, metrics, Store(root / options.name), device, notes)


def _known(keys: list[str]) -> set[str]:
    """Names that ``--force_yml`` may add."""
    if not keys:
        return {option.name for option in fields(BenchmarkOptions)}
    return {option.name for option in fields(MethodOptions)} if len(keys) == 2 and keys[0] == "methods" else set()


def _methods(options: BenchmarkOptions, folder: Path, faults: list[str]) -> list[Method]:
    found: list[Method] = []
    if not options.methods:
        faults.append("methods is empty; give at least one, such as bicubic: {interpolation: bicubic}")
    for name, block in options.methods.items():
        where = f"methods.{name}"
        faults.extend(name_faults(where, name))
        parsed, wrong = parse_block(MethodOptions, block, where)
        faults.extend(wrong)
        if parsed is not None:
            found += expand(name, parsed, options.scale, folder, faults)
    names = [method.name for method in found]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        faults.append(f"methods: {names.count(name)} of them have the name {name}; rename all but one")
    if options.baseline is not None and found and options.baseline not in names:
        faults.append(f"baseline is {options.baseline!r}, which is no method; {did_you_mean(options.baseline, names)}")
    return found


def _metrics(options: BenchmarkOptions, faults: list[str]) -> dict[str, Metric]:
    built: dict[str, Metric] = {}
    for name, block in options.metrics.items():
        if name in _TAKEN:
            faults.append(f"metrics.{name}: a record of an image has its own {name}; choose another name")
            continue
        try:
            built |= build_metrics({name: block}, options.weights, "metrics")
        except InputError as error:
            faults.append(str(error))
    return built


def _datasets(
    options: BenchmarkOptions, methods: list[Method], metrics: dict[str, Metric], faults: list[str], notes: list[str]
) -> dict[str, Any]:
    from basicsr.data import build_dataset

    found = Findings([] if options.datasets else ["datasets is missing; give at least one data set"])
    wrong = found.faults
    for key, given in options.datasets.items():
        check_dataset(f"datasets.{key}", given, {"phase": "test", "scale": options.scale}, found)
        if isinstance(given, Mapping):
            wrong += data.missing_data(f"datasets.{key}", given)
    built: dict[str, Any] = {}
    for key, given in options.datasets.items() if not wrong else ():
        where, block = f"datasets.{key}", dict(given)
        resolve_dataset({"scale": options.scale}, key, block, "test")
        name = str(block["name"])
        wrong += name_faults(where, name)
        if name in built:
            wrong.append(f"{where}.name is {name}, as of another data set; rename one of them")
            continue
        _, item = data.check_dataset(where, block, wrong, notes)
        if item is not None:
            built[name] = build_dataset(block)  # anew: looking at its first image may have closed its files
            wrong += _item_faults(where, item, methods)
            wrong += measures.metric_faults(where, "metrics", metrics, built[name], block, item, ("draws", "gt"))
    faults.extend(wrong)
    return built


def _item_faults(where: str, item: Mapping[str, Any], methods: list[Method]) -> list[str]:
    if "lq" not in item or "gt" not in item:
        return [f"{where} gives {', '.join(item)}; a benchmark needs lq and gt; use a paired data set"]
    networks = (method for method in methods if isinstance(method, NetworkMethod))
    return [fault for method in networks for fault in method.data_faults(where, item)]
