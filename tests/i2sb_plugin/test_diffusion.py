"""The diffusion that the bridge is compared with: its formulas, and its walk against the published solvers."""

import math

import pytest
import torch

from i2sb_plugin.diffusion import PREDICTIONS, Diffusion
from i2sb_plugin.samplers import dbim, step_grid

DIFFUSION = Diffusion.variance_preserving(1000)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def walk(predict_x0, start, nfe, **more):
    steps = step_grid(DIFFUSION, nfe)
    return dbim(predict_x0, DIFFUSION, torch.zeros_like(start), steps, start=start, **more)


def test_the_variances_of_image_and_noise_add_up_to_one_and_begin_and_end_as_they_should():
    alpha, sigma = DIFFUSION.weight_x0, DIFFUSION.marginal_std
    assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(alpha), rtol=0, atol=1e-15)
    assert (alpha[0], sigma[0]) == (1, 0)
    assert float(alpha[-1]) == pytest.approx(math.exp(-(0.1 + 19.9 / 2) / 2), rel=1e-12)
    assert float(DIFFUSION.network_time[-1]) == 1000


def test_its_grid_is_ddpms_of_a_thousand_steps_within_a_thousandth():
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    cumulated = (1 - beta).cumprod(0)
    assert float((DIFFUSION.weight_x0[1:] - cumulated.sqrt()).abs().max()) < 1e-3


@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_target_and_inverse_cancel(predicts):
    diffusion = Diffusion.variance_preserving(1000, predicts)
    x0, step = normal(4, 2, 3, 3), torch.tensor([1, 10, 500, 1000])
    xt = diffusion.sample_xt(x0, None, step, torch.Generator().manual_seed(1))
    found = diffusion.x0_from(xt, diffusion.target(xt, x0, step), step)
    assert torch.allclose(found, x0, rtol=0, atol=1e-12)


def test_the_targets_are_the_noise_and_the_velocity():
    x0, step = normal(2, 1, 3, 3), torch.tensor([20, 700])
    noise = normal(2, 1, 3, 3, seed=1)
    alpha, sigma = (table[step].reshape(-1, 1, 1, 1) for table in (DIFFUSION.weight_x0, DIFFUSION.marginal_std))
    xt = alpha * x0 + sigma * noise
    eps = Diffusion.variance_preserving(1000, "eps").target(xt, x0, step)
    assert torch.allclose(eps, noise, rtol=0, atol=1e-12)
    assert torch.allclose(DIFFUSION.target(xt, x0, step), alpha * noise - sigma * x0, rtol=0, atol=1e-12)


def test_points_have_the_mean_and_variance_of_the_diffusion():
    x0, step = torch.full((2, 1, 200, 200), 0.5, dtype=torch.float64), torch.tensor([100, 800])
    xt = DIFFUSION.sample_xt(x0, None, step, torch.Generator().manual_seed(0))
    for image, k in zip(xt, step):
        assert float(image.mean()) == pytest.approx(0.5 * float(DIFFUSION.weight_x0[k]), abs=0.02)
        assert float(image.std()) == pytest.approx(float(DIFFUSION.marginal_std[k]), rel=0.02)


@pytest.mark.parametrize("options", [{}, {"eta": 0.5}, {"eta": 1.0}, {"order": 2}, {"order": 3}], ids=str)
@pytest.mark.parametrize("nfe", [1, 2, 7])
def test_a_perfect_predictor_returns_x0_at_any_nfe(nfe, options):
    x0 = normal(2, 3, 4, 5)
    found = walk(lambda xt, step: x0, normal(2, 3, 4, 5, seed=1), nfe, **options)
    assert torch.equal(found, x0)


def test_order_1_is_ddim():
    def predict_x0(xt, step):
        return (0.3 * xt + 0.1).clamp(-1, 1)

    start = normal(1, 3, 4, 4)
    alpha, sigma = DIFFUSION.weight_x0, DIFFUSION.marginal_std
    xt, steps = start, step_grid(DIFFUSION, 8)
    for step, previous in zip(steps, steps[1:]):  # arXiv 2010.02502, eq. 12, with sigma_t = 0
        x0 = predict_x0(xt, step)
        noise = (xt - alpha[step] * x0) / sigma[step]
        xt = alpha[previous] * x0 + sigma[previous] * noise
    assert torch.allclose(walk(predict_x0, start, 8), xt, rtol=0, atol=1e-12)


def test_the_noise_of_eta_1_is_that_of_the_posterior_of_ddpm():
    alpha, sigma = DIFFUSION.weight_x0, DIFFUSION.marginal_std
    for step, previous in [(1000, 900), (500, 499), (30, 2)]:
        beta = 1 - (alpha[step] / alpha[previous]) ** 2  # arXiv 2006.11239, eq. 7
        wanted = ((1 - alpha[previous] ** 2) / (1 - alpha[step] ** 2) * beta).sqrt()
        assert DIFFUSION.posterior_std(step, previous) == pytest.approx(float(wanted), rel=1e-9)
    assert float(sigma[1]) > 0


@pytest.mark.parametrize(("order", "slope"), [(1, 1), (2, 2)])
def test_a_walk_from_noise_has_the_order_it_claims(order, slope):
    """On x0 ~ N(mean, spread^2) the best prediction and the exact walk are known."""
    diffusion = Diffusion.variance_preserving(100_000)
    mean, spread, top, end = 0.2, 0.4, 90_000, 20_000
    alpha, sigma = diffusion.weight_x0, diffusion.marginal_std

    def moments(step):
        return alpha[step] * mean, (alpha[step] ** 2 * spread**2 + sigma[step] ** 2).sqrt()

    def best(xt, step):
        centre, std = moments(step)
        return mean + spread**2 * alpha[step] / std**2 * (xt - centre)

    start, errors = normal(1, 1, 16, 16), []
    exact = moments(end)[0] + moments(end)[1] * (start - moments(top)[0]) / moments(top)[1]
    for count in (40, 160):
        nodes = torch.linspace(top, end, count + 1).round().long().tolist()
        found = dbim(best, diffusion, torch.zeros_like(start), nodes, start=start, order=order)
        errors.append(float((found - exact).square().mean().sqrt()))
    assert math.log(errors[0] / errors[1]) / math.log(4) > slope - 0.15


@pytest.mark.parametrize(
    ("arguments", "message"), [({"steps": 0}, "diffusion.steps is 0"), ({"predicts": "mean"}, "predicts is 'mean'")]
)
def test_what_is_not_allowed_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Diffusion.variance_preserving(**arguments)
