"""Libraries that BasicSR imports at its start and hardly uses: they are imported when one of their names is used.

Importing this module needs the standard library only, so that the installer can run before anything is installed.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

LATER = ("scipy", "torchvision")
COMPILER = "torch._dynamo.utils"  # torchvision's roi_align imports it, and it the rest of torch's compiler


class _Name:
    """A name that BasicSR took from a module of :data:`LATER`; the module is imported when the name is used."""

    def __init__(self, module: str, name: str) -> None:
        self._place = (module, name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._found(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._found()(*args, **kwargs)

    def _found(self) -> Any:
        module, name = self._place
        return getattr(importlib.import_module(module), name)


class _StandIn(ModuleType):
    """What BasicSR gets for a module of :data:`LATER` while it is imported; afterwards it has the names of the module.

    It is in ``sys.modules`` for that time only: who imports the module later gets the module.
    """

    def __getattr__(self, name: str) -> Any:
        if self.__name__.partition(".")[0] not in _FINDER.aside:
            return getattr(importlib.import_module(self.__name__), name)
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(self.__name__, name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands first in ``sys.meta_path``: supplies the stand-ins, and puts what is slow aside for two modules."""

    def __init__(self) -> None:
        self.aside: set[str] = set()  # packages that are stood in for at present

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """A stand-in; or BasicSR and the module that wants the compiler, to be run without what they import."""
        if fullname.partition(".")[0] in self.aside:
            return ModuleSpec(fullname, self, is_package=True)
        within = {"basicsr": self.libraries_aside, "torchvision.ops.roi_align": compiler_aside}.get(fullname)
        others = [finder for finder in sys.meta_path if finder is not self] if within else []
        spec = next((found for other in others if (found := other.find_spec(fullname, path, target))), None)
        if within and spec and spec.loader:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with within():
                    run(module)

            vars(spec.loader)["exec_module"] = exec_module
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make a stand-in."""
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is to be run."""

    @contextlib.contextmanager
    def libraries_aside(self) -> Iterator[None]:
        """Let whoever imports the libraries, those that are installed and not yet imported, get stand-ins."""
        importlib.import_module("torch")
        absent = [name for name in LATER if name not in sys.modules]
        self.aside = {name for name in absent if importlib.util.find_spec(name)}
        try:
            yield
        finally:
            for name in [name for name, module in sys.modules.items() if isinstance(module, _StandIn)]:
                del sys.modules[name]
            self.aside = set()


@contextlib.contextmanager
def compiler_aside() -> Iterator[None]:
    """Let whoever imports the one function of the compiler get one that imports the compiler when it is called."""
    if COMPILER in sys.modules:
        yield
        return
    stand_in = sys.modules[COMPILER] = ModuleType(COMPILER)
    vars(stand_in)["is_compile_supported"] = lambda device: importlib.import_module(COMPILER).is_compile_supported(
        device
    )
    try:
        yield
    finally:
        del sys.modules[COMPILER]


_FINDER = _Finder()


def put_aside() -> None:
    """From now on import what is slow when it is used; a second call does nothing."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
