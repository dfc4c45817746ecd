"""What a restoration costs, in the same tables as what it gives."""

from dataclasses import dataclass

from basicsr_ext.common.errors import InputError
from basicsr_ext.metrics.base import METRICS, Metric, Sample


@dataclass
class _CostMetric(Metric):
    """The number of ``sample.cost`` that has the metric's name, divided by ``scale``."""

    needs = frozenset({"cost"})
    takes_data = True
    scale = 1.0

    def measure(self, sample: Sample) -> float:
        """The number of one image."""
        if (value := vars(sample.cost)[self.title]) is None:
            raise InputError(f"{self.title} of {sample.name} was not measured here; take it off the list of metrics")
        return value / self.scale


@METRICS.register("seconds")
class Seconds(_CostMetric):
    """Mean wall-clock time of a restoration, of the network and its sampler alone."""

    unit, digits = "s", 3


@METRICS.register("peak_memory")
class PeakMemory(_CostMetric):
    """The most memory of the GPU that any image needed."""

    unit, digits, scale = "MiB", 0, 2**20

    def reduce(self, records: list[float]) -> float:
        """The largest of all."""
        return max(records)


@METRICS.register("parameters")
class Parameters(_CostMetric):
    """Parameters of the networks."""

    unit, digits, scale = "M", 3, 1e6


@METRICS.register("flops")
class FLOPs(_CostMetric):
    """Floating-point operations of a whole restoration, all network calls together; a product and its sum are two."""

    unit, digits, scale = "G", 1, 1e9


@METRICS.register("network_calls")
class NetworkCalls(_CostMetric):
    """Network evaluations of a restoration (NFE)."""

    digits = 0
