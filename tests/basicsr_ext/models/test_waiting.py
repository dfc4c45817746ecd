"""A step and a walk queue their work on a GPU and wait for nothing but what they are asked to read."""

import pytest
import torch

from i2sb_plugin.bridge import sent
from i2sb_plugin.models.i2sb_model import I2SBModel
from tests.support.cli_runs import bridge_options

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: nothing waits for a CPU")


@pytest.fixture
def forbidden():
    """Waiting for the GPU is an error."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


def test_on_a_cpu_values_are_what_they_were():
    values = torch.arange(3.0)
    assert sent(values, torch.device("cpu")) is values


@GPU
@pytest.mark.parametrize("weighting", ["uniform", "sigma2"])
def test_a_training_step_and_a_walk_do_not_wait(tmp_path, forbidden, weighting):
    opt = bridge_options(tmp_path) | {"dist": False, "is_train": True, "num_gpu": 1, "rank": 0, "world_size": 1}
    opt["train"] |= {"compile": False, "grad_clip": 1.0, "bridge_opt": {"type": "BridgeLoss", "weighting": weighting}}
    model = I2SBModel(opt)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = {"gt": images, "lq": images[..., ::2, ::2].contiguous(), "lq_path": ["a", "b"]}
    model.feed_data({key: v.pin_memory() if torch.is_tensor(v) else v for key, v in batch.items()})
    for iteration in (1, 2, 3):
        if iteration == 2:  # the first makes the optimiser's state
            forbidden()
        model.optimize_parameters(iteration)
    generators = [torch.Generator().manual_seed(k) for k in range(2)]
    with torch.no_grad(), model.evaluating() as net:
        model.restore(model.batch, net, generators)
