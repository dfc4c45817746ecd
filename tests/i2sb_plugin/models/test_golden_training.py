"""Five training iterations against those recorded from the authors' release: loss, gradients, AdamW, EMA."""

import functools
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from basicsr_ext.models.restoration_model import ema_decay_at
from i2sb_plugin.archs.adm_unet_arch import ADMUNet
from i2sb_plugin.bridge import Bridge
from i2sb_plugin.models.bridge_loss import BridgeLoss
from tests.support.golden import golden, params, unet_options

STEPS = 5
LR = 5e-5


@functools.cache
def recording() -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in golden("train_plain").items()}


def group(prefix: str) -> dict[str, torch.Tensor]:
    return {key[len(prefix) :]: value for key, value in recording().items() if key.startswith(prefix)}


@functools.cache
def training() -> SimpleNamespace:
    """Repeat the recorded run with our bridge, network and loss."""
    data, entry = recording(), params("train_plain")
    bridge = Bridge.released(entry["interval"], entry["beta_max"], entry["ot_ode"])
    net, loss = ADMUNet(**unet_options(entry["create_model"])), BridgeLoss()
    net.load_state_dict(group("w:"), strict=True)
    optimiser = torch.optim.AdamW(net.parameters(), lr=entry["lr"], weight_decay=entry["weight_decay"])
    average = {key: value.clone() for key, value in net.state_dict().items()}
    run = SimpleNamespace(loss=[], grad_norm=[], decay=[], g={}, p={}, e={}, target=None)
    for k in range(STEPS):
        x0, x1, step = data["x0"][k], data["x1"][k], data["step"][k]
        with mock.patch("i2sb_plugin.bridge.standard_normal", lambda like, generator, k=k: data["noise"][k]):
            xt = bridge.sample_xt(x0, x1, step)
        target = bridge.target(xt, x0, step)
        run.target = target if run.target is None else run.target
        value = loss(net(xt, bridge.time(step)), target)
        optimiser.zero_grad()
        value.backward()
        gradients = {key: p.grad.clone() for key, p in net.named_parameters()}
        optimiser.step()
        run.decay.append(ema_decay_at(k + 1, entry["ema"], warmup=True))
        for key, p in net.state_dict().items():
            average[key].lerp_(p, 1 - run.decay[-1])
        run.loss.append(value.item())
        run.grad_norm.append(torch.stack([g.double().norm() for g in gradients.values()]))
        run.g[k + 1] = gradients
        run.p[k + 1] = {key: p.clone() for key, p in net.state_dict().items()}
        run.e[k + 1] = {key: p.clone() for key, p in average.items()}
    return run


def compare_where_the_gradient_counts(ours: dict, theirs: dict, tolerance: float, steps: int) -> None:
    """Where the first gradient is mere rounding, Adam turns it into +-lr: allow that there, and no more."""
    first, compared = group("g1:"), 0
    assert list(ours) == list(theirs)
    for key, expected in theirs.items():
        counts = first[key].abs() > 1e-5
        compared += int(counts.sum())
        difference = (ours[key] - expected).abs()
        assert float(difference[counts].max() if counts.any() else 0.0) <= tolerance, key
        assert float(difference.max()) <= 2 * LR * steps, key
    assert compared > 0.9 * sum(value.numel() for value in theirs.values())


def test_the_first_target_is_the_recorded_label():
    torch.testing.assert_close(training().target, recording()["label0"], rtol=0, atol=1e-4)


def test_losses_are_the_recorded_ones():
    assert training().loss == pytest.approx(recording()["loss"].tolist(), abs=1e-4)


def test_first_gradients_are_the_recorded_ones():
    for key, expected in group("g1:").items():
        torch.testing.assert_close(training().g[1][key], expected, rtol=0, atol=1e-4)


def test_gradient_norms_of_all_steps_are_the_recorded_ones():
    ours, theirs = torch.stack(training().grad_norm), recording()["grad_norm"]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("step", "tolerance"), [(1, 1e-7), (5, 1e-5)])
def test_parameters_are_the_recorded_ones(step, tolerance):
    compare_where_the_gradient_counts(training().p[step], group(f"p{step}:"), tolerance, step)


@pytest.mark.parametrize(("step", "tolerance"), [(1, 1e-7), (5, 1e-5)])
def test_averaged_weights_are_the_recorded_ones(step, tolerance):
    compare_where_the_gradient_counts(training().e[step], group(f"e{step}:"), tolerance, step)


def test_the_average_warms_up_as_recorded():
    assert training().decay == pytest.approx(recording()["ema_decay"].tolist(), abs=1e-15)
