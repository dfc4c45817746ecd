"""The released grid against recorded numbers of the authors' code."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from i2sb_plugin import samplers
from i2sb_plugin.bridge import Bridge
from i2sb_plugin.samplers import space_indices
from tests.support.golden import golden, names, params

TRAJECTORIES = [*names("trajectory_*.npz"), *names("sample_inpaint_*.npz")]


def released(entry, **options):
    return Bridge.released(entry["interval"], entry["beta_max"], **options)


def close(found, wanted, tolerance):
    assert float((found - torch.as_tensor(wanted)).abs().max()) <= tolerance


@pytest.mark.parametrize(("group", "entry"), list(params("schedule").items()), ids=str)
def test_schedule(group, entry):
    data, bridge = golden("schedule"), released(entry)
    found = {
        "std_fwd": bridge.sigma,
        "std_bwd": bridge.variance_bar.sqrt(),
        "std_sb": bridge.marginal_std,
        "mu_x0": bridge.weight_x0,
        "mu_x1": bridge.variance / (bridge.variance + bridge.variance_bar),
    }
    for name, value in found.items():
        np.testing.assert_allclose(value.numpy(), data[f"{group}_{name}_f64"], rtol=0, atol=1e-12)
        np.testing.assert_array_max_ulp(value.float().numpy(), data[f"{group}_{name}"], maxulp=1)
    steps = torch.arange(entry["interval"])
    close(bridge.time(steps), data[f"{group}_noise_levels"], 2e-4)


@pytest.mark.parametrize(("group", "entry"), list(params("q_sample").items()), ids=str)
@pytest.mark.parametrize("kind", ["sde", "ode"])
def test_q_sample(group, entry, kind, monkeypatch):
    data = {k[3:]: torch.from_numpy(v) for k, v in golden("q_sample").items() if k.startswith(group)}
    bridge = released(entry, ot_ode=kind == "ode")
    monkeypatch.setattr("i2sb_plugin.bridge.standard_normal", lambda like, generator: data["noise"])
    xt = bridge.sample_xt(data["x0"], data["x1"], data["step"])
    close(xt, data[f"xt_{kind}"], 1e-5)
    close(bridge.target(data[f"xt_{kind}"], data["x0"], data["step"]), data[f"label_{kind}"], 1e-4)
    x0 = bridge.x0_from(data["xt_sde"], data["net_out"], data["step"])
    close(x0, data["pred_x0"], 1e-5)
    close(x0.clamp(-1, 1), data["pred_x0_clip"], 1e-5)


@pytest.mark.parametrize(("group", "entry"), list(params("p_posterior").items()), ids=str)
def test_p_posterior(group, entry):
    data = {k[3:]: torch.from_numpy(v) for k, v in golden("p_posterior").items() if k.startswith(group)}
    for kind in ("sde", "ode"):
        bridge = released(entry, ot_ode=kind == "ode")
        for k, (previous, step) in enumerate(data["pairs"].tolist()):
            weight_x0, weight_xt, std = bridge.posterior(step, previous)
            found = weight_x0 * data["x0"][k] + weight_xt * data["x_n"][k]
            if kind == "sde" and previous > 0:
                found = found + std * data["noise"][k]
            close(found, data[kind][k], 1e-5)


def test_space_indices():
    data = golden("space_indices")
    for k, (steps, count) in enumerate(zip(data["num_steps"].tolist(), data["count"].tolist())):
        wanted = data["flat"][data["offsets"][k] : data["offsets"][k + 1]].tolist()
        assert space_indices(steps, count) == wanted, (steps, count)


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_trajectory(name, monkeypatch):
    entry, data = params(name), {k: torch.from_numpy(v) for k, v in golden(name).items()}
    bridge = released(entry, ot_ode=entry["ot_ode"])
    draws = iter(data["noise"][entry.get("draws_in_compute_batch", 0) :])
    monkeypatch.setattr(samplers, "standard_normal", lambda like, generator: next(draws))
    x1, mask = data["x1"], data.get("mask")
    if mask is not None:  # the release fills the hole anew when a walk starts
        x1 = torch.where(mask.bool(), next(draws), x1)

    def predict_x0(xt, step):
        steps = torch.full((len(xt),), step)
        time = bridge.time(steps)[:, None, None, None] / entry["interval"]
        inputs = torch.cat([xt, data["x1"]], 1) if entry["cond_x1"] else xt
        out = F.conv2d(inputs, data["W"], data["b"], padding=1) + data["tvec"][None, :, None, None] * time
        return bridge.x0_from(xt, out, steps)

    steps = samplers.step_grid(bridge, entry["nfe"])
    seen = {}
    samplers.ancestral(
        predict_x0,
        bridge,
        x1,
        steps,
        clip=entry["clip_denoise"],
        mask=mask,
        callback=lambda step, xt, x0: seen.update({step: (xt.clone(), x0.clone())}),
    )
    assert next(draws, None) is None, "every recorded draw was used"
    if "steps" in data:
        assert steps[::-1] == data["steps"].tolist()
    count = data["xs"].shape[1]
    for k, place in enumerate(space_indices(entry["nfe"], count)):
        step = steps[::-1][place]
        close(seen[step][0], data["xs"][:, k], 2e-5)
        close(seen[step][1], data["pred_x0s"][:, k], 2e-5)
