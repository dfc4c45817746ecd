"""The registered regression: its loss, its one evaluation, its batches, its options, its commands."""

import copy
import json

import cv2
import pytest
import torch

from i2sb_plugin import samplers
from i2sb_plugin.models.i2sb_model import I2SBModel
from i2sb_plugin.regression import Regression
from tests.support.cli_runs import bridge_options, run, write
from tests.support.models import built, generators, predicting
from tests.support.models import make_batch as batch


def model(loss=None, cond_channels=0, **regression):
    changes = {"network_g__cond_channels": cond_channels, "train__bridge_opt": loss, "regression": regression}
    return predicting(built("RegressionModel", train__precision="fp32", **changes))


def bridge_model(**bridge):
    """The bridge of the same network, in one step."""
    changes = {"bridge": {"steps": 100, **bridge}, "val__sampler": {"nfe": 1, "clip": False}}
    return predicting(built("I2SBModel", train__precision="fp32", **changes))


def fed(net, x1, cond=None):
    with torch.no_grad():
        return net.net_g(x1, torch.full((len(x1),), 1000.0), cond)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_loss_is_that_of_x0(norm):
    net = model({"type": "BridgeLoss", "norm": norm})
    x1, cond = net.start(batch())
    error = x1 + fed(net, x1) - (batch()["gt"] * 2 - 1)
    wanted = error.square().mean() if norm == "l2" else error.abs().mean()
    assert cond is None
    assert float(net.training_loss(batch())["l_bridge"].detach()) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("cond_x1", [False, True])
def test_it_restores_x1_plus_what_the_network_says_in_one_call(cond_x1):
    net = model(cond_x1=cond_x1, cond_channels=3 * cond_x1)
    x1, cond = net.start(batch())
    assert (cond is not None) == cond_x1
    found = net.restore(batch(), net.net_g, generators(1, 2))
    assert torch.allclose(found, ((x1 + fed(net, x1, cond) + 1) / 2).clamp(0, 1), rtol=0, atol=1e-6)
    assert net.network_calls == 1


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "hole"])
@pytest.mark.parametrize("bridge", [{}, {"beta_max": 1.0}, {"schedule": "released"}], ids=str)
def test_a_bridge_in_one_step_with_its_weights_restores_the_same(bridge, masked):
    net, twin = model(), bridge_model(**bridge)
    twin.net_g.load_state_dict(net.net_g.state_dict())
    with torch.no_grad():
        for weight in twin.net_g.out[2].parameters():
            weight.div_(-float(twin.bridge.sigma[-1]))  # eps = -residual / sigma
    if masked:
        net.scale = twin.scale = 1
    twin.sampler_options = type(twin.sampler_options)(type="one_step", nfe=1)
    with torch.no_grad():
        ours = net.restore(batch(masked=masked), net.net_g, generators(1, 2))
        theirs = twin.restore(batch(masked=masked), twin.net_g, generators(1, 2))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)
    assert float((ours - net.start(batch(masked=masked), generators(1, 2))[0].add(1).div(2)).abs().max()) > 0.01


@pytest.mark.parametrize("hole", ["noise", "keep"])
def test_what_is_known_stays_and_the_hole_is_the_bridges(hole):
    net, twin, given = model(hole=hole), bridge_model(hole=hole), batch(masked=True)
    net.scale = twin.scale = 1
    x1 = net.start(given, generators(1, 2))[0]
    assert torch.equal(x1, twin.start(given, generators(1, 2))[0])
    assert torch.equal(x1, given["lq"] * 2 - 1) == (hole == "keep")
    found = net.restore(given, net.net_g, generators(1, 2))
    known = given["mask"].expand_as(found) == 0
    assert torch.allclose(found[known], given["lq"][known], rtol=0, atol=1e-6)
    assert float((found - given["lq"])[~known].abs().mean().detach()) > 0.01


def test_without_a_hole_nothing_is_drawn():
    net, before = model(), torch.get_rng_state()
    own = generators(1, 2)
    net.training_loss(batch() | {"generators": own})
    net.restore(batch(), net.net_g, own)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(g.get_state(), new.get_state()) for g, new in zip(own, generators(1, 2)))


