"""Both data sets: what they return, what stays the same, what is drawn anew, and what is refused."""

import os
import pickle
import unicodedata

import basicsr_ext  # noqa: F401  (makes basicsr importable)

# isort: split
import pytest
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import DataLoader

from basicsr_ext.common.errors import InputError
from i2sb_plugin.data.paired_degradation_dataset import PairedDegradationDataset
from i2sb_plugin.data.paired_folder_dataset import PairedFolderDataset
from i2sb_plugin.degradations import DEGRADATIONS, build_degradation
from tests.support.image_files import write_image
from tests.support.toolkit import context


def picture(channels=3, height=50, width=61, bits=8, seed=0):
    """A smooth random picture of whole grey levels."""
    coarse = torch.rand(1, channels, 5, 6, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)[0]
    return ((smooth.double() * (2**bits - 1)).round() / (2**bits - 1)).float()


def fill(folder, names=("a.png", "b.png", "deep/c.png"), bits=8, **sizes):
    for seed, name in enumerate(names):
        write_image(folder / name, picture(seed=seed, bits=bits, **sizes), bits)
    return str(folder)


def clean_options(root, **changes):
    base = {"name": "clean", "type": "PairedDegradationDataset", "dataroot_gt": str(root), "phase": "train",
            "io_backend": {"type": "disk"}, "degradation": {"type": "sr4x_bicubic"}, "scale": 4, "gt_size": 32,
            "use_hflip": True, "use_rot": True, "num_worker_per_gpu": 0, "batch_size_per_gpu": 2}  # fmt: skip
    return {**base, **changes}


def pair_options(root, **changes):
    base = {"name": "pairs", "type": "PairedFolderDataset", "dataroot_gt": str(root / "gt"), "scale": 2, "gt_size": 16,
            "dataroot_lq": str(root / "lq"), "phase": "val", "io_backend": {"type": "disk"}}  # fmt: skip
    return {**base, **changes}


def make_lmdb(folder, target):
    files = sorted(name for name in os.listdir(folder) if name.endswith(".png"))
    make_lmdb_from_imgs(folder, str(target), files, [name[:-4] for name in files], map_size=2**22)
    return str(target)


def fill_pairs(root, channels_gt=3, channels_lq=3, bits=8, count=3, height=21, width=33):
    for seed in range(count):
        gt = picture(channels_gt, 2 * height, 2 * width, bits, seed)
        write_image(root / f"gt/{seed}.png", gt, bits)
        write_image(root / f"lq/{seed}.png", gt[:1].expand(channels_lq, -1, -1)[:, ::2, ::2], bits)


# ---- clean images, degraded


def test_the_dataset_is_registered():
    assert DATASET_REGISTRY.get("PairedDegradationDataset") is PairedDegradationDataset
    assert DATASET_REGISTRY.get("PairedFolderDataset") is PairedFolderDataset


@pytest.mark.parametrize("name", ["sr4x_pool", "sr4x_bicubic"])
def test_a_training_item_is_a_crop_and_its_degradation(tmp_path, name):
    dataset = PairedDegradationDataset(clean_options(fill(tmp_path), degradation={"type": name}))
    item = dataset[1]
    assert set(item) == {"lq", "gt", "lq_path", "gt_path"}
    assert item["gt"].shape == (3, 32, 32) and item["lq"].shape == (3, 8, 8)
    assert item["gt"].is_contiguous() and item["lq"].is_contiguous()
    expected = build_degradation({"type": name, "scale": 4})(item["gt"]).lq.clamp(0, 1)
    assert torch.equal(item["lq"], expected)
    assert item["gt_path"] == item["lq_path"] == str(tmp_path / "b.png")


def test_a_training_crop_is_a_part_of_the_image_flipped_or_turned(tmp_path):
    dataset = PairedDegradationDataset(clean_options(fill(tmp_path, height=34, width=36)))
    windows = picture(height=34, width=36).unfold(1, 32, 1).unfold(2, 32, 1)  # 3, 3, 5, 32, 32
    orientations = set()
    for _ in range(60):
        crop = dataset[0]["gt"]
        for number in range(8):
            turned = crop.flip(-1) if number & 1 else crop
            turned = turned.flip(-2) if number & 2 else turned
            turned = turned.transpose(-1, -2) if number & 4 else turned
            if (windows - turned[:, None, None]).abs().amax((0, 3, 4)).min() < 1e-6:
                orientations.add(number)
                break
        else:
            pytest.fail("a crop that is no part of the image")
    assert len(orientations) == 8


