"""Walks over the bridge with predictors whose result is known."""

import inspect
import tracemalloc

import pytest
import torch

from i2sb_plugin.bridge import Bridge
from i2sb_plugin.samplers import SAMPLERS, ancestral, ot_ode, step_grid

BRIDGE = Bridge.one_clock(1000, 0.3)


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(2, 2, 3, 9, 7, generator=generator, dtype=torch.float64) * 2 - 1).unbind(0)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("nfe", [1, 2, 3, 10, 999, 1000])
def test_a_perfect_predictor_returns_x0_at_any_nfe(name, nfe, pair):
    x0, x1 = pair
    calls = []

    def perfect(xt, step):
        calls.append(step)
        return x0

    found = SAMPLERS[name](perfect, BRIDGE, x1, step_grid(BRIDGE, nfe), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(found, x0, rtol=0, atol=1e-13)
    assert len(calls) == nfe and calls[0] == 1000


def test_without_noise_the_walk_stays_on_the_straight_line(pair):
    x0, x1 = pair
    points = {}
    ot_ode(lambda xt, step: x0, BRIDGE, x1, step_grid(BRIDGE, 7), callback=lambda n, xt, _: points.update({n: xt.clone()}))
    for step, xt in points.items():
        w = float(BRIDGE.variance[step] / BRIDGE.variance[-1])
        assert torch.allclose(xt, (1 - w) * x0 + w * x1, rtol=0, atol=1e-14)
    assert len(points) == 7


def test_each_node_of_the_ancestral_walk_has_the_variance_of_the_marginal():
    x0 = torch.zeros(1, 1, 300, 300, dtype=torch.float64)
    spread = {}
    ancestral(
        lambda xt, step: x0,
        BRIDGE,
        x0,
        step_grid(BRIDGE, 5),
        generator=torch.Generator().manual_seed(0),
        callback=lambda n, xt, _: spread.update({n: float(xt.std())}),
    )
    for step, std in spread.items():
        assert std == pytest.approx(float(BRIDGE.marginal_std[step]), rel=5 / (2**0.5 * 300), abs=1e-15)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_seed_gives_the_same_image_and_x1_is_left_alone(name, pair):
    _, x1 = pair
    before = x1.clone()

    def run(seed):
        generators = [torch.Generator().manual_seed(seed + k) for k in range(len(x1))]
        return SAMPLERS[name](lambda xt, step: 0.9 * xt, BRIDGE, x1, step_grid(BRIDGE, 4), generator=generators)

    assert torch.equal(run(3), run(3)) and torch.equal(x1, before)
    assert torch.equal(run(3), run(4)) == (name == "ot_ode")


def test_clipping_bounds_the_prediction(pair):
    _, x1 = pair
    wild = SAMPLERS["ancestral"](lambda xt, step: 5 + xt, BRIDGE, x1, step_grid(BRIDGE, 1), clip=True)
    assert torch.equal(wild, torch.ones_like(wild))


def test_memory_does_not_grow_with_the_number_of_steps():
    x1 = torch.zeros(1, 3, 256, 256)
    storages = []

    def peak(nfe):
        live = set()
        ancestral(
            lambda xt, step: live.add(xt.data_ptr()) or xt,
            BRIDGE,
            x1,
            step_grid(BRIDGE, nfe),
            generator=torch.Generator().manual_seed(0),
        )
        return live

    storages = [len(peak(nfe)) for nfe in (2, 50)]
    assert storages == [1, 1], "the walk keeps one image batch, written in place"
    tracemalloc.start()
    peak(200)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 200_000, "Python objects of a walk of 200 steps"


@pytest.mark.parametrize("nfe", [0, -1, 1001])
def test_nfe_out_of_range_is_refused(nfe):
    with pytest.raises(ValueError, match=f"nfe is {nfe}; this bridge allows 1 to 1000"):
        step_grid(BRIDGE, nfe)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_has_the_same_contract(name):
    parameters = list(inspect.signature(SAMPLERS[name]).parameters)
    assert parameters == ["predict_x0", "bridge", "x1", "steps", "generator", "clip", "callback"]
