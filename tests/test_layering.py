"""Imports point downwards: one table of rooms for all packages, held against the import graph."""

import ast
import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("basicsr_ext", "i2sb_plugin", "studies", "docs")

# Room -> (floor, what it says). A file belongs to the room with the longest matching name. It may import rooms of lower
# floors and its own. `python -m docs.make.architecture --write` writes the table into docs/architecture.md.
ROOMS = {
    "i2sb_plugin.bridge": (0, "The bridge between a clean image and its degraded version, in the order of the paper."),
    "i2sb_plugin.samplers": (1, "Walks from the degraded image x1 down to the clean image x0."),
    "i2sb_plugin.diffusion": (
        1,
        "A diffusion from the clean image to pure noise, on the terms of `bridge.py`: what the "
        "bridge is compared with.",
    ),
    "i2sb_plugin.regression": (
        1,
        "Plain regression from the degraded image to the clean one, on the terms of `bridge.py`: the bridge's twin.",
    ),
    "i2sb_plugin.preconditioning": (
        2,
        "What the network learns where it sees x1: the residual, scaled to unit variance.",
    ),
    "i2sb_plugin.student": (
        2,
        "One evaluation that ends anywhere on a bridge's walk: the student of a trained bridge.",
    ),
    "i2sb_plugin.space": (1, "From BasicSR's pixels, in [0, 1] and small, to the bridge, in [-1, 1] at full size."),
    "basicsr_ext.common": (
        1,
        "Small things that every room uses: errors, option blocks, registries, plugins, seeds, "
        "safe writes. Knows no run.",
    ),
    "basicsr_ext.processes": (2, "Who the processes of a run are; how they wait, add up and end together."),
    "basicsr_ext.images": (
        2,
        "What image files are: which there are in a folder, headers, decoding, pictures, packed crops.",
    ),
    "basicsr_ext.checkpoints": (2, "Saves that are whole or absent, whether weights fit, which save to resume."),
    "i2sb_plugin.archs": (3, "Networks of the bridge."),
    "basicsr_ext.metrics": (
        3,
        "The contract of a metric and the plain ones; `learned/` looks through pretrained networks.",
    ),
    "basicsr_ext.training": (
        3,
        "What watches the training loop: state, sample order, signals, bad steps, memory, progress.",
    ),
    "i2sb_plugin.degradations": (
        3,
        "What turns a clean image into the degraded one; every file of `kinds/` is found by itself.",
    ),
    "basicsr_ext.restoring.tiling": (
        3,
        "Overlapping tiles through any callable: images of any size in bounded memory, without seams.",
    ),
    "basicsr_ext.options": (4, "From YAML to checked, complete options. Builds nothing."),
    "basicsr_ext.models": (4, "One model for every restorer: hooks, options, acceleration, validation."),
    "i2sb_plugin.data": (5, "Data sets: pairs of folders, and clean images that are degraded on the fly."),
    "basicsr_ext.preflight": (5, "What would fail later, found before anything is written; then the run starts."),
    "basicsr_ext.restoring": (5, "A trained network restores pictures of any kind and size."),
    "i2sb_plugin.models": (
        6,
        "I2SB, its students and what it is compared with, as BasicSR models; their options and losses.",
    ),
    "i2sb_plugin.weights": (5, "Weights of other programs, and the network that is built in."),
    "basicsr_ext.repairs": (6, "BasicSR mended in memory: one entry, one fault, one probe, one test."),
    "basicsr_ext.benchmark": (6, "Methods x data sets x metrics, by one option file; tables, sheets, a page."),
    "i2sb_plugin.plugin": (7, "The plugin's door: BasicSR's registries know the bridge after `register()`."),
    "basicsr_ext.commands": (7, "One file for each sub-command: arguments in, exit code out."),
    "i2sb_plugin.api": (8, "Restoring from Python, in three lines."),
    "i2sb_plugin.spandrel_support": (8, "Bridges for programs that load their networks by spandrel."),
    "basicsr_ext.install": (8, "Install BasicSR 1.4.2 where pip alone does not."),
    "basicsr_ext.cli": (8, "The command `basicsr`."),
    "basicsr_ext.__main__": (9, "`python -m basicsr_ext` does the same as the command `basicsr`."),
    "docs.make": (9, "What writes the generated pages of the documentation."),
    "studies.timing": (9, "Paired timings and what ran them."),
    "studies.speed": (10, "What everything costs; docs/performance.md reports the results."),
    "studies.reliability": (10, "What was broken on purpose; docs/reliability.md reports the results."),
    "studies.quality": (10, "Which claims of the paper hold; docs/results.md reports the results."),
}

