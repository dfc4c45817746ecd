"""Metrics from their options, and what they measured."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from basicsr.utils import get_root_logger
from basicsr.utils.registry import METRIC_REGISTRY

from basicsr_ext.common import registries
from basicsr_ext.common.errors import InputError, UnknownName, did_you_mean
from basicsr_ext.common.option_blocks import read_block
from basicsr_ext.metrics.base import METRICS, Metric, metric_names
from basicsr_ext.metrics.basicsr import BasicSRMetric
from basicsr_ext.processes import collectives


def build_metric(options: Mapping[str, Any], where: str = "metric", weights: str | None = None) -> Metric:
    """Build a metric from ``{"type": name, **its options}``; a type of BasicSR's registry is used as it is.

    ``better`` may say again what the metric says itself; ``where`` is the dotted name of the block, for messages;
    ``weights`` is a folder of network weights for metrics whose own option of that name is not set.
    Raises InputError if the type or an option is unknown or wrong.
    """
    name = options.get("type") if isinstance(options, Mapping) else None
    if not isinstance(name, str):
        raise InputError(f"{where}.type is missing; give the name of a metric; {did_you_mean('', metric_names())}")
    if name not in METRICS:
        if registries.find(METRIC_REGISTRY, name) is not None:
            return BasicSRMetric.of(options, where)
        raise UnknownName(f"{where}.type is {name!r}, which is not registered; {did_you_mean(name, metric_names())}")
    cls = METRICS.get(name)
    own = {key: value for key, value in options.items() if key not in ("type", "better")}
    if weights is not None and "weights" in {field.name for field in dataclasses.fields(cls)}:
        own.setdefault("weights", str(weights))
    return read_block(cls, own, where)


def build_metrics(
    options: Mapping[str, Mapping[str, Any]] | None, weights: str | None = None, where: str = "val.metrics"
) -> dict[str, Metric]:
    """Build the metrics of a block such as ``val.metrics``: name -> metric, each checked to have what it needs.

    Raises InputError if a type or an option is unknown or wrong, or a package or a file of weights is missing.
    """
    built = {name: build_metric(block, f"{where}.{name}", weights) for name, block in (options or {}).items()}
    for name, metric in built.items():
        try:
            metric.check()
        except InputError as error:
            raise InputError(f"{where}.{name}: {error}") from None
        given = options[name].get("better")  # type: ignore[index]
        if given not in (None, metric.better):
            raise InputError(f"{where}.{name}.better is {given!r}, but the {metric.better} is better; drop it")
    return built


def share_records(metrics: Mapping[str, Metric]) -> None:
    """Give the metrics of every process the images of all."""
    for records in collectives.gather_objects({name: metric.records for name, metric in metrics.items()}):
        for name, metric in metrics.items():
            metric.records.update(records[name])


def collect(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Merge the metrics over all processes and compute each on rank 0: the same figures, or InputError, everywhere."""
    share_records(metrics)
    outcome: dict[str, float] | InputError = {}
    if collectives.is_main():
        try:
            outcome = {name: metric.compute() for name, metric in metrics.items()}
            for name, metric in metrics.items():
                for note in metric.notes():
                    get_root_logger().warning(f"{name}: {note}")
        except InputError as error:
            outcome = error
    outcome = collectives.broadcast_object(outcome)
    if isinstance(outcome, InputError):
        raise outcome
    return outcome
