"""What turns a clean image into the degraded one; every file of `kinds/` is found by itself."""

import importlib
import pkgutil

from i2sb_plugin.degradations import kinds
from i2sb_plugin.degradations.base import (
    DEGRADATIONS,
    Degradation,
    Degraded,
    Operator,
    build_degradation,
    known_operator,
)

__all__ = ["DEGRADATIONS", "Degradation", "Degraded", "Operator", "build_degradation", "known_operator"]

for _module in pkgutil.iter_modules(kinds.__path__):
    importlib.import_module(f"{kinds.__name__}.{_module.name}")
