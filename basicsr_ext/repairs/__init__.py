"""BasicSR mended in memory: one entry, one fault, one probe, one test.

Each repair probes for its fault, never for a version, and leaves the disk alone. Importing this package needs the
standard library only, so that the installer can run before anything is installed.
"""

import functools
import importlib

from basicsr_ext.common.errors import InputError
from basicsr_ext.repairs.imports import folder_of, import_repairs
from basicsr_ext.repairs.repair import Repair, Status

__all__ = ["Repair", "Status", "all_repairs", "apply", "status"]

_MODULES = ("startup", "models", "shared_validation", "real_esrgan", "checkpoints", "resume", "training_loop", "images")


def all_repairs() -> list[Repair]:
    """Every repair made after ``import basicsr``, in the order in which they are made."""
    modules = (importlib.import_module(f"basicsr_ext.repairs.{name}") for name in _MODULES)
    return [repair for module in modules for repair in module.REPAIRS]


@functools.cache
def apply() -> list[Status]:
    """Import BasicSR and make every repair whose fault is present; a second call changes nothing.

    Raises InputError if BasicSR is not installed.
    """
    if folder_of("basicsr") is None:
        raise InputError("BasicSR is not installed; install version 1.4.2 with: python -m basicsr_ext.install")
    found = [repair.make() for repair in import_repairs()]
    importlib.import_module("basicsr.train")
    importlib.import_module("basicsr.test")
    return found + [repair.make() for repair in all_repairs()]


def status() -> list[Status]:
    """What :func:`apply` did, or an empty list if it has not run in this process."""
    return apply() if apply.cache_info().currsize else []
