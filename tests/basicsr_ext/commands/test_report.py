"""From metrics.json to a table and a sheet."""

import json

import cv2
import numpy as np
import pytest
import yaml

from basicsr_ext import cli
from basicsr_ext.benchmark.report.runs import load_runs, sheet, table
from basicsr_ext.common.errors import InputError
from tests.support.basicsr_runs import write_images


def make_run(folder, name, level, psnr):
    folder.mkdir(parents=True)
    records = []
    for k in range(2):
        path = folder / f"{k}_{name}.png"
        cv2.imwrite(str(path), np.full((20, 30, 3), level, np.uint8))
        records.append({"image": str(k), "psnr_y": psnr, "seconds": 0.5, "file": str(path)})
    data = {"mean": {"psnr_y": psnr, "seconds": 0.5}, "images": records}
    (folder / "metrics.json").write_text(json.dumps({"name": name, "datasets": {"set": data}}))
    return folder


def test_the_table_has_a_row_for_each_run(tmp_path):
    runs = load_runs([make_run(tmp_path / "a", "bicubic", 10, 26.123), make_run(tmp_path / "b", "i2sb", 200, 27.5)])
    assert table(runs).splitlines() == [
        "| run | data set | PSNR-Y (dB) | seconds per image |",
        "| --- | --- | ---: | ---: |",
        "| bicubic | set | 26.12 | 0.500 |",
        "| i2sb | set | 27.50 | 0.500 |",
    ]


