"""docs/export.md: its Python runs, its flags exist."""

import re
from pathlib import Path

import pytest
import torch

from tests.support.cli_runs import run
from tests.support.trained import BRIDGE, safetensors_file

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "export.md").read_text()


def test_the_lines_for_spandrel_run(tmp_path, monkeypatch):
    spandrel = pytest.importorskip("spandrel", reason="needs the extra `foreign`")
    monkeypatch.setattr(
        spandrel.ModelLoader, "load_state_dict_from_file", spandrel.ModelLoader.load_state_dict_from_file
    )
    registry = spandrel.MAIN_REGISTRY.copy()
    monkeypatch.setattr(spandrel, "MAIN_REGISTRY", registry)
    monkeypatch.setattr(spandrel.ModelLoader.__init__, "__defaults__", (None, registry))
    monkeypatch.chdir(tmp_path)
    opt = BRIDGE | {"bridge": {"steps": 100, "cond_x1": True, "dial": True}, "name": "sr4x", "scale": 4}
    safetensors_file(tmp_path, opt | {"network_g": BRIDGE["network_g"] | {"cond_channels": 4}})
    names: dict = {"image": torch.rand(1, 3, 12, 10)}
    exec(re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1], names)
    assert names["restored"].shape == (1, 3, 48, 40)


def test_every_flag_of_the_page_exists(capsys):
    _, known, _ = run(capsys, "restore", "--help")
    with pytest.raises(SystemExit):
        run(capsys, "export", "--help")
    known += capsys.readouterr().out
    flags = set(re.findall(r"(?<![\w-])--[a-z_]+", TEXT)) - {"--out"}
    assert len(flags) > 8 and not [flag for flag in flags if flag not in known]
