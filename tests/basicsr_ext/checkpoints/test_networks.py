import re

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


def test_weights_behind_a_prefix_get_the_names_of_the_network():
    own = NET.state_dict()
    for prefix in ("model.", "net.", "netG.", "generator."):
        foreign = {f"{prefix}{name}": value for name, value in own.items()} | {"discriminator.weight": torch.ones(1)}
        assert check_fit(foreign, NET, "", "") == own
    zeros = {f"generator.{name}": torch.zeros_like(value) for name, value in own.items()}
    average = {f"generator_ema.{name}": value for name, value in own.items()}
    assert check_fit(zeros | average, NET, "", "") == own
    two = {f"net_{which}.{name}": value for which in "gd" for name, value in own.items()}
    for strict in (True, False):
        assert "it holds 2 networks that do: net_g, net_d; save the one that is meant alone" in fault(two, strict)


@pytest.mark.parametrize("layout", ["first", "second"])
def test_earlier_layouts_of_esrgan_load(layout):
    from basicsr.archs.rrdbnet_arch import RRDBNet

    network = RRDBNet(3, 3, num_feat=4, num_block=2, num_grow_ch=2)
    block = r"RRDB_trunk.\1.RDB\2.conv\3" if layout == "second" else r"model.1.sub.\1.RDB\2.conv\3.0"
    first = {"conv_first": "model.0", "conv_body": "model.1.sub.2", "conv_up1": "model.3", "conv_up2": "model.6"}
    first |= {"conv_hr": "model.8", "conv_last": "model.10"}
    second = {"conv_body": "trunk_conv", "conv_up1": "upconv1", "conv_up2": "upconv2", "conv_hr": "HRconv"}
    names = first if layout == "first" else second
    old = {}
    for name, value in network.state_dict().items():
        part, kind = re.sub(r"body\.(\d)\.rdb(\d)\.conv(\d)", block, name).rsplit(".", 1)
        old[f"{names.get(part, part)}.{kind}"] = value
    assert old.keys() != network.state_dict().keys()
    found = check_fit(old, network, "", "")
    assert all(found[name] is value for name, value in old.items() if name in found)
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


def test_whole_numbers_are_no_weights_of_a_network_of_floats():
    said = fault({"weight": torch.ones(2, 3, dtype=torch.int8), "bias": torch.ones(2)})
    assert "1 of another shape: weight of torch.int8" in said
