"""The page on watching a run says what was measured, and names tags that exist."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_figures_are_those_measured():
    text = " ".join((ROOT / "docs/training.md").read_text().split())
    found = json.loads((ROOT / "studies/speed/results/training_log.json").read_text())
    low, _, high = found["ratio_quartiles"]
    assert f"takes {100 * found['gather_share']:.2f} % of an iteration" in text
    assert f"a line of the log {100 * found['line_share']:.2f} % of the ten iterations before it" in text
    ratio = found["ratio_with_to_without_median"]
    assert f"(median ratio {ratio:.3f}, quartiles {low:.3f} to {high:.3f})" in text
    assert found["iterations_per_line"] == 10 and found["machine"]["threads"] == 1
