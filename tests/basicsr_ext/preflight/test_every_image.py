"""`basicsr check --data` reads every image and lists all that cannot be used."""

import lmdb
import pytest

from basicsr_ext import repairs
from basicsr_ext.common import plugins
from basicsr_ext.preflight.every_image import data_faults
from tests.support.cli_runs import bridge_options, files_below, options, run, write

repairs.apply()
plugins.load_entry_points()


@pytest.mark.parametrize("make", [options, bridge_options])
def test_sound_data_have_no_faults(make, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, make(tmp_path))
    before = files_below(tmp_path)
    code, out, err = run(capsys, "check", "--data", "-opt", file)
    assert (code, out) == (0, "datasets.train: 4 images, no fault(s)\ndatasets.val: 2 images, no fault(s)\n")
    assert "datasets.train: 100%" in err
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("make", [options, bridge_options])
def test_every_bad_image_is_listed_once(make, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    opt = make(tmp_path)
    folder = tmp_path / "data" / "train" / "gt"
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:-500])
    (folder / "2.png").write_bytes(b"")
    (tmp_path / "data" / "val" / "gt" / "0.png").write_text("no image")
    code, out, _ = run(capsys, "check", "--data", "-opt", write(tmp_path, opt))
    lines = out.splitlines()
    assert code == 1
    assert [line for line in lines if line.startswith("datasets")] == [
        "datasets.train: 4 images, 2 fault(s)",
        "datasets.val: 2 images, 1 fault(s)",
    ]
    for path, part in (("train/gt/1.png", lines[1:3]), ("train/gt/2.png", lines[1:3]), ("val/gt/0.png", lines[4:])):
        assert sum(path in line for line in part) == 1


def test_skip_bad_hides_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    opt = bridge_options(tmp_path)
    opt["datasets"]["train"]["skip_bad"] = 0.5
    (tmp_path / "data" / "train" / "gt" / "0.png").write_bytes(b"")
    code, out, _ = run(capsys, "check", "--data", "-opt", write(tmp_path, opt))
    assert code == 1
    assert "train/gt/0.png: the file is empty" in out


def test_a_truncated_lmdb_is_named_before_it_kills_a_process(tmp_path):
    folder = tmp_path / "clean.lmdb"
    with lmdb.open(str(folder), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        for key in range(9):
            transaction.put(str(key).encode(), bytes(20_000))
    (folder / "meta_info.txt").write_text("".join(f"{key}.png (8,8,3) 1\n" for key in range(9)))
    content = (folder / "data.mdb").read_bytes()
    (folder / "data.mdb").write_bytes(content[: len(content) // 2])
    block = {
        "type": "PairedDegradationDataset",
        "phase": "val",
        "dataroot_gt": str(folder),
        "io_backend": {"type": "lmdb"},
        "degradation": {"type": "sr4x_pool"},
    }
    count, faults = data_faults("datasets.val", block, 1)
    assert count == 9
    assert all(f"{folder} is truncated" in fault for fault in faults)
    assert faults


def test_a_data_set_that_cannot_be_built_is_one_fault(tmp_path):
    block = {"type": "PairedDegradationDataset", "phase": "val", "dataroot_gt": str(tmp_path / "nothing")}
    count, faults = data_faults("datasets.val", block, 1)
    assert count == 0
    assert len(faults) == 1
    assert faults[0].startswith("datasets.val: ")
