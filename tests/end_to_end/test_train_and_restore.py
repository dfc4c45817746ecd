"""The commands, on real photographs, as a user runs them."""

import json
import os
import re

import cv2
import numpy as np
import pytest
import torch
import yaml
from skimage import data

from basicsr_ext import cli
from tests.support.toolkit import OPTIONS, command, small

I2SB = str(OPTIONS / "i2sb_sr4x_plain.yml")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, sample_photographs):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/photographs").symlink_to(sample_photographs)
    return tmp_path


def log_of(folder):
    return "\n".join(path.read_text() for path in sorted(folder.glob("*.log")))


@pytest.mark.parametrize("steps", [12, pytest.param(240, marks=pytest.mark.slow)])
def test_train_stop_resume_test_and_report(here, capsys, steps):
    half = steps // 2
    short = [
        *small("i2sb_sr4x_plain", steps, every=half),
        "datasets:train:batch_size_per_gpu=8",
        "train:optim_g:lr=1e-3",
    ]
    assert cli.main(["train", "-opt", I2SB, "--force_yml", *short, f"train:total_iter={half}"]) == 0
    state = here / f"experiments/i2sb_sr4x_plain/training_states/{half}.state"
    assert torch.load(state, weights_only=True)["iter"] == half
    assert cli.main(["train", "-opt", I2SB, "--auto_resume", "--force_yml", *short]) == 0
    log = log_of(here / "experiments/i2sb_sr4x_plain")
    assert f"Resuming training from epoch: 0, iter: {half}" in log
    (rate,) = re.findall(rf"iter: +{steps}, lr:\((\S+?),", log)
    assert float(rate) < 2e-5, "the schedule went on where it stood"
    assert (here / f"experiments/i2sb_sr4x_plain/models/net_g_{steps}.pth").is_file()

    assert cli.main(["test", "-opt", str(OPTIONS / "bicubic_sr4x.yml")]) == 0
    for nfe in (1, 4):
        again = ["--force_yml", f"name=nfe{nfe}", f"val:sampler:nfe={nfe}", *small("network")]
        assert cli.main(["test", "-opt", I2SB, *again]) == 0
    figures = {
        name: json.loads((here / "results" / name / "metrics.json").read_text())["datasets"]["photographs_val"]["mean"]
        for name in ("bicubic", "nfe1", "nfe4")
    }
    assert figures["bicubic"]["psnr_y"] == pytest.approx(28.17, abs=0.2)
    if steps == 240:
        assert figures["nfe1"]["psnr_y"] > figures["bicubic"]["psnr_y"], "these iterations beat enlargement"
    assert figures["nfe4"]["psnr_y"] != figures["nfe1"]["psnr_y"]
    assert len(list((here / "results/nfe1/visualization/photographs_val").glob("*.png"))) == 3
    capsys.readouterr()
    assert cli.main(["report", "results/bicubic", "results/nfe1", "results/nfe4"]) == 0
    assert f"| nfe1 | photographs_val | {figures['nfe1']['psnr_y']:.2f} |" in capsys.readouterr().out


