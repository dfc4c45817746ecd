"""Every relative link of the documents leads somewhere, and every command in them names what is there."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from basicsr_ext import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
PAGES = [page for page in PAGES if page.name != "options.md"]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
PLUGINS_OWN = {"import-i2sb", "export-i2sb", "import-adm"}


def anchors(text):
    """The places of a page that a link may name, as GitHub makes them from headings."""
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    found, seen = set(), {}
    for heading in re.findall(r"^#+ (.+?)\s*$", without_code, re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        count = seen[name] = seen.get(name, -1) + 1
        found.add(f"{name}-{count}" if count else name)
    return found


@pytest.mark.parametrize("page", TEXTS)
def test_every_relative_link_leads_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        if not file.exists() or (
            anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8"))
        ):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", TEXTS)
def test_every_module_and_file_of_a_command_is_there(page):
    text = TEXTS[page] if page != "CHANGELOG.md" else TEXTS[page].split("## [0.1.0]")[0]
    missing = []
    for name in set(re.findall(r"python -m\s+([\w.]+)", text)):
        try:
            missing += [name] if importlib.util.find_spec(name) is None else []
        except ModuleNotFoundError:
            missing.append(name)
    for name in set(re.findall(r"python ((?:studies|docs|basicsr_ext|i2sb_plugin)/\S+\.py)", text)):
        missing += [] if (ROOT / name).is_file() else [name]
    files = re.findall(r"\b((?:tests|basicsr_ext|i2sb_plugin|studies)/[\w/]+\.py|options/[\w/]+\.(?:yml|txt))\b", text)
    missing += [
        name for name in set(files) if not (ROOT / name).is_file() and "NAME" not in name and "FILE" not in name
    ]
    assert sorted(set(missing) - {"options/my.yml"}) == []


@pytest.mark.parametrize("page", TEXTS)
def test_every_sub_command_exists(page):
    named = set(re.findall(r"^(?: {4}|\$ )?basicsr ([a-z][\w-]*)", TEXTS[page], re.MULTILINE))
    named |= set(re.findall(r"`basicsr ([a-z][\w-]*)", TEXTS[page]))
    assert named - set(cli.COMMANDS) - PLUGINS_OWN == set()


@pytest.mark.parametrize("page", TEXTS)
def test_every_block_of_yaml_is_yaml(page):
    for block in re.findall(r"```yaml\n(.*?)```", TEXTS[page], re.DOTALL):
        assert isinstance(yaml.safe_load(block), dict)


def test_every_page_is_reached_from_the_readme():
    reached, ways = set(), ["README.md"]
    while ways:
        page = ways.pop()
        reached.add(page)
        for target in re.findall(r"\]\(([^)#\s]+)", TEXTS.get(page, "")):
            file = ((ROOT / page).parent / target).resolve()
            name = str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else ""
            if name in TEXTS and name not in reached:
                ways.append(name)
    assert set(TEXTS) - reached == set()


@pytest.mark.parametrize("page", TEXTS)
def test_every_test_that_is_named_is_there(page):
    named = re.findall(r"`(tests/[a-z0-9_/]+\.py)(?:::(\w+))?`", TEXTS[page])  # not test_NAME.py, which is yet to be
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).is_file() or (name and f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8"))
    ]
    assert not missing