def test_without_flips_the_crop_keeps_its_orientation(tmp_path):
    dataset = PairedDegradationDataset(clean_options(fill(tmp_path), use_hflip=False, use_rot=False))
    windows = picture(seed=0).unfold(1, 32, 1).unfold(2, 32, 1)
    for _ in range(10):
        assert (windows - dataset[0]["gt"][:, None, None]).abs().amax((0, 3, 4)).min() < 1e-6


def test_crops_reach_every_border(tmp_path):
    fill(tmp_path, names=["a.png"], height=33, width=34)
    dataset = PairedDegradationDataset(clean_options(tmp_path, use_hflip=False, use_rot=False))
    crops = {dataset[0]["gt"].numpy().tobytes() for _ in range(80)}
    assert len(crops) == 2 * 3


def test_validation_takes_the_whole_image_cut_to_a_multiple_of_the_scale(tmp_path):
    dataset = PairedDegradationDataset(clean_options(fill(tmp_path), phase="val"))
    item = dataset[2]
    assert item["gt"].shape == (3, 48, 60) and item["lq"].shape == (3, 12, 15)
    torch.testing.assert_close(item["gt"], picture(seed=2)[:, :48, :60], rtol=0, atol=1e-7)


@pytest.fixture
def noise():
    """A random degradation that leaves the range and reports a mask."""
    import dataclasses
    import typing

    from i2sb_plugin.degradations import Degraded

    @DEGRADATIONS.register("test_noise")
    @dataclasses.dataclass(frozen=True)
    class Noise:
        sigma: float = 0.5
        scale: typing.ClassVar[int] = 1

        def __call__(self, image, generator=None):
            noisy = image + self.sigma * torch.randn(image.shape, generator=generator)
            return Degraded(noisy, mask=torch.ones(1, *image.shape[1:]))

    yield {"type": "test_noise"}
    DEGRADATIONS._classes.pop("test_noise")


def test_validation_inputs_never_change_and_depend_on_seed_and_index(tmp_path, noise):
    fill(tmp_path, names=["a.png"])
    write_image(tmp_path / "b.png", picture(seed=0))
    options = clean_options(tmp_path, phase="val", degradation=noise, scale=1)
    dataset = PairedDegradationDataset(options)
    first = dataset[0]["lq"]
    torch.rand(3)
    assert torch.equal(dataset[0]["lq"], first)
    assert not torch.equal(dataset[1]["lq"], first)
    assert not torch.equal(PairedDegradationDataset({**options, "seed": 1})[0]["lq"], first)


def test_lq_is_clamped_and_the_mask_is_handed_on(tmp_path, noise):
    dataset = PairedDegradationDataset(clean_options(fill(tmp_path), degradation=noise, scale=1))
    item = dataset[0]
    assert item["mask"].shape == (1, 32, 32)
    assert item["lq"].min() == 0 and item["lq"].max() == 1
    assert not torch.equal(dataset[0]["lq"], item["lq"])


def epoch(loader):
    return torch.cat([batch["gt"] for batch in loader])


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_differ_and_the_seed_repeats_them(tmp_path, workers):
    loader = DataLoader(PairedDegradationDataset(clean_options(fill(tmp_path))), num_workers=workers)
    torch.manual_seed(3)
    first, second = epoch(loader), epoch(loader)
    torch.manual_seed(3)
    again = epoch(loader)
    assert first.shape == (3, 3, 32, 32)
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def test_workers_draw_differently(tmp_path):
    """Two workers crop the same image elsewhere."""
    write_image(tmp_path / "a.png", picture())
    dataset = PairedDegradationDataset(clean_options(tmp_path))
    torch.manual_seed(0)
    loader = DataLoader(torch.utils.data.ConcatDataset([dataset, dataset]), num_workers=2)
    crops = epoch(loader)
    assert not torch.equal(crops[0], crops[1])


