"""The toolkit's own model and baseline network, which come through the same door as any plugin's."""

import importlib


def register() -> None:
    """Import what registers itself in BasicSR; a second call does nothing."""
    for module in ("interpolation_arch", "restoration_model"):
        importlib.import_module(f"basicsr_ext.models.{module}")
