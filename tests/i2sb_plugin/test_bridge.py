"""Theorems of the bridge, in float64."""

from dataclasses import replace

import pytest
import torch

from i2sb_plugin.bridge import Bridge, standard_normal, variance_at
from i2sb_plugin.models.bridge_options import BridgeOptions

BRIDGES = {
    "one_clock": Bridge.one_clock(1000, 0.3),
    "one_clock, wide": Bridge.one_clock(50, 1.0),
    "released": Bridge.released(1000, 0.3),
}
ONE_CLOCK = [BRIDGES["one_clock"], BRIDGES["one_clock, wide"]]


@pytest.fixture(params=BRIDGES.values(), ids=BRIDGES)
def bridge(request):
    return request.param


def images(seed=0, batch=4):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(2, batch, 3, 8, 8, generator=generator, dtype=torch.float64) * 2 - 1).unbind(0)


def test_mean_weights_sum_to_one(bridge):
    weight_x1 = bridge.variance / (bridge.variance + bridge.variance_bar)
    assert torch.allclose(bridge.weight_x0 + weight_x1, torch.ones_like(weight_x1), rtol=0, atol=1e-15)


def test_the_mean_lies_on_the_straight_line_when_noise_is_left_out():
    bridge = Bridge.one_clock(10, 0.3, ot_ode=True)
    x0, x1 = images()
    step = torch.tensor([1, 4, 7, 10])
    w = (bridge.variance / bridge.variance[-1])[step].reshape(-1, 1, 1, 1)
    assert torch.allclose(bridge.sample_xt(x0, x1, step), (1 - w) * x0 + w * x1, rtol=0, atol=1e-15)


def test_target_and_its_inverse_cancel(bridge):
    x0, x1 = images()
    step = torch.tensor([bridge.first_step, 5, 20, bridge.last_step])
    xt = bridge.sample_xt(x0, x1, step, torch.Generator().manual_seed(1))
    assert torch.allclose(bridge.x0_from(xt, bridge.target(xt, x0, step), step), x0, rtol=0, atol=1e-14)


def test_both_ends_are_exact_on_one_clock():
    for bridge in ONE_CLOCK:
        assert bridge.weight_x0[0] == 1 and bridge.marginal_std[0] == 0
        assert bridge.weight_x0[-1] == 0 and bridge.marginal_std[-1] == 0


def test_the_total_variance_does_not_depend_on_the_number_of_steps():
    for beta_max, total in [(0.3, 0.1411), (1.0, 0.2471)]:
        found = [float(Bridge.one_clock(steps, beta_max).variance[-1]) for steps in (1, 2, 7, 10, 100, 1000)]
        assert found == pytest.approx([found[0]] * len(found), abs=1e-15)
        assert found[0] == pytest.approx(total, abs=5e-5)


def test_an_even_rate_is_the_total_variance():
    assert float(Bridge.one_clock(10, 0.02, beta_min=0.02).variance[-1]) == pytest.approx(0.02, abs=1e-15)


def test_the_variance_is_the_integral_of_beta():
    t = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    middle = (t[1:] + t[:-1]) / 2
    r = 0.1**0.5 + (0.3**0.5 - 0.1**0.5) * torch.minimum(middle, 1 - middle)
    assert float((r**2).mean()) == pytest.approx(float(variance_at(t[-1:], 0.3)), abs=1e-10)
    quarter = float(variance_at(t[50_000:50_001], 0.3))
    assert float((r[:50_000] ** 2).sum() / 200_000) == pytest.approx(quarter, abs=1e-10)


@pytest.mark.parametrize(("step", "middle", "last"), [(1000, 400, 0), (900, 899, 3), (37, 20, 1)])
def test_two_posterior_steps_equal_one_in_mean_and_variance(step, middle, last):
    bridge = BRIDGES["one_clock"]
    direct_x0, direct_xt, direct_std = bridge.posterior(step, last)
    first_x0, first_xt, first_std = bridge.posterior(step, middle)
    second_x0, second_xt, second_std = bridge.posterior(middle, last)
    assert second_x0 + second_xt * first_x0 == pytest.approx(direct_x0, abs=1e-14)
    assert second_xt * first_xt == pytest.approx(direct_xt, abs=1e-14)
    assert (second_xt * first_std) ** 2 + second_std**2 == pytest.approx(direct_std**2, abs=1e-15)