def test_its_one_node_is_a_grid_of_one_step():
    path, steps = Regression(), torch.tensor([1, 1])
    assert samplers.step_grid(path, 1) == [1, 0]
    assert path.time(steps).tolist() == [1000, 1000] and path.sample_step(2).tolist() == [1, 1]
    x0, x1 = torch.rand(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert path.sample_xt(x0, x1, steps) is x1
    assert torch.allclose(path.x0_from(x1, path.target(x1, x0, steps), steps), x0)


def regression_options(root):
    opt = bridge_options(root) | {"model_type": "RegressionModel", "regression": {"lift": "bicubic"}}
    del opt["bridge"], opt["val"]["sampler"]
    opt["network_g"]["channel_mult"] = [1]
    return opt


def batches_of(monkeypatch, capsys, path):
    seen, learn = [], I2SBModel.training_loss

    def watch(self, given):
        seen.append({key: given[key].clone() for key in ("lq", "gt")})
        return learn(self, given)

    monkeypatch.setattr(I2SBModel, "training_loss", watch)
    code, _, err = run(capsys, "train", "-opt", path)
    assert code == 0, err
    return seen


def test_it_trains_on_the_batches_of_the_bridge_and_its_commands_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    opt, twin = regression_options(tmp_path), bridge_options(tmp_path / "twin")
    twin |= {"name": "twin", "datasets": copy.deepcopy(opt["datasets"])}
    twin["network_g"]["channel_mult"] = [1]
    path = write(tmp_path, opt)
    with monkeypatch.context() as patch:
        ours = batches_of(patch, capsys, path)
    with monkeypatch.context() as patch:
        theirs = batches_of(patch, capsys, write(tmp_path, twin, "twin.yml"))
    assert len(ours) == len(theirs) == 4
    assert all(torch.equal(a[key], b[key]) for a, b in zip(ours, theirs) for key in a)
    log = "".join(found.read_text() for found in (tmp_path / "experiments/tiny").glob("*.log"))
    assert "l_bridge" in log and log.count("# psnr:") == 2

    lq = tmp_path / "one.png"
    cv2.imwrite(str(lq), cv2.imread(str(tmp_path / "data/val/gt/0.png"))[:9, :7])
    weights = tmp_path / "experiments/tiny/models/net_g_4.pth"
    words = ["restore", "-i", lq, "-o", tmp_path / "out", "--checkpoint", weights, "-opt", path]
    assert run(capsys, *words)[0] == 0
    assert cv2.imread(str(next((tmp_path / "out").rglob("*.png")))).shape == (18, 14, 3)
    assert run(capsys, "test", "-opt", path, "--force_yml", f"path:pretrain_network_g={weights}")[0] == 0
    assert "RegressionModel" in run(capsys, "list")[1]
    code, _, err = run(capsys, *words, "--nfe", 2)
    assert code == 2 and "--nfe is no flag of restoring with this model" in err
    figures = json.loads((tmp_path / "results/tiny/metrics.json").read_text())["datasets"]["val"]["mean"]
    assert 3 < figures["psnr"] < 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regression": {"steps": 10}}, "regression.steps"),
        ({"regression": {"hole": "zero"}}, "regression.hole"),
        ({"regression": {"lift": "lanczos"}}, "regression.lift"),
        ({"regression": {"add_x1_noise": True}}, "regression.add_x1_noise"),
        ({"val": {"sampler": {"nfe": 4}}}, "val.sampler"),
        ({"val": {"nfe_curve": [1, 2]}}, "val.nfe_curve"),
        ({"train": {"bridge_opt": {"type": "BridgeLoss", "norm": "l3"}}}, "norm"),
        ({"train": {"bridge_opt": {"type": "BridgeLoss", "weighting": "sigma2"}}}, "train.bridge_opt.weighting"),
        ({"regression": {"cond_x1": True}}, "network_g.cond_channels is 0"),
    ],
)
def test_wrong_options_are_named(tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    opt = regression_options(tmp_path)
    for block, value in change.items():
        opt[block] = opt.get(block, {}) | value
    code, out, err = run(capsys, "check", "-opt", write(tmp_path, opt))
    assert code != 0 and message in out + err
