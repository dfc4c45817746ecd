"""The registered conditional diffusion: its loss, its walk from noise, its options."""

import pytest
import torch

from basicsr_ext.common.errors import InputError
from i2sb_plugin.models.conditional_diffusion_model import ConditionalDiffusionModel
from tests.support.models import built, generators, model_options, predicting
from tests.support.models import make_batch as batch

MODEL = {"model_type": "ConditionalDiffusionModel", "network_g__cond_channels": 3}


def model(sampler=None, **diffusion):
    return built(**MODEL, diffusion={"steps": 100, **diffusion}, val__sampler={"nfe": 3, **(sampler or {})})


class Seen(torch.nn.Module):
    """A network that remembers what it is given and predicts nothing."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, xt, t, cond):
        self.calls.append((xt.clone(), t.clone(), cond.clone()))
        return torch.zeros_like(xt)


@pytest.mark.parametrize("predicts", ["v", "eps", "x0"])
def test_an_untrained_network_has_the_loss_of_predicting_zero(predicts):
    net = model(predicts=predicts)
    with torch.no_grad():
        losses = [float(net.training_loss(batch(8))["l_bridge"]) for _ in range(30)]
    x0 = batch(8)["gt"] * 2 - 1
    wanted = {"x0": x0.square().mean(), "eps": 1.0, "v": (1 + x0.square().mean()) / 2}[predicts]
    assert sum(losses) / 30 == pytest.approx(float(wanted), rel=0.25 if predicts == "v" else 0.05)


def test_it_starts_at_noise_and_sees_the_degraded_image():
    net, seen = model(), Seen()
    net.restore(batch(), seen, generators(5, 6))
    (start, t, cond), *rest = seen.calls
    assert len(seen.calls) == 3 and t.tolist() == [1000, 1000]
    assert torch.equal(start, torch.stack([torch.randn(3, 16, 16, generator=g) for g in generators(5, 6)]))
    assert all(torch.equal(cond, other) for _, _, other in rest)
    assert torch.equal(cond, net.start(batch(), generators(5, 6))[1])
    assert float((cond[..., ::2, ::2] - (batch()["lq"] * 2 - 1)).abs().mean()) < 0.5  # it is the image, enlarged


def test_an_image_is_restored_alike_alone_and_in_a_batch():
    net = predicting(model({"order": 2, "nfe": 5}))
    both = net.restore(batch(), net.net_g, generators(5, 6))
    alone = net.restore({k: v[1:] for k, v in batch().items()}, net.net_g, generators(6))
    assert torch.allclose(both[1:], alone, rtol=0, atol=1e-6)
    assert not torch.allclose(both[:1], alone, rtol=0, atol=0.01)


def test_what_is_known_stays_and_the_hole_is_filled():
    net = model()
    net.scale, given = 1, batch(masked=True)
    found = net.restore(given, Seen(), generators(1, 2))
    known = given["mask"].expand_as(found) == 0
    assert torch.allclose(found[known], given["lq"][known], rtol=0, atol=1e-6)


def test_it_learns():
    net = model()
    net.optimizer_g.param_groups[0]["lr"] = 3e-3
    first = []
    for k in range(1, 41):
        net.feed_data(batch(4))
        net.optimize_parameters(k)
        first.append(net.get_current_log()["l_bridge"])
    assert sum(first[-8:]) < 0.8 * sum(first[:8])


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"diffusion": {"steps": 0}}, "diffusion.steps is 0"),
        ({"diffusion": {"predicts": "mean"}}, "predicts"),
        ({"val": {"sampler": {"type": "ancestral"}}}, "a diffusion has one walk, dbim"),
        ({"val": {"sampler": {"nfe": 5000}}}, "nfe is 5000; this bridge allows 1 to 1000"),
    ],
)
def test_wrong_options_are_named(block, message):
    try:
        faults = ConditionalDiffusionModel.option_faults(model_options(**MODEL, val__sampler={"nfe": 3}) | block)
    except InputError as error:
        faults = [str(error)]
    assert any(message in fault for fault in faults), faults