def test_tensorboard_holds_losses_rate_metrics_and_the_walk(here):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert cli.main(["train", "-opt", I2SB, "--force_yml", *small("i2sb_sr4x_plain", steps=4, every=2)]) == 0
    events = EventAccumulator(str(here / "tb_logger/i2sb_sr4x_plain")).Reload()
    assert {"losses/l_bridge", "lr", "metrics/photographs_val/psnr_y"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("losses/l_bridge")] == [2, 4]
    picture = events.Images("walk/photographs_val")[0]
    strip = cv2.imdecode(np.frombuffer(picture.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert strip.shape[1] == 3 * strip.shape[0], "x1, the one point of a walk of one evaluation, ground truth"


@pytest.mark.parametrize("name", ["swinir_light_sr4x", "msrresnet_sr4x", "rrdbnet_sr4x"])
def test_basicsrs_own_networks_train_and_test_on_the_same_block(here, name):
    path = str(OPTIONS / f"{name}.yml")
    assert cli.main(["train", "-opt", path, "--force_yml", *small(name, steps=3, every=3)]) == 0
    log = log_of(here / "experiments" / name)
    assert "iter:       3" in log and "l_pix" in log
    assert cli.main(["test", "-opt", path, "--force_yml", *small(name), "val:save_img=true"]) == 0
    psnr = float(re.search(r"# psnr_y: ([\d.]+)", log_of(here / "results" / name))[1])
    assert 2 < psnr < 40
    assert len(list((here / "results" / name / "visualization/photographs_val").glob("*.png"))) == 3


def test_the_default_file_trains_with_its_term_and_measures_by_it(here, weights_at_hand):
    path = str(OPTIONS / "i2sb_sr4x.yml")
    short = small("i2sb_sr4x", steps=4, every=2)
    assert cli.main(["train", "-opt", path, "--force_yml", *short]) == 0
    log = log_of(here / "experiments/i2sb_sr4x")
    assert "bridge.residual_variance: " in log and len(re.findall(r"l_lpips: \S+", log)) == 2
    assert cli.main(["test", "-opt", path, "--force_yml", *small("i2sb_sr4x")]) == 0
    found = json.loads((here / "results/i2sb_sr4x/metrics.json").read_text())["datasets"]["photographs_val"]["mean"]
    assert set(found) == {"psnr_y", "ssim_y", "lpips", "dists", "seconds"}


@pytest.mark.parametrize("steps", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_a_network_inside_the_adapter_trains_resumes_is_exported_and_restores(here, steps):
    network = "{type: BridgeAdapter, cond_channels: 3, unshuffle: 2, network: {type: EDSR, num_feat: 8, num_block: 1}}"
    short = [*small("i2sb_sr4x_plain", steps, every=steps // 2)[2:], f"network_g={network}", "bridge:cond_x1=true"]
    short += ["bridge:predicts=x0", "datasets:train:batch_size_per_gpu=4", "train:optim_g:lr=5e-3"]
    for more in ([f"train:total_iter={steps // 2}"], []):
        assert cli.main(["train", "-opt", I2SB, "--auto_resume", "--force_yml", *short, *more]) == 0
    log = log_of(here / "experiments/i2sb_sr4x_plain")
    assert f"iter: {steps // 2}" in log
    if steps == 50:
        first, last = (float(loss) for loss in re.findall(r"l_bridge: (\S+)", log))
        assert last < 0.5 * first
    cv2.imwrite("odd.png", photograph(3, 8)[:37, :29])
    saved = f"experiments/i2sb_sr4x_plain/models/net_g_{steps}.pth"
    assert cli.main(["export", saved, "-o", "net.safetensors"]) == 0
    for checkpoint, out in ((saved, "a.png"), ("net.safetensors", "b.png")):
        assert cli.main(["restore", "-i", "odd.png", "-o", out, "--checkpoint", checkpoint, "--nfe", "2"]) == 0
    restored = cv2.imread("a.png")
    assert restored.shape == (148, 116, 3) and np.array_equal(restored, cv2.imread("b.png"))


def photograph(channels, bits):
    image = data.astronaut()[40:201, 120:263]  # 161 x 143: odd on both sides
    if channels == 1:
        image = image[..., 1]
    if channels == 4:
        alpha = np.tile(np.linspace(0, 255, image.shape[1]).astype(np.uint8), (image.shape[0], 1))
        image = np.dstack([image, alpha])
    return image.astype(np.uint16) * 257 if bits == 16 else image


def save_pairs(folder, channels, bits):
    gt = photograph(channels, bits)
    lq = cv2.blur(gt, (5, 5))
    for kind, image in (("gt", gt), ("lq", lq)):
        (folder / kind).mkdir(parents=True)
        for k in range(3):
            cv2.imwrite(str(folder / kind / f"{k}.png"), image[k:, : image.shape[1] - 2 * k])


@pytest.mark.parametrize(
    ("channels", "bits"),
    [(1, 16), (4, 8), *(pytest.param(*kind, marks=pytest.mark.slow) for kind in ((1, 8), (3, 8), (3, 16), (4, 16)))],
)
def test_own_paired_folders_of_any_channels_and_depth(here, channels, bits):
    save_pairs(here / "own", channels, bits)
    roots = [f"datasets:{phase}:dataroot_{kind}=own/{kind}" for phase in ("train", "val") for kind in ("gt", "lq")]
    network = [f"network_g:in_channels={channels}", f"network_g:out_channels={channels}", "val:sampler:nfe=1"]
    options = [*small("i2sb_paired", steps=2, every=2), *roots, *network, "network_g:preset=tiny"]
    assert cli.main(["train", "-opt", str(OPTIONS / "i2sb_paired.yml"), "--force_yml", *options]) == 0
    restored = cv2.imread(str(here / "experiments/i2sb_paired/visualization/1/1_2.png"), cv2.IMREAD_UNCHANGED)
    assert restored.shape == ((160, 141) if channels == 1 else (160, 141, channels))
    found = float(re.search(r"# psnr: ([\d.]+)", log_of(here / "experiments/i2sb_paired"))[1])
    blurred = cv2.imread(str(here / "own/lq/1.png"), cv2.IMREAD_UNCHANGED).astype(float) / (257 if bits == 16 else 1)
    clean = cv2.imread(str(here / "own/gt/1.png"), cv2.IMREAD_UNCHANGED).astype(float) / (257 if bits == 16 else 1)
    wanted = 10 * np.log10(255**2 / np.mean((blurred - clean) ** 2))
    assert found == pytest.approx(wanted, abs=1.5), "after two iterations the network still gives about its input"


def test_an_lmdb_of_clean_images(here):
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs

    save_pairs(here / "own", 3, 8)
    names = [f"{k}.png" for k in range(3)]
    make_lmdb_from_imgs(str(here / "own/gt"), str(here / "own.lmdb"), names, [n[:-4] for n in names])
    options = [*small("i2sb_sr4x_plain", steps=2, every=2), "datasets:train:cache=false"]
    for phase in ("train", "val"):
        options += [f"datasets:{phase}:dataroot_gt=own.lmdb", f"datasets:{phase}:io_backend:type=lmdb"]
    options += ["datasets:train:num_worker_per_gpu=1"]
    assert cli.main(["train", "-opt", I2SB, "--force_yml", *options]) == 0
    assert "Number of train images: 3" in log_of(here / "experiments/i2sb_sr4x_plain")


def test_basicsrs_paired_dataset_feeds_the_bridge(here):
    for kind, factor in (("gt", 1), ("lq", 4)):
        (here / kind).mkdir()
        for k in range(2):
            image = cv2.resize(
                data.coffee()[:160, :200], None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA
            )
            cv2.imwrite(str(here / kind / f"{k}.png"), image)
    path = here / "own.yml"
    text = (OPTIONS / "i2sb_sr4x_own_data.yml").read_text().replace("PairedDegradationDataset", "PairedImageDataset")
    text = text.replace("    degradation: {type: sr4x_bicubic}\n", "    dataroot_lq: lq\n").replace(
        "datasets/own/train", "gt"
    )
    for name in ("Set5", "Set14"):
        text = text.replace(f"datasets/{name}/GTmod12", "gt").replace(f"datasets/{name}/LRbicx4", "lq")
    path.write_text(text)
    options = [*small("i2sb_sr4x_own_data", steps=2, every=2), "network_g:preset=tiny"]
    assert cli.main(["train", "-opt", str(path), "--force_yml", *options]) == 0
    assert log_of(here / "experiments/i2sb_sr4x_own_data").count("Validation Set14") >= 1


def test_two_processes_train_and_validate_like_one(here):
    short = small("i2sb_sr4x_plain", steps=4, every=4)
    out = command("train", "-opt", I2SB, "--launcher", "pytorch", "--force_yml", *short, processes=2)
    assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]
    log = log_of(here / "experiments/i2sb_sr4x_plain")
    assert "World size (gpu number): 2" in log and "iter:       4" in log
    two = dict(re.findall(r"# (psnr_y|ssim_y): ([\d.]+)", log[log.rindex("Validation") :]))
    assert cli.main(["test", "-opt", I2SB, "--force_yml", *small("network"), "val:sampler:nfe=1"]) == 0
    one = json.loads((here / "results/i2sb_sr4x_plain/metrics.json").read_text())["datasets"]["photographs_val"]["mean"]
    assert {k: float(v) for k, v in two.items()} == {k: round(one[k], 4) for k in two}

    again = [
        "test",
        "-opt",
        I2SB,
        "--launcher",
        "pytorch",
        "--force_yml",
        "name=two",
        *small("network"),
        "val:sampler:nfe=1",
    ]
    out = command(*again, processes=2)
    assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]
    both = json.loads((here / "results/two/metrics.json").read_text())["datasets"]["photographs_val"]["mean"]
    assert (both["psnr_y"], both["ssim_y"]) == (one["psnr_y"], one["ssim_y"])


def test_the_networks_of_basicsr_train_in_two_processes(here):
    path = str(OPTIONS / "msrresnet_sr4x.yml")
    short = [*small("msrresnet_sr4x", steps=2, every=2), "train:ema_decay=0"]
    out = command("train", "-opt", path, "--launcher", "pytorch", "--force_yml", *short, processes=2)
    assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]
    assert "Validation photographs_val" in log_of(here / "experiments/msrresnet_sr4x")


@pytest.mark.skipif("I2SB_DATA" not in os.environ, reason="set I2SB_DATA to a folder with BSDS500/train, Set5, Set14")
def test_a_folder_of_photographs_with_set5_and_set14_as_validation(here):
    root = os.environ["I2SB_DATA"]
    path = here / "own.yml"
    text = (OPTIONS / "i2sb_sr4x_own_data.yml").read_text()
    path.write_text(text.replace("datasets/own/train", f"{root}/BSDS500/train").replace("datasets/Set", f"{root}/Set"))
    options = [*small("i2sb_sr4x_own_data", steps=2, every=2), "network_g:preset=tiny"]
    assert cli.main(["train", "-opt", str(path), "--force_yml", *options]) == 0
    assert "Number of train images: 200" in log_of(here / "experiments/i2sb_sr4x_own_data")
    bicubic = yaml.safe_load((OPTIONS / "bicubic_sr4x.yml").read_text())
    own = yaml.safe_load(path.read_text())["datasets"]
    bicubic["datasets"] = {"test_1": own["val_1"], "test_2": own["val_2"]}
    path.write_text(yaml.safe_dump(bicubic))
    assert cli.main(["test", "-opt", str(path)]) == 0
    found = json.loads((here / "results/bicubic/metrics.json").read_text())["datasets"]
    for name, psnr, ssim in [("Set5", 28.397, 0.8115), ("Set14", 26.088, 0.7050)]:  # MATLAB's bicubic kernel
        assert found[name]["mean"]["psnr_y"] == pytest.approx(psnr, abs=0.01)
        assert found[name]["mean"]["ssim_y"] == pytest.approx(ssim, abs=0.0005)
