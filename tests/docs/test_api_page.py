"""docs/api.md: every import that it lists works, every block runs, and it lists what the package offers."""

import re
from pathlib import Path

import pytest
import torch

import i2sb_plugin

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("line", re.findall(r"^\| `(from [^`]+)`", PAGE, re.MULTILINE))
def test_an_import_of_the_table_works(line):
    exec(line, {})


def test_the_table_lists_what_the_package_offers():
    table = PAGE.split("## The toolkit")[0]
    listed = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE))))
    assert listed == set(i2sb_plugin.__all__) - {"__version__"}


def test_the_blocks_run_and_a_perfect_prediction_is_restored():
    names: dict = {}
    for block in BLOCKS:
        exec(block, names)
    torch.testing.assert_close(names["restored"], names["clean"], rtol=0, atol=1e-5)
    assert names["target"].shape == names["xt"].shape
    whole = torch.nn.functional.interpolate(names["image"], scale_factor=2)
    torch.testing.assert_close(names["larger"], whole, check_dtype=False, rtol=0, atol=1e-6)


def test_the_walk_needs_no_more_than_torch_and_the_degradation():
    assert len(BLOCKS) == 3 and "basicsr" not in BLOCKS[1]
