"""What the version before left behind goes on: tests/assets/previous, made by commit 83b37dd."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from basicsr_ext import repairs

repairs.apply()

from basicsr_ext.checkpoints.storage import load_weights  # noqa: E402
from basicsr_ext.restoring.configuration import find_options  # noqa: E402
from tests.support.cli_runs import run  # noqa: E402
from tests.support.restorations import kept_restorations  # noqa: E402

PREVIOUS = Path(__file__).parents[1] / "assets" / "previous"
OVERRIDES = ("network_g:num_feat=4", "train:optim_g:betas=[0.9, 0.98]")
NETWORK = "experiments/tiny/models/net_g_2.pth"


@pytest.fixture
def here(tmp_path, monkeypatch):
    shutil.copytree(PREVIOUS, tmp_path, dirs_exist_ok=True)
    os.link(tmp_path / NETWORK, tmp_path / "experiments/tiny/models/net_g_latest.pth")  # as a save leaves it
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(path):
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image.astype(int)


def test_a_run_is_resumed_to_its_end(here, capsys):
    words = ("train", "-opt", "tiny.yml", "--auto_resume", "--force_yml", *OVERRIDES)
    code, out, err = run(capsys, *words)
    assert code == 0, err
    log = max(Path("experiments/tiny").glob("train_*.log")).read_text()
    assert "iter: 2." in log and "Options that differ" not in log + out + err
    assert not Path("experiments/.tiny.lock").exists()
    for key in ("params", "params_ema"):
        wanted = load_weights("expected/net_g_4.pth", key)
        found = load_weights("experiments/tiny/models/net_g_4.pth", key)
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)
    (start,) = json.loads(Path("experiments/tiny/options.json").read_text())["starts"]
    assert start["iteration"] == 2 and start["options"]["network_g"]["num_feat"] == 4


@pytest.mark.parametrize("checkpoint", [NETWORK, "tiny.safetensors"])
def test_a_network_and_an_export_restore_the_same_picture(here, capsys, checkpoint):
    words = ("-i", "data/lq/0.png", "-o", "out.png", "--device", "cpu", "--checkpoint", checkpoint)
    code, _, err = run(capsys, "restore", *words)
    assert code == 0, err
    assert np.abs(pixels("out.png") - pixels("expected/0.png")).max() == 0


def test_a_benchmark_goes_on_where_it_stopped(here, capsys, monkeypatch):
    before = json.loads(Path("results/bench/records.json").read_text())
    restored = kept_restorations(monkeypatch)
    Path("results/bench/restored/run/pairs/1.png").unlink()
    code, _, err = run(capsys, "benchmark", "-opt", "bench.yml")
    assert code == 0, err
    assert restored == [("run", "1")], "only what was missing"
    after = json.loads(Path("results/bench/records.json").read_text())
    old, new = ({r["method"]: r["summary"]["psnr_y"]["value"] for r in one["results"]} for one in (before, after))
    assert set(old) == {"bicubic", "run", "export"} and new == pytest.approx(old, abs=1e-3)


def test_an_option_file_still_says_the_same(here, capsys):
    code, _, err = run(capsys, "check", "-opt", "tiny.yml", "--force_yml", *OVERRIDES)
    assert code == 0, err
    opt, source = find_options(NETWORK)
    assert source.endswith("tiny.yml") and opt["network_g"]["num_feat"] == 4, "the overrides in its head count"
    exported, _ = find_options("tiny.safetensors")
    assert exported["network_g"] == opt["network_g"] and exported["scale"] == opt["scale"] == 2
