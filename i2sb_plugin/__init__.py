"""I2SB, the image-to-image Schroedinger bridge (Liu et al., ICML 2023), as a plugin of BasicSR.

``from i2sb_plugin import Restorer`` loads :mod:`i2sb_plugin.api`; the package itself imports nothing heavy.
"""

import importlib

__version__ = "0.1.0"
__all__ = ["Restorer", "__version__"]


def __getattr__(name: str) -> type:
    """Import the Python interface on first use."""
    if name == "Restorer":
        return importlib.import_module("i2sb_plugin.api").Restorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