# Files above all rooms: the package itself, with what it may import and why.
DOORS = {
    "basicsr_ext": (
        {"basicsr_ext.repairs.imports"},
        "`import basicsr_ext` makes `import basicsr` work on today's Python, in workers too.",
    ),
    "i2sb_plugin": (
        {f"i2sb_plugin.{name}" for name in ("api", "bridge", "degradations", "diffusion", "regression")}
        | {"i2sb_plugin.samplers", "i2sb_plugin.space"},
        "`from i2sb_plugin import Bridge`: names for type checkers alone; a name is imported when it is used.",
    ),
    "studies": (set(), "The evidence behind the documentation."),
}
# Rooms that need nothing but torch, besides the standard library and each other.
_MATHS = ("bridge", "diffusion", "preconditioning", "regression", "samplers", "space", "student")
PURE = [f"i2sb_plugin.{name}" for name in _MATHS]

FILES = sorted(path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


def module(path: Path) -> str:
    """The name by which a file is imported."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def room_of(name: str) -> str | None:
    """The room of a module; None for doors."""
    while name and name not in ROOMS:
        name = name.rpartition(".")[0]
    return name or None


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if is_module(full) else str(node.module)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


@functools.cache
def graph() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports."""
    own = {module(path): path for path in FILES}
    return {name: {target for target in imports(path) if target in own} - {name} for name, path in own.items()}


def room_graph() -> dict[str, set[str]]:
    """Room -> the rooms that it imports."""
    found: dict[str, set[str]] = {room: set() for room in ROOMS}
    for name, targets in graph().items():
        if room := room_of(name):
            found[room] |= {other for target in targets if (other := room_of(target)) and other != room}
    return found


def upwards() -> list[str]:
    """Imports that no floor allows, each as a sentence."""
    faults = []
    for name, targets in graph().items():
        for target in sorted(targets):
            room, other = room_of(name), room_of(target)
            if room is None:
                allowed = target in DOORS[name][0]
            else:
                allowed = other is None or room == other or ROOMS[other][0] < ROOMS[room][0]
            if not allowed:
                at = [f"{one} (floor {ROOMS[one][0]})" if one else "a door" for one in (room, other)]
                faults.append(f"{name} of {at[0]} imports {target} of {at[1]}")
    return faults


def circle(arrows: Mapping[str, Iterable[str]]) -> list[str] | None:
    """The first circle of a graph, as the names along it; None where there is none."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str] | None:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return None
        for target in sorted(arrows.get(name, ())):
            if found := walk(target, [*way, name]):
                return found
        done.add(name)
        return None

    return next((found for name in arrows if (found := walk(name, []))), None)


def sentence(name: str) -> str:
    """The docstring of a room, in one line, as Markdown."""
    path = ROOT.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split()).replace("``", "`")


def test_every_file_is_in_a_room():
    assert [str(path) for path in FILES if room_of(module(path)) is None and module(path) not in DOORS] == []
    assert [room for room in ROOMS if not any(room_of(module(path)) == room for path in FILES)] == [], "an empty room"


def test_imports_point_downwards():
    assert upwards() == []


def test_no_circle_of_files_or_rooms():
    assert circle(graph()) is None
    assert circle(room_graph()) is None


def test_a_circle_and_an_arrow_upwards_would_be_found(monkeypatch):
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    monkeypatch.setitem(graph(), "basicsr_ext.common.seeds", {"basicsr_ext.images.decode"})
    monkeypatch.setitem(graph(), "basicsr_ext.images.decode", {"basicsr_ext.checkpoints.saves"})
    assert upwards() == [
        "basicsr_ext.common.seeds of basicsr_ext.common (floor 1) imports "
        "basicsr_ext.images.decode of basicsr_ext.images (floor 2)",
        "basicsr_ext.images.decode of basicsr_ext.images (floor 2) imports "
        "basicsr_ext.checkpoints.saves of basicsr_ext.checkpoints (floor 2)",
    ]


def test_the_toolkit_does_not_know_the_bridge():
    wings = {name: {target.split(".")[0] for target in targets} for name, targets in graph().items()}
    assert [name for name, used in wings.items() if name.startswith("basicsr_ext") and used - {"basicsr_ext"}] == []
    assert [name for name, used in wings.items() if name.startswith("i2sb") and used & {"studies", "docs"}] == []


@pytest.mark.parametrize("name", PURE)
def test_the_mathematics_needs_torch_alone(name):
    targets = set(imports(Path(*name.split(".")).with_suffix(".py")))
    ours = {target for target in targets if target.startswith("i2sb_plugin")}
    assert ours <= set(PURE)
    assert {target.split(".")[0] for target in targets - ours} - sys.stdlib_module_names <= {"torch"}


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_says_the_sentence_of_the_table(name):
    assert sentence(name).startswith(ROOMS[name][1].rstrip("."))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_stay_under_400_lines(path):
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= 400
