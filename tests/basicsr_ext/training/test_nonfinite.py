"""NaN and infinite losses and gradients: named, stopped, or skipped."""

import math
import os
import re

import pytest
import torch
from torch import nn

from basicsr_ext import cli, repairs
from basicsr_ext.checkpoints.storage import load_weights
from basicsr_ext.common.errors import NonFiniteLoss
from basicsr_ext.training import nonfinite
from tests.support.cli_runs import bridge_options, options, write
from tests.support.toolkit import apart


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    repairs.apply()
    return tmp_path


def small(here, bridge):
    opt = bridge_options(here) if bridge else options(here)
    opt["network_g"] |= {"channel_mult": [1], "attention_ds": []} if bridge else {"num_feat": 8}
    opt["train"] |= {"total_iter": 6}
    opt["train"]["scheduler"] = {"type": "CosineAnnealingRestartLR", "periods": [6], "restart_weights": [1]}
    opt["datasets"]["train"] |= {"batch_size_per_gpu": 2}
    opt["logger"] |= {"save_checkpoint_freq": 2}
    del opt["val"], opt["datasets"]["val"]
    return opt


def spoil(monkeypatch, owner, *iterations, value=math.nan):
    """Put a value into the first clean image of some iterations' batches."""
    feed, seen = owner.feed_data, []

    def feeding(self, data):
        seen.append(list(data["lq_path"]))
        if len(seen) in iterations:
            data["gt"][0, 0, 0, 0] = value
        feed(self, data)

    monkeypatch.setattr(owner, "feed_data", feeding)
    return seen


def owner_of(bridge):
    from basicsr.models.sr_model import SRModel

    from i2sb_plugin.models.i2sb_model import I2SBModel

    return I2SBModel if bridge else SRModel


@pytest.mark.parametrize("bridge", [False, True], ids=["SRModel", "I2SBModel"])
def test_a_stopped_run_says_which_image_it_was(here, monkeypatch, capfd, bridge):
    path = write(here, small(here, bridge))
    seen = spoil(monkeypatch, owner_of(bridge), 5)
    assert cli.main(["train", "-opt", str(path)]) == 3
    loss = "l_bridge" if bridge else "l_pix"
    assert len(seen) == 5
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: training stopped at iteration 5, learning rate ")
    assert f"{loss} is nan. NaN or infinite values came in with {seen[-1][0].replace('/lq/', '/gt/')}. " in said
    assert f"The newest checkpoint is {here}/experiments/tiny/models/net_g_4.pth" in said
    assert ("set train.nonfinite: skip" in said) == bridge


def test_a_bad_gradient_is_found_although_the_loss_is_finite(here, monkeypatch, capfd):
    opt = small(here, True)
    path = write(here, opt)
    from i2sb_plugin.models.i2sb_model import I2SBModel

    before = I2SBModel.init_training_settings

    def with_a_hook(self):
        before(self)
        parameter = dict(self.net_g.named_parameters())["out.2.bias"]
        parameter.register_hook(lambda grad: torch.full_like(grad, math.inf))

    monkeypatch.setattr(I2SBModel, "init_training_settings", with_a_hook)
    assert cli.main(["train", "-opt", str(path)]) == 3
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert "the losses are finite, but the gradient's norm is inf" in said and "first that of net_g.out.2.bias" in said
    assert "parameters 1 have a bad one" in said and re.search(r"The batch was \S+\.png, \S+\.png\. ", said)


def test_skipped_steps_leave_the_weights_alone_and_are_counted(here, monkeypatch, capfd):
    path = write(here, small(here, True))
    with monkeypatch.context() as patch:
        spoil(patch, owner_of(True), 2, 3, 5)
        words = ["train", "-opt", str(path), "--force_yml", "train:nonfinite=skip", "train:max_skipped=3"]
        assert cli.main([*words, "logger:save_checkpoint_freq=1"]) == 0
    log = capfd.readouterr().err
    assert log.count("is skipped: l_bridge is nan. NaN or infinite values came in with") == 3
    assert re.search(r"Skipped so far: 3; train\.max_skipped: 3 ", log)
    lines = [
        line for line in next(here.glob("experiments/tiny/train_*.log")).read_text().splitlines() if "lr:(" in line
    ]
    counts = [float(re.search(r"skipped: (\S+)", line)[1]) for line in lines]
    assert counts == [0, 1, 2, 2, 3, 3] and all("nan" not in line for line in lines)
    assert ["l_bridge" in line for line in lines] == [True, False, False, True, False, True]

    def weights(iteration, key):
        return load_weights(here / f"experiments/tiny/models/net_g_{iteration}.pth", key)

    for key in ("params", "params_ema"):
        first, third, fourth = (weights(k, key) for k in (1, 3, 4))
        assert all(value.equal(third[name]) for name, value in first.items())
        assert not all(value.equal(fourth[name]) for name, value in first.items())


