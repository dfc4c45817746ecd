"""Degradations against recorded outputs of the authors' release."""

import pytest
import torch

from i2sb_plugin.degradations import build_degradation
from tests.golden import golden


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize(("kind", "tolerance"), [("pool", 1e-6), ("bicubic", 2e-5)])
def test_reduction_equals_the_release(kind, tolerance, size):
    recorded = golden(f"corrupt_sr4x-{kind}_{size}")
    clean, expected = (torch.from_numpy(recorded[key]) for key in ("img", "out"))
    lq = build_degradation({"type": f"sr4x_{kind}", "scale": 4})(clean).lq
    enlarged = lq.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)  # the release stores it enlarged
    assert (enlarged - expected).abs().max() <= tolerance


def test_the_two_reductions_are_told_apart():
    """The tolerances above mean something: the other reduction is far outside."""
    recorded = golden("corrupt_sr4x-bicubic_64")
    lq = build_degradation({"type": "sr4x_pool", "scale": 4})(torch.from_numpy(recorded["img"])).lq
    enlarged = lq.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)
    assert (enlarged - torch.from_numpy(recorded["out"])).abs().max() > 0.1
