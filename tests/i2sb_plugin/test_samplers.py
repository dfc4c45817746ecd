"""Walks over the bridge with predictors whose result is known."""

import inspect
import itertools
import math
import tracemalloc
from collections.abc import Callable

import pytest
import torch

from i2sb_plugin.bridge import Bridge
from i2sb_plugin.samplers import SAMPLERS, SPACINGS, ancestral, dbim, ot_ode, step_grid

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
    assert len(calls) == (1 if name == "one_step" else nfe) and calls[0] == 1000


def test_without_noise_the_walk_stays_on_the_straight_line(pair):
    x0, x1 = pair
    points = {}
    grid = step_grid(BRIDGE, 7)
    ot_ode(lambda xt, step: x0, BRIDGE, x1, grid, callback=lambda n, xt, _: points.update({n: xt.clone()}))
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
    assert torch.equal(run(3), run(4)) == (name in ("ot_ode", "one_step"))


def test_clipping_bounds_the_prediction(pair):
    _, x1 = pair
    wild = SAMPLERS["ancestral"](lambda xt, step: 5 + xt, BRIDGE, x1, step_grid(BRIDGE, 1), clip=True)
    assert torch.equal(wild, torch.ones_like(wild))


def most_images(run: Callable[[], object], image: torch.Tensor) -> float:
    """The most that lies in memory during ``run`` beyond what lay there before, in sizes of ``image``."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as found:
        run()
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    return max(held) / image.nbytes


@pytest.mark.parametrize("nfe", [4, 40])
@pytest.mark.parametrize(
    ("name", "own", "images"),
    [
        ("ancestral", {}, 3),
        ("ot_ode", {}, 3),
        ("dbim", {}, 3),
        ("dbim", {"eta": 0.5}, 3),
        ("dbim", {"order": 2}, 3),
        ("dbim", {"order": 3}, 4),
    ],
    ids=str,
)
@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
def test_a_walk_holds_three_images_beside_x1_however_long_it_is(name, own, images, masked, nfe):
    x1 = torch.zeros(2, 3, 64, 64)
    mask = torch.zeros(2, 1, 64, 64) if masked else None
    generators = [torch.Generator().manual_seed(k) for k in range(2)]
    own = {**own, "generator": generators, "mask": mask}
    grid = step_grid(BRIDGE, nfe)

    def walk() -> object:
        return SAMPLERS[name](lambda xt, step: xt * 0.9, BRIDGE, x1, grid, **own)

    walk()  # tables of the bridge are made at the first walk and kept
    most = most_images(walk, x1)
    kept = masked * max(0, own.get("order", 1) - 1)  # a prediction, before and after its known part is put back
    assert 2 <= most < max(images, 3 + kept) + 0.1 + masked / 12, "the mask as booleans is a twelfth of an image"


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_evaluation_copies_no_x1(name):
    x1, seen = torch.rand(1, 3, 8, 8), []
    before = x1.clone()

    def predict_x0(xt, step):
        seen.append(xt.data_ptr())
        return xt * 0.9

    SAMPLERS[name](predict_x0, BRIDGE, x1, step_grid(BRIDGE, 1), generator=None)
    assert seen == [x1.data_ptr()] and torch.equal(x1, before)


def test_python_keeps_little_of_a_long_walk():
    x1 = torch.zeros(1, 3, 64, 64)
    tracemalloc.start()
    ancestral(lambda xt, step: xt, BRIDGE, x1, step_grid(BRIDGE, 200), generator=torch.Generator().manual_seed(0))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 200_000, "bytes of Python objects of 200 steps"


@pytest.mark.parametrize("nfe", [0, -1, 1001])
def test_nfe_out_of_range_is_refused(nfe):
    with pytest.raises(ValueError, match=f"nfe is {nfe}; this bridge allows 1 to 1000"):
        step_grid(BRIDGE, nfe)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_has_the_same_contract(name):
    parameters = list(inspect.signature(SAMPLERS[name]).parameters.values())
    common = ["predict_x0", "bridge", "x1", "steps", "generator", "clip", "mask", "callback"]
    assert [p.name for p in parameters[:8]] == common
    assert all(p.default is not p.empty for p in parameters[8:]), "its own keywords have defaults"


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("first", [None, 0.999, 0.5])
def test_every_spacing_gives_nfe_falling_steps_from_x1_to_x0(spacing, first):
    for nfe in (2, 3, 10, 100, 400):
        grid = step_grid(BRIDGE, nfe, spacing, first)
        assert len(grid) == nfe + 1 and grid[0] == 1000 and grid[-1] == 0
        assert all(a > b for a, b in itertools.pairwise(grid))
        if first is not None:
            assert grid[1] == max(round(first * 1000), nfe - 1)


def test_spacings_are_told_apart_by_where_they_are_dense():
    grids = {name: step_grid(BRIDGE, 10, name) for name in SPACINGS}
    assert grids["uniform"] == list(range(1000, -1, -100))
    assert grids["quadratic"] == [1000, 810, 640, 490, 360, 250, 160, 90, 40, 10, 0]
    assert grids["cosine"][5] == 500 and 1000 - grids["cosine"][1] < 30 and grids["cosine"][-2] < 30
    levels = [float((BRIDGE.weight_x0[n] / BRIDGE.marginal_std[n]).log()) for n in grids["log_snr"][1:-1]]
    gaps = [b - a for a, b in itertools.pairwise(levels)]
    assert max(gaps) < 1.2 * min(gaps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spacing": "cosin"}, "spacing is 'cosin'; it must be one of uniform, quadratic, cosine, log_snr"),
        ({"first": 1.0}, "first is 1.0 at nfe 5; it must be a time in"),
    ],
)
def test_grids_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        step_grid(BRIDGE, 5, **arguments)


# ---- the family that shares the bridge's marginals


def shrink(xt, step):
    return 0.8 * xt.clamp(-2, 2)


def test_eta_1_is_the_ancestral_walk(pair):
    _, x1 = pair
    grid = step_grid(BRIDGE, 8)
    found = dbim(shrink, BRIDGE, x1, grid, generator=torch.Generator().manual_seed(3), eta=1.0)
    wanted = ancestral(shrink, BRIDGE, x1, grid, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_eta_0_is_deterministic_after_its_first_step(pair, order, monkeypatch):
    _, x1 = pair
    draws = []

    def noise(like, generator):
        draws.append(1)
        return torch.full_like(like, 0.5)

    monkeypatch.setattr("i2sb_plugin.samplers.standard_normal", noise)
    dbim(shrink, BRIDGE, x1, step_grid(BRIDGE, 9), order=order)
    assert draws == [1]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_points_keep_the_marginal_when_the_prediction_is_right(order):
    x0 = torch.zeros(1, 1, 300, 300, dtype=torch.float64)
    spread = {}
    dbim(
        lambda xt, step: x0,
        BRIDGE,
        x0,
        step_grid(BRIDGE, 6),
        generator=torch.Generator().manual_seed(0),
        callback=lambda n, xt, _: spread.update({n: float(xt.std())}),
        order=order,
    )
    for step, std in spread.items():
        assert std == pytest.approx(float(BRIDGE.marginal_std[step]), rel=5 / (2**0.5 * 300), abs=1e-15)


def gaussian_errors(order, counts):
    """RMS errors at t = 0.2 on x0 | x1 ~ N(mean, spread^2), whose best prediction and exact walk are known."""
    bridge = Bridge.one_clock(100_000, 0.3)
    x1 = torch.linspace(-1, 1, 64, dtype=torch.float64).reshape(1, 1, 8, 8)
    mean, spread = 0.5 * x1, 0.4

    def moments(step):
        w = 1 - float(bridge.weight_x0[step])
        return (1 - w) * mean + w * x1, ((1 - w) ** 2 * spread**2 + float(bridge.marginal_std[step]) ** 2) ** 0.5, w

    def best(xt, step):
        centre, std, w = moments(step)
        return mean if w == 1 else mean + spread**2 * (1 - w) / std**2 * (xt - centre)

    errors = []
    for count in counts:
        nodes = torch.linspace(90_000, 20_000, count + 1).round().long().tolist()
        start = []
        found = dbim(
            best,
            bridge,
            x1,
            [100_000, *nodes],
            generator=torch.Generator().manual_seed(0),
            order=order,
            callback=lambda n, xt, _, start=start: start.append(xt.clone()) if n == 90_000 else None,
        )
        (centre, std, _), (end, end_std, _) = moments(90_000), moments(20_000)
        exact = end + end_std * (start[0] - centre) / std
        errors.append(float((found - exact).square().mean().sqrt()))
    return errors


@pytest.mark.parametrize(("order", "slope"), [(1, 1), (2, 2), (3, 2)])
def test_a_walk_has_the_order_it_claims(order, slope):
    few, many = gaussian_errors(order, (40, 160))
    found = math.log(few / many) / math.log(4)
    # third order begins with a step of first order, as its paper does, and so falls as h^2 at first
    assert slope - 0.15 < found < slope + 1.2, found


def test_high_orders_are_ten_times_nearer_to_the_exact_walk():
    first, second, third = (gaussian_errors(order, (20,))[0] for order in (1, 2, 3))
    assert second < first / 10 and third < first / 10


@pytest.mark.parametrize("arguments", [{"eta": 1.5}, {"order": 4}, {"eta": 0.5, "order": 2}])
def test_members_that_the_family_lacks_are_refused(pair, arguments):
    with pytest.raises(ValueError, match="eta lies in"):
        dbim(shrink, BRIDGE, pair[1], step_grid(BRIDGE, 5), **arguments)


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_known_comes_back_exactly_and_the_hole_is_filled(name, pair):
    x0, x1 = pair
    mask = torch.zeros(2, 1, 9, 7, dtype=torch.float64)
    mask[:, :, 2:6, 1:5] = 1
    found = SAMPLERS[name](
        lambda xt, step: x0, BRIDGE, x1, step_grid(BRIDGE, 5), generator=torch.Generator().manual_seed(0), mask=mask
    )
    assert torch.allclose(found, torch.where(mask.bool(), x0, x1), rtol=0, atol=1e-13)
