"""Imports point downwards: a file uses its own floor or lower ones, and no toolkit file knows the bridge."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(p.relative_to(ROOT) for wing in ("i2sb_plugin", "basicsr_ext") for p in (ROOT / wing).rglob("*.py"))

# Floor of a file by the longest prefix of its module name.
FLOORS = {
    "i2sb_plugin": 0,
    "i2sb_plugin.bridge": 0,
    "i2sb_plugin.diffusion": 0,
    "i2sb_plugin.regression": 0,
    "i2sb_plugin.samplers": 0,
    "i2sb_plugin.space": 1,
    "i2sb_plugin.models.consistency": 1,
    "i2sb_plugin.degradations": 1,
    "i2sb_plugin.archs": 1,
    "i2sb_plugin.losses": 1,
    "basicsr_ext.images.decode": 1,
    "i2sb_plugin.degradations.masks": 1,
    "i2sb_plugin.data": 2,
    "i2sb_plugin.weights": 3,
    "i2sb_plugin.models": 3,
    "i2sb_plugin.api": 4,
    "i2sb_plugin.plugin": 4,
}
PURE = {f"i2sb_plugin.{name}": {"torch"} for name in ("bridge", "diffusion", "regression", "samplers")} | {
    "i2sb_plugin": set()
}


def module(path):
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(path):
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(name):
    while name not in FLOORS:
        name = name.rpartition(".")[0]
    return FLOORS[name]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_downwards(path):
    name = module(path)
    for target in imports(path):
        if name.startswith("basicsr_ext"):
            assert not target.startswith("i2sb_plugin"), f"{name} imports {target}"
        elif target.startswith("i2sb_plugin."):
            assert floor(target) <= floor(name), (
                f"{name} (floor {floor(name)}) imports {target} (floor {floor(target)})"
            )


@pytest.mark.parametrize("name", PURE)
def test_the_ground_floor_needs_torch_alone(name):
    path = Path(*name.split("."), "__init__.py") if name == "i2sb_plugin" else Path(*name.split(".")).with_suffix(".py")
    roots = {target.split(".")[0] for target in imports(path)}
    assert roots - {"i2sb_plugin"} - sys.stdlib_module_names <= PURE[name]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_stay_under_400_lines(path):
    assert len((ROOT / path).read_text().splitlines()) <= 400
