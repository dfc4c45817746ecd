"""The registered conditional diffusion: its loss, its walk from noise, its options."""

import copy

import pytest
import torch

from basicsr_ext import repairs

repairs.apply()

from basicsr.models import build_model  # noqa: E402

from basicsr_ext.common.errors import InputError  # noqa: E402
from i2sb_plugin import plugin  # noqa: E402
from i2sb_plugin.models.conditional_diffusion_model import ConditionalDiffusionModel  # noqa: E402

plugin.register()

OPT = {
    "name": "t",
    "model_type": "ConditionalDiffusionModel",
    "scale": 2,
    "num_gpu": 0,
    "dist": False,
    "rank": 0,
    "world_size": 1,
    "is_train": True,
    "manual_seed": 0,
    "network_g": {"type": "ADMUNet", "preset": "tiny", "channel_mult": [1, 1], "cond_channels": 3},
    "path": {},
    "train": {
        "total_iter": 10,
        "ema_decay": 0.9,
        "optim_g": {"type": "AdamW", "lr": 1e-3},
        "scheduler": {"type": "MultiStepLR", "milestones": [100], "gamma": 0.5},
    },
    "val": {"sampler": {"nfe": 3}},
    "logger": {},
}


def model(sampler=None, **diffusion):
    torch.manual_seed(0)
    opt = copy.deepcopy(OPT) | {"diffusion": {"steps": 100, **diffusion}}
    opt["val"]["sampler"] |= sampler or {}
    return build_model(opt)


def batch(size=2, masked=False):
    generator = torch.Generator().manual_seed(1)
    found = {"lq": torch.rand(size, 3, 8, 8, generator=generator), "lq_path": ["a.png"] * size}
    found["gt"] = torch.rand(size, 3, 16, 16, generator=generator)
    if masked:
        found["lq"] = torch.rand(size, 3, 16, 16, generator=generator)
        found["mask"] = torch.zeros(size, 1, 16, 16)
        found["mask"][..., 4:8, 4:10] = 1
    return found


class Seen(torch.nn.Module):
    """A network that remembers what it is given and predicts nothing."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, xt, t, cond):
        self.calls.append((xt.clone(), t.clone(), cond.clone()))
        return torch.zeros_like(xt)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


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
    net = model({"order": 2, "nfe": 5})
    torch.nn.init.normal_(net.net_g.out[2].weight, std=0.05)
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
        first.append(
            float(net._last_losses["l_bridge"]) if hasattr(net, "_last_losses") else net.get_current_log()["l_bridge"]
        )
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
        faults = ConditionalDiffusionModel.option_faults(copy.deepcopy(OPT) | block)
    except InputError as error:
        faults = [str(error)]
    assert any(message in fault for fault in faults), faults
