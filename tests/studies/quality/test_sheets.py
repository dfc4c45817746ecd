"""Sheets and robustness: pictures by networks of a study, and figures of what went wrong."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from basicsr_ext.common.errors import InputError
from studies.quality import pages
from studies.quality.questions import robustness, time_to_quality
from studies.quality.study import sheets
from studies.quality.study.plan import read
from tests.support.study_results import method, write
from tests.support.trained import BRIDGE, run_folder

ROOT = Path(__file__).parents[3]
STUDY, _ = read(ROOT / "studies/quality/study.yml")


def text(folder):
    """All pages, one after another."""
    return "\n".join(pages.written(folder, STUDY).values())


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A study whose networks for super-resolution are there, untrained."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "trained").mkdir()
    bridge = {**BRIDGE, "scale": 4, "name": "i2sb-sr4x-0"}
    noise = {key: value for key, value in bridge.items() if key not in ("bridge", "val")}
    noise |= {"name": "diffusion-sr4x-0", "model_type": "ConditionalDiffusionModel", "diffusion": {"steps": 100}}
    noise["network_g"] = {**bridge["network_g"], "cond_channels": 3}
    for opt in (bridge, noise):
        run_folder(folder, opt)
        record = {"iterations": 700, "seconds": 60.5, "processes at once": 2}
        (folder / "trained" / f"{opt['name']}.json").write_text(json.dumps(record))
    return folder


def test_a_sheet_shows_what_the_networks_restore(work, tmp_path, monkeypatch):
    few = {caption: (network, {**flags, "nfe": 2}) for caption, (network, flags) in sheets.COLUMNS.items()}
    monkeypatch.setattr(sheets, "COLUMNS", few)
    monkeypatch.setattr(sheets, "PLACES", {"astronaut": (84, 92)})
    lines = sheets.draw(work, STUDY, tmp_path, tmp_path)
    assert lines[0] == "results_sr4x.png"
    assert "i2sb-jpeg10-0, diffusion-jpeg10-0 not trained" in lines[1]
    sheet = np.asarray(Image.open(tmp_path / "results_sr4x.png"))
    assert sheet.shape == (20 + 128, 7 * 128 + 6 * 4, 3)
    clean = np.asarray(Image.open(work / "data/photographs/val/astronaut.png"))[84:148, 92:156]
    assert (sheet[20::2, -128::2] == clean).all(), "the last column is the original"
    assert len(np.unique(sheet[20:28, :8].reshape(-1, 3), axis=0)) == 1, "pixels of the input are squares of 4 x 4"
    page = text(tmp_path)
    assert "**sr4x**: astronaut. 700 iterations, 60 s for each network, 2 processes at once; seed 0; " in page
    assert "No picture yet of `jpeg10`, `deblur`" in page


def test_rows_are_left_out_until_the_file_is_small_enough(tmp_path):
    rows = torch.rand(3, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    whole = sheets.save(rows, ["a", "b"], tmp_path / "a.png", 10**6)
    size = (tmp_path / "a.png").stat().st_size
    assert whole == 3 and sheets.save(rows, ["a", "b"], tmp_path / "b.png", size - 1) == 2
    assert (tmp_path / "b.png").stat().st_size < size


def test_a_network_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"i2sb-sr4x-0.*--only 'claims-sr4x-0'"):
        sheets.load(tmp_path, "i2sb", "sr4x")


@pytest.mark.slow
def test_pictures_out_of_the_training_range_are_restored_and_measured(work, tmp_path, monkeypatch):
    monkeypatch.setattr(robustness, "STEPS", (1, 2))
    record = robustness.run(work, tmp_path, tmp_path, None)
    assert record == json.loads((tmp_path / "robustness.json").read_text())
    rows = {(row["picture"], row["method"]): row for row in record["rows"]}
    assert len(rows) == 6 * 3 and record["shown"] >= 1
    grey = rows["grey", "bicubic"]
    assert grey["psnr"] is None and grey["faults"] == [], "bicubic gives the grey field back"
    assert rows["noise", "bicubic"]["texture"] < 0.1 and rows["noise", "bicubic"]["faults"] == ["detail lost"]
    assert (tmp_path / "results_robustness.jpg").stat().st_size < robustness.LIMIT
    page = text(tmp_path)
    assert (
        "From top to bottom: text" in page
        and "| grey, bicubic | exact | " in page
        and "- night: skimage.data.astronaut()" in page
    )
    assert f"| noise, I2SB, NFE 2 | {rows['noise', 'I2SB, NFE 2']['psnr']:.2f} | " in page


def test_faults_are_told_apart():
    original = next(iter(robustness.pictures().values()))[1]
    flat = torch.full((3, 96, 96), 0.5)
    noise = 0.02 * torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(0))
    same = robustness.faults(original, original)
    assert same["texture"] == pytest.approx(1) and same["ringing"] == same["shift"] == 0
    assert robustness.names(same) == []
    made_up = robustness.faults(flat + noise, flat)
    assert made_up["texture"] is None
    assert made_up["flat"] == pytest.approx(255 * 0.02 * (8 / 9) ** 0.5, rel=0.05), "a mean of 9 takes 1 / 9 of it away"
    assert "made-up texture" in robustness.names(made_up)
    brighter = robustness.faults(original + 3 / 255, original)
    assert brighter["shift"] == pytest.approx(3, abs=1e-3) and brighter["texture"] == pytest.approx(1, abs=1e-4)
    assert robustness.names(brighter) == ["shift of brightness or colour"]
    tint = original + torch.tensor([0.03, -0.03, 0.0])[:, None, None] * torch.linspace(-1, 1, 96)
    assert "coloured blotches" not in robustness.names(robustness.faults(tint, original))
    dark = (original - original.mean()) * 0.01 + 0.02
    found = robustness.faults(dark + tint - original, dark)
    assert found["blotches"] == pytest.approx(0.03 * (2 / 9) ** 0.5 / 0.02, rel=0.15)
    assert "coloured blotches" in robustness.names(found)
    bar = torch.zeros(3, 96, 96)
    bar[:, :, 48:] = 1
    rung = bar.clone()
    rung[:, :, 44] = 0.05
    rung[:, :, 45] = 0.3
    found = robustness.faults(rung, bar)
    assert found["ringing"] == pytest.approx(12.75), "0.3 is within 3 pixels of white, 0.05 is not"
    soft = torch.nn.functional.avg_pool2d(original[None], 3, 1, 1)[0]
    assert "detail lost" in robustness.names(robustness.faults(soft, original))


def test_the_pictures_are_the_same_each_time_and_none_is_from_a_data_set():
    first, second = robustness.pictures(), robustness.pictures()
    assert list(first) == ["text", "page", "night", "line art", "noise", "grey"]
    for name, (made, picture) in first.items():
        assert picture.shape == (3, 96, 96) and picture.min() >= 0 and picture.max() <= 1, name
        assert torch.equal(picture, second[name][1]) and made
    levels = first["night"][1] * 255
    assert levels.mean() < 10 and torch.allclose(levels, levels.round(), atol=1e-3)


@pytest.mark.slow
def test_the_fewest_steps_that_are_as_good_as_a_hundred_are_found_and_timed(work, tmp_path, monkeypatch):
    claims = [method("i2sb", nfe, lpips=[v] * 4, patch_fid=v) for nfe, v in ((10, 0.25), (50, 0.25), (100, 0.3))]
    write(tmp_path, "claims", "sr4x", 0, claims)
    walks = {("ancestral", 5): 0.31, ("ancestral_log_snr", 10): 0.3, ("dbim", 20): 0.2}
    write(tmp_path, "samplers", "sr4x", 0, [method(*key, lpips=[v] * 4, patch_fid=0.4) for key, v in walks.items()])
    monkeypatch.setattr(time_to_quality, "PAIRS", 1)
    monkeypatch.setattr(sys, "argv", ["time_to_quality", "--work", str(work), "--results", str(tmp_path)])
    assert time_to_quality.main() == 0
    first, second = json.loads((tmp_path / time_to_quality.FILE).read_text())["rows"]
    assert (first["setting"], first["nfe"], first["value"], first["reference"]) == ("ancestral_log_snr", 10, 0.3, 0.3)
    assert first["ratio_median"] > 2, "ten steps take less than half of a hundred's time"
    assert (second["metric"], second["setting"], second["nfe"]) == ("patch_fid", "i2sb", 10)
    assert "| sr4x | LPIPS | 0.300 | ancestral_log_snr | 10 | 0.300 |" in text(tmp_path)


def test_walks_of_another_training_are_not_compared(tmp_path):
    write(tmp_path, "claims", "sr4x", 0, [method("i2sb", nfe, lpips=[0.3] * 4) for nfe in (5, 100)], seconds=99)
    write(tmp_path, "samplers", "sr4x", 0, [method("ancestral", 10, lpips=[0.2] * 4)])
    assert time_to_quality.quickest(pages.Outcomes(tmp_path), "sr4x", "lpips") is None
    walks = [method("ancestral", 20, lpips=[0.2] * 4), method("ancestral", 100, lpips=[0.25] * 4)]
    write(tmp_path, "samplers", "sr4x", 0, walks)
    found = time_to_quality.quickest(pages.Outcomes(tmp_path), "sr4x", "lpips")
    assert (found["setting"], found["nfe"], found["reference"]) == ("ancestral", 20, 0.25)


def test_a_task_without_figures_has_no_time_to_quality(tmp_path):
    write(tmp_path, "samplers", "sr4x", 0, [method("ancestral", 5, lpips=[0.3] * 4)])
    assert time_to_quality.quickest(pages.Outcomes(tmp_path), "sr4x", "lpips") is None
    assert "Missing: `python -m studies.quality.questions.time_to_quality" in text(tmp_path)