def test_the_dataset_works_in_workers_that_share_nothing(tmp_path):
    """It pickles with a warm cache and an open client; validation items are the same as in this process."""
    dataset = PairedDegradationDataset(clean_options(fill(tmp_path), phase="val", cache=True))
    here = [dataset[index] for index in range(3)]
    assert len(pickle.dumps(dataset)) < 5000
    loader = DataLoader(dataset, num_workers=1, batch_size=None, multiprocessing_context=context())
    for mine, theirs in zip(here, loader, strict=True):
        assert torch.equal(mine["lq"], theirs["lq"]) and mine["gt_path"] == theirs["gt_path"]


def test_a_cached_image_is_read_once(tmp_path):
    dataset = PairedDegradationDataset(clean_options(fill(tmp_path), phase="val", cache=True))
    first = dataset[0]["gt"].clone()
    dataset[0]["gt"].zero_()
    os.remove(tmp_path / "a.png")
    assert torch.equal(dataset[0]["gt"], first)


def test_files_that_are_no_images_are_ignored_and_folders_searched_in_order(tmp_path):
    fill(tmp_path, names=["z.png", "deep/deeper/a.PNG", "b.png"])
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / ".hidden.png").write_text("half a download")
    dataset = PairedDegradationDataset(clean_options(tmp_path))
    names = [os.path.relpath(paths["gt_path"], tmp_path) for paths in dataset.paths]
    assert names == ["b.png", "deep/deeper/a.PNG", "z.png"]


@pytest.mark.parametrize("option", ["meta_info", "meta_info_file"])
def test_a_meta_info_file_chooses_images_and_their_order(tmp_path, option):
    fill(tmp_path / "clean", names=["a.png", "b b.png", "deep/c.png"])
    (tmp_path / "meta.txt").write_text("deep/c.png (50,61,3)\nb b.png (50,61,3)\n\n")
    dataset = PairedDegradationDataset(clean_options(tmp_path / "clean", **{option: str(tmp_path / "meta.txt")}))
    assert [os.path.basename(paths["gt_path"]) for paths in dataset.paths] == ["c.png", "b b.png"]
    (tmp_path / "meta.txt").write_text("a.png\ngone.png (50,61,3)\n")
    with pytest.raises(InputError, match=r"dataroot_gt: 1 of 2 .*meta_info_file .*gone\.png"):
        PairedDegradationDataset(clean_options(tmp_path / "clean", **{option: str(tmp_path / "meta.txt")}))


def test_an_lmdb_gives_the_same_items_as_its_folder(tmp_path):
    folder = fill(tmp_path / "clean", names=["a.png", "b.c.png"])
    database = make_lmdb(folder, tmp_path / "clean.lmdb")
    lmdb = PairedDegradationDataset(clean_options(database, io_backend={"type": "lmdb"}, phase="val"))
    disk = PairedDegradationDataset(clean_options(folder, phase="val"))
    assert [paths["gt_path"] for paths in lmdb.paths] == ["a", "b.c"]
    for one, other in zip(lmdb, disk, strict=True):
        assert torch.equal(one["gt"], other["gt"])
        assert torch.equal(one["lq"], other["lq"])


def test_one_lmdb_serves_training_validation_and_forked_workers_at_once(tmp_path):
    database = make_lmdb(fill(tmp_path / "clean", names=["a.png", "b.png"]), tmp_path / "clean.lmdb")
    options = clean_options(database, io_backend={"type": "lmdb"})
    train, val = PairedDegradationDataset(options), PairedDegradationDataset({**options, "phase": "val"})
    whole = val[0]["gt"].clone()  # the parent holds the LMDB open
    for _ in range(2):
        crops = epoch(DataLoader(train, num_workers=2, multiprocessing_context="fork"))
        assert crops.shape == (2, 3, 32, 32)
        assert torch.equal(val[0]["gt"], whole)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_any_channels_and_depth(tmp_path, channels, bits):
    fill(tmp_path, channels=channels, bits=bits)
    dataset = PairedDegradationDataset(clean_options(tmp_path, phase="val", channels=None))
    assert dataset.channels == channels
    expected = picture(channels, bits=bits)[:, :48, :60]
    torch.testing.assert_close(dataset[0]["gt"], expected, rtol=0, atol=1e-7)


