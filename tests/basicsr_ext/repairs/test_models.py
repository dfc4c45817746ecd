import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError, NonFiniteLoss
from tests.support.basicsr_runs import model_of, options

repairs.apply()

from basicsr.models.base_model import BaseModel  # noqa: E402


def bare(**opt):
    model = BaseModel({"num_gpu": 0, "is_train": True, "dist": False, "path": {}, **opt})
    return model


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    meet = tmp_path_factory.mktemp("group") / "meet"
    torch.distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_trained_network_is_wrapped_on_the_cpu(group):
    net = bare(dist=True).model_to_device(nn.Linear(2, 2))
    assert isinstance(net, DistributedDataParallel) and net.device_ids is None
    net(torch.ones(1, 2)).sum().backward()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fault needs a machine without a GPU")
def test_the_unrepaired_wrapping_asks_for_cuda(group):
    with pytest.raises((RuntimeError, AssertionError)):
        BaseModel.model_to_device.unrepaired(bare(dist=True), nn.Linear(2, 2))


def test_what_is_not_trained_stays_bare(group):
    assert type(bare(dist=True).model_to_device(nn.Upsample(scale_factor=2))) is nn.Upsample
    assert type(bare(dist=True, is_train=False).model_to_device(nn.Linear(2, 2))) is nn.Linear
    assert type(bare().model_to_device(nn.Linear(2, 2))) is nn.Linear


class Validated(BaseModel):
    def nondist_validation(self, *args):
        self.seen = type(self.net_g)
        self.drawn = random.random(), np.random.random(), torch.rand(1).item()

    dist_validation = nondist_validation


@pytest.mark.parametrize("dist", [True, False])
def test_validation_runs_on_bare_networks_and_wraps_them_again(group, dist):
    model = Validated({"num_gpu": 0, "is_train": True, "dist": dist})
    model.net_g = DistributedDataParallel(nn.Linear(2, 2)) if dist else DataParallel(nn.Linear(2, 2))
    wrapped = model.net_g
    model.validation(None, 1, None)
    assert model.seen is nn.Linear and model.net_g is wrapped
    BaseModel.validation.unrepaired(model, None, 1, None)
    assert model.seen is type(wrapped)


def test_validation_leaves_the_random_streams_of_training_alone():
    def after(validate):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        model = Validated({"num_gpu": 0, "is_train": True, "dist": False})
        model.net_g = nn.Linear(1, 1)
        torch.manual_seed(1)
        if validate:
            model.validation(None, 1, None)
        return random.random(), np.random.random(), torch.rand(1).item()

    assert after(validate=True) == after(validate=False)


def test_losses_are_averaged_to_numbers():
    losses = {"l_a": torch.tensor([1.0, 3.0]), "l_b": torch.tensor(0.5, dtype=torch.bfloat16)}
    assert dict(bare().reduce_loss_dict(losses)) == {"l_a": 2.0, "l_b": 0.5}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_training(tmp_path, value):
    model = model_of(options(tmp_path))
    model.save(0, 40)
    model.update_learning_rate(41)
    losses = {"l_pix": torch.tensor(0.1), "l_bad": torch.tensor(value)}
    assert "l_bad" in BaseModel.reduce_loss_dict.unrepaired(model, losses)
    with pytest.raises(NonFiniteLoss) as caught:
        model.reduce_loss_dict(losses)
    text = str(caught.value)
    assert "iteration 41" in text and "1.000e-03" in text and "net_g_40.pth" in text
    assert f"l_bad is {value}" in text and "l_pix" not in text


def test_any_optimiser_of_torch_is_taken():
    weights = [nn.Parameter(torch.ones(2))]
    for name in ("Adam", "AdamW", "SGD", "RMSprop", "NAdam"):
        made = bare().get_optimizer(name, weights, 0.25)
        assert type(made) is getattr(torch.optim, name) and made.param_groups[0]["lr"] == 0.25
    assert bare().get_optimizer("AdamW", weights, 0.1, betas=(0.5, 0.6)).defaults["betas"] == (0.5, 0.6)
    with pytest.raises(InputError, match=r"'AdamX'.* Adam"):
        bare().get_optimizer("AdamX", weights, 0.1)
    with pytest.raises(InputError, match=r"AdamW cannot be built .*momentun"):
        bare().get_optimizer("AdamW", weights, 0.1, momentun=1)
    with pytest.raises(NotImplementedError):
        BaseModel.get_optimizer.unrepaired(bare(), "NAdam", weights, 0.1)


def with_scheduler(**scheduler):
    model = bare(train={"scheduler": scheduler})
    model.optimizers = [torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)]
    return model


def test_schedulers_are_made_twice_from_one_option_block():
    model = with_scheduler(type="MultiStepLR", milestones=[2], gamma=0.5)
    model.setup_schedulers()
    model.setup_schedulers()
    assert len(model.schedulers) == 2 and model.opt["train"]["scheduler"]["type"] == "MultiStepLR"
    BaseModel.setup_schedulers.unrepaired(model)
    with pytest.raises(KeyError):
        BaseModel.setup_schedulers.unrepaired(model)


def test_wrong_schedulers_are_refused():
    with pytest.raises(InputError, match=r"'MultiStep'.* MultiStepLR"):
        with_scheduler(type="MultiStep").setup_schedulers()
    with pytest.raises(InputError, match=r"scheduler.type is None"):
        with_scheduler(milestones=[1]).setup_schedulers()
    with pytest.raises(InputError, match=r"train.scheduler: .*mile"):
        with_scheduler(type="MultiStepLR", mile=[1]).setup_schedulers()


def averaged():
    model = bare()
    model.net_g = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.net_g_ema = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.net_g(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)) * 3)
    return model


def test_the_average_follows_parameters_and_buffers():
    model = averaged()
    before, weights = model.net_g_ema[0].weight.detach().clone(), model.net_g[0].weight.detach()
    model.model_ema(0.75)
    torch.testing.assert_close(model.net_g_ema[0].weight.detach(), 0.75 * before + 0.25 * weights)
    assert model.net_g_ema[1].running_var.equal(model.net_g[1].running_var)
    assert model.net_g_ema[1].num_batches_tracked == 1
    model.model_ema(0)
    assert model.net_g_ema[0].weight.equal(model.net_g[0].weight)


def test_the_unrepaired_average_forgets_buffers():
    model = averaged()
    BaseModel.model_ema.unrepaired(model, 0)
    assert model.net_g_ema[1].running_var.equal(torch.ones(2))


@pytest.mark.parametrize("better, values", [("higher", [1, 3, 3, 2]), ("lower", [3, 1, 1, 2])])
def test_the_first_of_equal_best_values_is_kept(better, values):
    model = bare(val={"metrics": {"m": {"better": better}}})
    model._initialize_best_metric_results("set")
    for iteration, value in enumerate(values):
        model._update_best_metric_result("set", "m", np.float64(value), iteration)
    for value in (np.inf, -np.inf, np.nan):
        model._update_best_metric_result("set", "m", value, 9)
    best = model.best_metric_results["set"]["m"]
    assert best["iter"] == 1 and type(best["val"]) is float
    BaseModel._update_best_metric_result.unrepaired(model, "set", "m", best["val"], 9)
    assert best["iter"] == 9
