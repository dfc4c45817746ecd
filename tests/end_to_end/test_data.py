"""Data that are no pictures, from files to files: complex images of two float channels, as a scanner gives them."""

import json
import re

import cv2
import numpy as np
import pytest
import yaml
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

from basicsr_ext import cli

SIDE = 64


def scans(count, seed):
    """Slices of the phantom with a smooth phase, and what every third line of k-space and its centre leave: H,W,2."""
    rng = np.random.default_rng(seed)
    phantom = cv2.resize(data.shepp_logan_phantom(), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    for k in range(count):
        a, b, c = rng.uniform(-3, 3, 3)
        whole = np.roll(np.rot90(phantom, k), rng.integers(-5, 6), 0) * np.exp(1j * (a * rows + b * columns + c))
        kept = np.abs(np.arange(SIDE) - SIDE // 2) < 6
        kept[::3] = True
        aliased = np.fft.ifft2(np.fft.ifftshift(np.fft.fftshift(np.fft.fft2(whole)) * kept[:, None]))
        yield tuple(np.stack([z.real, z.imag], 2).astype(np.float32) * 1000 for z in (whole, aliased))


def write_scans(root, count, seed, dtype="float32"):
    for name in ("gt", "lq"):
        (root / name).mkdir(parents=True)
    for k, pair in enumerate(scans(count, seed)):
        for name, numbers in zip(("gt", "lq"), pair):
            np.save(root / name / f"slice{k}.npy", numbers.astype(dtype))
    return {"type": "PairedFolderDataset", "dataroot_gt": str(root / "gt"), "dataroot_lq": str(root / "lq")}


def options(root, steps=6, dtype="float32", **given):
    counts = (("train", (4 if steps < 100 else 32, 0)), ("val", (2, 1)))
    train, val = (write_scans(root / "scans" / name, *how, dtype) for name, how in counts)
    loader = {"gt_size": 32, "use_hflip": True, "use_rot": True, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0}
    metrics = {kind: {"type": f"calculate_{kind}", "crop_border": 0} for kind in ("psnr", "ssim")}
    opt = {
        "name": "mri",
        "model_type": "I2SBModel",
        "num_gpu": 0,
        "scale": 1,
        "manual_seed": 0,
        "data": {"dtype": dtype, "percentiles": [0.5, 99.5]},
        "datasets": {"train": train | loader, "val": val | {"name": "val"}},
        "network_g": {
            "type": "ADMUNet", "preset": "tiny", "channel_mult": [1, 1], "in_channels": 2, "out_channels": 2
        },
        "bridge": {"steps": 100, "beta_max": 0.3},
        "train": {
            "total_iter": steps,
            "ema_decay": 0,
            "optim_g": {"type": "AdamW", "lr": 1e-3},
            "scheduler": {"type": "MultiStepLR", "milestones": [10**6], "gamma": 0.5},
        },
        "val": {"val_freq": steps, "save_img": True, "sampler": {"nfe": 1}, "metrics": metrics},
        "logger": {"print_freq": steps, "save_checkpoint_freq": steps, "use_tb_logger": False},
    }  # fmt: skip
    return opt | given


def write(opt, name="mri.yml"):
    with open(name, "w") as file:
        yaml.safe_dump(opt, file)
    return name


def said(capsys, *arguments):
    """The exit code of a command, and all that it says."""
    capsys.readouterr()
    code = cli.main([str(argument) for argument in arguments])
    return code, "".join(capsys.readouterr())


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("steps", [6, pytest.param(600, marks=pytest.mark.slow)])
def test_complex_scans_train_restore_and_come_back_as_they_are_stored(here, capsys, steps):
    opt = options(here, steps)
    opt["logger"]["use_tb_logger"] = True
    file = write(opt)
    assert cli.main(["train", "-opt", file]) == 0
    clean = np.stack([np.load(path) for path in sorted((here / "scans/train/gt").iterdir())])
    low, high = np.percentile(clean.reshape(-1, 2).astype(np.float64), [0.5, 99.5], axis=0)
    kept = json.loads((here / "experiments/mri/options.json").read_text())["starts"][-1]["options"]["data"]
    assert np.allclose(kept["low"], low, rtol=1e-12) and np.allclose(kept["high"], high, rtol=1e-12)

    # the figures are those of the files, with the data's own range
    assert cli.main(["test", "-opt", file]) == 0
    found = json.loads((here / "results/mri/metrics.json").read_text())["datasets"]["val"]["images"]
    for record in found:
        restored, name = np.load(record["data"]), record["image"]
        gt, lq = (np.load(here / f"scans/val/{side}/{name}.npy") for side in ("gt", "lq"))
        assert restored.dtype == np.float32 and restored.shape == (SIDE, SIDE, 2)
        assert record["psnr"] == pytest.approx(psnr_of(gt, restored, low, high), abs=1e-4)
        shown = cv2.imread(record["file"], cv2.IMREAD_UNCHANGED)
        wanted = ((restored[:, :, 0] - low[0]) / (high[0] - low[0]) * 255).clip(0, 255)
        assert shown.shape == (SIDE, SIDE) and np.abs(shown - wanted).max() < 0.51, "the first channel, grey"
        if steps == 600:
            assert record["psnr"] > psnr_of(gt, lq, low, high) + 1

    # restore, from Python too, and from what was exported, gives the same numbers
    checkpoint = "experiments/mri/models/net_g_latest.pth"
    assert (
        said(capsys, "restore", "-i", "scans/val/lq", "-o", "out", "--checkpoint", checkpoint, "--device", "cpu")[0]
        == 0
    )
    code, text = said(capsys, "export", checkpoint, "-o", "mri.onnx", "--nfe", "1")
    assert code == 2 and "a graph restores pictures, but this network was trained on float32 data" in text
    assert cli.main(["export", checkpoint, "-o", "mri.safetensors"]) == 0
    tif = ["restore", "-i", "scans/val/lq", "-o", "tif", "--checkpoint", "mri.safetensors", "--format", "tif"]
    assert said(capsys, *tif, "--device", "cpu")[0] == 0
    import tifffile

    from i2sb_plugin import Restorer

    restorer = Restorer.load("mri.safetensors", device="cpu")
    for name in ("slice0", "slice1"):
        restored = np.load(here / f"out/{name}.npy")
        assert restored.dtype == np.float32 and restored.shape == (SIDE, SIDE, 2)
        assert np.array_equal(tifffile.imread(here / f"tif/{name}.tif"), restored)
        assert np.array_equal(restorer(str(here / f"scans/val/lq/{name}.npy")), restored)
        assert np.array_equal(restorer(np.load(here / f"scans/val/lq/{name}.npy")), restored)
        assert restored.min() < low.min() or restored.max() > high.max() or steps > 6, "nothing is cut off"


def psnr_of(gt, other, low, high):
    """By scikit-image, each channel relative to its own interval."""
    scale = (high - low).astype(np.float64)
    return peak_signal_noise_ratio(gt / scale, other / scale, data_range=1.0)


def test_what_was_measured_is_kept_when_the_run_goes_on(here, capsys):
    opt = options(here, 4)
    opt["logger"]["save_checkpoint_freq"] = 2
    file = write(opt)
    assert cli.main(["train", "-opt", file, "--force_yml", "train:total_iter=2"]) == 0
    for path in (here / "scans/train/gt").iterdir():  # the data have changed since
        np.save(path, np.load(path) * np.float32(2))
    code, text = said(capsys, "train", "-opt", file, "--auto_resume")
    assert code == 0 and "data: low and high are those of" in text and "net_g_2.pth" in text
    starts = json.loads((here / "experiments/mri/options.json").read_text())["starts"]
    assert starts[0]["options"]["data"] == starts[1]["options"]["data"]
    code, text = said(capsys, "train", "-opt", file, "--force_yml", "name=new")
    assert code == 0 and "each channel's interval was measured on 4 images of datasets.train" in text
    tuned = ["--force_yml", "name=tuned", "path:pretrain_network_g=experiments/mri/models/net_g_4.pth"]
    assert cli.main(["train", "-opt", file, *tuned]) == 0
    of = {
        name: json.loads((here / f"experiments/{name}/options.json").read_text())["starts"][0]["options"]["data"][
            "high"
        ]
        for name in ("mri", "new", "tuned")
    }
    assert np.allclose(of["new"], 2 * np.array(of["mri"])) and of["tuned"] == of["mri"]


@pytest.mark.parametrize("dtype", ["int16", "uint16"])
def test_whole_numbers_keep_their_kind(here, capsys, dtype):
    opt = options(here, 2, dtype, data={"dtype": dtype, "range": [-5000, 5000] if dtype == "int16" else [0, 65535]})
    file = write(opt)
    assert cli.main(["train", "-opt", file]) == 0
    checkpoint = "experiments/mri/models/net_g_latest.pth"
    assert (
        said(capsys, "restore", "-i", "scans/val/lq", "-o", "out", "--checkpoint", checkpoint, "--device", "cpu")[0]
        == 0
    )
    assert np.load(here / "out/slice0.npy").dtype == np.dtype(dtype)


def test_a_hole_is_filled_and_the_rest_is_kept_to_the_last_bit(here, capsys):
    opt = options(here, 2)
    degraded = {"type": "PairedDegradationDataset", "channels": 2, "degradation": {"type": "inpaint_center"}}
    for block in opt["datasets"].values():
        del block["dataroot_lq"]
        block |= degraded
    assert cli.main(["train", "-opt", write(opt)]) == 0
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:32, 20:40] = 255
    cv2.imwrite("mask.png", mask)
    given = np.load(here / "scans/val/gt/slice0.npy")
    given[0, 0, 0] = 1e-12
    np.save("holed.npy", given)
    checkpoint = ["--checkpoint", "experiments/mri/models/net_g_latest.pth", "--device", "cpu"]
    assert said(capsys, "restore", "-i", "holed.npy", "-o", "full.npy", "--mask", "mask.png", *checkpoint)[0] == 0
    full = np.load(here / "full.npy")
    assert np.array_equal(full[mask == 0], given[mask == 0]) and not np.array_equal(full, given)


def test_each_fault_is_told_by_file_and_option(here, capsys):
    opt = options(here, 2)
    file = write(opt)
    gt = here / "scans/train/gt/slice1.npy"
    good = np.load(gt)

    def refused(*force, command="train"):
        code, text = said(capsys, command, "-opt", file, *(["--force_yml", *force] if force else []))
        assert code == 2, text
        return text

    for numbers, wanted in (
        (np.where(good == good.max(), np.nan, good), "NaN or infinite"),
        (good.astype(np.float64), "holds float64, but data.dtype is float32; set data.dtype: float64"),
        (good[:, :, :1], "has 1 channel(s) but channels_gt is 2"),
        (good[None], "has 4 axes"),
    ):
        np.save(gt, numbers)
        assert f"{gt}: {wanted}" in refused().replace("holds 1 number(s) that are ", "")
    np.save(gt, good)
    assert re.search(
        r"slice\d\.npy: holds numbers from .*data\.range is \[0\.0, 1\.0\]", refused("data={range: [0, 1]}")
    )
    assert "range is [1.0, 0.0]; the first number must be below" in refused("data={range: [1, 0]}")
    assert "data.rang is not an option" in refused("+data:rang=[0, 1]")
    assert "of 3 channels, but the images have 2" in refused("data={mean: [0, 0, 0], std: 1}")
    text = refused("+val:metrics:psnr:test_y_channel=true")
    assert "val.metrics.psnr: calculate_psnr with test_y_channel looks at colours, but datasets.val holds data" in text
    assert "calculate_niqe looks at pictures" in refused("val:metrics:psnr={type: calculate_niqe, crop_border: 0}")
    assert "SRModel restores pictures alone" in refused("model_type=SRModel")
    for path in (here / "scans/train/gt").iterdir():
        numbers = np.load(path)
        numbers[:, :, 1] = 3
        np.save(path, numbers)
    text = refused()
    assert "data.percentiles is [0.5, 99.5], but in datasets.train channel(s) 1 have one value there, 3" in text
    assert not (here / "experiments").exists(), "nothing was written"


@pytest.mark.parametrize("kind", ["jpeg", "jpeg_codec", "decolor", "real_esrgan", "mixture"])
def test_degradations_of_pictures_are_refused_with_the_reason(here, capsys, kind):
    opt = options(here, 2)
    block = opt["datasets"]["train"]
    del block["dataroot_lq"]
    member = {"type": kind} | ({"scale": 1} if kind == "real_esrgan" else {})
    degradation = {"type": "compose", "of": [member]}
    block |= {"type": "PairedDegradationDataset", "channels": 2, "degradation": degradation}
    code, text = said(capsys, "train", "-opt", write(opt))
    assert code == 2 and "datasets.train: degradation.type is compose, but the images are data: " in text


def test_a_network_of_data_and_one_of_pictures_do_not_change_places(here, capsys):
    opt = options(here, 2)
    file = write(opt)
    assert cli.main(["train", "-opt", file]) == 0
    cv2.imwrite("photo.png", np.zeros((32, 32, 3), np.uint8))
    mri = ["--checkpoint", "experiments/mri/models/net_g_latest.pth", "--device", "cpu"]
    code, text = said(capsys, "restore", "-i", "photo.png", "-o", "out", *mri)
    assert code == 1 and "photo.png: is a PNG, a picture; data: asks for numbers" in text
    scan = "scans/val/lq/slice0.npy"
    for out, more, wanted in (
        ("out.png", [], "png cannot hold float32 data, which the network restores; give npy, npz, tif"),
        ("out.jpeg", [], "jpg cannot hold float32 data"),
        ("out", ["--format", "webp"], "webp cannot hold float32 data"),
        ("out", ["--bits", "16"], "--bits is 16, but results keep the numbers of the data, float32"),
        ("out.gif", [], "results of float32 data are npy, npz, tif"),
    ):
        code, text = said(capsys, "restore", "-i", scan, "-o", out, *mri, *more)
        assert code == 2 and wanted in text
    code, text = said(capsys, "restore", "-i", scan, "-o", "out.png")
    assert code == 1 and "is an array of numbers, no picture; say in a block data:" in text
    code, text = said(capsys, "restore", "-i", scan, "-o", "out.npy")
    assert code == 2 and "results cannot be npy: the network restores pictures" in text

    for force, wanted in (
        (["data=~"], "which was trained on float32 data, but the options have no block data"),
        (
            ["data:percentiles=[1, 99]"],
            "which was trained on data.percentiles [0.5, 99.5], but the options say [1.0, 99.0]",
        ),
        (["data={range: [0, 1]}"], "data.range nothing, but the options say [0.0, 1.0]"),
    ):
        code, text = said(capsys, "test", "-opt", file, "--force_yml", *force)
        assert code == 2 and wanted in text, text
    with open("bench.yml", "w") as bench:
        yaml.safe_dump({"name": "b", "methods": {"mri": {"weights": mri[1]}}, "datasets": {"val": {
            "type": "PairedFolderDataset", "dataroot_gt": "scans/val/gt", "dataroot_lq": "scans/val/lq"}},
            "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}}, bench)  # fmt: skip
    code, text = said(capsys, "benchmark", "-opt", "bench.yml")
    assert code == 2 and "methods.mri: it was trained on float32 data, but a benchmark compares pictures" in text