def test_the_scale_is_the_datasets_unless_the_degradation_states_one(tmp_path):
    fill(tmp_path)
    dataset = PairedDegradationDataset(clean_options(tmp_path, scale=2))
    assert dataset.scale == 2 and dataset[0]["lq"].shape == (3, 16, 16)
    eighth = {"type": "sr4x_pool", "scale": 8}
    dataset = PairedDegradationDataset(clean_options(tmp_path, scale=None, degradation=eighth))
    assert dataset.scale == 8 and dataset[0]["lq"].shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataroot_gt": "/nowhere/at/all"}, "dataroot_gt is /nowhere/at/all, which does not exist"),
        ({"gt_siz": 32}, "gt_siz .*did you mean gt_size"),
        ({"gt_size": None}, "gt_size is None"),
        ({"gt_size": 30}, "gt_size is 30, which scale 4 does not divide; set gt_size to 32"),
        ({"gt_size": "32"}, "gt_size is '32'"),
        ({"channels": 2}, "channels is 2"),
        ({"phase": "training"}, "phase is 'training'; did you mean train"),
        ({"scale": 3, "degradation": {"type": "sr4x_pool", "scale": 4}}, "scale is 3 but .*sr4x_pool has scale 4"),
        ({"degradation": {"type": "sr4x_pol"}}, "degradation.type is 'sr4x_pol'.*sr4x_pool"),
        ({"io_backend": {"type": "lmbd"}}, "io_backend.type is 'lmbd'; did you mean lmdb"),
        ({"io_backend": {"type": "lmdb"}}, "no LMDB of BasicSR"),
        ({"meta_info": "a", "meta_info_file": "b"}, "meta_info and meta_info_file"),
        ({"meta_info": "/nowhere.txt"}, "meta_info_file: /nowhere.txt: no such file"),
        ({"dataroot_gt": "sample:trian"}, "sample:trian.*sample:train"),
    ],
)
def test_wrong_options_are_named_at_construction(tmp_path, changes, message):
    fill(tmp_path)
    with pytest.raises(InputError, match=message):
        PairedDegradationDataset(clean_options(tmp_path, **changes))


def test_all_faults_of_a_block_are_reported_together(tmp_path):
    with pytest.raises(InputError, match=r"gt_siz .*use_flip "):
        PairedDegradationDataset(clean_options(tmp_path, gt_siz=32, use_flip=True))


def test_an_empty_folder_and_a_forgotten_lmdb_type_are_named(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=r"dataroot_gt: .* holds no images"):
        PairedDegradationDataset(clean_options(tmp_path))
    database = make_lmdb(fill(tmp_path / "clean", names=["a.png"]), tmp_path / "clean.lmdb")
    with pytest.raises(InputError, match=r"an LMDB, but io_backend\.type is disk"):
        PairedDegradationDataset(clean_options(database))


def test_an_lmdb_without_a_listed_image_is_named(tmp_path):
    database = make_lmdb(fill(tmp_path / "clean", names=["a.png"]), tmp_path / "clean.lmdb")
    with open(f"{database}/meta_info.txt", "a") as file:
        file.write("gone.png (50,61,3) 1\n\u00e9.png (50,61,3) 1\n")
    dataset = PairedDegradationDataset(clean_options(database, io_backend={"type": "lmdb"}))
    with pytest.raises(InputError, match=r"clean\.lmdb .*key '?gone"):
        dataset[1]
    with pytest.raises(InputError, match=r"clean\.lmdb\[\u00e9\] cannot be read: .*ascii"):
        dataset[2]


@pytest.mark.parametrize("phase", ["train", "val"])
def test_bad_images_are_named_when_they_are_met(tmp_path, phase):
    write_image(tmp_path / "grey.png", picture(1))
    write_image(tmp_path / "small.png", picture(3, 20, 61) if phase == "train" else picture(3, 3, 61))
    (tmp_path / "truncated.png").write_bytes((tmp_path / "grey.png").read_bytes()[:-20])
    dataset = PairedDegradationDataset(clean_options(tmp_path, phase=phase))
    messages = [r"grey\.png: has 1 .*grey_to_rgb", r"small\.png: is .*smaller than", r"truncated\.png: is cut short"]
    for index, message in enumerate(messages):
        with pytest.raises(InputError, match=message):
            dataset[index]
    repeated = PairedDegradationDataset(clean_options(tmp_path, phase=phase, grey_to_rgb=True))[0]["gt"]
    assert repeated.shape[0] == 3 and torch.equal(repeated[0], repeated[1])


