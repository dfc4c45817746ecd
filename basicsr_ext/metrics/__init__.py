"""Metrics of restored images and of sets of them. Every file of this folder is found by itself."""

from __future__ import annotations

import importlib
import pkgutil

from basicsr_ext.metrics.base import (
    METRICS,
    Cost,
    Metric,
    MetricRegistry,
    Sample,
    build_metric,
    build_metrics,
    collect,
    metric_names,
)

__all__ = [
    "METRICS",
    "Cost",
    "Metric",
    "MetricRegistry",
    "Sample",
    "build_metric",
    "build_metrics",
    "collect",
    "metric_names",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
