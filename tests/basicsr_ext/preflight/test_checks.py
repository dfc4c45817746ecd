"""What is looked at before a run starts: images, sizes of batches, checkpoints and channels."""

import re
from types import SimpleNamespace

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image

from basicsr_ext import repairs
from basicsr_ext.checkpoints.networks import best_key, has_weights
from basicsr_ext.common import plugins
from basicsr_ext.common.errors import InputError
from basicsr_ext.images.headers import image_header
from basicsr_ext.images.inventory import listed_sizes
from basicsr_ext.metrics import build_metrics
from basicsr_ext.preflight import data
from basicsr_ext.preflight.checks import _video_faults, check_put_aside, check_run, device_faults, missing_files
from basicsr_ext.preflight.data import check_dataset, training_size_faults
from basicsr_ext.preflight.measures import metric_faults
from basicsr_ext.preflight.networks import channel_faults, network_faults
from basicsr_ext.processes.launch import Launch
from tests.support.cli_runs import options, write_images

repairs.apply()
plugins.load_entry_points()


def noise(shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm"])
def test_the_size_of_a_whole_file_is_height_and_width(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    Image.fromarray(noise((20, 30, 3))).save(path)
    assert image_header(path)[:2] == (20, 30)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm"])
def test_half_a_file_is_refused_by_name(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    Image.fromarray(noise((40, 60, 3))).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=f"x{suffix}: "):
        image_header(path)[:2]


def test_sixteen_bits_and_alpha_are_read(tmp_path):
    import cv2

    for name, shape in (("grey.png", (8, 9)), ("rgb.png", (8, 9, 3)), ("rgba.png", (8, 9, 4)), ("rgb.tif", (8, 9, 3))):
        cv2.imwrite(str(tmp_path / name), noise(shape, np.uint16))
        assert image_header(tmp_path / name)[:2] == (8, 9)


def test_a_jpeg_with_bytes_after_its_end_is_whole(tmp_path):
    Image.fromarray(noise((20, 30, 3))).save(tmp_path / "x.jpg")
    with (tmp_path / "x.jpg").open("ab") as file:
        file.write(b"\0" * 5000)
    assert image_header(tmp_path / "x.jpg")[:2] == (20, 30)


def test_lmdb_sizes_come_from_its_list(tmp_path):
    (tmp_path / "meta_info.txt").write_text("baby.png (120,125,3) 1\nodd name.png (7,8,1) 1\nbare.png\n")
    assert listed_sizes(tmp_path) == {"baby": (120, 125), "odd name": (7, 8)}


def test_a_large_data_set_is_sampled_evenly_and_says_so(tmp_path, monkeypatch):
    block = options(tmp_path)["datasets"]["train"] | {"phase": "train", "scale": 2}
    monkeypatch.setattr(data, "SCANNED", 2)
    seen = []
    monkeypatch.setattr(data, "image_header", lambda path, values=None: seen.append(path) or image_header(path))
    faults, notes = [], []
    check_dataset("datasets.train", block, faults, notes)
    assert faults == []
    assert notes == ["datasets.train: 2 of 4 images were looked at before the start"]
    gaps = np.diff(sorted(int(path.rpartition("/")[2][0]) for path in seen if "/gt/" in path))
    assert len(seen) == 4
    assert list(gaps) in ([2], [1], [3])


def test_only_the_first_offenders_are_listed(tmp_path):
    block = options(tmp_path)["datasets"]["train"] | {"phase": "train", "scale": 2, "gt_size": 64}
    block["dataroot_gt"] = str(write_images(tmp_path / "gt", 8, 32))
    block["dataroot_lq"] = str(write_images(tmp_path / "lq", 8, 16))
    faults = []
    check_dataset("datasets.train", block, faults, [])
    assert "8 image(s) are smaller" in faults[0]
    assert faults[0].count("(32x32)") == 5
    assert "and 3 more" in faults[0]


@pytest.mark.parametrize(("size", "sound"), [(32, True), (33, True), (34, False), (31, False)])
def test_validation_pairs_of_basicsr_may_have_a_rest_below_the_scale(size, sound, tmp_path):
    block = options(tmp_path)["datasets"]["val"] | {"phase": "val", "scale": 2}
    block["dataroot_gt"] = str(write_images(tmp_path / "gt", 2, size))
    faults = []
    check_dataset("datasets.val", block, faults, [])
    assert (faults == []) is sound


def run_options(tmp_path, **train_set):
    opt = options(tmp_path)
    opt["datasets"]["train"] |= train_set
    return opt | {"dist": False, "num_gpu": 0}


@pytest.mark.parametrize(
    ("count", "batch", "ratio", "world", "num_gpu", "sound"),
    [
        (4, 4, 1, 1, 0, True),
        (4, 5, 1, 1, 0, False),
        (4, 5, 2, 1, 0, True),
        (4, 4, 1, 2, 0, False),
        (4, 2, 1, 2, 0, True),
        (4, 4, 1, 1, 2, False),
    ],
)
def test_a_set_that_fills_no_batch_is_refused(count, batch, ratio, world, num_gpu, sound, tmp_path):
    opt = run_options(tmp_path, batch_size_per_gpu=batch, dataset_enlarge_ratio=ratio)
    opt |= {"dist": world > 1, "num_gpu": num_gpu}
    faults = training_size_faults(opt, count, world)
    assert (faults == []) is sound


def test_the_cures_for_too_large_a_batch_work(tmp_path):
    opt = run_options(tmp_path, batch_size_per_gpu=16)
    fault = training_size_faults(opt, 5, 1)[0]
    assert "set dataset_enlarge_ratio to 4 or more, or batch_size_per_gpu to 5 or less" in fault
    opt["datasets"]["train"]["dataset_enlarge_ratio"] = 4
    assert training_size_faults(opt, 5, 1) == []
    opt["datasets"]["train"] |= {"dataset_enlarge_ratio": 1, "batch_size_per_gpu": 5}
    assert training_size_faults(opt, 5, 1) == []


def network_options(tmp_path, **path):
    return options(tmp_path) | {"is_train": True, "path": {"resume_state": None} | path}


def saved(tmp_path, opt, **extra):
    from basicsr_ext.checkpoints.networks import build_empty

    weights = {key: torch.zeros(value.shape) for key, value in build_empty(opt["network_g"]).state_dict().items()}
    torch.save({"params": weights, **extra}, tmp_path / "net.pth")
    return str(tmp_path / "net.pth")


def test_a_checkpoint_that_fits_is_accepted_in_every_form(tmp_path):
    opt = network_options(tmp_path)
    opt["path"]["pretrain_network_g"] = saved(tmp_path, opt)
    assert network_faults(opt) == []
    weights = torch.load(tmp_path / "net.pth")["params"]
    torch.save({f"module.{key}": value for key, value in weights.items()}, tmp_path / "bare.pth")
    opt["path"] |= {"pretrain_network_g": str(tmp_path / "bare.pth"), "param_key_g": None}
    assert network_faults(opt) == []


def test_a_checkpoint_of_another_width_shows_the_first_differing_keys(tmp_path):
    opt = network_options(tmp_path)
    opt["path"]["pretrain_network_g"] = saved(tmp_path, opt)
    opt["network_g"]["num_feat"] = 8
    (fault,) = network_faults(opt)
    assert "conv_first.weight (4, 3, 3, 3) instead of (8, 3, 3, 3)" in fault
    opt["path"]["strict_load_g"] = False
    assert network_faults(opt) == []


def test_the_key_of_the_averaged_weights_is_preferred(tmp_path):
    opt = network_options(tmp_path)
    assert best_key(saved(tmp_path, opt)) == "params"
    assert best_key(saved(tmp_path, opt, params_ema={})) == "params_ema"


def test_a_network_that_cannot_be_built_is_a_fault(tmp_path):
    opt = network_options(tmp_path)
    opt["network_g"] = {"type": "SwinIR", "embed_dim": 60, "depths": [2], "num_heads": [7], "upscale": 2}
    assert network_faults(opt)[0].startswith("network_g: SwinIR ")
    opt["network_g"] = {"type": "MSRResNet", "num_feat": 0, "num_block": 1}
    assert network_faults(opt)[0].startswith("network_g: MSRResNet has no values in conv_first.weight")


@pytest.mark.parametrize(
    ("logger", "said"),
    [({"wandb": {"project": "x"}}, "set logger.use_tb_logger: true"), ({"keep_best": "x"}, "keep_best is 'x'")],
)
def test_what_the_logger_cannot_do_is_refused_before_anything_is_written(logger, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opt = {**options(tmp_path), "is_train": True, "dist": False, "num_gpu": 0}
    opt["path"] = {"experiments_root": str(tmp_path / "experiments/x")}
    opt["logger"] = {**opt["logger"], **logger, "use_tb_logger": False}
    with pytest.raises(InputError, match=re.escape(said)):
        check_run(opt, True, Launch())


def test_a_baseline_without_weights_needs_no_checkpoint(tmp_path):
    opt = network_options(tmp_path)
    assert has_weights(opt)
    assert not has_weights({"network_g": {"type": "Interpolation", "scale": 2}})


def test_channels_are_compared_on_both_sides(tmp_path):
    from basicsr.models.sr_model import SRModel

    opt = network_options(tmp_path)
    item = {"lq": torch.zeros(4, 8, 8), "gt": torch.zeros(1, 16, 16), "lq_path": "a.png", "gt_path": "b.png"}
    faults = channel_faults(opt, "datasets.train", item, SRModel)
    assert [fault.split(",")[0] for fault in faults] == ["network_g.num_in_ch is 3", "network_g.num_out_ch is 3"]

    class Stranger:
        pass

    assert channel_faults(opt, "datasets.train", item, Stranger) == []


def test_num_gpu_is_compared_with_the_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_faults({"num_gpu": 1}, Launch()) == []
    assert "torch finds 1 CUDA device(s)" in device_faults({"num_gpu": 8}, Launch())[0]
    assert device_faults({"num_gpu": 8}, Launch("pytorch", 0, 8)) == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "set num_gpu: auto, or 0 for the CPU" in device_faults({"num_gpu": 1}, Launch())[0]


def test_a_sound_run_passes_and_a_val_section_without_data_is_noted(tmp_path):
    opt = run_options(tmp_path) | {"is_train": True}
    opt["path"]["experiments_root"] = str(tmp_path / "experiments/tiny")
    for name, block in opt["datasets"].items():
        block |= {"phase": name, "scale": 2}
    assert check_run(opt, True, Launch()) == []
    del opt["datasets"]["val"]
    assert check_run(opt, True, Launch()) == ["val is given, but datasets has no val: nothing will be validated"]


def as_lmdb(folder):
    """Put a folder's square RGB images into an LMDB of BasicSR's layout."""
    root = folder.with_suffix(".lmdb")
    paths = sorted(folder.iterdir())
    with lmdb.open(str(root), map_size=2**20) as database, database.begin(write=True) as writer:
        for path in paths:
            writer.put(path.stem.encode(), path.read_bytes())
    sizes = [image_header(path)[:2] for path in paths]
    (root / "meta_info.txt").write_text("".join(f"{p.name} ({h},{w},3) 1\n" for p, (h, w) in zip(paths, sizes)))
    return str(root)


@pytest.mark.parametrize("kind", ["PairedImageDataset", "PairedFolderDataset"])
@pytest.mark.parametrize(("crop", "words"), [(16, None), (48, "2 image(s) are smaller"), (None, "2 GT image(s)")])
def test_an_lmdb_is_checked_by_its_list(kind, crop, words, tmp_path):
    lq_size = 16 if crop else 15
    roots = {
        "dataroot_gt": as_lmdb(write_images(tmp_path / "gt", 2, 32)),
        "dataroot_lq": as_lmdb(write_images(tmp_path / "lq", 2, lq_size)),
    }
    common = {"name": "x", "type": kind, "phase": "train", "scale": 2, "gt_size": crop or 16}
    block = common | roots | {"io_backend": {"type": "lmdb"}, "use_hflip": False, "use_rot": False}
    faults = []
    _, item = check_dataset("datasets.train", block, faults, [])
    if words is None:
        assert faults == []
        assert tuple(item["gt"].shape) == (3, 16, 16)
    else:
        assert len(faults) == 1
        assert words in faults[0]


@pytest.mark.parametrize(
    "kind, said", [("PairedImageDataset", 1), ("SingleImageDataset", 1), ("PairedFolderDataset", 0)]
)
def test_a_list_that_a_data_set_would_pass_over_is_refused(kind, said, tmp_path):
    root = as_lmdb(write_images(tmp_path / "gt", 2, 32))
    (tmp_path / "list.txt").write_text("000.png\n")
    block = {"type": kind, "dataroot_lq": root, "io_backend": {"type": "lmdb"}}
    block["meta_info_file"] = str(tmp_path / "list.txt")
    faults = missing_files({"datasets": {"val": block}})
    assert len(faults) == said and all("datasets.val.meta_info_file" in fault for fault in faults)
    assert missing_files({"datasets": {"val": {**block, "io_backend": {"type": "disk"}}}}) == []


def test_an_lmdb_that_another_data_set_reads_stays_open(tmp_path):
    from basicsr.data import build_dataset

    names = ("gt", "lq")
    roots = {f"dataroot_{n}": as_lmdb(write_images(tmp_path / n, 2, s)) for n, s in zip(names, (32, 16))}
    common = {"name": "x", "phase": "val", "scale": 2, "io_backend": {"type": "lmdb"}, **roots}
    held = build_dataset({**common, "type": "PairedFolderDataset"})
    first = held[0]["gt"]
    for _ in range(2):
        faults = []
        check_dataset("datasets.val", {**common, "type": "PairedImageDataset"}, faults, [])
        assert faults == []
        assert held[0]["gt"].equal(first)


def test_a_grey_file_among_colour_ones_is_named_before_the_start(tmp_path):
    from i2sb_plugin.data.paired_degradation_dataset import PairedDegradationDataset  # noqa: F401  (registers itself)

    folder = tmp_path / "gt"
    folder.mkdir()
    for k in range(3):
        shape = (40, 40) if k == 2 else (40, 40, 3)
        Image.fromarray(np.full(shape, 90, np.uint8)).save(folder / f"{k}.png")
    block = {"type": "PairedDegradationDataset", "phase": "val", "scale": 4, "degradation": {"type": "sr4x_pool"}}
    faults, notes = [], []
    check_dataset("datasets.val", block | {"dataroot_gt": str(folder)}, faults, notes)
    assert len(faults) == 1 and "2.png" in faults[0] and "grey_to_rgb" in faults[0] and "0.png" not in faults[0]


@pytest.mark.parametrize("ratio", [10**9, float("inf"), float("nan")])
def test_an_epoch_whose_order_fills_the_memory_is_refused(ratio, tmp_path):
    opt = run_options(tmp_path, batch_size_per_gpu=2, dataset_enlarge_ratio=ratio)
    (fault,) = training_size_faults(opt, 4, 1)
    assert fault.endswith("whose order alone fills the memory; set it to 33554432 or less")
    opt["datasets"]["train"]["dataset_enlarge_ratio"] = 33554432
    assert training_size_faults(opt, 4, 1) == []


def test_a_network_of_another_scale_than_the_data_is_refused(tmp_path):
    from basicsr.models.sr_model import SRModel

    opt = options(tmp_path)
    opt["network_g"]["upscale"] = 4
    item = {"lq": torch.zeros(3, 8, 8), "gt": torch.zeros(3, 16, 16)}
    (fault,) = channel_faults(opt, "datasets.train", item, SRModel)
    assert fault.startswith("network_g.upscale is 4, but the clean images of datasets.train are 2 times as large")
    opt["network_g"]["upscale"] = 2
    assert channel_faults(opt, "datasets.train", item, SRModel) == []


def test_a_file_that_a_network_loads_by_itself_is_named_with_its_option(tmp_path):
    opt = network_options(tmp_path)
    (tmp_path / "flow.pth").write_bytes(b"no checkpoint")
    opt["network_g"] = {"type": "SpyNet", "load_path": str(tmp_path / "flow.pth")}
    (fault,) = network_faults(opt)
    assert fault.startswith("network_g.load_path: ") and "flow.pth" in fault


def test_weights_of_which_nothing_fits_are_refused_even_loosely(tmp_path):
    opt = network_options(tmp_path, strict_load_g=False)
    torch.save({"params": {"netG.weight": torch.ones(1)}}, tmp_path / "other.pth")
    opt["path"]["pretrain_network_g"] = str(tmp_path / "other.pth")
    (fault,) = network_faults(opt)
    assert "path.pretrain_network_g" in fault and "1 unknown: netG.weight" in fault and "strict_load" not in fault


@pytest.mark.parametrize(
    "place", ["-opt", "path.pretrain_network_g", "path.teacher", "datasets.train.dataroot_gt", "link", "linked"]
)
def test_a_folder_is_not_put_aside_while_inputs_lie_in_it(place, tmp_path):
    run, outside = tmp_path / "experiments" / "run", write_images(tmp_path / "gt", 2, 8)
    (run / "training_states").mkdir(parents=True)
    inside = write_images(run / "pictures", 2, 8)
    paths = {"experiments_root": str(run), "training_states": str(run / "training_states"), "models": str(run)}
    opt = {"name": "run", "auto_resume": False, "path": paths, "datasets": {"train": {"dataroot_gt": str(outside)}}}
    (tmp_path / "a link of the user").symlink_to(inside)
    opt["root_path"] = str(tmp_path)  # where runs lie, which is no input
    check_put_aside(opt, str(outside), True)
    option_file = str(inside) if place == "-opt" else str(outside)
    if place.startswith("path."):
        opt["path"][place.removeprefix("path.")] = str(inside)
    elif place == "datasets.train.dataroot_gt":
        opt["datasets"]["train"]["dataroot_gt"] = [str(outside), str(inside)]
    elif place == "link":
        (run / "link").symlink_to(outside)
        opt["datasets"]["train"]["dataroot_gt"] = inside = str(run / "link")
    elif place == "linked":
        inside = opt["datasets"]["train"]["dataroot_gt"] = str(tmp_path / "links")
        (tmp_path / "links").mkdir()
        (tmp_path / "links" / "0.png").symlink_to(next((run / "pictures").iterdir()))
    with pytest.raises(InputError, match=f"{'dataroot_gt' if 'link' in place else place}.*{inside}.*--auto_resume"):
        check_put_aside(opt, option_file, True)
    (run / "training_states" / "4.state").touch()
    check_put_aside({**opt, "auto_resume": True}, option_file, True)
    check_put_aside({**opt, "path": paths | {"results_root": str(tmp_path / "none")}}, option_file, False)


@pytest.mark.parametrize(
    "metric, said",
    [
        ({"type": "calculate_psnr", "crop_border": 20}, r"crop_border 20 .*but 1 of 3 .*2\.png \(40x120\)"),
        ({"type": "calculate_ssim", "crop_border": 15}, r"crop_border 15 .*41 x 41.*2\.png \(40x120\)"),
        ({"type": "calculate_niqe", "crop_border": 1}, r"98 x 194 pixels.*but 3 of 3"),
        ({"type": "calculate_psnr", "crop_border": 0}, "needs the ground truth.*dataroot_gt"),
        ({"type": "consistency"}, "needs a degradation whose operator is known"),
    ],
)
def test_what_metrics_need_is_asked_of_all_images_before_the_start(metric, said, tmp_path):
    from basicsr.data import build_dataset

    (tmp_path / "lq").mkdir()
    for k, size in enumerate((120, 104, 40)):
        Image.fromarray(noise((size, 120, 3))).save(tmp_path / f"lq/{k}.png")
    block = {"type": "SingleImageDataset", "name": "s", "phase": "test", "scale": 1}
    block |= {"dataroot_lq": str(tmp_path / "lq"), "io_backend": {"type": "disk"}}
    dataset = build_dataset(block)
    item = {"lq": None} if "ground truth" in said else {"lq": None, "gt": None}
    faults = metric_faults("datasets.test", "val.metrics", build_metrics({"m": metric}), dataset, block, item)
    assert len(faults) == 1 and re.search(said, faults[0]) and "val.metrics.m" in faults[0]


def checked(opt, root):
    for name, block in opt["datasets"].items():
        block |= {"phase": "train" if name == "train" else "val", "scale": 2}
    folders = dict.fromkeys(("experiments_root", "visualization"), str(root / "experiments/run/visualization"))
    opt |= {"is_train": True, "dist": False, "num_gpu": 0, "path": {"resume_state": None, **folders}}
    opt["datasets"]["train"]["dataset_enlarge_ratio"] = 1
    opt["val"]["save_img"] = True
    return opt


def test_images_of_one_result_are_refused_before_the_start(tmp_path):
    opt = checked(options(tmp_path), tmp_path)
    check_run(opt, True, Launch())
    for side in ("gt", "lq"):
        folder = tmp_path / "data/val" / side
        Image.open(folder / "0.png").save(folder / "0.bmp")
    with pytest.raises(InputError, match=r"datasets\.val: .*0\.bmp and .*0\.png would both become 0; rename one"):
        check_run(opt, True, Launch())
    opt["val"]["save_img"] = False
    check_run(opt, True, Launch())


def test_results_among_the_images_are_refused_before_the_start(tmp_path):
    opt = checked(options(tmp_path), tmp_path)
    opt["path"]["visualization"] = str(tmp_path / "data/val/gt/results")
    with pytest.raises(InputError, match=r"datasets\.val\.dataroot_gt is .*would be images of it; .*path\."):
        check_run(opt, True, Launch())


def test_what_models_of_basicsr_read_by_themselves_is_asked_before_the_start(tmp_path):
    network = {"type": "SwinIR", "img_size": 8, "embed_dim": 6, "depths": [1], "num_heads": [1]}
    opt = {"model_type": "SwinIRModel", "network_g": network, "path": {}, "is_train": False}
    (fault,) = network_faults(opt)
    assert "network_g.window_size is missing: SwinIRModel pads" in fault and "7 where it had none" in fault
    assert network_faults({**opt, "network_g": network | {"window_size": 4}}) == []
    video = {"model_type": "EDVRModel", "num_gpu": 0, "val": {"metrics": {"psnr": {}}}}
    (fault,) = _video_faults(video, "datasets.val", "PairedImageDataset", SimpleNamespace())
    assert "datasets.val.type is PairedImageDataset" in fault and "VideoTestDataset" in fault
    (fault,) = _video_faults(video, "datasets.val", "VideoTestDataset", SimpleNamespace(data_info={}))
    assert "num_gpu is 0" in fault
    assert _video_faults({**video, "num_gpu": 1}, "datasets.val", "V", SimpleNamespace(data_info={})) == []
    assert _video_faults({**video, "model_type": "SRModel"}, "datasets.val", "V", SimpleNamespace()) == []


def test_a_best_metric_that_is_not_measured_is_refused_before_the_start(tmp_path):
    opt = {"logger": {"keep_best": "psnr"}, "path": {"experiments_root": str(tmp_path / "x")}, "datasets": {}}
    opt |= {"num_gpu": 0, "train": {}}
    with pytest.raises(InputError, match="keep_best is 'psnr'.*; none is known here"):
        check_run({**opt, "name": "x", "is_train": True}, True, Launch("none", 0, 1))
