"""Theorems of the preconditioned target, in float64."""

import pytest
import torch

from i2sb_plugin import samplers
from i2sb_plugin.bridge import Bridge
from i2sb_plugin.diffusion import Diffusion
from i2sb_plugin.preconditioning import Preconditioning

VARIANCE = 0.006
BRIDGE = Bridge.one_clock(100, 0.3)
CASES = {
    "bridge": (BRIDGE, Preconditioning.of_bridge(BRIDGE, VARIANCE), 0.0),
    "bridge with a noisy start": (BRIDGE, Preconditioning.of_bridge(BRIDGE, VARIANCE, 0.1), 0.1),
    "diffusion": (d := Diffusion.variance_preserving(100), Preconditioning.of_diffusion(d, VARIANCE), 0.0),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    return request.param


def gaussian(count):
    """x0 and x1, whose difference is N(0, VARIANCE)."""
    generator = torch.Generator().manual_seed(0)
    x1 = torch.rand(count, 1, 64, 64, generator=generator, dtype=torch.float64) * 2 - 1
    return x1 + VARIANCE**0.5 * torch.randn(x1.shape, generator=generator, dtype=torch.float64), x1


def test_input_and_target_have_unit_variance_at_every_node(case):
    path, scales, noise = case
    b, c, v = scales.weight_x0[1:], scales.noise_std[1:], VARIANCE
    c_in, c_skip, c_out = scales.c_in[1:], scales.c_skip[1:], scales.c_out[1:]
    seen = c_in.square() * (b.square() * v + c.square())
    target = ((1 - c_skip * b).square() * v + (c_skip * c).square()) / c_out.square()
    last = torch.zeros_like(seen) if isinstance(path, Bridge) and not noise else torch.ones_like(seen)
    last[:-1] = 1  # at x1 there is nothing to see but the condition, unless the start has noise
    assert torch.allclose(seen, last, rtol=0, atol=1e-12)
    assert torch.allclose(target, torch.ones_like(target), rtol=0, atol=1e-9)


def test_drawn_inputs_and_targets_have_unit_variance(case):
    path, scales, noise = case
    x0, x1 = gaussian(8)
    generator = torch.Generator().manual_seed(1)
    for node in (1, 10, 50, 99, 100):
        step = torch.full((8,), node)
        start = x1 + noise * torch.randn(x1.shape, generator=generator, dtype=torch.float64)
        xt = path.sample_xt(x0, start, step, generator)
        seen, target = scales.network_input(xt, x1, step), scales.target(xt, x0, x1, step)
        nothing = node == 100 and isinstance(path, Bridge) and not noise
        assert float(seen.square().mean()) == pytest.approx(0 if nothing else 1, abs=0.03)
        assert float(target.square().mean()) == pytest.approx(1, abs=0.03)
        assert abs(float((seen * target).mean())) < 0.03  # the best linear guess is taken out


def test_target_and_its_inverse_cancel(case):
    path, scales, _ = case
    x0, x1 = gaussian(4)
    step = torch.tensor([1, 20, 70, 100])
    xt = path.sample_xt(x0, x1, step, torch.Generator().manual_seed(2))
    found = scales.x0_from(xt, scales.target(xt, x0, x1, step), x1, step)
    assert torch.allclose(found, x0, rtol=0, atol=1e-12)


def test_at_x1_it_is_a_residual_network():
    scales = CASES["bridge"][1]
    x0, x1 = gaussian(2)
    step = torch.full((2,), 100)
    assert torch.equal(scales.network_input(x1, x1, step), torch.zeros_like(x1))
    assert torch.allclose(scales.target(x1, x0, x1, step), (x0 - x1) / VARIANCE**0.5)
    assert torch.allclose(scales.x0_from(x1, x0, x1, step), x1 + VARIANCE**0.5 * x0)


def test_near_x0_it_is_equation_12_with_its_sign_changed():
    bridge = Bridge.one_clock(10**6, 0.3)
    scales = Preconditioning.of_bridge(bridge, VARIANCE)
    x0, x1 = gaussian(2)
    step = torch.ones(2, dtype=torch.int64)
    xt = bridge.sample_xt(x0, x1, step, torch.Generator().manual_seed(3))
    assert torch.allclose(scales.target(xt, x0, x1, step), -bridge.target(xt, x0, step), rtol=0, atol=0.02)


@pytest.mark.parametrize("nfe", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("sampler", ["ancestral", "ot_ode", "one_step", "dbim"])
def test_a_perfect_network_restores_x0_at_any_number_of_evaluations(nfe, sampler):
    scales = CASES["bridge"][1]
    x0, x1 = gaussian(2)

    def predict_x0(xt, step):
        steps = torch.full((2,), step)
        network = scales.target(xt, x0, x1, steps)
        return scales.x0_from(xt, network, x1, steps)

    grid = samplers.step_grid(BRIDGE, nfe)
    found = samplers.SAMPLERS[sampler](predict_x0, BRIDGE, x1, grid, generator=torch.Generator().manual_seed(4))
    assert torch.allclose(found, x0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("variance", [0, -1, float("nan"), float("inf")])
def test_a_variance_that_scales_nothing_is_refused(variance):
    with pytest.raises(ValueError, match="residual_variance.*above 0"):
        Preconditioning.of_bridge(BRIDGE, variance)


def test_a_bridge_without_noise_is_refused():
    with pytest.raises(ValueError, match="ot_ode"):
        Preconditioning.of_bridge(Bridge.one_clock(10, ot_ode=True), VARIANCE)
