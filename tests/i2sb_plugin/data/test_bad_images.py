"""`skip_bad`: other images stand in for a few unusable ones, always the same, and more than a few stop the run."""

import logging
import pickle
import re

import pytest
import torch
from torch.utils.data import DataLoader

from basicsr_ext import repairs
from basicsr_ext.common import plugins
from basicsr_ext.common.errors import InputError
from tests.support.cli_runs import bridge_options, run, write, write_images

repairs.apply()
plugins.load_entry_points()

from i2sb_plugin.data.paired_degradation_dataset import PairedDegradationDataset  # noqa: E402
from i2sb_plugin.data.paired_folder_dataset import PairedFolderDataset  # noqa: E402


@pytest.fixture
def folder(tmp_path):
    """Ten images of 32 pixels, of which 3.png is cut short."""
    images = write_images(tmp_path / "gt", 10, 32)
    (images / "3.png").write_bytes((images / "3.png").read_bytes()[:200])
    return images


@pytest.fixture
def said():
    """What goes to the log."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = logging.getLogger("basicsr")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def degrading(folder, **options):
    block = {"dataroot_gt": str(folder), "degradation": {"type": "sr4x_pool"}, "phase": "train", "gt_size": 16}
    return PairedDegradationDataset(block | options)


def pairs(folder, **options):
    block = {"dataroot_gt": str(folder), "dataroot_lq": str(folder), "phase": "train", "gt_size": 16}
    return PairedFolderDataset(block | options)


MAKERS = pytest.mark.parametrize("make", [degrading, pairs])


@MAKERS
def test_without_it_the_bad_image_stops_the_run(make, folder):
    with pytest.raises(InputError, match=r"3\.png"):
        make(folder)[3]


@MAKERS
def test_another_image_stands_in_and_is_the_same_each_time(make, folder, said):
    stand_ins = {make(folder, skip_bad=0.1)[3]["gt_path"] for _ in range(3)}
    assert len(stand_ins) == 1
    assert stand_ins != {str(folder / "3.png")}


@MAKERS
def test_each_is_logged_once_with_its_path(make, folder, said):
    dataset = make(folder, skip_bad=0.1)
    for _ in range(3):
        for index in range(10):
            dataset[index]
    assert len(said) == 1
    assert str(folder / "3.png") in said[0]


@MAKERS
def test_sound_images_are_what_they_were(make, folder, said):
    for index in (0, 5):
        torch.manual_seed(1)
        plain = make(folder)[index]
        torch.manual_seed(1)
        assert torch.equal(make(folder, skip_bad=0.1)[index]["gt"], plain["gt"])


@MAKERS
def test_draws_do_not_depend_on_who_met_the_bad_image_first(make, folder, said):
    dataset = make(folder, skip_bad=0.1)
    items = []
    for _ in range(2):  # the second time it is known to be bad
        torch.manual_seed(7)
        items.append(dataset[3])
    assert torch.equal(items[0]["gt"], items[1]["gt"])


@MAKERS
def test_more_than_the_share_stop_the_run_with_the_list(make, folder, said):
    (folder / "7.png").write_bytes(b"")
    dataset = make(folder, skip_bad=0.1)
    with pytest.raises(InputError, match=r"2 of 10 .*skip_bad 0\.1") as error:
        [dataset[index] for index in range(10)]
    assert str(folder / "3.png") in str(error.value)
    assert str(folder / "7.png") in str(error.value)


@MAKERS
def test_worker_processes_count_together(make, folder, said):
    (folder / "8.png").write_bytes(b"")  # indices 3 and 8 go to different workers
    dataset = make(folder, skip_bad=0.1)
    with pytest.raises(InputError, match="more than skip_bad"):
        list(DataLoader(dataset, batch_size=5, num_workers=2))


@MAKERS
def test_the_first_image_may_be_the_bad_one(make, folder, said):
    (folder / "3.png").write_bytes((folder / "4.png").read_bytes())
    (folder / "0.png").write_bytes(b"")
    channels = {"channels": None} if make is degrading else {}
    assert make(folder, skip_bad=0.1, **channels)[1]["gt"].shape == (3, 16, 16)


@MAKERS
def test_data_sets_can_be_pickled(make, folder, said):
    dataset = make(folder, skip_bad=0.1)
    dataset[3]
    torch.manual_seed(0)
    item = dataset[3]
    torch.manual_seed(0)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3]["gt"], item["gt"])


@MAKERS
@pytest.mark.parametrize(("options", "words"), [
    ({"skip_bad": 1.0}, "skip_bad is 1"),
    ({"skip_bad": -0.1}, "skip_bad is -0.1"),
    ({"skip_bad": 0.1, "phase": "val"}, "phase is val"),
])  # fmt: skip
def test_other_values_and_phases_are_refused(make, options, words, folder):
    with pytest.raises(InputError, match=words):
        make(folder, **options)


def test_a_run_trains_on_and_says_what_it_skips(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    opt = bridge_options(tmp_path)
    opt["datasets"]["train"] |= {"skip_bad": 0.25, "num_worker_per_gpu": 1}
    bad = tmp_path / "data" / "train" / "gt" / "2.png"
    bad.write_bytes(bad.read_bytes()[:300])
    code, _, err = run(capsys, "train", "-opt", write(tmp_path, opt))
    assert code == 0, err
    assert "others stand in for 1 unreadable file(s)" in err
    log = next((tmp_path / "experiments" / "tiny").glob("train_*.log")).read_text()
    assert re.search(rf"skip_bad: .*{re.escape(str(bad))}", log)


def test_a_run_with_too_many_is_refused_before_it_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    opt = bridge_options(tmp_path)
    opt["datasets"]["train"]["skip_bad"] = 0.25
    for name in ("1.png", "2.png"):
        (tmp_path / "data" / "train" / "gt" / name).write_bytes(b"")
    code, _, err = run(capsys, "train", "-opt", write(tmp_path, opt))
    assert code == 2
    assert "2 unreadable file(s), more than skip_bad 0.25 of them" in err
