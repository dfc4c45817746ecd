"""A bridge with a dial: what training draws and weighs, what restoring sets, and what is refused."""

import cv2
import numpy as np
import pytest
import torch

from basicsr_ext import cli
from basicsr_ext.benchmark.run.methods import MethodOptions, expand
from basicsr_ext.common.errors import InputError
from i2sb_plugin import Restorer
from i2sb_plugin.models.i2sb_model import I2SBModel
from tests.support.cli_runs import bridge_options, run, write
from tests.support.models import built, generators, make_batch, model_options

LOSSES = {"pixel": {"type": "L1Loss", "at": "all"}}
DIAL = {
    "bridge__dial": True, "bridge__cond_x1": True, "network_g__cond_channels": 4, "train__x0_losses": LOSSES,
}  # fmt: skip


def seen_by(net, function):
    """What the network's condition held in the calls of ``function``."""
    conditions = []
    hooks = [
        network.register_forward_pre_hook(lambda _, inputs: conditions.append(inputs[2]))
        for network in (net.net_g, getattr(net, "net_g_ema", None))
        if network is not None
    ]
    result = function()
    for hook in hooks:
        hook.remove()
    return conditions, result


def test_training_draws_each_sample_anew_and_one_in_five_at_an_end():
    net = built("I2SBModel", **DIAL)
    drawn = net._sample_dial(4000, generators(*range(4000)))
    assert float(drawn.min()) == 0 and float(drawn.max()) == 1
    ends = ((drawn == 0) | (drawn == 1)).float().mean()
    assert float(ends) == pytest.approx(0.2, abs=0.02) and float(drawn.mean()) == pytest.approx(0.5, abs=0.02)
    assert torch.equal(drawn[:3], net._sample_dial(3, generators(0, 1, 2))), "follows from the sample, not the batch"
    assert torch.equal(
        net._sample_step(3, generators(0, 1, 2)), built("I2SBModel")._sample_step(3, generators(0, 1, 2))
    )


def test_the_network_sees_the_dial_behind_x1_and_the_losses_weigh_by_its_square():
    net = built("I2SBModel", **DIAL, bridge__x1_share=1.0, bridge__predicts="x0")
    net.feed_data(make_batch(4))
    batch = net.batch | {"generators": generators(1, 2, 3, 4)}
    (cond,), losses = seen_by(net, lambda: net.training_loss(batch))
    dial = net._sample_dial(4, generators(1, 2, 3, 4))
    assert torch.equal(cond[:, 3], (2 * dial - 1)[:, None, None].expand_as(cond[:, 3]))
    assert torch.equal(cond[:, :3], net.ends(net.batch)[0])
    each = net.batch["gt"].sub(0.5).abs().flatten(1).mean(1)  # an untrained network predicts 0, mid-grey
    assert float(losses["l_pixel"].detach()) == pytest.approx(float((each * (1 - dial) ** 2).mean()), rel=1e-5)


def test_the_condition_begins_with_x1_and_shares_its_memory():
    net = built("I2SBModel", **DIAL)
    net.feed_data(make_batch(2))
    x1, cond = net.ends(net.batch, dial=torch.tensor([0.0, 1.0]))
    assert torch.equal(cond[:, :3], x1) and x1.data_ptr() == cond.data_ptr()
    assert cond[:, 3].flatten(1).tolist() == [[-1.0] * cond[0, 3].numel(), [1.0] * cond[0, 3].numel()]


@pytest.mark.parametrize(("given", "stands"), [(None, 0.5), (0.0, 0.0), (0.25, 0.25), (1, 1.0)])
def test_restoring_sets_it_at_every_evaluation(given, stands):
    sampler = {"nfe": 3} if given is None else {"nfe": 3, "dial": given}
    net = built("I2SBModel", **DIAL, val__sampler=sampler)
    net.feed_data(make_batch(2))
    conditions, _ = seen_by(net, net.test)
    assert len(conditions) == 3
    assert all(torch.equal(cond[:, 3], torch.full_like(cond[:, 3], 2 * stands - 1)) for cond in conditions)


def test_a_network_that_sees_xt_alone_can_have_one():
    net = built("I2SBModel", **DIAL | {"bridge__cond_x1": False, "network_g__cond_channels": 1})
    net.feed_data(make_batch(2))
    (cond,), _ = seen_by(net, lambda: net.training_loss(net.batch))
    assert cond.shape[1] == 1 and not net.takes_cond


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"val__sampler": {"nfe": 1, "dial": 1.1}}, r"dial is 1\.1; it must be a number from 0 \(realism\) to 1"),
        ({"val__sampler": {"nfe": 1, "dial": float("nan")}}, "dial is nan"),
        (
            {"bridge__dial": False, "val__sampler": {"nfe": 1, "dial": 0.5}},
            r"val\.sampler\.dial.*bridge\.dial is false",
        ),
        ({"train__x0_losses": None}, r"bridge\.dial is true.*x0_losses"),
    ],
)
def test_a_dial_out_of_range_missing_or_without_effect_is_refused(changes, words):
    options = model_options("I2SBModel", **DIAL | changes)
    with pytest.raises(InputError, match=words):
        if faults := I2SBModel.option_faults(options):
            raise InputError(faults[0])


def test_check_counts_its_channel_and_restore_has_the_slider(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    opt = bridge_options(tmp_path)
    opt["bridge"] |= {"cond_x1": True, "dial": True, "predicts": "x0"}
    opt["network_g"] |= {"cond_channels": 3, "channel_mult": [1], "attention_ds": []}
    opt["train"] |= {"x0_losses": LOSSES, "total_iter": 30}
    opt["train"]["scheduler"]["periods"] = [30]
    code, _, said = run(capsys, "check", "-opt", write(tmp_path, opt))
    assert code == 2 and "set network_g.cond_channels: 4" in said
    opt["network_g"]["cond_channels"] = 4
    assert cli.main(["train", "-opt", str(write(tmp_path, opt))]) == 0
    saved = next((tmp_path / "experiments").glob("*/models/net_g_latest.pth"))
    cv2.imwrite("a.png", np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8))
    restored = {}
    for dial in (0, 1):
        words = ["restore", "-i", "a.png", "-o", f"{dial}.png", "--checkpoint", str(saved), "--nfe", "1"]
        assert cli.main([*words, "--dial", str(dial)]) == 0
        restored[dial] = cv2.imread(f"{dial}.png")
    assert not np.array_equal(restored[0], restored[1])
    image = Restorer.load(saved, device="cpu")("a.png", nfe=1, dial=1)
    assert np.array_equal(image, restored[1][..., ::-1])
    options = MethodOptions(weights=str(saved), flags={"dial": [0, 1], "nfe": 1})
    faults = []
    assert [one.along for one in expand("bridge", options, 1, tmp_path, faults)] == [0, 1] and not faults
