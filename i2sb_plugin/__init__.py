"""I2SB, the image-to-image Schroedinger bridge (Liu et al., ICML 2023), as a plugin of BasicSR.

``from i2sb_plugin import Bridge, Restorer, samplers`` imports what is named, and nothing before it is named;
docs/api.md lists what else may be imported.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from i2sb_plugin import degradations, samplers, space
    from i2sb_plugin.api import Restorer
    from i2sb_plugin.bridge import Bridge
    from i2sb_plugin.diffusion import Diffusion
    from i2sb_plugin.regression import Regression

__version__ = "0.1.0"
__all__ = ["Bridge", "Diffusion", "Regression", "Restorer", "__version__", "degradations", "samplers", "space"]

# Class -> the module that has it; the other names of __all__ are modules.
_CLASSES = {"Bridge": "bridge", "Diffusion": "diffusion", "Regression": "regression", "Restorer": "api"}


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_CLASSES.get(name, name)}")
    return getattr(module, name) if name in _CLASSES else module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