def test_headers_tell_wrong_channels_without_decoding(tmp_path):
    fill(tmp_path, names=["a.png", "b.png"])
    write_image(tmp_path / "c.png", picture(1))
    options = clean_options(tmp_path)
    dataset = PairedDegradationDataset(options)
    assert dataset.header_faults(0) == dataset.header_faults(1) == []
    (fault,) = dataset.header_faults(2)
    assert "c.png: has 1 channel(s) (grey) but channels is 3" in fault
    assert PairedDegradationDataset({**options, "grey_to_rgb": True}).header_faults(2) == []


def test_a_degradation_that_breaks_its_scale_is_named(tmp_path, noise, monkeypatch):
    monkeypatch.setattr(DEGRADATIONS.get("test_noise"), "scale", 2)
    dataset = PairedDegradationDataset(clean_options(fill(tmp_path), degradation=noise, scale=2))
    with pytest.raises(InputError, match=r"degradation test_noise .*\(3, 32, 32\) .*\(3, 32, 32\)"):
        dataset[0]


# ---- own pairs


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("channels_gt", "channels_lq"), [(1, 1), (3, 3), (4, 4), (3, 1), (1, 4)])
def test_pairs_of_any_channels_and_depth(tmp_path, channels_gt, channels_lq, bits):
    fill_pairs(tmp_path, channels_gt, channels_lq, bits)
    dataset = PairedFolderDataset(pair_options(tmp_path))
    assert (dataset.channels_gt, dataset.channels_lq) == (channels_gt, channels_lq)
    item = dataset[1]
    assert item["gt"].shape == (channels_gt, 42, 66) and item["lq"].shape == (channels_lq, 21, 33)
    assert torch.equal(item["lq"][0], item["gt"][0, ::2, ::2])
    torch.testing.assert_close(item["gt"], picture(channels_gt, 42, 66, bits, 1), rtol=0, atol=1e-7)


def test_training_crops_of_a_pair_show_the_same_place(tmp_path):
    fill_pairs(tmp_path)
    dataset = PairedFolderDataset(pair_options(tmp_path, phase="train", use_hflip=True, use_rot=True))
    seen = set()
    for _ in range(40):
        item = dataset[0]
        assert item["gt"].shape == (3, 16, 16) and item["lq"].shape == (3, 8, 8)
        lq, gt = item["lq"][0], item["gt"][0]
        matches = [torch.equal(lq, gt[row::2, column::2]) for row in (0, 1) for column in (0, 1)]
        assert sum(matches) == 1  # which one, tells whether rows and columns were flipped
        seen.add(matches.index(True))
    assert seen == {0, 1, 2, 3}


def test_rgb_pairs_are_those_of_basicsr(tmp_path):
    fill_pairs(tmp_path)
    ours = PairedFolderDataset(pair_options(tmp_path))
    theirs = PairedImageDataset(pair_options(tmp_path))
    theirs = {item["gt_path"]: item for item in (theirs[index] for index in range(3))}
    for item in ours:
        other = theirs[item["gt_path"]]
        assert set(item) == set(other) and item["lq_path"] == other["lq_path"]
        torch.testing.assert_close(item["gt"], other["gt"], rtol=0, atol=1e-7)
        torch.testing.assert_close(item["lq"], other["lq"], rtol=0, atol=1e-7)


def test_names_are_paired_by_template_whatever_the_extension(tmp_path):
    write_image(tmp_path / "gt/deep/a.png", picture(3, 20, 20))
    write_image(tmp_path / "lq/deep/ax2.tif", picture(3, 10, 10))
    dataset = PairedFolderDataset(pair_options(tmp_path, filename_tmpl="{}x2"))
    assert dataset.paths == [{"gt_path": f"{tmp_path}/gt/deep/a.png", "lq_path": f"{tmp_path}/lq/deep/ax2.tif"}]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_paired_and_listed_whatever_the_form_of_their_letters(tmp_path, form):
    fill_pairs(tmp_path, count=1)
    other = "NFD" if form == "NFC" else "NFC"
    for side, its in (("gt", form), ("lq", other)):
        (file,) = (tmp_path / side).iterdir()
        file.rename(file.with_name(unicodedata.normalize(its, "caf\u00e9.png")))
    assert len(PairedFolderDataset(pair_options(tmp_path))) == 1
    (tmp_path / "list.txt").write_text(unicodedata.normalize(other, "caf\u00e9.png"), encoding="utf-8")
    assert len(PairedFolderDataset(pair_options(tmp_path, meta_info_file=str(tmp_path / "list.txt")))) == 1


