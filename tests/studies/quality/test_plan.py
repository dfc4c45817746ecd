"""The study's file: what it trains is checked before anything is built."""

import json
from pathlib import Path

import numpy
import pytest
import yaml
from skimage import io

from basicsr_ext import cli, repairs
from basicsr_ext.common import plugins
from basicsr_ext.common.errors import InputError
from basicsr_ext.options.check import check
from studies.quality.study.data import OVERLAPPING, Photographs
from studies.quality.study.plan import merged, read

ROOT = Path(__file__).parents[3]
STUDY = ROOT / "studies/quality/study.yml"


def test_blocks_are_merged_and_a_key_that_becomes_none_goes():
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(base, {"a": {"b": 4, "c": None}, "e": {"f": 5}}) == {"a": {"b": 4}, "d": 3, "e": {"f": 5}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


def test_seed_0_of_every_comparison_comes_before_seed_1():
    _, units = read(STUDY)
    seeds = [unit.seed for unit in units]
    assert seeds == sorted(seeds)
    assert {unit.task for unit in units if unit.comparison == "claims" and unit.seed == 2} == {
        "sr4x",
        "jpeg10",
        "deblur",
        "inpaint_center",
        "inpaint_freeform",
        "denoise",
    }


def test_the_rivals_of_a_claim_differ_in_what_is_walked_alone():
    study, _ = read(STUDY)
    bridge, diffusion = (study.options(name, "sr4x", 1, name, "d", 10) for name in ("i2sb", "diffusion"))
    assert diffusion["network_g"].pop("cond_channels") == 3
    for options, block in ((bridge, "bridge"), (diffusion, "diffusion")):
        del options[block], options["model_type"], options["name"]
    assert bridge == diffusion
    assert bridge["manual_seed"] == 1
    assert bridge["train"]["total_iter"] == 10


def every_network(training):
    """The options of each network for each task that it is trained for, by name."""
    study, units = read(STUDY)
    for network, task in sorted({(network, unit.task) for unit in units for network in unit.networks}):
        options = study.options(network, task, 0, network, str(training), 10)
        after = options.pop("after", None)
        assert after is None or after in study.networks
        yield f"{network}-{task}", json.loads(json.dumps(options))


def test_every_network_has_sound_options(tmp_path):
    repairs.apply()
    plugins.load_entry_points()
    faults = {name: check(options, is_train=True) for name, options in every_network(tmp_path)}
    assert len(faults) > 20 and not any(faults.values())


@pytest.mark.slow
def test_every_network_takes_a_batch(tmp_path, monkeypatch, capsys):
    training = Photographs(None, tmp_path / "data", 3).training
    monkeypatch.chdir(tmp_path)
    for name, options in every_network(training):
        path = tmp_path / f"{name}.yml"
        path.write_text(yaml.safe_dump(options, sort_keys=False))
        assert cli.main(["check", "-opt", str(path)]) == 0, capsys.readouterr()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"comparisons": {"claims": {"tasks": ["sr5x"]}}}, r"comparisons\.claims\.tasks is 'sr5x'; did you mean sr4x"),
        ({"comparisons": {"claims": {"methods": {"i2sb": {"network": "i2bs"}}}}}, r"methods\.i2sb\.network is 'i2bs'"),
        ({"networks": {"i2sb_l1": {"like": "i2s"}}}, r"networks\.i2sb_l1\.like is 'i2s'; did you mean i2sb"),
        (
            {"comparisons": {"claims": {"sedes": [1]}}},
            r"comparisons\.claims\.sedes is not an option; did you mean seeds",
        ),
        ({"comparisons": {"claims": {"data": ["crosp"]}}}, r"claims\.data is 'crosp'; did you mean crops"),
        ({"comparisons": {"claims": {"seeds": []}}}, r"claims needs at least one seed"),
        ({"comparisons": {"claims": {"longer": 0}}}, r"and longer from 1"),
        ({"comparisons": {"claims": {"methods": {"x": {"netwrok": "i2sb"}}}}}, r"methods\.x\.netwrok is not an option"),
        ({"comparisons": {"claims": {"methods": {"x": [1]}}}}, r"claims\.methods\.x"),
        ({"networks": {"i2sb_l1": {"after": "i2s"}}}, r"networks\.i2sb_l1\.after is 'i2s'; did you mean i2sb"),
        ({"networks": {"i2sb": {"like": "i2sb_cond_x1"}}}, r"networks\.i2sb\.like goes in a circle: i2sb -> i2sb_cond"),
        ({"networks": {"i2sb_l1": [1]}}, r"networks\.i2sb_l1 is \[1\]; it must be a block of options"),
        ({"tasks": {"sr4x": {"degradation": "bicubic"}}}, r"tasks\.sr4x needs a degradation"),
    ],
)
def test_a_misspelt_name_is_caught(tmp_path, change, said):
    path = tmp_path / "study.yml"
    path.write_text(yaml.safe_dump(merged(yaml.safe_load(STUDY.read_text()), change)))
    with pytest.raises(InputError, match=said):
        read(path)


