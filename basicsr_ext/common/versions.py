"""What is installed: versions of Python and of packages, and the commit of this project."""

import contextlib
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "opencv-python", "basicsr", "basicsr-i2sb")  # shape figures
_SUBSTITUTES = {"opencv-python": ("opencv-python-headless", "opencv-contrib-python"), "basicsr": ("basicsr-fixed",)}
_distributions = cache(metadata.packages_distributions)  # reading what is installed takes half a second


def version_of(package: str) -> str | None:
    """Version of an installed distribution, with the name of the one that stands in for it; None if there is none.

    ``opencv-python`` may be there as ``4.10.0 (opencv-python-headless)``.
    """
    for name in (package, *_SUBSTITUTES.get(package, ())):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name) + ("" if name == package else f" ({name})")
    return None


def versions_of(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Version of Python, under ``python``, and of those of the distributions that are installed."""
    found = {"python": platform.python_version()}
    return found | {name: version for name in packages if (version := version_of(name)) is not None}


def module_version(module: str) -> str:
    """Name and version of the distribution that brings a module that can be imported: ``lpips 0.1.4``."""
    name = _distributions().get(module, [module])[0]
    return f"{name} {metadata.version(name)}"


def commit() -> str | None:
    """The commit of this project, 12 digits, where it lies in a repository of its own."""
    folder = Path(__file__).parents[2]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if (folder / ".git").exists():
            asked = ["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"]
            return subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    return None
