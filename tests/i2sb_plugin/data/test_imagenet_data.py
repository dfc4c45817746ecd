"""Data as the release reads it: its resizing, its cache of ImageNet, its lists of images, its order of masks."""

import io
import pickle

import basicsr_ext  # noqa: F401  (makes basicsr importable)

# isort: split
import lmdb
import numpy as np
import pytest
import torch
from PIL import Image

from basicsr_ext.common.errors import InputError
from basicsr_ext.preflight import data as preflight_data
from i2sb_plugin.data.crops import centre_square
from i2sb_plugin.data.image_source import choose
from i2sb_plugin.data.paired_degradation_dataset import PairedDegradationDataset
from i2sb_plugin.degradations import build_degradation
from tests.support.golden import golden
from tests.support.image_files import write_image

KEYS = ["imagenet/val/n01440764/ILSVRC2012_val_00000293.JPEG", "imagenet/val/n01440764/ILSVRC2012_val_00002138.JPEG",
        "imagenet/val/n01443537/ILSVRC2012_val_00000236.JPEG"]  # fmt: skip


def photograph(seed, height=40, width=52):
    coarse = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]


def jpeg(seed):
    file = io.BytesIO()
    pixels = (photograph(seed) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def cache(folder, records):
    folder.mkdir()
    with lmdb.open(str(folder), map_size=2**22) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key.encode(), value)
    return folder


def options(root, **changes):
    base = {"name": "imagenet", "type": "PairedDegradationDataset", "dataroot_gt": str(root), "phase": "val",
            "degradation": {"type": "sr4x_pool"}, "resize": 32, "io_backend": {"type": "disk"}}  # fmt: skip
    return base | changes


@pytest.mark.parametrize("name", ["t0", "t1"])
def test_images_are_resized_as_recorded(name, tmp_path):
    data = golden("image_io")
    found = centre_square(data[f"{name}_u8"], 64)
    wanted = data[f"{name}_out"].transpose(1, 2, 0)
    assert np.abs(found.astype(np.float32) / 255 * 2 - 1 - wanted).max() <= 1e-6
    Image.fromarray(data[f"{name}_u8"]).save(tmp_path / "photograph.png")
    for phase, levels, mean in (("val", 0, 0), ("train", 1, 0.01)):
        item = PairedDegradationDataset(options(tmp_path, resize=64, phase=phase, gt_size=64))[0]
        difference = (item["gt"] * 2 - 1 - torch.from_numpy(data[f"{name}_out"])).abs() * 127.5
        assert float(difference.max()) <= levels + 1e-4 and float(difference.mean()) <= mean + 1e-4


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(37, 53), (211, 97), (20, 30), (8, 11)])
def test_the_fast_square_is_at_most_one_grey_level_away(channels, height, width):
    pixels = np.random.default_rng(height).integers(0, 255, (height, width, channels), endpoint=True).astype(np.uint8)
    slow, fast = (centre_square(pixels, 20, fast=fast).astype(int) for fast in (False, True))
    assert slow.shape == fast.shape == (20, 20, channels)
    assert np.abs(slow - fast).max() <= 1 and np.abs(slow - fast).mean() < 0.2
    deep = pixels.astype(np.uint16) * 257
    assert np.array_equal(centre_square(deep, 20, fast=True), centre_square(deep, 20))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_planes_are_resized_by_themselves_at_any_depth(channels, kind):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, np.iinfo(kind).max, (37, 53, channels), endpoint=True).astype(kind)
    found = centre_square(pixels, 20)
    assert found.shape == (20, 20, channels) and found.dtype == kind
    for channel in range(channels):
        assert np.array_equal(found[:, :, channel], centre_square(pixels[:, :, channel : channel + 1], 20)[:, :, 0])
    exact = torch.from_numpy(pixels.astype(np.float64)).permute(2, 0, 1)[None]
    exact = torch.nn.functional.interpolate(exact, (20, 28), mode="bilinear", antialias=True)[0, :, :, 4:24]
    assert float((torch.from_numpy(found.astype(np.float64)).permute(2, 0, 1) - exact).abs().max()) <= 1


def test_images_smaller_than_the_square_are_enlarged_and_pass_the_preflight(tmp_path):
    write_image(tmp_path / "small.png", photograph(0, 20, 30))
    block = options(tmp_path, phase="train", gt_size=32, scale=4)
    faults, notes = [], []
    dataset, item = preflight_data.check_dataset("datasets.train", block, faults, notes)
    assert faults == [] and len(dataset) == 1 and item["gt"].shape == (3, 32, 32)


def test_a_crop_larger_than_the_square_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"resize is 32; .* at least gt_size \(64\)"):
        PairedDegradationDataset(options(tmp_path, phase="train", gt_size=64))