def test_a_meta_info_file_takes_some_pairs(tmp_path):
    fill_pairs(tmp_path)
    (tmp_path / "meta.txt").write_text("2.png (42,66,3)\n0.png (42,66,3)\n")
    dataset = PairedFolderDataset(pair_options(tmp_path, meta_info_file=str(tmp_path / "meta.txt")))
    assert [os.path.basename(paths["lq_path"]) for paths in dataset.paths] == ["2.png", "0.png"]


def test_pairs_in_lmdbs(tmp_path):
    fill_pairs(tmp_path)
    for part in ("gt", "lq"):
        make_lmdb(str(tmp_path / part), tmp_path / f"{part}.lmdb")
    lmdb = PairedFolderDataset(pair_options(
        tmp_path, dataroot_gt=f"{tmp_path}/gt.lmdb", dataroot_lq=f"{tmp_path}/lq.lmdb", io_backend={"type": "lmdb"},
    ))  # fmt: skip
    for one, other in zip(lmdb, PairedFolderDataset(pair_options(tmp_path)), strict=True):
        assert torch.equal(one["gt"], other["gt"]) and torch.equal(one["lq"], other["lq"])


def test_unmatched_names_are_listed(tmp_path):
    fill_pairs(tmp_path)
    os.rename(tmp_path / "lq/1.png", tmp_path / "lq/one.png")
    with pytest.raises(InputError, match=r"1 in dataroot_gt .*: 1\.png; 1 in dataroot_lq .*: one\.png"):
        PairedFolderDataset(pair_options(tmp_path))


def test_names_that_differ_only_in_their_extension_are_refused(tmp_path):
    fill_pairs(tmp_path)
    write_image(tmp_path / "lq/1.tif", picture())
    with pytest.raises(InputError, match=r"dataroot_lq: .*1\.png, 1\.tif"):
        PairedFolderDataset(pair_options(tmp_path))


@pytest.mark.parametrize("phase", ["train", "val", "test"])
def test_sizes_that_do_not_fit_are_refused_in_every_phase(tmp_path, phase):
    fill_pairs(tmp_path)
    write_image(tmp_path / "gt/1.png", picture(3, 43, 66))
    with pytest.raises(InputError, match=r"gt/1\.png is 43x66.*lq/1\.png is 21x33.*scale 2.*42x66"):
        PairedFolderDataset(pair_options(tmp_path, phase=phase))[1]


def test_a_channel_count_unlike_the_first_pairs_is_refused(tmp_path):
    fill_pairs(tmp_path)
    write_image(tmp_path / "lq/2.png", picture(4, 21, 33))
    with pytest.raises(InputError, match=r"lq/2\.png: .*4 channel.*channels_lq is 3.*channels_lq: 4"):
        PairedFolderDataset(pair_options(tmp_path))[2]
    (fault,) = PairedFolderDataset(pair_options(tmp_path)).header_faults(2)
    assert "channels_lq is 3" in fault
    assert PairedFolderDataset(pair_options(tmp_path)).header_faults(0) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataroot_lq": "/nowhere"}, "dataroot_lq is /nowhere"),
        ({"dataroot_lp": "x"}, "dataroot_lp .*dataroot_lq"),
        ({"phase": "train", "gt_size": 15}, "gt_size is 15; .*a multiple of scale"),
        ({"phase": "train", "gt_size": 44}, r"gt/0\.png: is 42x66 .*smaller than gt_size 44"),
        ({"filename_tmpl": "x2"}, "filename_tmpl is 'x2'"),
        ({"channels_lq": 5}, "channels_lq is 5"),
        ({"scale": 0}, "scale is 0"),
        ({"channels_gt": 1}, r"gt/0\.png: has 3 channel\(s\) \(RGB\) but channels_gt is 1"),
        ({"dataroot_mask": "/nowhere"}, "dataroot_mask is /nowhere"),
        ({"dataroot_cond": ["/nowhere"]}, r"dataroot_cond\[0\] is /nowhere"),
        ({"channels_cond": 2}, "channels_cond is 2"),
        ({"channels_cond": [1, 3], "dataroot_cond": "x"}, "channels_cond has 2 numbers but dataroot_cond 1 place"),
    ],
)
def test_wrong_options_of_pairs_are_named(tmp_path, changes, message):
    fill_pairs(tmp_path)
    with pytest.raises(InputError, match=message):
        PairedFolderDataset(pair_options(tmp_path, **changes))[0]


