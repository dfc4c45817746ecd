"""The page on students shows the options of the file that trains one, and says that nothing was measured."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/students.md").read_text(encoding="utf-8")


def held(part, whole):
    """Whether each value of nested options is one of ``whole``."""
    if isinstance(part, dict):
        return all(key in whole and held(value, whole[key]) for key, value in part.items())
    return part == whole


def test_its_options_are_those_of_the_file():
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert held(yaml.safe_load(shown), yaml.safe_load((ROOT / "options/i2sb_student_sr4x.yml").read_text()))


def test_the_teacher_of_the_file_is_the_one_that_the_page_trains_first():
    teacher = yaml.safe_load((ROOT / "options/i2sb_student_sr4x.yml").read_text())["path"]["teacher"]
    name = yaml.safe_load((ROOT / "options/i2sb_sr4x.yml").read_text())["name"]
    assert teacher == f"experiments/{name}/models/net_g_latest.pth" and teacher in PAGE
    assert "basicsr train -opt options/i2sb_sr4x.yml" in PAGE


def test_no_figure_is_given_before_one_is_measured():
    assert "none were measured" in PAGE and not re.search(r"\d dB", PAGE)
