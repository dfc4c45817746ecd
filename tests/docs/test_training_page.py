"""The page on watching a run says what was measured, and gives options that are taken."""

import json
import re
from pathlib import Path

import yaml

from basicsr_ext.options.check import check
from basicsr_ext.options.file import load_yaml
from i2sb_plugin import plugin

plugin.register()
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


def test_the_grid_is_the_one_measured():
    text = (ROOT / "docs/training.md").read_text()
    found = json.loads((ROOT / "studies/quality/results/full_size.json").read_text())
    for one in found["runs"]:
        dials = [
            [one["dial"][dial][name] for name in ("psnr_y", "lpips", "dists", "grid")] for dial in ("0", "0.5", "1")
        ]
        figures = " | ".join("{:.2f} / {:.3f} / {:.3f} / {:.2f}".format(*dial) for dial in dials)
        assert f"| {one['full_size']} | {one['places']} | {figures} |" in text


def test_the_options_for_few_evaluations_and_those_of_the_dial_are_taken():
    few, dial = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/training.md").read_text(), re.DOTALL)
    opt = dict(load_yaml(ROOT / "options/i2sb_sr4x_plain.yml"))
    changes = yaml.safe_load(few)
    for name, values in changes.items():
        opt[name] |= values
    assert set(changes) == {"network_g", "bridge", "train"} and check(opt, is_train=True) == []
    faults = check({**opt, "bridge": {**opt["bridge"], "cond_x1": False}}, is_train=True)
    assert any("preconditioned" in fault and "cond_x1" in fault for fault in faults)
    for name, values in yaml.safe_load(dial).items():
        opt[name] |= values
    assert check(opt, is_train=True) == []