def test_lq_is_clamped_unless_the_release_is_followed(tmp_path):
    write_image(tmp_path / "steps.png", torch.tensor([0.0, 1.0]).repeat_interleave(16).expand(3, 32, 32))
    block = options(tmp_path, degradation={"type": "sr4x_bicubic"})
    clamped, whole = (PairedDegradationDataset({**block, "clamp": clamp})[0] for clamp in (True, False))
    assert float(whole["lq"].max()) > 1.01 and float(whole["lq"].min()) < -0.01
    assert torch.equal(clamped["lq"], whole["lq"].clamp(0, 1))


def test_validation_takes_masks_and_members_in_order(tmp_path):
    for index in range(4):
        write_image(tmp_path / f"images/{index}.png", photograph(index, 32, 32))
        mask = torch.zeros(1, 32, 32)
        mask[:, index : index + 9, 4:20] = 1
        write_image(tmp_path / f"masks/{index}.png", mask)
    masks = {"type": "inpaint_masks", "masks": str(tmp_path / "masks")}
    dataset = PairedDegradationDataset(options(tmp_path / "images", degradation=masks))
    for index in range(4):
        found = dataset[index]["mask"]
        assert found.sum() == 9 * 16 and bool(found[0, index : index + 9, 4:20].all())
    fixed = PairedDegradationDataset(options(tmp_path / "images", degradation={**masks, "index": 2}))
    assert all(torch.equal(fixed[index]["mask"], dataset[2]["mask"]) for index in range(4))
    mixture = {"type": "mixture"}
    dataset = PairedDegradationDataset(options(tmp_path / "images", degradation=mixture, clamp=False))
    for index in (0, 1):  # JPEG of quality 5 and 10
        wanted = build_degradation(mixture).at(index)(dataset[index]["gt"]).lq
        assert torch.equal(dataset[index]["lq"], wanted)


# ---- caches of image folders


def test_a_cache_of_an_image_folder_gives_what_the_folder_gives(tmp_path):
    records = {key: jpeg(seed) for seed, key in enumerate(KEYS)}
    for key, data in records.items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(data)
    database = cache(tmp_path / "val_faster_imagefolder.lmdb", records)
    faults, notes = [], []
    block = options(database, io_backend={"type": "lmdb"}, scale=4)
    cached, _ = preflight_data.check_dataset("datasets.val", block, faults, notes)
    assert faults == [] and cached.source.names == KEYS
    folder = PairedDegradationDataset(options(tmp_path / "imagenet"))
    assert len(cached) == len(folder) == 3
    for one, other in zip(cached, folder, strict=True):
        assert torch.equal(one["gt"], other["gt"]) and torch.equal(one["lq"], other["lq"])


def test_a_list_chooses_from_a_cache_and_from_a_folder(tmp_path):
    database = cache(tmp_path / "val.lmdb", {key: jpeg(seed) for seed, key in enumerate(KEYS)})
    listing = tmp_path / "subset.txt"
    listing.write_text("n01443537/ILSVRC2012_val_00000236.JPEG 1\nILSVRC2012_val_00000293.JPEG 0\n")
    block = options(database, io_backend={"type": "lmdb"}, meta_info_file=str(listing))
    assert PairedDegradationDataset(block).source.names == [KEYS[2], KEYS[0]]
    listing.write_text("n01443537/ILSVRC2012_val_00000293.JPEG\n")
    with pytest.raises(InputError, match=r"1 of its images .*val\.lmdb: n01443537/"):
        PairedDegradationDataset(block)


def test_a_name_that_fits_several_keys_is_refused():
    keys = ["a/x.png", "b/x.png", "x"]
    assert choose(["a/x.png", "x"], keys, "root", "list") == ["a/x.png", "x"]
    with pytest.raises(InputError, match=r"list: 1 of its images .*x\.jpg"):
        choose(["x.jpg"], ["a/x.jpg", "b/x.jpg"], "root", "list")


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('ran')",)


@pytest.mark.parametrize("record", [(b"jpeg", 3), Evil()], ids=["tuple", "code"])
def test_pickled_records_are_refused_unread(tmp_path, record):
    database = cache(tmp_path / "x.lmdb", {"0": pickle.dumps(record), "__len__": pickle.dumps(1)})
    with pytest.raises(InputError, match="pickled.*run code"):
        PairedDegradationDataset(options(database, io_backend={"type": "lmdb"}))


def test_a_record_that_is_no_image_is_named(tmp_path):
    database = cache(tmp_path / "x.lmdb", {"a/b.jpg": b"no image"})
    dataset = PairedDegradationDataset(options(database, io_backend={"type": "lmdb"}))
    with pytest.raises(InputError, match=r"x\.lmdb\[a/b\.jpg\]: "):
        dataset[0]
