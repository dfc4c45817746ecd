"""The built-in photographs: complete, disjoint, prepared once."""

import pytest
import torch

from basicsr_ext.common.errors import InputError
from basicsr_ext.images.decode import decode_image
from basicsr_ext.images.headers import image_header
from i2sb_plugin.data.paired_degradation_dataset import PairedDegradationDataset
from i2sb_plugin.data.photographs import TRAINING, VALIDATION, prepare, sample_folder
from tests.support.toolkit import context


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("data") / "datasets/photographs")


def load(path):
    return decode_image(path.read_bytes(), str(path))


def test_all_photographs_are_rgb_of_8_bits(photographs):
    train, val = (sorted((photographs / part).iterdir()) for part in ("train", "val"))
    assert (len(train), len(val)) == (len(TRAINING), len(VALIDATION)) == (11, 3)
    for path in train + val:
        header = image_header(path)
        assert (header.channels, header.bits) == (3, 8)
        assert min(header.width, header.height) >= 256


def test_no_photograph_is_in_both_parts(photographs):
    names = [{path.stem for path in (photographs / part).iterdir()} for part in ("train", "val")]
    assert not names[0] & names[1]


def test_the_validation_part_is_quick_and_divisible(photographs):
    headers = [image_header(path) for path in (photographs / "val").iterdir()]
    assert sum(header.width * header.height for header in headers) <= 400_000
    assert all(header.width % 96 == 0 == header.height % 96 for header in headers)


def test_validation_squares_are_the_photographs_pixels(photographs):
    data = pytest.importorskip("skimage.data")
    whole = torch.from_numpy(data.chelsea()).permute(2, 0, 1) / 255
    assert torch.equal(load(photographs / "val/chelsea.png"), whole[:, 6:294, 90:378])
    whole = torch.from_numpy(data.camera()) / 255
    assert torch.equal(load(photographs / "train/camera.png"), whole.expand(3, -1, -1))


def test_the_note_names_every_file(photographs):
    note = (photographs / "README.txt").read_text()
    files = [path.relative_to(photographs).as_posix() for path in photographs.glob("*/*.png")]
    assert len(files) == 14 and all(f"{file}: " in note for file in files)


def test_a_prepared_folder_is_left_as_it_is(photographs):
    before = (photographs / "val/coffee.png").stat().st_mtime_ns
    assert prepare(photographs) == photographs
    assert (photographs / "val/coffee.png").stat().st_mtime_ns == before


def test_processes_that_prepare_at_once_leave_one_complete_folder(tmp_path):
    root = tmp_path / "photographs"
    workers = [context().Process(target=prepare, args=(root,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]
    assert len(list(root.glob("*/*.png"))) == 14


def test_a_folder_with_something_else_is_not_touched(tmp_path):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs/mine.txt").write_text("mine")
    with pytest.raises(InputError, match="photographs: .*photographs"):
        prepare(tmp_path / "photographs")
    assert [path.name for path in tmp_path.rglob("*")] == ["photographs", "mine.txt"]


def test_an_unknown_part_is_named():
    with pytest.raises(InputError, match="dataroot_gt is 'sample:vall'.* sample:val"):
        sample_folder("sample:vall")


def test_the_dataset_prepares_them_on_first_use(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = PairedDegradationDataset(
        {"dataroot_gt": "sample:val", "phase": "val", "degradation": {"type": "sr4x_bicubic"}, "scale": 4}
    )
    assert (tmp_path / "datasets/photographs/val").is_dir()
    assert [dataset[index]["lq"].shape for index in range(len(dataset))] == [(3, 72, 72)] * 3
