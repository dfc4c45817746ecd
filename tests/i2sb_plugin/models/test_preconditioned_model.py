"""A preconditioned bridge as a run: the variance is measured, kept in every save, and found again."""

import json
import re

import cv2
import numpy as np
import pytest
import torch

from basicsr_ext import cli
from basicsr_ext.checkpoints.storage import read_configuration
from basicsr_ext.common.errors import InputError
from tests.support.cli_runs import bridge_options, run, write
from tests.support.models import built, generators, make_batch
from tests.support.toolkit import OPTIONS, small

MODEL = {"bridge__predicts": "preconditioned", "bridge__cond_x1": True, "network_g__cond_channels": 3}
I2SB = str(OPTIONS / "i2sb_sr4x_plain.yml")
ASKED = ["+bridge:predicts=preconditioned", "+bridge:cond_x1=true", "+network_g:cond_channels=3"]


def test_an_untrained_network_restores_the_lifted_image():
    net = built("I2SBModel", **MODEL, bridge__residual_variance=0.01, val__sampler={"nfe": 1})
    net.feed_data(make_batch())
    net.test()
    assert torch.allclose(net.output, ((net.start(net.batch)[0] + 1) / 2).clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_the_variance_is_that_of_the_residual_in_the_hole(masked):
    net = built("I2SBModel", **MODEL, bridge__hole="keep", **({"scale": 1} if masked else {}))
    batch = make_batch(4, masked=masked)
    net.begin_training([batch])
    residual = (2 * batch["gt"] - 1 - net.start(batch)[0]).square()
    if masked:
        residual = residual[batch["mask"].expand_as(residual).bool()]
    assert net.opt["bridge"]["residual_variance"] == pytest.approx(float(residual.mean()), rel=1e-5)


def test_the_network_sees_the_degraded_image_without_the_noise_of_the_start():
    net = built("I2SBModel", **MODEL, bridge__residual_variance=0.01, bridge__add_x1_noise=0.1, bridge__x1_share=1.0)
    net.feed_data(make_batch(4))
    seen = []
    net.net_g.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    net.training_loss(net.batch | {"generators": generators(1, 2, 3, 4)})
    clean, _ = net.ends(net.batch)
    assert torch.equal(seen[2], clean)
    assert float(seen[0].square().mean()) == pytest.approx(1, abs=0.1), "noise of the start, at unit variance"


def test_training_draws_the_nodes_of_a_walk_alone():
    net = built("I2SBModel", bridge__nodes=4)
    drawn = net.bridge.sample_step(1000, torch.Generator().manual_seed(0))
    assert sorted(set(drawn.tolist())) == [250, 500, 750, 1000]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bridge__ot_ode": True}, r"ot_ode"),
        ({"bridge__cond_x1": False}, r"cond_x1"),
        ({"bridge__schedule": "released"}, r"one_clock"),
        ({"bridge__residual_variance": 0}, r"residual_variance is 0.*above 0"),
        ({"bridge__predicts": "eps", "bridge__residual_variance": 0.1}, r"residual_variance.*preconditioned"),
        ({"bridge__add_x1_noise": -1}, r"add_x1_noise is -1"),
        ({"bridge__nodes": 0}, r"nfe is 0"),
    ],
)
def test_what_cannot_go_together_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        built("I2SBModel", **MODEL | changes)


@pytest.mark.parametrize("rounding", [0, 1e-7])
def test_a_data_set_without_degradation_is_refused(rounding):
    net, batch = built("I2SBModel", **MODEL, scale=1), make_batch(masked=True)
    del batch["mask"]
    with pytest.raises(InputError, match="bridge.residual_variance.*clean"):
        net.begin_training([batch | {"lq": batch["gt"] + rounding}])


def test_a_rehearsal_measures_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    opt = bridge_options(tmp_path)
    opt["bridge"] |= {"cond_x1": True, "predicts": "preconditioned"}
    opt["network_g"] |= {"cond_channels": 3, "channel_mult": [1], "attention_ds": []}
    assert run(capsys, "check", "-opt", write(tmp_path, opt))[0] == 0
    for path in (tmp_path / "data/train/gt").iterdir():
        cv2.imwrite(str(path), np.full((32, 32, 3), 120, np.uint8))
    code, _, err = run(capsys, "check", "-opt", write(tmp_path, opt))
    assert code == 2 and "bridge.residual_variance is auto" in err and "128 degraded images" in err


def test_a_diffusion_that_sees_x1_can_be_preconditioned_too():
    net = built("ConditionalDiffusionModel", diffusion__predicts="preconditioned", network_g__cond_channels=3)
    net.begin_training([make_batch(4)])
    net.feed_data(make_batch(4))
    loss = float(net.training_loss(net.batch)["l_bridge"].detach())
    assert loss == pytest.approx(1, abs=0.15), "an untrained network predicts 0, the target has unit variance"


def test_a_run_measures_keeps_and_finds_it_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words, name = [*small("i2sb_sr4x_plain", 4, every=2), *ASKED], "bridge"
    assert cli.main(["train", "-opt", I2SB, "--force_yml", *words, "train:total_iter=2"]) == 0
    log = "".join(path.read_text() for path in (tmp_path / "experiments/i2sb_sr4x_plain").glob("*.log"))
    (said,) = re.findall(rf"{name}\.residual_variance: (\S+), measured on 128", log)
    saved = tmp_path / "experiments/i2sb_sr4x_plain/models/net_g_2.pth"
    kept = read_configuration(saved)[name]["residual_variance"]
    assert kept == pytest.approx(float(said), rel=1e-4) and 0 < kept < 0.1

    assert cli.main(["train", "-opt", I2SB, "--auto_resume", "--force_yml", *words]) == 0
    log = "".join(path.read_text() for path in (tmp_path / "experiments/i2sb_sr4x_plain").glob("*.log"))
    assert len(re.findall("measured on", log)) == 1, "a resumed run takes the save's"
    assert read_configuration(saved.with_name("net_g_4.pth"))[name]["residual_variance"] == kept

    moved = saved.with_name("net_g_4.pth").rename(tmp_path / "mine.pth")
    assert cli.main(["export", str(moved), "-o", "mine.safetensors"]) == 0
    assert read_configuration(tmp_path / "mine.safetensors")[name]["residual_variance"] == kept
    assert cli.main(["test", "-opt", I2SB, "--force_yml", *words, f"path:pretrain_network_g={moved}"]) == 0
    assert json.loads((tmp_path / "results/i2sb_sr4x_plain/metrics.json").read_text())["datasets"]

    bare = torch.load(moved, weights_only=True)
    torch.save({"params_ema": bare["params_ema"]}, tmp_path / "bare.pth")
    capsys.readouterr()
    assert cli.main(["test", "-opt", I2SB, "--force_yml", *words, "path:pretrain_network_g=bare.pth"]) == 2
    assert "bridge.residual_variance is auto" in capsys.readouterr().err


def test_a_variance_that_a_diffusion_does_not_use_is_refused():
    with pytest.raises(InputError, match=r"residual_variance is 0\.1.*predicts is v.*preconditioned"):
        built("ConditionalDiffusionModel", diffusion__residual_variance=0.1, network_g__cond_channels=3)
