import io

import pytest
import torch

from basicsr_ext import repairs
from basicsr_ext.checkpoints.storage import plain
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.registries import known_schedulers
from basicsr_ext.options.check import Findings, _scheduler

repairs.apply()

from basicsr.models.base_model import BaseModel  # noqa: E402

NEEDED = {
    "StepLR": {"step_size": 3, "gamma": 0.5},
    "MultiStepLR": {"milestones": [4], "gamma": 0.5},
    "MultiStepRestartLR": {"milestones": [4], "gamma": 0.5},
    "CosineAnnealingRestartLR": {"periods": [20], "restart_weights": [1], "eta_min": 1e-3},
    "ExponentialLR": {"gamma": 0.9},
    "CosineAnnealingLR": {"T_max": 20},
    "CosineAnnealingWarmRestarts": {"T_0": 4},
    "OneCycleLR": {"max_lr": 0.2, "total_steps": 20},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 4},
}


def model_with(name):
    model = BaseModel({"num_gpu": 0, "is_train": True, "dist": False, "path": {}})
    model.opt["train"] = {"scheduler": {"type": name, **NEEDED.get(name, {})}}
    model.optimizers = [torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)]
    model.setup_schedulers()
    return model


def rates(model, first, last):
    found = []
    for iteration in range(first, last + 1):
        model.update_learning_rate(iteration)
        found.append(model.get_current_learning_rate()[0])
        model.optimizers[0].step()
    return found


@pytest.mark.parametrize("name", known_schedulers())
def test_a_resumed_schedule_goes_on_as_an_unbroken_one(name):
    whole = rates(model_with(name), 1, 12)
    first, second = model_with(name), model_with(name)
    begun = rates(first, 1, 5)
    file = io.BytesIO()
    torch.save(plain([first.schedulers[0].state_dict(), first.optimizers[0].state_dict()]), file)
    file.seek(0)
    schedule, optimizer = torch.load(file, weights_only=True)
    second.optimizers[0].load_state_dict(optimizer)
    second.schedulers[0].load_state_dict(schedule)
    assert begun + rates(second, 6, 12) == whole
    assert len(set(whole)) > 1


def test_step_lr_falls_every_so_many_iterations():
    assert rates(model_with("StepLR"), 1, 7) == [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025]


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ({"type": "StepLR", "step_size": 1000, "gamma": 0.99}, None),
        ({"type": "CosineAnnealingLR", "T_max": 10}, None),
        ({"type": "StepLR", "gamma": 0.99}, "train.scheduler.step_size is missing: StepLR needs it; give it"),
        (
            {"type": "StepLR", "step_size": 1, "gama": 1},
            "train.scheduler.gama is not an option of StepLR",
        ),
        ({"type": "StepLr"}, "train.scheduler.type is 'StepLr', which is no scheduler; did you mean StepLR?"),
        ({"type": "ReduceLROnPlateau"}, "train.scheduler.type is 'ReduceLROnPlateau', which is no scheduler"),
    ],
)
def test_blocks_are_checked_against_the_schedule(block, fault):
    found = Findings()
    _scheduler(block, 100, None, found)
    assert len(found.faults) == (fault is not None)
    assert fault is None or found.faults[0].startswith(fault)


def test_a_schedule_that_needs_more_than_options_is_refused():
    with pytest.raises(InputError, match="no such scheduler"):
        model_with("LambdaLR")