# ---- masks and conditions that go with pairs


def where(height=42, width=66, channels=1, bits=8):
    """A picture in which every pixel differs: its grey level tells the place."""
    index = torch.arange(height * width).reshape(1, height, width) % 65536
    return ((index if bits == 16 else index % 251) / (2**bits - 1)).float().repeat(channels, 1, 1)


def fill_companions(root, count=3, **mask_size):
    """Masks of a rectangle, grey and coloured conditions of 16 and 8 bits; the clean image is the first condition."""
    for k in range(count):
        hole = torch.zeros(1, mask_size.get("height", 42), mask_size.get("width", 66))
        hole[:, 10:20, 8 + k : 30] = 1
        write_image(root / f"mask/{k}.png", hole)
        write_image(root / f"gt/{k}.png", where(channels=3, bits=16), 16)
        write_image(root / f"lq/{k}.png", where(channels=3, bits=16)[:, ::2, ::2], 16)
        write_image(root / f"grey/{k}.tif", where(bits=16), 16)
        write_image(root / f"alpha/{k}.png", picture(4, 42, 66, seed=k))


def companion_options(root, **changes):
    changes = {"dataroot_cond": [str(root / "grey"), str(root / "alpha")], **changes}
    return pair_options(root, dataroot_mask=str(root / "mask"), **changes)


def test_masks_and_conditions_come_at_the_size_of_gt(tmp_path):
    fill_companions(tmp_path)
    item = PairedFolderDataset(companion_options(tmp_path))[1]
    assert item["mask"].shape == (1, 42, 66) and item["cond"].shape == (5, 42, 66) and item["lq"].shape == (3, 21, 33)
    assert item["mask"].dtype == item["cond"].dtype == torch.float32
    assert item["mask"].sum() == 10 * 21 and item["mask"][0, 10:20, 9:30].all()
    assert torch.equal(item["cond"][0], item["gt"][0])
    torch.testing.assert_close(item["cond"][1:], picture(4, 42, 66, seed=1), rtol=0, atol=1e-7)


def test_crops_flips_and_turns_are_the_same_for_all_that_belongs_together(tmp_path):
    fill_companions(tmp_path)
    options = {"phase": "train", "use_hflip": True, "use_rot": True, "dataroot_cond": str(tmp_path / "grey")}
    dataset = PairedFolderDataset(companion_options(tmp_path, **options))
    hole_places = torch.zeros(42 * 66, dtype=torch.bool)
    hole_places.view(42, 66)[10:20, 8:30] = True
    seen = set()
    for _ in range(40):
        item = dataset[0]
        assert item["mask"].shape == (1, 16, 16)
        assert torch.equal(item["cond"][0], item["gt"][0])
        place = (item["gt"][0].double() * 65535).round().long()
        assert torch.equal(item["mask"][0].bool(), hole_places[place])
        seen.add((int(place[0, 0] > place[0, 1]), int(place[0, 0] > place[1, 0]), abs(int(place[0, 0] - place[0, 1]))))
    assert len(seen) == 8, "every orientation was drawn"


def test_training_crops_show_a_part_of_a_small_hole(tmp_path):
    fill_companions(tmp_path, count=1)
    hole = torch.zeros(1, 42, 66)
    hole[:, 20:24, 30:34] = 1  # a crop drawn at random shows it in 24 % of all cases
    write_image(tmp_path / "mask/0.png", hole)
    torch.manual_seed(0)
    dataset = PairedFolderDataset(companion_options(tmp_path, phase="train", dataroot_cond=None))
    assert sum(bool(dataset[0]["mask"].any()) for _ in range(50)) >= 48


