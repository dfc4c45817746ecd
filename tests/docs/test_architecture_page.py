"""docs/architecture.md holds the graph of the source, and every file that it names is there."""

import re

import pytest

from docs.make import architecture
from tests.test_layering import ROOMS, ROOT

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
FOLDERS = ("basicsr_ext", "i2sb_plugin", "docs", "studies", "tests", "options")
THERE = [f"/{path.relative_to(ROOT)}" for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
NAMED = sorted(set(re.findall(r"`([\w./]+(?:\.py|\.md|\.yml|\.json|/))`", PAGE)))


def test_the_page_holds_what_the_generator_writes():
    assert PAGE.count("<!-- end -->") == 2
    assert architecture.written(PAGE) == PAGE, "run python -m docs.make.architecture --write"


def test_the_command_prints_every_room_and_finds_nothing_wrong(capsys):
    assert architecture.main([]) == 0
    said = capsys.readouterr().out
    assert all(f"`{architecture.place(room)}`" in said for room in ROOMS)
    assert "no arrow upwards, no circle" in said


def test_an_arrow_upwards_is_said_and_fails(monkeypatch, capsys):
    monkeypatch.setitem(architecture.graph(), "basicsr_ext.common.seeds", {"basicsr_ext.cli"})
    assert architecture.main([]) == 1
    assert "basicsr_ext.common.seeds" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("name", [name for name in NAMED if "NAME" not in name and "FILE" not in name])
def test_a_file_that_the_page_names_is_there(name):
    assert (ROOT / name).exists() or any(path.endswith(f"/{name.rstrip('/')}") for path in THERE)
