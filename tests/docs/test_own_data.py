"""docs/own_data.md: its Python runs, its commands have the flags that exist, its files are there."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from basicsr_ext import cli
from tests.support.cli_runs import run
from tests.support.trained import BRIDGE, run_folder

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "own_data.md").read_text()


def test_the_three_lines_of_python_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_folder(tmp_path, BRIDGE | {"name": "i2sb_sr4x"})
    Image.fromarray(np.ascontiguousarray(data.astronaut()[:32, :48])).save("photo.png")
    block = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
    assert len([line for line in block.splitlines() if line]) == 3
    names: dict = {}
    exec(block, names)
    assert names["image"].shape == (32, 48, 3) and names["image"].dtype == np.uint8


def test_every_flag_of_the_page_exists(capsys):
    code, known, _ = run(capsys, "restore", "--help")
    for command in ("prepare", "init"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        known += capsys.readouterr().out
    said = set(re.findall(r"`[^`]*?(--[a-z_]+)", TEXT)) | set(re.findall(r"^basicsr \w+.*?(--[a-z_]+)", TEXT, re.M))
    assert code == 0 and len(said) > 12
    assert {flag for flag in said if flag not in known} == {"--force_yml"}


def test_every_file_of_the_page_is_there():
    files = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(files) > 3 and all((ROOT / "docs" / name).is_file() for name in files)
    options = set(re.findall(r"options/\w+\.yml", TEXT)) - {"options/my.yml"}
    assert len(options) > 3 and all((ROOT / name).is_file() for name in options)