@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (1, 16), (3, 8), (4, 8)])
def test_white_is_the_hole_from_half_of_full_scale_on(tmp_path, channels, bits):
    fill_companions(tmp_path, count=1)
    level = torch.zeros(channels, 42, 66)
    full = 2**bits - 1
    level[:1, 0, 0], level[:1, 0, 1], level[-1:, 0, 2] = (full // 2 + 1) / full, (full // 2) / full, 1
    if channels == 4:
        level[3], level[:, 0, 3] = 1, torch.tensor([1, 1, 1, 0])  # white that nobody sees
    write_image(tmp_path / "mask/0.png", level, bits)
    mask = PairedFolderDataset(companion_options(tmp_path))[0]["mask"]
    assert mask[0, 0, :4].tolist() == [1, 0, 0 if channels == 4 else 1, 0], "alpha alone marks nothing"
    assert mask.sum() == (1 if channels == 4 else 2)


def test_masks_and_conditions_in_lmdbs(tmp_path):
    fill_companions(tmp_path)
    for k in range(3):  # the maker takes .png alone
        write_image(tmp_path / f"grey/{k}.png", where(bits=16), 16)
        os.remove(tmp_path / f"grey/{k}.tif")
    roots = {part: make_lmdb(str(tmp_path / part), tmp_path / f"{part}.lmdb") for part in ("gt", "lq", "mask", "grey")}
    changes = {f"dataroot_{part}": root for part, root in roots.items() if part != "grey"}
    changes |= {"dataroot_cond": roots["grey"], "io_backend": {"type": "lmdb"}}
    lmdb = PairedFolderDataset({**companion_options(tmp_path), **changes})
    disk = PairedFolderDataset(companion_options(tmp_path, dataroot_cond=str(tmp_path / "grey")))
    assert [lmdb.header_faults(index) for index in range(3)] == [[], [], []]
    for one, other in zip(lmdb, disk, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("lq", "gt", "mask", "cond"))


def test_masks_of_another_size_or_without_a_hole_are_refused(tmp_path):
    fill_companions(tmp_path)
    write_image(tmp_path / "mask/1.png", torch.ones(1, 21, 33))
    write_image(tmp_path / "mask/2.png", torch.full((1, 42, 66), 0.4))
    dataset = PairedFolderDataset(companion_options(tmp_path))
    size = r"mask/1\.png is 21x33 \(height x width\) but .*gt/1\.png is 42x66; the images of dataroot_mask must"
    with pytest.raises(InputError, match=size):
        dataset[1]
    with pytest.raises(InputError, match=r"mask/2\.png: .*hole.*paint .* white"):
        dataset[2]
    assert dataset.header_faults(0) == []
    (fault,) = dataset.header_faults(1)
    assert "mask/1.png is 21x33" in fault


def test_conditions_that_do_not_fit_are_refused(tmp_path):
    fill_companions(tmp_path)
    write_image(tmp_path / "alpha/1.png", picture(1, 42, 66))
    write_image(tmp_path / "grey/2.tif", picture(1, 42, 65))
    dataset = PairedFolderDataset(companion_options(tmp_path))
    with pytest.raises(InputError, match=r"alpha/1\.png: .*1 channel.*channels_cond\[1\] is 4"):
        dataset[1]
    with pytest.raises(InputError, match=r"grey/2\.tif is 42x65.*dataroot_cond\[0\]"):
        dataset[2]
    assert [len(dataset.header_faults(index)) for index in range(3)] == [0, 1, 1]
    with pytest.raises(InputError, match=r"grey/0\.tif: has 1 .*channels_cond\[0\] is 3"):
        PairedFolderDataset(companion_options(tmp_path, channels_cond=[3, 4]))[0]
    grey = PairedFolderDataset(companion_options(tmp_path, channels_cond=[3, 4], grey_to_rgb=True))
    assert grey[0]["cond"].shape == (7, 42, 66)


def test_masks_and_conditions_without_a_partner_are_listed(tmp_path):
    fill_companions(tmp_path)
    os.rename(tmp_path / "mask/1.png", tmp_path / "mask/one.png")
    with pytest.raises(InputError, match=r"dataroot_gt .*: 1\.png; 1 in dataroot_mask .*: one\.png"):
        PairedFolderDataset(companion_options(tmp_path))
    (tmp_path / "meta.txt").write_text("2.png (42,66,3)\n")
    chosen = PairedFolderDataset(companion_options(tmp_path, meta_info_file=str(tmp_path / "meta.txt")))
    assert chosen[0]["mask"].sum() == 10 * 20


def test_pairs_with_masks_pickle_for_spawned_workers(tmp_path):
    fill_companions(tmp_path)
    dataset = PairedFolderDataset(companion_options(tmp_path))
    copy = pickle.loads(pickle.dumps(dataset))
    assert all(torch.equal(copy[0][key], dataset[0][key]) for key in ("lq", "gt", "mask", "cond"))
