"""Metrics of restored images and of sets of them. Every file of this folder and of `learned/` is found by itself."""

from __future__ import annotations

import importlib
import pkgutil

from basicsr_ext.metrics import learned
from basicsr_ext.metrics.base import METRICS, Cost, Metric, MetricRegistry, Sample, metric_names
from basicsr_ext.metrics.build import build_metric, build_metrics, collect

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

for _folder in (__name__, learned.__name__):
    for _module in pkgutil.iter_modules(importlib.import_module(_folder).__path__):
        importlib.import_module(f"{_folder}.{_module.name}")
