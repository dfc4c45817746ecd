"""The contract of a metric and the plain ones; `learned/` looks through pretrained networks."""

import importlib
import pkgutil

from basicsr_ext.metrics import learned
from basicsr_ext.metrics.base import METRICS, Cost, Metric, Sample, metric_names
from basicsr_ext.metrics.build import build_metric, build_metrics, collect

__all__ = ["METRICS", "Cost", "Metric", "Sample", "build_metric", "build_metrics", "collect", "metric_names"]

for _folder in (__name__, learned.__name__):  # a new file is found by itself
    for _module in pkgutil.iter_modules(importlib.import_module(_folder).__path__):
        importlib.import_module(f"{_folder}.{_module.name}")
