"""docs/scientific_data.md: its options are right, its tables hold what the code has, its messages exist."""

import re
from pathlib import Path

import yaml

from basicsr_ext import repairs
from basicsr_ext.options.check import check
from i2sb_plugin import plugin
from i2sb_plugin.degradations import DEGRADATIONS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "scientific_data.md").read_text()
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]


def test_the_options_of_the_page_have_no_faults():
    repairs.apply()
    plugin.register()
    short, whole = BLOCKS
    assert check(whole, True) == [] and check({**whole, **short}, True) == []


def test_the_degradations_that_are_refused_are_those_that_say_so():
    said = re.search(r"Refused are (.*?), which know", TEXT, re.DOTALL)
    names = DEGRADATIONS.keys()
    refusing = {name for name in names if hasattr(DEGRADATIONS.get(name), "refuses_data")}
    assert said and set(re.findall(r"`(\w+)`", said[1])) == refusing
    unbounded = {name for name in names if hasattr(DEGRADATIONS.get(name), "refuses_unbounded")}
    assert unbounded == {"noise_poisson"}


def test_the_messages_are_those_of_the_code():
    code = "".join(path.read_text() for path in (ROOT / "basicsr_ext").rglob("*.py"))
    table = TEXT.split("## When it refuses")[1]
    for message in re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE):
        words = re.split(r" \.\.\. | float64| float32", message)
        assert all(part.strip() in code for part in words if part.strip()), message