def test_the_sheet_shows_every_run_and_the_originals(tmp_path):
    runs = load_runs([make_run(tmp_path / "a", "bicubic", 10, 26), make_run(tmp_path / "b", "i2sb", 200, 27)])
    originals = tmp_path / "originals"
    originals.mkdir()
    for k in range(2):
        cv2.imwrite(str(originals / f"{k}.png"), np.full((20, 30, 3), 90, np.uint8))
    sheet(runs, originals, tmp_path / "sheet.png", crop=16)
    page = cv2.imread(str(tmp_path / "sheet.png"))
    assert page.shape == (24 + 2 * 38 - 6, 3 * 38 - 6, 3)
    assert [int(page[40, x, 0]) for x in (10, 48, 86)] == [10, 200, 90]
    with pytest.raises(InputError, match="smaller than 24"):
        sheet(runs, originals, tmp_path / "sheet.png", crop=24)
    for crop in (-5, 0, 100_000):
        with pytest.raises(InputError, match=rf"--crop is {crop}; give a whole number of pixels from 1"):
            sheet(runs, originals, tmp_path / "sheet.png", crop)
    with pytest.raises(InputError, match="holds no image named '0'"):
        sheet(runs, tmp_path / "b" / "nothing", tmp_path / "sheet.png", crop=16)
    originals.joinpath("0.0.png").write_bytes(b"another image, whose name begins alike")
    sheet(runs, originals, tmp_path / "sheet.png", crop=16)
    assert (cv2.imread(str(tmp_path / "sheet.png")) == page).all()
    cv2.imwrite(str(originals / "1.png"), np.zeros((10, 15, 3), np.uint8))  # what was given to be enlarged
    with pytest.raises(InputError, match=r"differs in size .*1\.png 10x15; give what they restore"):
        sheet(runs, originals, tmp_path / "sheet.png", crop=8)
    cv2.imwrite(str(originals / "1.png"), np.full((20, 30, 3), 90, np.uint8))
    cv2.imwrite(str(originals / "0.jpg"), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(InputError, match=r"0\.jpg, .*0\.png all fit the restored '0'; keep one"):
        sheet(runs, originals, tmp_path / "sheet.png", crop=16)
    (originals / "0.jpg").unlink()
    with pytest.raises(InputError, match=r"--sheet .*1\.png is one of the images"):
        sheet(runs, originals, originals / "1.png", crop=16)
    with pytest.raises(InputError, match=r"sheet\.xyz: .*choose another format"):
        sheet(runs, originals, tmp_path / "sheet.xyz", crop=16)


def test_a_run_that_was_put_aside_shows_its_own_images(tmp_path):
    aside = make_run(tmp_path / "a", "base", 10, 26).rename(tmp_path / "a_archived")
    runs = load_runs([aside, make_run(tmp_path / "a", "base", 200, 27)])
    originals = tmp_path / "originals"
    originals.mkdir()
    for k in range(2):
        cv2.imwrite(str(originals / f"{k}.png"), np.full((20, 30, 3), 90, np.uint8))
    sheet(runs, originals, tmp_path / "sheet.png", crop=16)
    assert [int(cv2.imread(str(tmp_path / "sheet.png"))[40, x, 0]) for x in (10, 48)] == [10, 200]


def test_a_folder_without_figures_is_told(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.json .*basicsr test -opt FILE"):
        load_runs([tmp_path])
    (tmp_path / "metrics.json").write_text("[1]")
    with pytest.raises(InputError, match="basicsr test"):
        load_runs([tmp_path])


@pytest.mark.parametrize("data", [{}, {"mean": {"psnr": "high"}, "images": []}, {"mean": {}, "images": [{}]}, []])
def test_damaged_figures_are_named_by_their_file(data, tmp_path):
    run = make_run(tmp_path / "a", "bicubic", 10, 26.123)
    (run / "metrics.json").write_text(json.dumps({"name": "a", "datasets": {"set": data}}))
    with pytest.raises(InputError, match=r"a/metrics\.json is not a result of `basicsr test`.*test again"):
        load_runs([run])


def test_the_command_prints_the_table_and_the_places(tmp_path, capsys):
    from basicsr_ext.commands.report import run as main

    run = make_run(tmp_path / "a", "bicubic", 10, 26.123)
    assert main([str(run)]) == 0
    printed = capsys.readouterr().out
    assert "| bicubic | set | 26.12 | 0.500 |" in printed and str(run / "visualization") in printed
    assert load_runs([run / "metrics.json"]) == load_runs([run])
    for alone in ("--sheet", "--originals"):
        with pytest.raises(InputError, match="--sheet needs --originals"):
            main([str(run), alone, "x.png"])


def test_a_figure_that_json_does_not_have_is_an_empty_cell(tmp_path, monkeypatch, capsys):
    """The PSNR of equal images is infinite: `metrics.json` holds null, and files with Infinity are read too."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "gt", 2, 16)
    block = {"type": "PairedImageDataset", "name": "set", "dataroot_gt": "gt", "dataroot_lq": "gt"}
    opt = {"name": "same", "model_type": "RestorationModel", "scale": 1, "num_gpu": 0}
    opt |= {"network_g": {"type": "Interpolation", "scale": 1, "mode": "nearest-exact"}, "datasets": {"test": block}}
    opt["val"] = {"metrics": {"psnr_y": {"type": "calculate_psnr", "crop_border": 0}}, "pbar": False}
    (tmp_path / "same.yml").write_text(yaml.safe_dump(opt))
    assert cli.main(["test", "-opt", "same.yml"]) == 0
    path = tmp_path / "results/same/metrics.json"
    found = json.loads(path.read_text(), parse_constant=refuse)["datasets"]["set"]
    assert found["mean"]["psnr_y"] is None and [image["psnr_y"] for image in found["images"]] == [None, None]
    capsys.readouterr()
    assert cli.main(["report", "results/same"]) == 0 and "| same | set |  |" in (out := capsys.readouterr().out)
    assert "psnr_y of same on set: the figure is that of 0 of 2 image(s); without 000: inf, as for equal" in out
    found["mean"]["psnr_y"] = float("inf")
    path.write_text(json.dumps({"name": "same", "datasets": {"set": found}}))
    assert cli.main(["report", "results/same"]) == 0 and "| same | set | inf |" in capsys.readouterr().out