def test_a_posterior_step_from_the_marginal_lands_in_the_marginal():
    bridge = BRIDGES["one_clock"]
    step, previous = 700, 250
    weight_x0, weight_xt, std = bridge.posterior(step, previous)
    assert weight_x0 + weight_xt * float(bridge.weight_x0[step]) == pytest.approx(float(bridge.weight_x0[previous]))
    spread = (weight_xt * float(bridge.marginal_std[step])) ** 2 + std**2
    assert spread == pytest.approx(float(bridge.marginal_std[previous]) ** 2, abs=1e-15)


def test_samples_have_the_mean_and_variance_of_the_marginal():
    bridge = BRIDGES["one_clock"]
    x0 = torch.full((1, 1, 400, 400), 0.5, dtype=torch.float64)
    x1 = -x0
    step = torch.tensor([300])
    xt = bridge.sample_xt(x0, x1, step, torch.Generator().manual_seed(0))
    std = float(bridge.marginal_std[300])
    assert float(xt.mean()) == pytest.approx(float(bridge.weight_x0[300]) - 0.5, abs=5 * std / 400)
    assert float(xt.std()) == pytest.approx(std, rel=5 / (2**0.5 * 400))


def test_the_network_is_fed_a_thousand_times_t():
    bridge = Bridge.one_clock(50, 0.3)
    assert bridge.time(torch.tensor([1, 25, 50])).tolist() == [20.0, 500.0, 1000.0]


def test_training_steps_cover_every_node_that_has_a_target():
    assert set(Bridge.one_clock(5, 0.3).sample_step(500).tolist()) == {1, 2, 3, 4, 5}
    assert set(Bridge.released(6, 0.3).sample_step(500).tolist()) == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_training_steps_is_put_to_x1(share):
    bridge, count = Bridge.one_clock(100, 0.3), 20_000
    step = replace(bridge, x1_share=share).sample_step(count, torch.Generator().manual_seed(0))
    expected = share + (1 - share) / 100
    spread = (expected * (1 - expected) / count) ** 0.5
    assert abs((step == bridge.last_step).double().mean().item() - expected) <= 4 * spread
    plain = bridge.sample_step(count, torch.Generator().manual_seed(0))
    assert torch.equal(step[step != bridge.last_step], plain[step != bridge.last_step]), "the others are as they were"


def test_noise_of_an_image_is_the_same_alone_and_in_a_batch():
    def generators(*seeds):
        return [torch.Generator().manual_seed(s) for s in seeds]

    batch = standard_normal(torch.zeros(3, 1, 4, 4), generators(7, 8, 9))
    alone = standard_normal(torch.zeros(1, 1, 4, 4), generators(8))
    assert torch.equal(batch[1:2], alone)
    with pytest.raises(ValueError, match="list of 2 .*3"):
        standard_normal(torch.zeros(3, 1, 4, 4), generators(1, 2))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Bridge.one_clock(0), "bridge.steps is 0"),
        (lambda: Bridge.one_clock(10, -1.0), "bridge.beta_max is -1.0; it must be a number above 0"),
        (lambda: Bridge.one_clock(10, beta_min=0.0), "bridge.beta_min is 0.0"),
        (lambda: Bridge.released(10, beta_min=0.2), "bridge.beta_min is 0.2; it must be 0.1 with schedule: released"),
        (lambda: Bridge.released(10, t0=1.0, T=0.5), "bridge.t0 is 1.0 and bridge.T 0.5"),
        (lambda: BridgeOptions(t0=0.5), "t0 is 0.5 and T 1.0; they belong to schedule: released"),
        (lambda: Bridge.released(11), "bridge.steps is 11; it must be an even number"),
        (lambda: Bridge.one_clock(10).posterior(3, 3), "from step 3 to 3"),
        (lambda: Bridge.one_clock(10).posterior(11, 3), "previous < step <= 10"),
    ],
)
def test_values_out_of_range_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_function_may_give_the_noise_itself():
    image = torch.zeros(2, 1, 3, 4)
    noise = torch.rand_like(image)
    assert standard_normal(image, lambda like: noise if like is image else image) is noise
