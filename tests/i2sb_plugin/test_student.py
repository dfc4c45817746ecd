"""The student's recursion is the teacher's deterministic walk; a perfect teacher has a perfect student."""

import pytest
import torch

from i2sb_plugin.bridge import Bridge
from i2sb_plugin.samplers import SPACINGS, dbim
from i2sb_plugin.student import StudentWalk

BRIDGES = {
    "one clock": Bridge.one_clock(60),
    "much noise": Bridge.one_clock(60, beta_max=4.0, beta_min=2.0),
    "released": Bridge.released(60),
}


def images(count, seed=0):
    return torch.randn(count, 2, 3, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at(place):
    return torch.full((2,), place)


def linear(bridge, x1):
    """A teacher that is linear in xt and x1, another one at each node."""
    mix = torch.rand(2, bridge.last_step + 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return lambda xt, step: mix[0, step] * xt + mix[1, step] * x1 - 0.3


def walked(walk, x1, noise, teacher):
    """G and the points at each place, by the student's own recursion."""
    found = [teacher(x1, walk.nodes[0])]
    points = []
    for place in range(walk.last_place):
        points.append(walk.point(x1, found[-1], noise, at(place)))
        found.append(walk.target(found[-1], teacher(points[-1], walk.nodes[place]), at(place)))
    return found, points


@pytest.mark.parametrize("count", [2, 5, 60])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", BRIDGES)
def test_the_targets_in_a_row_are_the_deterministic_walk_of_the_teacher(name, spacing, count):
    bridge, (x1,) = BRIDGES[name], images(1)
    count = min(count, bridge.last_step)
    walk, teacher, seen = StudentWalk.of_bridge(bridge, count, spacing), linear(bridge, x1), []
    noise = torch.randn(x1.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    found, points = walked(walk, x1, noise, teacher)
    end = dbim(
        teacher, bridge, x1, list(walk.nodes), generator=torch.Generator().manual_seed(7),
        callback=lambda step, xt, x0: seen.append(xt.clone()),
    )  # fmt: skip
    scale = float(end.abs().max())
    assert float((found[-1] - end).abs().max()) < 1e-12 * scale
    assert torch.equal(points[0], x1)
    assert all(float((mine - its).abs().max()) < 1e-12 * scale for mine, its in zip(points[1:], seen[:-1]))


def test_kappa_is_the_ratio_of_the_distances_to_both_ends():
    bridge = BRIDGES["one clock"]
    walk = StudentWalk.of_bridge(bridge, 12)
    nodes = list(walk.nodes)
    ratio = (bridge.variance / bridge.variance_bar).sqrt()[nodes]
    assert torch.allclose(walk.kappa[1:], (ratio[2:] / ratio[1:-1]), rtol=1e-12)
    assert float(walk.kappa[0]) == 0 and float(walk.kappa[-1]) == 0
    assert bool(((walk.kappa >= 0) & (walk.kappa < 1)).all())


@pytest.mark.parametrize("name", BRIDGES)
def test_a_perfect_teacher_has_a_perfect_student_at_every_place(name):
    x0, x1, noise = images(3)
    walk = StudentWalk.of_bridge(BRIDGES[name], 9)
    found, points = walked(walk, x1, noise, lambda xt, step: x0)
    assert all(float((one - x0).abs().max()) < 1e-12 for one in found)
    for place, point in enumerate(points):
        b, c = walk.weight_x0[place], walk.noise_std[place]
        assert torch.allclose(point, (1 - b) * x1 + b * x0 + c * noise), "a draw of the bridge's own marginal"


def test_the_dial_is_the_place_and_its_time_that_of_the_node():
    walk = StudentWalk.of_bridge(BRIDGES["one clock"], 6)
    dial = torch.tensor([1.0, 0.5, 0.0])
    assert walk.position_of(dial).tolist() == [0, 3, 6]
    assert walk.time(walk.position_of(dial)).tolist() == [1000, 500, 0]
    assert walk.time(torch.arange(7)).tolist() == BRIDGES["one clock"].time(torch.tensor(walk.nodes)).tolist()
    assert float(walk.time(torch.tensor([0.25]))) == pytest.approx(1000 - 0.25 * 1000 / 6)


def test_training_draws_every_place_and_early_those_near_x1():
    walk = StudentWalk.of_bridge(BRIDGES["one clock"], 10)
    drawn = torch.rand(20000, 2, generator=torch.Generator().manual_seed(0))
    even = walk.trained_place(drawn, 0.1, 0.2, 0.0)
    shares = torch.bincount(even, minlength=11) / len(even)
    assert shares.tolist() == pytest.approx([0.1, *[0.07] * 9, 0.27], abs=0.01)
    early = walk.trained_place(drawn, 0.0, 0.0, 1.0)
    assert int(early.min()) == 1 and int(early.max()) == 10
    assert float((early == 1).float().mean()) == pytest.approx(0.1**0.5, abs=0.01)


@pytest.mark.parametrize(
    ("bridge", "count", "words"),
    [
        (Bridge.one_clock(10), 1, "nodes is 1; this bridge allows 2 to 10"),
        (Bridge.one_clock(10), 11, "nodes is 11"),
        (Bridge.one_clock(10, ot_ode=True), 5, "ot_ode"),
    ],
)
def test_a_walk_that_is_not_there_is_refused(bridge, count, words):
    with pytest.raises(ValueError, match=words):
        StudentWalk.of_bridge(bridge, count)
