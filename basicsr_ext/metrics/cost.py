"""What a restoration costs, in the same tables as what it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from basicsr_ext.common.errors import InputError
from basicsr_ext.metrics.base import METRICS, Metric, Sample

__all__ = ["FLOPs", "NTIREScore", "NetworkCalls", "Parameters", "PeakMemory", "Seconds"]


class _CostMetric(Metric):
    """One number of ``sample.cost``, divided by ``scale``."""

    needs: ClassVar[frozenset[str]] = frozenset({"cost"})
    source: ClassVar[str]
    scale: ClassVar[float] = 1.0

    def measure(self, sample: Sample) -> float:
        """The number of one image."""
        return _given(self.title, self.source, sample) / self.scale


def _given(title: str, source: str, sample: Sample) -> float:
    value = getattr(sample.cost, source)
    if value is None:
        raise InputError(f"{title}: {source} of {sample.name} was not measured here; take it off the list of metrics")
    return value


@METRICS.register("seconds")
@dataclass
class Seconds(_CostMetric):
    """Mean wall-clock time of a restoration, of the network and its sampler alone."""

    unit: ClassVar[str] = "s"
    digits: ClassVar[int] = 3
    source: ClassVar[str] = "seconds"


@METRICS.register("peak_memory")
@dataclass
class PeakMemory(_CostMetric):
    """The most memory that any image needed: of the GPU, or of the process on a CPU."""

    unit: ClassVar[str] = "MiB"
    digits: ClassVar[int] = 0
    source: ClassVar[str] = "peak_memory"
    scale: ClassVar[float] = 2**20

    def reduce(self, records: list[float]) -> float:
        """The largest of all."""
        return max(records)


@METRICS.register("parameters")
@dataclass
class Parameters(_CostMetric):
    """Parameters of the networks."""

    unit: ClassVar[str] = "M"
    digits: ClassVar[int] = 3
    source: ClassVar[str] = "parameters"
    scale: ClassVar[float] = 1e6


@METRICS.register("flops")
@dataclass
class FLOPs(_CostMetric):
    """Floating-point operations of a whole restoration, all network calls together; a product and its sum are two."""

    unit: ClassVar[str] = "G"
    digits: ClassVar[int] = 1
    source: ClassVar[str] = "flops"
    scale: ClassVar[float] = 1e9


@METRICS.register("network_calls")
@dataclass
class NetworkCalls(_CostMetric):
    """Network evaluations of a restoration (NFE)."""

    digits: ClassVar[int] = 0
    source: ClassVar[str] = "network_calls"


@METRICS.register("ntire_esr")
@dataclass
class NTIREScore(Metric):
    """Score of the NTIRE 2024 challenge on efficient super-resolution; 7.389 for the baseline itself.

    0.7 exp(2 t / t0) + 0.15 exp(2 F / F0) + 0.15 exp(2 P / P0), of seconds t, multiply-adds F and parameters P. The
    challenge measures F at 256x256 pixels and t on one kind of GPU: give the baseline's ``seconds`` on yours.
    """

    seconds: float  # of the baseline, on the same machine and images
    gmacs: float = 19.70  # of the baseline (RLFN) at 256x256
    parameters: float = 0.317  # of the baseline, in millions

    needs: ClassVar[frozenset[str]] = frozenset({"cost"})
    digits: ClassVar[int] = 3

    def measure(self, sample: Sample) -> float:
        """The score by one image."""
        seconds, flops, parameters = (_given(self.title, s, sample) for s in ("seconds", "flops", "parameters"))
        parts = (seconds / self.seconds, flops / 2e9 / self.gmacs, parameters / 1e6 / self.parameters)
        scores = [math.exp(2 * part) if part < 300 else math.inf for part in parts]
        return 0.7 * scores[0] + 0.15 * scores[1] + 0.15 * scores[2]
