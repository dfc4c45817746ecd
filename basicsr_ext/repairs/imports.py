"""Modules that the Python stack dropped and BasicSR still imports, supplied when asked for.

Importing this module needs the standard library only, so that the installer can run before anything is installed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from basicsr_ext.repairs.repair import Repair
from basicsr_ext.repairs.slow_imports import COMPILER, put_aside

_DROPPED = {  # module: the one that has its names now, and the file of BasicSR that still imports it
    "torchvision.transforms.functional_tensor": ("torchvision.transforms.functional", "data/degradations.py"),
    "scipy.ndimage.filters": ("scipy.ndimage", "metrics/niqe.py"),
    "distutils": ("packaging", ""),
    "distutils.version": ("packaging.version", "archs/arch_util.py"),
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
            new_name = "Version" if name == "LooseVersion" else name
            return getattr(importlib.import_module(target), new_name)  # the name is known when it is asked for

        vars(module)["__getattr__"] = lookup


def repair_imports() -> None:
    """Make ``import basicsr`` work, and fast, without importing anything: modules are supplied when asked for."""
    put_aside()
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


def _source(package: str, file: str) -> str:
    folder = folder_of(package)
    return (folder / file).read_text("utf-8") if folder and (folder / file).exists() else ""


def _is_dropped(module: str) -> bool:
    top, _, rest = module.partition(".")
    if top == "distutils":
        return importlib.machinery.PathFinder.find_spec("distutils") is None and "_distutils_hack" not in sys.modules
    folder = folder_of(top)
    return folder is not None and not folder.joinpath(*rest.split(".")).with_suffix(".py").exists()


def _is_missed(module: str, asked_in: str) -> bool:
    """True if that file of BasicSR imports a module that the installed stack lacks."""
    return module in _source("basicsr", asked_in) and _is_dropped(module)


def _loads_compiler() -> bool:
    return f"from {COMPILER} import is_compile_supported\n" in _source("torchvision", "ops/roi_align.py")


def _loads_libraries() -> bool:
    return "from scipy.stats import" in _source("basicsr", "data/degradations.py")


def import_repairs() -> list[Repair]:
    """The repairs that make ``import basicsr`` work, and fast."""
    compiler = "import torchvision loads torch's compiler, which takes seconds, for one function."
    libraries = (
        "import basicsr loads scipy and torchvision, a third of the seconds that a command starts, for few functions."
    )
    fault = "import basicsr fails: the installed Python or packages no longer have {}."
    asked = [(module, file) for module, (_, file) in _DROPPED.items() if file]
    return [
        Repair("import-torchvision-fast", compiler, _loads_compiler, repair_imports),
        Repair("import-libraries-later", libraries, _loads_libraries, repair_imports),
    ] + [
        Repair(f"import-{m.partition('.')[0]}", fault.format(m), functools.partial(_is_missed, m, file), repair_imports)
        for m, file in asked
    ]