def test_photographs_of_the_test_sets_are_left_out_of_training(tmp_path):
    for folder, names in {"train": ("1.jpg", *OVERLAPPING), "val": ("2.jpg", "3.jpg")}.items():
        (tmp_path / "BSDS500" / folder).mkdir(parents=True)
        for name in names:
            io.imsave(tmp_path / "BSDS500" / folder / name, numpy.zeros((80, 96, 3), numpy.uint8), check_contrast=False)
    photographs = Photographs(tmp_path, tmp_path / "work", 5)
    assert [path.name for path in photographs.training.iterdir()] == ["1.jpg"]
    crops = photographs.dataset("crops", {"type": "sr4x_bicubic"})["dataroot_gt"]
    assert sorted(path.name for path in Path(crops).iterdir()) == [
        "2_0.png",
        "2_1.png",
        "2_2.png",
        "3_0.png",
        "3_1.png",
    ]
    assert {io.imread(path).shape for path in Path(crops).iterdir()} == {(64, 64, 3)}
    with pytest.raises(InputError, match=r"--data: .*BSDS500/train .*missing"):
        Photographs(tmp_path / "none", tmp_path / "work", 5)


@pytest.mark.parametrize(
    ("size", "said"),
    [(None, "val holds no .jpg or .png"), (40, "3.jpg is 40 x 40 pixels"), (0, "3.jpg .*be read")],
)
def test_photographs_that_cannot_be_used_are_named(tmp_path, size, said):
    for folder in ("train", "val"):
        (tmp_path / "BSDS500" / folder).mkdir(parents=True)
    path = tmp_path / "BSDS500/val/3.jpg"
    if size:
        io.imsave(path, numpy.zeros((size, size, 3), numpy.uint8), check_contrast=False)
    elif size == 0:
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=said):
        Photographs(tmp_path, tmp_path / "work", 5)


def test_a_data_set_that_a_comparison_needs_is_looked_for_first(tmp_path):
    for folder in ("train", "val"):
        (tmp_path / "BSDS500" / folder).mkdir(parents=True)
    io.imsave(tmp_path / "BSDS500/val/3.jpg", numpy.zeros((80, 80, 3), numpy.uint8), check_contrast=False)
    photographs = Photographs(tmp_path, tmp_path / "work", 2)
    photographs.check(["crops"])
    with pytest.raises(InputError, match="Set5/GTmod12 .*missing"):
        photographs.check(["crops", "set5"])
    for part in ("Set5/GTmod12", "Set5/LRbicx4"):
        (tmp_path / part).mkdir(parents=True)
    photographs.check(["crops", "set5"])
    found = photographs.dataset("set5", {"type": "sr4x_bicubic"})
    assert found["type"] == "PairedImageDataset" and found["dataroot_lq"] == str(tmp_path / "Set5/LRbicx4")


def test_pairs_serve_only_the_task_that_made_them(tmp_path):
    for folder in ("train", "val", "val_pairs20/GTmod4"):
        (tmp_path / "BSDS500" / folder).mkdir(parents=True)
    io.imsave(tmp_path / "BSDS500/val/3.jpg", numpy.zeros((80, 80, 3), numpy.uint8), check_contrast=False)
    jpeg = {"type": "jpeg", "quality": 10}
    found = Photographs(tmp_path, tmp_path / "work", 2).dataset("bsds", jpeg)
    assert found["type"] == "PairedDegradationDataset" and found["degradation"] == jpeg
    assert found["dataroot_gt"] == str(tmp_path / "BSDS500/val_pairs20/GTmod4") and "dataroot_lq" not in found


def test_a_method_is_shown_for_its_own_tasks_alone(tmp_path):
    study = yaml.safe_load(STUDY.read_text())
    study["comparisons"] = {
        "one": {
            "tasks": ["sr4x", "jpeg10"],
            "data": ["crops"],
            "methods": {"a": {"network": "i2sb", "tasks": ["sr4x"]}, "b": {"network": "diffusion"}},
        }
    }
    path = tmp_path / "study.yml"
    path.write_text(yaml.safe_dump(study))
    assert {unit.task: unit.networks for unit in read(path)[1]} == {
        "sr4x": ["i2sb", "diffusion"],
        "jpeg10": ["diffusion"],
    }
    study["comparisons"]["one"]["methods"]["a"]["tasks"] = ["jpg10"]
    path.write_text(yaml.safe_dump(study))
    with pytest.raises(InputError, match=r"methods.a.tasks is 'jpg10'; .*jpeg10"):
        read(path)
