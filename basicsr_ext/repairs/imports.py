"""Modules that the Python stack dropped and BasicSR still imports, supplied when asked for.

Importing this module needs the standard library only, so that the installer can run before anything is installed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from basicsr_ext.repairs.repair import Repair


@functools.total_ordering
class LooseVersion:
    """The part of ``distutils.version.LooseVersion`` that BasicSR uses: ordering of dotted version strings."""

    def __init__(self, vstring: str):
        self.vstring = vstring
        parts = re.findall(r"\d+|[a-z]+", vstring.lower())
        self._key = [(True, int(part), "") if part.isdigit() else (False, 0, part) for part in parts]

    def __str__(self) -> str:
        return self.vstring

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str | LooseVersion) and self._key == LooseVersion(str(other))._key

    def __lt__(self, other: str | LooseVersion) -> bool:
        return self._key < LooseVersion(str(other))._key


_DROPPED = {  # module: the one that has its names now, and the file of BasicSR that still imports it
    "torchvision.transforms.functional_tensor": ("torchvision.transforms.functional", "data/degradations.py"),
    "scipy.ndimage.filters": ("scipy.ndimage", "metrics/niqe.py"),
    "distutils": (__name__, ""),
    "distutils.version": (__name__, "archs/arch_util.py"),
}


class _FallbackFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Supplies the dropped modules; it stands last in ``sys.meta_path``, so a real module always comes first."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Answer for a dropped module only."""
        if fullname not in _DROPPED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package="." not in fullname)

    def exec_module(self, module: ModuleType) -> None:
        """Give the module the names of another one, which is imported only when a name is asked for."""
        target = _DROPPED[module.__name__][0]

        def lookup(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return getattr(importlib.import_module(target), name)  # the name is known when it is asked for

        vars(module)["__getattr__"] = lookup


def repair_imports() -> None:
    """Make ``import basicsr`` work, without importing anything: dropped modules are supplied when asked for."""
    if not any(type(finder).__name__ == _FallbackFinder.__name__ for finder in sys.meta_path):
        sys.meta_path.append(_FallbackFinder())


def folder_of(package: str) -> Path | None:
    """The folder of an installed top-level package, found without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def _is_dropped(module: str) -> bool:
    top, _, rest = module.partition(".")
    if top == "distutils":
        return importlib.machinery.PathFinder.find_spec("distutils") is None and "_distutils_hack" not in sys.modules
    folder = folder_of(top)
    return folder is not None and not folder.joinpath(*rest.split(".")).with_suffix(".py").exists()


def _is_missed(module: str, asked_in: str) -> bool:
    """True if that file of BasicSR imports a module that the installed stack lacks."""
    folder = folder_of("basicsr")
    asks = folder is not None and (folder / asked_in).exists() and module in (folder / asked_in).read_text("utf-8")
    return asks and _is_dropped(module)


def import_repairs() -> list[Repair]:
    """The repairs that make ``import basicsr`` work."""
    fault = "import basicsr fails: the installed Python or packages no longer have {}."
    asked = [(module, file) for module, (_, file) in _DROPPED.items() if file]
    return [
        Repair(f"import-{m.partition('.')[0]}", fault.format(m), functools.partial(_is_missed, m, file), repair_imports)
        for m, file in asked
    ]
