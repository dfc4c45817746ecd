"""What a study trains and compares, read from ``study.yml``: option files of single runs, and units of work."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from basicsr_ext.errors import InputError, did_you_mean
from basicsr_ext.option_file import load_yaml
from basicsr_ext.option_schema import parse_block

__all__ = ["Comparison", "Study", "Unit", "merged", "read"]


@dataclass(frozen=True)
class Comparison:
    """One entry of ``comparisons``: methods side by side, for each task and seed.

    Attributes:
        tasks: names of tasks.
        data: names of data sets, see ``experiments/data.py``.
        methods: name -> ``{network: name of a network, flags: those of basicsr restore}``, or a method of
            ``basicsr benchmark`` that needs no training.
        seeds: of training.
        longer: factor of the iterations.

    """

    tasks: list[str]
    data: list[str]
    methods: Mapping[str, Any]
    seeds: list[int] = field(default_factory=lambda: [0])
    longer: int = 1


@dataclass(frozen=True)
class Study:
    """The whole file."""

    training: Mapping[str, Any]
    tasks: Mapping[str, Any]
    networks: Mapping[str, Any]
    comparisons: Mapping[str, Any]

    def network(self, name: str) -> dict[str, Any]:
        """What a network adds to ``training``, with that of the one it is like."""
        block = dict(self.networks[name])
        like = block.pop("like", None)
        return merged(self.network(like), block) if like else block

    def options(self, network: str, task: str, seed: int, name: str, dataroot: str, iterations: int) -> dict[str, Any]:
        """The option file of one training run."""
        given = self.tasks[task]
        training = merged({"path": {}, **self.training}, self.network(network))
        training |= {"name": name, "scale": given.get("scale", 1), "manual_seed": seed}
        training["datasets"]["train"] |= {"dataroot_gt": dataroot, "degradation": given["degradation"]}
        training["train"]["total_iter"] = iterations
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
        if "like" in block:
            _known(block["like"], study.networks, f"networks.{name}.like", faults)
    units = []
    for name, block in study.comparisons.items():
        where = f"comparisons.{name}"
        comparison, found = parse_block(Comparison, block, where)
        faults += found
        if comparison is None:
            continue
        for task in comparison.tasks:
            _known(task, study.tasks, f"{where}.tasks", faults)
        for method, given in comparison.methods.items():
            if "network" in given:
                _known(given["network"], study.networks, f"{where}.methods.{method}.network", faults)
        units += [Unit(name, comparison, task, seed) for seed in comparison.seeds for task in comparison.tasks]
    if faults:
        raise InputError(f"{path}: " + "; ".join(faults))
    return study, sorted(units, key=lambda unit: unit.seed)


def _known(name: str, names: Mapping[str, Any], where: str, faults: list[str]) -> None:
    if name not in names:
        faults.append(f"{where} is {name!r}; {did_you_mean(name, names)}")
