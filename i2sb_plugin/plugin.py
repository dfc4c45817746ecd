"""The plugin's door: BasicSR's registries know the bridge after ``register()``."""

import importlib
from pathlib import Path

__all__ = ["register", "templates"]

MODULES = (
    "archs.adm_unet_arch",
    "archs.bridge_adapter_arch",
    "archs.nafnet_arch",
    "data.paired_degradation_dataset",
    "data.paired_folder_dataset",
    "models.bridge_loss",
    "models.perceptual_losses",
    "models.bridge_student_model",
    "models.conditional_diffusion_model",
    "models.i2sb_model",
    "models.regression_model",
)


def register() -> None:
    """Import what registers itself in BasicSR; a second call does nothing.

    Raises:
        ImportError: BasicSR or one of this package's needs is missing.
    """
    for module in MODULES:
        importlib.import_module(f"i2sb_plugin.{module}")


def templates() -> Path:
    """The folder of option files that ``basicsr init`` starts from: inside a wheel, in a checkout ``options/``."""
    package = Path(__file__).parent
    packed = package / "templates"
    return packed if packed.is_dir() else package.parent / "options"
