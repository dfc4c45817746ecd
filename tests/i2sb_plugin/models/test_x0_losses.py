"""Losses of the predicted x0: which samples they look at, what they weigh, and what they refuse."""

import pytest
import torch

from basicsr_ext.common.errors import InputError
from i2sb_plugin.models.i2sb_model import I2SBModel
from i2sb_plugin.models.perceptual_losses import DISTSLoss, LPIPSLoss
from i2sb_plugin.models.x0_losses import X0Losses
from tests.support import metric_weights
from tests.support.models import built, make_batch, model_options

AT_X1 = torch.tensor([True, False, True, False])
TIME = torch.tensor([1.0, 0.25, 1.0, 0.5])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(metric_weights.write(tmp_path_factory.mktemp("weights")))


def images(channels=3, size=40):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 4, channels, size, size, generator=generator).mul(2).sub(1).unbind(0)


@pytest.mark.parametrize("at", ["x1", "all", "rising"])
def test_each_place_weighs_the_samples_as_it_says(at):
    x0, gt = images()
    found = X0Losses({"pixel": {"type": "L1Loss", "loss_weight": 3.0, "at": at}})(x0, gt, AT_X1, TIME)
    each = 3 * ((x0 - gt) / 2).abs().flatten(1).mean(1)
    weight = {"x1": AT_X1.float(), "all": torch.ones(4), "rising": TIME}[at]
    assert float(found["l_pixel"]) == pytest.approx(float((each * weight).sum() / 4), rel=1e-6)


def test_a_batch_without_a_sample_at_x1_gives_zero_and_a_gradient():
    x0, gt = images()
    x0.requires_grad_()
    losses = X0Losses({"pixel": {"type": "L1Loss", "at": "x1"}})
    (0 * x0.sum() + losses(x0, gt, AT_X1 & False, TIME)["l_pixel"]).backward()
    assert torch.equal(x0.grad, torch.zeros_like(x0))


@pytest.mark.parametrize("loss", [LPIPSLoss, DISTSLoss])
def test_perceptual_losses_are_the_metrics_of_each_image(loss, weights):
    from basicsr_ext.metrics import Sample, build_metrics

    name = loss.__name__.removesuffix("Loss").lower()
    first, second = (image.add(1).mul(127.5).round().div(255)[:2] for image in images())
    found = loss(loss_weight=2.0, weights=weights).per_image(first, second)
    metric = build_metrics({name: {"type": name, "weights": weights}})[name]
    pixels = [[image.permute(1, 2, 0).flip(2).mul(255).round().byte().numpy() for image in some]
              for some in (first, second)]  # fmt: skip
    wanted = [metric.measure(Sample(0, "a", restored, gt)) for restored, gt in zip(*pixels)]
    assert found.tolist() == pytest.approx([2 * value for value in wanted], rel=1e-4)
    assert float(loss(weights=weights)(first, second)) == pytest.approx(sum(wanted) / 2, rel=1e-4)


@pytest.mark.parametrize("loss", [LPIPSLoss, DISTSLoss])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_perceptual_losses_have_gradients_for_any_channels_that_show_a_picture(loss, channels, weights):
    x0, gt = images(channels)
    x0.requires_grad_()
    loss(weights=weights).per_image(x0, gt).sum().backward()
    assert bool(x0.grad.isfinite().all()) and float(x0.grad.abs().max()) > 0


def test_two_channels_and_small_crops_are_refused(weights):
    with pytest.raises(InputError, match="LPIPSLoss.*2 channels"):
        LPIPSLoss(weights=weights)(*images(2))
    with pytest.raises(InputError, match="LPIPSLoss.*30 x 30.*31.*gt_size"):
        LPIPSLoss(weights=weights)(*images(size=30))
    assert LPIPSLoss(weights=weights)(*images(size=31)).isfinite()


def test_an_unknown_trunk_is_refused(weights):
    with pytest.raises(InputError, match="'alx'.*alex"):
        LPIPSLoss(net="alx", weights=weights)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"lpips": {"type": "LPIPSLoss", "at": "x2"}}, ["train.x0_losses.lpips.at", "'x2'", "x1"]),
        ({"lpips": {"type": "LPIPSLos"}}, ["train.x0_losses.lpips.type", "LPIPSLos", "LPIPSLoss"]),
        ({"lpips": {"type": "LPIPSLoss", "los_weight": 2}}, ["train.x0_losses.lpips.los_weight", "loss_weight"]),
        ({"lpips": 2}, ["train.x0_losses.lpips", "2", "block"]),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_start(block, words):
    (fault,) = I2SBModel.option_faults(model_options("I2SBModel", train__x0_losses=block))
    assert all(word in fault for word in words)


def test_missing_weights_are_told_before_the_start(monkeypatch, tmp_path):
    block = {"type": "LPIPSLoss", "weights": str(tmp_path / "none")}
    opt = model_options("I2SBModel", train__x0_losses={"lpips": block})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    opt["datasets"] = {"train": {"gt_size": 64}}
    (fault,) = I2SBModel.data_faults(opt, {"gt": torch.zeros(3, 64, 64), "lq": torch.zeros(3, 32, 32)})
    assert all(word in fault for word in ("train.x0_losses.lpips", "alexnet-owt-7be5be79.pth", "pip install --no-deps"))


@pytest.mark.parametrize("predicts", ["eps", "x0", "preconditioned"])
def test_the_loss_of_a_step_is_that_of_the_predicted_x0(predicts):
    more = {"bridge__residual_variance": 0.1} if predicts == "preconditioned" else {}
    net = built("I2SBModel", bridge__predicts=predicts, bridge__cond_x1=True, bridge__x1_share=1.0,
                network_g__cond_channels=3, train__x0_losses={"pixel": {"type": "L1Loss"}}, **more)  # fmt: skip
    net.feed_data(make_batch())
    losses = net.training_loss(net.batch)
    x1 = (net.start(net.batch)[0] + 1) / 2
    wanted = net.batch["gt"].abs() if predicts == "x0" else (x1 - net.batch["gt"]).abs()
    expected = {"x0": (0.5 - net.batch["gt"]).abs()}.get(predicts, wanted)  # an untrained network predicts 0
    assert float(losses["l_pixel"].detach()) == pytest.approx(float(expected.mean()), rel=1e-5)


def test_a_perceptual_loss_looks_from_places_that_differ_at_the_same_part_of_both(weights):
    x0, gt = images(size=43)
    losses = X0Losses({"lpips": {"type": "LPIPSLoss", "weights": weights}})
    shift = torch.tensor([[0.0, 0.0], [0.3, 0.99], [0.5, 0.5], [0.76, 0.24]])
    found = losses(x0, gt, AT_X1, TIME, shift=shift)["l_lpips"]
    starts = [(0, 0), (1, 3), (2, 2), (3, 0)]
    parts = [
        [image[k : k + 1, :, top : top + 40, left : left + 40].add(1).div(2) for image in (x0, gt)]
        for k, (top, left) in enumerate(starts)
    ]
    wanted = [float(losses["lpips"].per_image(*part).detach()) for part in parts]
    assert float(found.detach()) == pytest.approx(sum(wanted) / 4, rel=1e-5)
    small = [image[..., :33, :33] for image in (x0, gt)]
    plain = losses(*small, AT_X1, TIME)["l_lpips"]
    assert torch.equal(losses(*small, AT_X1, TIME, shift=shift)["l_lpips"], plain), "too few pixels would be left"
