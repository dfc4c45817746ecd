"""Metrics from their options, and what they measured."""

import dataclasses
import math
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

RECORDED = {
    "index",
    "image",
    "file",
    "data",
    "seconds",
    "warm_up",
}  # what metrics.json says of an image beside its figures


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
        if name in RECORDED - {metric.title}:
            raise InputError(f"{where}.{name}: a record of an image has {name} already; give the metric another name")
        border = metric.crop_border
        if type(border) is not int or border < 0:
            raise InputError(f"{where}.{name}.crop_border is {border!r}; it must be a whole number from 0")
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
    mine = {name: (metric.records, metric.unmeasured) for name, metric in metrics.items()}
    for shared in collectives.gather_objects(mine):
        for name, metric in metrics.items():
            metric.records.update(shared[name][0])
            metric.unmeasured.update(shared[name][1])


def collect(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Merge the metrics over all processes and compute each on rank 0: the same figures everywhere.

    They are means over the images that have a finite figure; where none has, infinity or NaN. Warnings say why.
    """
    share_records(metrics)
    found: dict[str, float] = {}
    for name, metric in metrics.items() if collectives.is_main() else ():
        notes = metric.all_notes()
        try:
            found[name] = metric.compute()
        except Exception as error:  # as a metric of single images
            alone = metric.unmeasured and not metric.records
            notes += [] if alone else [str(error)]
            found[name] = sum(figure for figure, _ in metric.unmeasured.values()) if alone else math.nan
        for note in notes:
            get_root_logger().warning(f"{name}: {note}")
    return collectives.broadcast_object(found)
