"""Channels of data and network: which go together, and what is said of others."""

import pytest
import torch

from i2sb_plugin.models.channels import channel_faults
from i2sb_plugin.plugin import register

register()


def faults(lq, gt, cond=0, cond_x1=False, **network):
    item = {"lq": torch.zeros(lq, 4, 4), "gt": torch.zeros(gt, 4, 4), "lq_path": "a.png"}
    if cond:
        item["cond"] = torch.zeros(cond, 4, 4)
    return channel_faults({"network_g": {"type": "ADMUNet", **network}}, item, cond_x1)


@pytest.mark.parametrize("lq", [1, 3, 4])
def test_lq_of_one_channel_or_more_goes_with_rgb(lq):
    assert faults(lq, 3) == []
    assert faults(lq, 3, cond_x1=True, cond_channels=lq) == []
    assert faults(lq, 3, cond=5, cond_x1=True, cond_channels=lq + 5) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lq": 1, "gt": 1}, "network_g.in_channels is 3, but the clean image of a.png has 1 channel(s); set"),
        ({"lq": 3, "gt": 3, "out_channels": 4}, "network_g.out_channels is 4"),
        ({"lq": 3, "gt": 4, "in_channels": 4, "out_channels": 4}, "a.png has 3 channels, its clean image 4; give it 1"),
        ({"lq": 1, "gt": 3, "cond_x1": True}, "cond_channels is 0, but beside xt the network sees 1 channel(s)"),
        ({"lq": 3, "gt": 3, "cond": 4, "cond_channels": 3}, "set network_g.cond_channels: 4"),
    ],
)
def test_channels_that_do_not_go_together_are_named(wrong, message):
    assert any(message in fault for fault in faults(**wrong))
