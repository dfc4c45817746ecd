"""On a GPU that has shapes but no values nothing lies on the wrong device, and no step or walk waits for the host."""

import copy

import pytest
import torch
from torch import nn

from basicsr_ext import repairs

repairs.apply()

from basicsr.models import build_model  # noqa: E402

from basicsr_ext.restoring.tiling import TiledNetwork  # noqa: E402
from i2sb_plugin import bridge, plugin, samplers  # noqa: E402
from i2sb_plugin.degradations.base import Operator  # noqa: E402
from tests.support.degradation_examples import NAMES, build, example  # noqa: E402
from tests.support.fake_gpu import WAITED, backward_of_zeros, fake_gpu  # noqa: E402

plugin.register()

GPU = torch.device("cuda")
TRAIN = {
    "total_iter": 10,
    "ema_decay": 0.9,
    "compile": False,
    "channels_last": False,
    "grad_clip": 1.0,
    "optim_g": {"type": "AdamW", "lr": 1e-3},
    "scheduler": {"type": "MultiStepLR", "milestones": [100], "gamma": 0.5},
}
NETWORK = {"type": "ADMUNet", "preset": "tiny", "channel_mult": [1, 1], "attention_ds": [2], "num_res_blocks": 1,
           "num_head_channels": 16}  # fmt: skip
CONDITIONAL = {**NETWORK, "cond_channels": 3}
OPT = {
    "name": "t",
    "model_type": "I2SBModel",
    "scale": 1,
    "num_gpu": 1,
    "dist": False,
    "rank": 0,
    "world_size": 1,
    "is_train": True,
    "manual_seed": 0,
    "network_g": NETWORK,
    "path": {},
    "train": TRAIN,
    "val": {"sampler": {"nfe": 3}},
    "logger": {},
}
MODELS = {
    "I2SBModel": {"bridge": {"steps": 100, "x1_share": 0.25}},
    "I2SBModel on the released grid": {"bridge": {"steps": 100, "schedule": "released", "add_x1_noise": True}},
    "I2SBModel, noise-free, x0": {"bridge": {"steps": 100, "ot_ode": True, "predicts": "x0"}},
    "I2SBModel that sees x1": {"bridge": {"steps": 100, "cond_x1": True}, "network_g": CONDITIONAL},
    "ConditionalDiffusionModel": {"diffusion": {"steps": 100}, "network_g": CONDITIONAL},
    "RegressionModel": {"regression": {}, "val": {}},
    "RestorationModel": {
        "network_g": {"type": "MSRResNet", "num_feat": 4, "num_block": 1, "upscale": 4},
        "train": {**TRAIN, "pixel_opt": {"type": "L1Loss"}},
        "val": {},
        "scale": 4,
    },
}


WALKS = [{"type": name} for name in samplers.SAMPLERS]
WALKS += [{"type": "dbim", "order": 2}, {"type": "dbim", "order": 3}, {"type": "dbim", "eta": 0.5}, {"draws": 2}]


@pytest.fixture
def gpu():
    with fake_gpu():
        yield


def model(name="I2SBModel", **changes):
    return build_model(copy.deepcopy(OPT | {"model_type": name.split()[0].rstrip(",")} | MODELS[name] | changes))


def batch(scale=1, mask=False):
    images = torch.rand(2, 3, 48, 96)
    found = {"gt": images, "lq": images[..., ::scale, ::scale], "lq_path": ["a", "b"]}
    return found | ({"mask": (images[:, :1] > 0.5).float()} if mask else {})


def train(made, data, iterations=2):
    made.feed_data(data)
    with backward_of_zeros(made.net_g.parameters()):
        for iteration in range(1, iterations + 1):
            made.optimize_parameters(iteration)


def generators():
    return [torch.Generator().manual_seed(k) for k in range(2)]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_and_a_restoration_stay_on_the_gpu(gpu, name, precision):
    made = model(name, train={**MODELS[name].get("train", TRAIN), "precision": precision})
    seen = set()
    convolution = next(m for m in made.net_g.modules() if isinstance(m, nn.Conv2d))
    convolution.register_forward_hook(lambda *args: seen.add((args[2].device.type, args[2].dtype)))
    train(made, batch(made.opt["scale"]))
    half = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert seen == {("cuda", half)}
    made.test()
    assert made.output.device.type == "cuda" and made.output.dtype == torch.float32


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("weighting", ["uniform", "sigma2"])
def test_masks_weightings_and_parts_of_a_batch_do_not_wait(gpu, weighting, accumulate):
    loss = {"type": "BridgeLoss", "weighting": weighting, "per_hole": True}
    train(model(train={**TRAIN, "bridge_opt": loss, "accumulate": accumulate}), batch(mask=True))


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("sampler", WALKS, ids=str)
def test_no_walk_waits(gpu, sampler, mask):
    sampler = {"nfe": 1 if sampler.get("type") == "one_step" else 4} | sampler
    made = model(is_train=False, val={"sampler": sampler})
    made.feed_data(batch(mask=mask))
    made.test()
    assert made.output.device.type == "cuda"


@pytest.mark.parametrize("name", [n for n in NAMES if isinstance(build(n), Operator)])
def test_consistency_does_not_wait(gpu, name):
    consistency = {"degradation": example(name)}
    scale = 4 if name.startswith("sr4x") else 1
    made = model(is_train=False, scale=scale, val={"sampler": {"nfe": 1, "consistency": consistency}})
    made.feed_data(batch(scale, mask=name.startswith("inpaint")))
    made.test()


def test_tiles_do_not_wait(gpu):
    made = model(is_train=False, val={"sampler": {"nfe": 2}})
    made.feed_data(batch())
    with torch.no_grad():
        found = made.restore(made.batch, TiledNetwork(made.net_g, 32, 8), generators())
    assert found.device.type == "cuda"


def test_what_waits_or_lies_elsewhere_is_found(gpu, monkeypatch):
    made = model()
    train(made, batch())
    losses = made.training_loss(made.batch | {"generators": generators()})
    with pytest.raises(WAITED):
        float(losses["l_bridge"].detach())
    with pytest.raises(WAITED):
        made.get_current_log()
    monkeypatch.setattr(bridge, "sent", lambda values, device: values)
    with pytest.raises(RuntimeError, match="device"):
        made.training_loss(made.batch)
