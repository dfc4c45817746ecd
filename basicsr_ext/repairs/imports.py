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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
        self.version: list[int | str] = [int(p) if p.isdigit() else p for p in parts]

    def _key(self) -> list[tuple[bool, int, str]]:
        return [(True, p, "") if isinstance(p, int) else (False, 0, p) for p in self.version]

    @staticmethod
    def _of(other: str | LooseVersion) -> LooseVersion:
        return other if isinstance(other, LooseVersion) else LooseVersion(other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str | LooseVersion) and self._key() == self._of(other)._key()

    def __lt__(self, other: str | LooseVersion) -> bool:
        return self._key() < self._of(other)._key()

    def __hash__(self) -> int:
        return hash(tuple(self._key()))

    def __repr__(self) -> str:
        return f"LooseVersion({self.vstring!r})"


def _forward_to(target: str) -> Callable[[ModuleType], None]:
    """Fill a module with the names of another one, which is imported only when a name is asked for."""

    def fill(module: ModuleType) -> None:
        def lookup(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return getattr(importlib.import_module(target), name)  # the name is known when it is asked for

        vars(module)["__getattr__"] = lookup

    return fill


def _fill_distutils_version(module: ModuleType) -> None:
    vars(module)["LooseVersion"] = LooseVersion


def _fill_nothing(module: ModuleType) -> None:
    del module


@dataclass(frozen=True)
class _Alias:
    """A module that the Python stack dropped and BasicSR still imports."""

    module: str
    asked_in: str
    fault: str
    fill: Callable[[ModuleType], None]
    is_package: bool = False


_ALIASES = {
    alias.module: alias
    for alias in (
        _Alias(
            "torchvision.transforms.functional_tensor",
            "data/degradations.py",
            "import basicsr fails: torchvision no longer has torchvision.transforms.functional_tensor.",
            _forward_to("torchvision.transforms.functional"),
        ),
        _Alias(
            "scipy.ndimage.filters",
            "metrics/niqe.py",
            "import basicsr fails: scipy no longer has scipy.ndimage.filters.",
            _forward_to("scipy.ndimage"),
        ),
        _Alias("distutils", "", "", _fill_nothing, is_package=True),
        _Alias(
            "distutils.version",
            "archs/arch_util.py",
            "import basicsr fails: Python no longer has distutils, and setuptools does not stand in for it.",
            _fill_distutils_version,
        ),
    )
}


class _FallbackFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Supplies the dropped modules; it stands last in ``sys.meta_path``, so a real module always comes first."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Answer for a dropped module only."""
        alias = _ALIASES.get(fullname)
        if alias is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=alias.is_package)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Take Python's default module object."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its names."""
        _ALIASES[module.__name__].fill(module)


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
    """True if the installed stack lacks the module."""
    top, _, rest = module.partition(".")
    if top == "distutils":
        return importlib.machinery.PathFinder.find_spec("distutils") is None and "_distutils_hack" not in sys.modules
    folder = folder_of(top)
    return folder is not None and not folder.joinpath(*rest.split(".")).with_suffix(".py").exists()


def import_repairs() -> list[Repair]:
    """The repairs that make ``import basicsr`` work."""

    def probe_of(alias: _Alias) -> Callable[[], bool]:
        def probe() -> bool:
            folder = folder_of("basicsr")
            if folder is None or not (folder / alias.asked_in).exists():
                return False
            source = (folder / alias.asked_in).read_text(encoding="utf-8")
            return alias.module in source and _is_dropped(alias.module)

        return probe

    return [
        Repair(f"import-{a.module.split('.')[0]}", a.fault, probe_of(a), repair_imports)
        for a in _ALIASES.values()
        if a.asked_in
    ]
