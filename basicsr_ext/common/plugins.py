"""Find and load plugins: entry points of ``basicsr.plugins``, the option ``plugins:``; and the networks they bring."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType

from basicsr_ext.common.errors import InputError

GROUP = "basicsr.plugins"
TEMPLATES = "basicsr.templates"  # any name = module:function() -> folder of option files for `basicsr init`
CHECKPOINTS = "basicsr.checkpoints"  # name of a network = module:function() -> path of its file, with options inside


@dataclass(frozen=True)
class Plugin:
    """One plugin: where it was found (``source``) and, if it failed to load, why (``error``)."""

    name: str
    source: str
    error: str | None = None

    @property
    def ok(self) -> bool:
        """True if the plugin was loaded."""
        return self.error is None


# A module that failed half-way has registered some of its names: a second try would only hide the first error
_loaded: dict[str, Plugin] = {}


def load_entry_points() -> list[Plugin]:
    """Load every installed plugin; one that fails is reported in its ``Plugin.error``, nothing is raised."""
    points = sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name)
    found = [_load(point.name, f"entry point {point.value}", lambda p: p.load()(), point) for point in points]
    return list(dict.fromkeys(found))


def load_listed(plugins: Iterable[str] | None, folder: Path | None = None) -> list[Plugin]:
    """Load what the option ``plugins:`` lists: importable modules, and files ending in ``.py``.

    A file is looked for in the current folder, then in ``folder`` (that of the option file). A module with a function
    ``register`` is asked to register; otherwise its import is the registration.
    Raises InputError if one of them cannot be loaded: the option file asks for it.
    """
    found = []
    for name in plugins or ():
        source = str(_find_file(name, folder)) if name.endswith(".py") else name
        found.append(_load(name, source, _register, source))
        if fault := found[-1].error:
            raise InputError(f"plugins: {name} cannot be loaded: {fault}; repair it or take it off the list")
    return found


def _load(name: str, source: str, load: Callable[..., object], *arguments: object) -> Plugin:
    if source not in _loaded:
        try:
            load(*arguments)
            _loaded[source] = Plugin(name, source)
        except (Exception, SystemExit) as error:  # a stranger's code may raise anything; its own words are what helps
            _loaded[source] = Plugin(name, source, f"{type(error).__name__}: {error}")
    return _loaded[source]


def failures() -> list[Plugin]:
    """The plugins that failed to load in this process."""
    return [plugin for plugin in _loaded.values() if not plugin.ok]


def built_in() -> metadata.EntryPoint | None:
    """The network for pictures that an installed package brings, None if there is none; InputError if several do."""
    points = sorted(metadata.entry_points(group=CHECKPOINTS), key=lambda point: point.name)
    if len(points) > 1:
        listed = ", ".join(f"{point.name} ({point.value})" for point in points)
        raise InputError(f"several networks are built in: {listed}; name the file of one with --checkpoint")
    return points[0] if points else None


def template_folders() -> list[Path]:
    """The folders of option files that installed packages bring; InputError if there are none."""
    points = sorted(metadata.entry_points(group=TEMPLATES), key=lambda point: point.name)
    if not points:
        raise InputError("no installed package brings option files; install this one again, as its README says")
    return [Path(point.load()()) for point in points]


def _register(source: str) -> None:
    module = _import(source)
    if getattr(module, "__file__", None) is None and not source.endswith(".py"):
        raise ImportError("it is a folder without __init__.py, so that nothing of it is run")
    register = vars(module).get("register")
    if callable(register):
        register()


def _import(source: str) -> ModuleType:
    if not source.endswith(".py"):
        if not all(map(str.isidentifier, source.split("."))):
            raise ImportError("it is neither the name of a module nor a file that ends in .py")
        here = str(Path.cwd())
        if here not in sys.path:  # a package that lies in the current folder; appended, so it hides nothing
            sys.path.append(here)
        return importlib.import_module(source)
    path = Path(source)
    # The plain name and the entry in sys.path are what lets spawned workers import the module again
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(path.stem)
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != path:
        raise ImportError(f"another module has the name {path.stem} ({spec and spec.origin}); rename the file")
    return importlib.import_module(path.stem)


def _find_file(name: str, folder: Path | None) -> Path:
    places = [place.resolve() for place in (Path.cwd(), folder) if place is not None]
    for place in places:
        path = (place / Path(name).expanduser()).resolve()
        if path.is_file():
            return path
    raise InputError(f"plugins: no file {name} in {' or '.join(map(str, places))}; correct the name")
