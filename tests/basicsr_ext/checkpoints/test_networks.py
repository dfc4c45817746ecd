import pytest
import torch
from torch import nn

from basicsr_ext.checkpoints.networks import check_fit
from basicsr_ext.common.errors import InputError

NET = nn.Linear(3, 2)


def fault(weights, strict=True):
    with pytest.raises(InputError) as caught:
        check_fit(weights, NET, "net.pth does not fit Linear", "give another file", strict)
    return str(caught.value)


def test_weights_that_fit_are_accepted_as_tensors_and_as_shapes():
    check_fit(NET.state_dict(), NET, "", "")
    check_fit({"weight": (2, 3), "bias": (2,)}, NET, "", "")
    check_fit({"weight": (2, 3), "bias": (2,)}, {"weight": (2, 3), "bias": (2,)}, "", "")


def test_what_does_not_fit_is_counted_and_named():
    said = fault({"weight": torch.ones(4, 3), "bias": torch.ones(2), "more": torch.ones(1), "text": "x"})
    assert said == (
        "net.pth does not fit Linear: 2 unknown: more, text; 1 of another shape: weight (4, 3) instead of (2, 3); "
        "give another file"
    )
    assert "1 missing: bias" in fault({"weight": torch.ones(2, 3)})


def test_one_tensor_is_enough_where_strictness_is_off_but_none_is_not():
    check_fit({"weight": torch.ones(2, 3), "more": torch.ones(1)}, NET, "", "", strict=False)
    for weights in ({}, {"netG.weight": torch.ones(2, 3)}, {"weight": torch.ones(5, 5)}):
        assert "not in a single tensor" in fault(weights, strict=False) and "missing" in fault({}, strict=False)
