"""Data sets of numbers that are no pictures: crops, degradations, companions, LMDBs, and what is refused."""

import io
import pickle

import cv2
import lmdb
import numpy as np
import pytest
import torch

from basicsr_ext.common.errors import InputError
from i2sb_plugin.data.paired_degradation_dataset import PairedDegradationDataset
from i2sb_plugin.data.paired_folder_dataset import PairedFolderDataset
from i2sb_plugin.degradations import build_degradation
from i2sb_plugin.degradations.base import data_refusal
from tests.support.degradation_examples import NAMES, example

VALUES = {"dtype": "float32", "mean": [0.0, 10.0, 0.0, 0.0, 0.0], "std": [1.0, 2.0, 1.0, 1.0, 3.0]}


def write(folder, count=3, channels=5, side=24, seed=0):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for k in range(count):
        np.save(folder / f"{k}.npy", rng.normal(0, 3, (side, side, channels)).astype(np.float32))
    return str(folder)


def degraded(root, **given):
    block = {"dataroot_gt": root, "channels": 5, "phase": "val", "degradation": {"type": "blur_gauss"}, "data": VALUES}
    return PairedDegradationDataset(block | given)


def test_a_crop_is_the_file_s_own_numbers_on_the_scale_of_the_interval(tmp_path):
    root = write(tmp_path / "gt")
    item = degraded(root)[1]
    stored = np.load(tmp_path / "gt/1.npy")
    low, high = np.array([-2.0, 6.0, -2.0, -2.0, -6.0]), np.array([2.0, 14.0, 2.0, 2.0, 6.0])
    wanted = np.moveaxis((stored - low) / (high - low), 2, 0)
    assert item["gt"].dtype == torch.float32 and np.abs(item["gt"].numpy() - wanted).max() < 1e-6
    assert item["gt"].min() < 0 and item["lq"].shape == (5, 24, 24)
    torch.manual_seed(0)
    crop = degraded(root, phase="train", gt_size=8, use_hflip=True, use_rot=True, degradation={"type": "noise_gauss"})[
        1
    ]["gt"].numpy()
    places = np.lib.stride_tricks.sliding_window_view(wanted, (5, 8, 8))[0]
    turned = [np.rot90(crop, k, (1, 2)) for k in range(4)]
    turned += [view[:, :, ::-1] for view in turned]
    assert min(np.abs(places - view.astype(np.float64)).max((2, 3, 4)).min() for view in turned) < 1e-6


@pytest.mark.parametrize("kind", NAMES)
def test_a_degradation_takes_any_number_of_channels_or_says_why_not(tmp_path, kind):
    options = example(kind)
    built = build_degradation(options)
    image = torch.randn(5, 48, 96)  # beyond [0, 1] on both sides
    if (why := data_refusal(built, bounded=False)) is not None:
        assert "; " in why, "the reason and the cure"
        with pytest.raises(InputError, match="but the images are data: "):
            degraded(write(tmp_path / "gt", side=64), degradation=options)
        return
    found = built(image, torch.Generator().manual_seed(0))
    assert found.lq.shape == (5, 48 // built.scale, 96 // built.scale) and found.lq.isfinite().all()
    assert found.lq.min() < 0, "nothing is cut off"


def test_lq_is_cut_off_at_a_range_alone(tmp_path):
    root = write(tmp_path / "gt")
    noise = {"type": "noise_gauss", "sigma": 0.9}
    for data, cut in (({"range": [-30, 30]}, True), (VALUES, False)):
        lq = degraded(root, degradation=noise, data=data)[0]["lq"]
        assert bool(lq.min() >= 0 and lq.max() <= 1) == cut
    free = degraded(root, degradation=noise, data={"range": [-30, 30]}, clamp=False)[0]["lq"]
    assert free.min() < 0


def paired(root, **given):
    block = {"dataroot_gt": str(root / "gt"), "dataroot_lq": str(root / "lq"), "phase": "train", "gt_size": 8}
    return PairedFolderDataset(block | {"data": {"mean": 0.0, "std": 1.0}} | given)


def test_conditions_are_data_and_masks_are_pictures(tmp_path):
    for k, name in enumerate(("gt", "lq", "cond")):
        write(tmp_path / name, channels=k + 1, seed=k)
    (tmp_path / "mask").mkdir()
    for k in range(3):
        cv2.imwrite(str(tmp_path / f"mask/{k}.png"), np.full((24, 24), 255, np.uint8))
    given = {"dataroot_cond": str(tmp_path / "cond"), "dataroot_mask": str(tmp_path / "mask")}
    dataset = pickle.loads(pickle.dumps(paired(tmp_path, **given)))
    item = dataset[0]
    assert [item[key].shape for key in ("gt", "lq", "cond", "mask")] == [(k, 8, 8) for k in (1, 2, 3, 1)]
    assert dataset.header_faults(0) == [] and np.array_equal(dataset.clean(2), np.load(tmp_path / "gt/2.npy"))


def test_an_lmdb_of_array_files_is_read(tmp_path):
    write(tmp_path / "gt"), write(tmp_path / "lq", seed=1)
    for side in ("gt", "lq"):
        place = tmp_path / f"{side}.lmdb"
        with lmdb.open(str(place)) as base, base.begin(write=True) as writer:
            for k in range(3):
                buffer = io.BytesIO()
                np.save(buffer, np.load(tmp_path / f"{side}/{k}.npy"))
                writer.put(str(k).encode(), buffer.getvalue())
        (place / "meta_info.txt").write_text("".join(f"{k}.npy (24,24,5) 1\n" for k in range(3)))
    stored = {"dataroot_gt": str(tmp_path / "gt.lmdb"), "dataroot_lq": str(tmp_path / "lq.lmdb"), "phase": "val"}
    packed, plain = paired(tmp_path, io_backend={"type": "lmdb"}, **stored), paired(tmp_path, phase="val")
    assert all(torch.equal(packed[k][side], plain[k][side]) for k in range(3) for side in ("gt", "lq"))


@pytest.mark.parametrize(
    "given, said",
    [
        ({"channels": 3}, "has 5 channel(s) but channels is 3; set channels: 5"),
        ({"channels": 0}, "channels is 0; set a whole number from 1"),
        ({"grey_to_rgb": True}, "grey_to_rgb is true, but the images are data"),
        ({"resize": 16}, "resize is 16, but only pictures are resized"),
        ({"data": {"range": [0, 1]}}, "but data.range is [0.0, 1.0]"),
        ({"data": None, "channels": None}, "holds no images (.png"),
        ({"dataroot_gt": "sample:val"}, "holds no float32 data, which the block data: asks for (.npy, .npz, .tif"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, monkeypatch, sample_photographs, given, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/photographs").symlink_to(sample_photographs)
    with pytest.raises(InputError) as refused:
        degraded(write(tmp_path / "gt"), **given)[0]
    assert said in str(refused.value)


def test_several_kinds_in_one_set_are_found_by_their_headers(tmp_path):
    root = write(tmp_path / "gt")
    dataset = degraded(root)
    np.save(tmp_path / "gt/1.npy", np.zeros((24, 24, 5), np.int16))
    np.save(tmp_path / "gt/2.npy", np.zeros((24, 24, 4), np.float32))
    faults = [dataset.header_faults(k) for k in range(3)]
    assert faults[0] == [] and "1.npy: holds int16, but data.dtype is float32" in faults[1][0]
    assert "2.npy: has 4 channel(s) but channels is 5" in faults[2][0]