def test_too_many_skipped_steps_in_a_row_stop_the_run(here, monkeypatch, capfd):
    path = write(here, small(here, True))
    spoil(monkeypatch, owner_of(True), 1, 3, 4, 5, 6)
    words = ["train", "-opt", str(path), "--force_yml", "train:nonfinite=skip", "train:max_skipped=3"]
    assert cli.main(words) == 3
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert "training stopped at iteration 5, learning rate" in said and "after 2 skipped steps in a row" in said


def test_an_infinite_loss_poisons_the_gradient_of_every_parameter():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    target = torch.tensor([[math.inf], [0.0]])
    loss = nn.functional.l1_loss(net(torch.ones(2, 2)), target)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters()), "an L1 loss alone hides it"
    for p in net.parameters():
        p.grad = None
    nonfinite.poisoned(nn.functional.l1_loss(net(torch.ones(2, 2)), target)).backward()
    assert all(not torch.isfinite(p.grad).any() for p in net[2].parameters())
    good = nn.functional.l1_loss(net(torch.ones(2, 2)), torch.zeros(2, 1))
    assert nonfinite.poisoned(good).equal(good)


def train_with_a_bad_batch(words):
    """What each of two processes does: the second batch of the second one is infinite."""
    from basicsr_ext.models.restoration_model import RestorationModel

    feed, fed = RestorationModel.feed_data, []

    def feeding(self, data):
        fed.append(data)
        if os.environ["RANK"] == "1" and len(fed) == 2:
            data["gt"][0] = float("inf")
        feed(self, data)

    RestorationModel.feed_data = feeding
    return cli.main(words)


def test_a_bad_batch_of_one_process_is_skipped_by_all(here):
    path = write(here, small(here, True))
    words = ["train", "-opt", str(path), "--launcher", "pytorch", "--force_yml", "train:nonfinite=skip"]
    words += ["train:total_iter=3", "train:scheduler:periods=[3]"]
    done = apart(train_with_a_bad_batch, words, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    said = "Step 2 is skipped: the losses of this process are finite, but the gradient's norm, which all processes"
    assert said in done.stderr
    weights = load_weights(here / "experiments/tiny/models/net_g_latest.pth", "params")
    assert all(torch.isfinite(value).all() for value in weights.values())


class LateStep:
    """A step of a GPU that is read later."""

    def __init__(self, iteration, bad):
        self.iteration, self.bad, self.batch = iteration, bad, {}

    def is_bad(self):
        return self.bad

    def described(self):
        return nonfinite.BadStep(self.iteration, {"l": math.nan})


def test_a_gpu_is_read_two_steps_late_and_before_anything_is_kept(here):
    from types import SimpleNamespace

    opt = {"train": {}, "path": {"models": str(here)}}
    model = SimpleNamespace(opt=opt, device=torch.device("cuda"), optimizers=[])
    guard = nonfinite.Guard(model)
    assert guard.lag == 2 and not guard.refuses(LateStep(1, False)) and not guard.refuses(LateStep(2, True))
    assert not guard.refuses(LateStep(3, True))
    for _ in range(2):
        with pytest.raises(NonFiniteLoss, match=r"iteration 2,.*: l is nan"):
            guard.settle()
    guard = nonfinite.Guard(model)
    guard.refuses(LateStep(1, True)), guard.refuses(LateStep(2, True))
    with pytest.raises(NonFiniteLoss, match=r"iteration 1,"):
        guard.refuses(LateStep(3, True))
    opt["train"]["nonfinite"] = "skip"
    assert nonfinite.Guard(model).lag == 0


@pytest.mark.parametrize("largest", [4.9, 5.0, 5.0 + 5e-7, 5.1])  # above, at and below the norm, which is 5
def test_clipping_is_that_of_torch_whether_or_not_the_gradient_is_longer(largest):
    def parameter():
        parameter = nn.Parameter(torch.zeros(2))
        parameter.grad = torch.tensor([3.0, 4.0])
        return parameter

    found, wanted = parameter(), parameter()
    nonfinite.Step(1, {}, {}, {"net_g.a": found}).clip(largest)
    nn.utils.clip_grad_norm_([wanted], largest)
    assert found.grad.equal(wanted.grad)
