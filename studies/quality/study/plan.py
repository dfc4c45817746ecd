"""What a study trains and compares, read from ``study.yml``: option files of single runs, and units of work."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

from basicsr_ext.benchmark.run.methods import MethodOptions
from basicsr_ext.common.errors import InputError, did_you_mean
from basicsr_ext.common.option_blocks import parse_block
from basicsr_ext.options.file import load_yaml
from studies.quality.study.data import DATASETS

__all__ = ["Comparison", "Method", "Study", "Unit", "merged", "read"]


@dataclass(frozen=True)
class Method:
    """A network of the study, restoring with ``flags`` of ``basicsr restore``; a list of them makes several methods.

    ``tasks`` are those of the comparison that it is shown for; all of them if left out.
    """

    network: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    tasks: list[str] | None = None


@dataclass(frozen=True)
class Comparison:
    """One entry of ``comparisons``: methods side by side, for each task and seed.

    Attributes:
        tasks: names of tasks.
        data: names of data sets, see ``studies/quality/study/data.py``.
        methods: name -> :class:`Method`, or a method of ``basicsr benchmark`` that needs no training.
        seeds: of training.
        longer: factor of the iterations.
        seconds: CPU seconds of training for every network, in place of as many iterations; None for iterations.

    """

    tasks: list[str]
    data: list[str]
    methods: Mapping[str, Any]
    seeds: list[int] = field(default_factory=lambda: [0])
    longer: int = 1
    seconds: float | None = None

    def of(self, task: str) -> "Comparison":
        """The same with the methods that are shown for ``task``."""
        shown = {name: block for name, block in self.methods.items() if task in (block.get("tasks") or [task])}
        return replace(self, methods=shown)


@dataclass(frozen=True)
class Study:
    """The whole file."""

    training: Mapping[str, Any]
    tasks: Mapping[str, Any]
    networks: Mapping[str, Any]
    comparisons: Mapping[str, Any]

    def network(self, name: str) -> dict[str, Any]:
        """What a network adds to ``training``, with that of the one it is like."""
        return reduce(merged, self._changes(name), {})

    def _changes(self, name: str) -> list[dict[str, Any]]:
        """Those of each network that it is like, and its own."""
        block = dict(self.networks[name])
        like = block.pop("like", None)
        return [*(self._changes(like) if like else ()), block]

    def options(self, network: str, task: str, seed: int, name: str, dataroot: str, iterations: int) -> dict[str, Any]:
        """The option file of one training run."""
        given = self.tasks[task]
        training = reduce(merged, self._changes(network), {"path": {}, **self.training})
        training |= {"name": name, "scale": given.get("scale", 1), "manual_seed": seed}
        training["datasets"]["train"] |= {"dataroot_gt": dataroot, "degradation": given["degradation"]}
        training["train"]["total_iter"] = iterations
        if "periods" in training["train"]["scheduler"]:  # one fall of the cosine over the whole training
            training["train"]["scheduler"]["periods"] = [iterations]
        return training


@dataclass(frozen=True)
class Unit:
    """One comparison for one task and seed."""

    comparison: str
    what: Comparison
    task: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.comparison}-{self.task}-{self.seed}"

    @property
    def networks(self) -> list[str]:
        """Those that it needs, each once."""
        return list(dict.fromkeys(method["network"] for method in self.what.methods.values() if "network" in method))


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``base`` with ``changes``, block by block; a key that is changed to None goes."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def read(path: str | Path) -> tuple[Study, list[Unit]]:
    """Read a study; seed 0 of everything comes first.

    Raises:
        InputError: lists every unknown key, task, network and wrong value.

    """
    study, faults = parse_block(Study, load_yaml(path), "study")
    if study is None:
        raise InputError(f"{path}: " + "; ".join(faults))
    for name, block in study.networks.items():
        if not isinstance(block, Mapping):
            faults.append(f"networks.{name} is {block!r}; it must be a block of options")
            continue
        for link in ("like", "after"):
            if _known(block.get(link), study.networks, f"networks.{name}.{link}", faults):
                _ends(name, link, study.networks, faults)
    for name, block in study.tasks.items():
        if not isinstance(block, Mapping) or not isinstance(block.get("degradation"), Mapping):
            faults.append(f"tasks.{name} needs a degradation: {{type: ...}}")
    comparisons = {name: _comparison(name, block, study, faults) for name, block in study.comparisons.items()}
    if faults:
        raise InputError(f"{path}: " + "; ".join(faults))
    units = [
        Unit(name, comparison.of(task), task, seed)
        for name, comparison in comparisons.items()
        for seed in comparison.seeds
        for task in comparison.tasks
    ]
    return study, sorted(units, key=lambda unit: unit.seed)


def _comparison(name: str, block: Any, study: Study, faults: list[str]) -> Comparison | None:
    where = f"comparisons.{name}"
    comparison, found = parse_block(Comparison, block, where)
    faults += found
    if comparison is None:
        return None
    for option, known in (("tasks", study.tasks), ("data", DATASETS)):
        for one in getattr(comparison, option):
            _known(one, known, f"{where}.{option}", faults)
        if not getattr(comparison, option):
            faults.append(f"{where}.{option} is empty")
    if not comparison.seeds or comparison.longer < 1:
        faults.append(f"{where} needs at least one seed, and longer from 1")
    if comparison.seconds is not None and (comparison.seconds <= 0 or comparison.longer > 1):
        faults.append(f"{where}.seconds is {comparison.seconds}; it must be above 0, and without longer")
    for method, given in comparison.methods.items():
        trained = isinstance(given, Mapping) and "network" in given
        parsed, found = parse_block(Method if trained else MethodOptions, given, f"{where}.methods.{method}")
        faults += found
        if trained and parsed:
            _known(parsed.network, study.networks, f"{where}.methods.{method}.network", faults)
            for task in parsed.tasks or ():
                _known(task, comparison.tasks, f"{where}.methods.{method}.tasks", faults)
    return comparison


def _ends(name: str, link: str, networks: Mapping[str, Any], faults: list[str]) -> None:
    """Fault if following ``like`` or ``after`` comes back to where it began."""
    seen = [name]
    while isinstance(block := networks.get(seen[-1]), Mapping) and (following := block.get(link)):
        if following in seen:
            faults.append(f"networks.{name}.{link} goes in a circle: {' -> '.join([*seen, following])}")
            return
        seen.append(following)


def _known(name: str | None, names: Iterable[str], where: str, faults: list[str]) -> bool:
    """Whether ``name`` is one of ``names``; a fault if it is another, none if it is None."""
    if name is not None and name not in names:
        faults.append(f"{where} is {name!r}; {did_you_mean(name, names)}")
    return name in names
