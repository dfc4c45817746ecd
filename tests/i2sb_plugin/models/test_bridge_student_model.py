"""The student as a model: it begins as its teacher, learns its walk, restores in one evaluation, refuses the unfit."""

import copy
import json

import cv2
import numpy as np
import pytest
import torch

from basicsr_ext import cli
from basicsr_ext.checkpoints.storage import read_configuration
from basicsr_ext.common.errors import InputError
from i2sb_plugin import Restorer, samplers, space
from i2sb_plugin.models import bridge_student_model, teachers
from i2sb_plugin.models.bridge_student_model import BridgeStudentModel
from tests.end_to_end.test_resume import final, stop_at, train
from tests.support.cli_runs import bridge_options, run, write
from tests.support.fake_gpu import backward_of_zeros, fake_gpu
from tests.support.models import build_model, built, generators, make_batch, model_options

GIVEN = {"path": {"teacher": "t"}}
SIGHT = {"bridge__cond_x1": True, "bridge__steps": 100, "network_g__cond_channels": 3}
NOISY = {**SIGHT, "network_g__cond_channels": 6}
NETWORK = {"type": "MSRResNet", "num_feat": 4, "num_block": 1}
KINDS = {
    "eps": {},
    "unshuffled": {"network_g__unshuffle": 2, "network_g__full_size": 4},
    "preconditioned": {"bridge__predicts": "preconditioned", "bridge__residual_variance": 0.02},
    "noise at x1": {"bridge__predicts": "x0", "bridge__add_x1_noise": 0.1},
    "nafnet": {"network_g": {"type": "ConditionalNAFNet", "preset": "fast", "width": 4, "encoder_blocks": [1],
                             "decoder_blocks": [1], "middle_blocks": 1}},
}  # fmt: skip


def merged(kind, sight):
    """Changes of a kind with the number of condition channels in its network's own block."""
    changes = copy.deepcopy(sight | kind)
    if "network_g" in changes:
        changes["network_g"]["cond_channels"] = changes.pop("network_g__cond_channels")
    return changes


def saved(tmp_path, net, name="teacher.pth"):
    """The checkpoint of a model, as a run writes it."""
    configuration = {key: net.opt[key] for key in ("model_type", "scale", "network_g", "bridge") if key in net.opt}
    weights = {"params_ema": net.net_g.state_dict(), "config": json.dumps(configuration)}
    torch.save(weights, tmp_path / name)
    return str(tmp_path / name)


def shaken(net):
    """The model with random weights in every layer, so that all of its input matters."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in net.net_g.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.03)
    return net


def pair(tmp_path, kind=None, **changes):
    """A teacher and its untrained student."""
    teacher = shaken(built("I2SBModel", **merged(kind or {}, SIGHT | changes)))
    path = {"teacher": saved(tmp_path, teacher)}
    extra = {key: value for key, value in (kind or {}).items() if key != "bridge__residual_variance"}  # the teacher's
    return teacher, built("BridgeStudentModel", **merged(extra, NOISY | changes), path=path)


def restored(net, masked=False, seeds=(1, 2), **sampler):
    net.take_options(net.opt | {"val": {"sampler": sampler}})
    net.feed_data(make_batch(masked=masked))
    with torch.no_grad(), net.evaluating() as eval_net:
        return net.restore(net.batch, eval_net, generators(*seeds))


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_at_dial_1_it_is_one_evaluation_of_its_teacher(tmp_path, kind):
    teacher, student = pair(tmp_path, KINDS[kind])
    x1, cond = student.ends(make_batch(), generators(1, 2))
    ours = student.predictor(student.net_g, x1, cond)
    student.take_options(student.opt | {"val": {"sampler": {"dial": 1}}})
    with torch.no_grad():
        mine = student.predictor(student.net_g, x1, cond)(x1, student.bridge.last_step)
        its = teacher.predictor(teacher.net_g, x1, cond[:, :3])(x1, teacher.bridge.last_step)
        middle = ours(x1, student.bridge.last_step)
    assert torch.allclose(mine, its, rtol=0, atol=1e-5)
    assert not torch.allclose(mine, middle, rtol=0, atol=1e-4), "another place is another time"


def test_the_noise_enters_by_weights_that_start_at_zero_and_learn(tmp_path):
    _, student = pair(tmp_path, {"network_g__unshuffle": 2, "network_g__full_size": 4})
    first = student.net_g.input_blocks[0][0].weight
    assert first.shape[1] == (3 + 6) * 4 and float(first[:, 24:].detach().abs().max()) == 0
    assert float(first[:, :24].detach().abs().min()) > 0
    student.feed_data(make_batch())
    student.optimize_parameters(1)
    assert float(first[:, 24:].detach().abs().max()) > 0
    assert not any(weight.requires_grad for weight in student.teacher.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_weight_has_a_gradient_at_any_precision(tmp_path, precision):
    _, student = pair(tmp_path, train__precision=precision)
    shaken(student)
    student.feed_data(make_batch())
    student.optimize_parameters(1)
    lost = [name for name, weight in student.net_g.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert lost == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_nothing_lies_on_the_wrong_device_and_no_step_waits(tmp_path, monkeypatch, precision):
    fast = {"bridge__predicts": "preconditioned"}
    file = saved(tmp_path, built("I2SBModel", **SIGHT | fast, bridge__residual_variance=0.02))
    train = {"precision": precision, "compile": False, "channels_last": False, "x0_losses": {"p": {"type": "L1Loss"}}}
    changes = NOISY | fast | {f"train__{key}": value for key, value in train.items()}
    options = model_options("BridgeStudentModel", **changes, path={"teacher": file}, num_gpu=1)
    monkeypatch.setattr(bridge_student_model, "load_network", lambda it: teachers.build_network(dict(it.network)))
    with fake_gpu():
        made = build_model(options)
        made.feed_data(make_batch(4))
        with backward_of_zeros(made.net_g.parameters()):
            for iteration in (1, 2):
                made.optimize_parameters(iteration)
        made.test()
        assert made.output.device.type == "cuda" and made.output.dtype == torch.float32


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "hole"])
def test_its_targets_in_a_row_are_the_walk_of_its_teacher(tmp_path, masked):
    changes = {"scale": 1, "bridge__hole": "keep"} if masked else {}
    teacher, student = pair(tmp_path, {"bridge__predicts": "x0"}, **changes, student={"nodes": 5})
    batch = make_batch(masked=masked)
    mask, (x1, cond) = batch.get("mask"), student.ends(batch, generators(1, 2))
    found = {0: None}

    def learnt(net, start, x1, cond, position):  # a student that has learnt every place so far
        return found[int(position[0])]

    student._found = learnt
    with torch.no_grad():
        end = samplers.dbim(
            teacher.predictor(teacher.net_g, x1, cond[:, :3]), teacher.bridge, x1, list(student.walk.nodes), mask=mask,
            generator=generators(1, 2),
        )  # fmt: skip
        found[0] = torch.zeros_like(x1)  # of no effect: the first step keeps nothing
        for place in range(5):
            target = student._target(x1, x1, cond, torch.full((2,), place), mask)
            found[place + 1] = target
    assert torch.allclose(found[5], end, rtol=0, atol=1e-5)
    assert torch.equal(found[1], student._target(x1, x1, cond, torch.zeros(2, dtype=torch.int64), mask))


def test_a_perfect_teacher_leaves_a_perfect_student_as_it_is_at_every_place(tmp_path):
    _, student = pair(tmp_path, {"bridge__predicts": "x0"}, train__x0_losses={"pixel": {"type": "L1Loss"}})
    batch = make_batch(8)
    x0 = space.encode(batch["gt"])
    student._call = lambda net, xt, x1, step, cond: x0
    student._found = lambda net, start, x1, cond, position: x0
    for first in range(8):
        losses = student.training_loss(batch | {"generators": generators(*range(first, first + 8))})
        assert float(losses["l_student"]) < 1e-6 and float(losses["l_pixel"]) == 0


def test_the_losses_of_x0_see_the_samples_at_the_end_alone(tmp_path):
    _, student = pair(tmp_path, student={"nodes": 4, "x0_share": 0.5}, train__x0_losses={"pixel": {"type": "L1Loss"}})
    found, x0 = torch.ones(4, 3, 16, 16), torch.zeros(4, 3, 16, 16)
    losses = student._end_losses(found, x0, torch.tensor([4, 0, 3, 4]), generators(0, 1, 2, 3))
    assert float(losses["l_pixel"]) == pytest.approx(0.5 * 2 / 4), "half of the range, by two of four samples"
    assert float(student._end_losses(found, x0, torch.tensor([0, 1, 2, 3]), None)["l_pixel"]) == 0


def test_what_a_sample_draws_follows_from_it_alone(tmp_path):
    _, student = pair(tmp_path)
    x1, cond = student.ends(make_batch(3), generators(0, 1, 2))
    one, its = student.ends({key: value[:1] for key, value in make_batch(3).items()}, generators(0))
    assert torch.equal(cond[:1], its) and torch.equal(x1[:1], one)
    assert float(cond[:, 3:].std()) == pytest.approx(1, abs=0.05)
    assert torch.equal(student._sample_place(3, generators(0, 1, 2))[:1], student._sample_place(1, generators(0)))


def test_restoring_takes_one_evaluation_and_draws_by_the_seed(tmp_path):
    _, student = pair(tmp_path, student={"nodes": 4})
    shaken(student)
    student.ema_decay = 0
    calls = []
    student.net_g.register_forward_pre_hook(lambda _, inputs: calls.append(float(inputs[1][0])))
    first, again, other = (restored(student, seeds=seeds, dial=0.25) for seeds in ((1, 2), (1, 2), (3, 4)))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert calls == [250.0] * 3 and student.network_calls == 1
    assert torch.equal(restored(student), restored(student, dial=0.5))
    restored(student, draws=3)
    assert student.extras["std"].shape == first.shape and student.network_calls == 3
    alone = {key: value[:1] for key, value in student.batch.items()}
    with torch.no_grad():
        assert student.progress_strip(alone, student.net_g).shape == (3, 16, 3 * 16), "x1, what it makes of it, x0"


def test_outside_of_a_hole_nothing_changes(tmp_path):
    _, student = pair(tmp_path, scale=1)
    shaken(student)
    batch = make_batch(masked=True)
    found = restored(student, masked=True, dial=0)
    known = batch["mask"].expand_as(found) == 0
    assert torch.allclose(found[known], batch["lq"][known], rtol=0, atol=1e-6)
    student.feed_data(batch)
    student.optimize_parameters(1)


def test_a_teacher_with_a_dial_of_its_own_stands_at_fidelity(tmp_path):
    dialled = {"bridge__dial": True, "network_g__cond_channels": 4, "train__x0_losses": {"p": {"type": "L1Loss"}}}
    teacher = shaken(built("I2SBModel", **SIGHT | dialled))
    changes = NOISY | dialled | {"network_g__cond_channels": 7, "path": {"teacher": saved(tmp_path, teacher)}}
    student = built("BridgeStudentModel", **changes)
    _, cond = student.ends(make_batch(), generators(1, 2), torch.zeros(2))
    assert cond.shape[1] == 7 and torch.equal(cond[:, 3], torch.ones_like(cond[:, 3]))
    teacher.ema_decay = 0
    assert torch.allclose(restored(student, dial=1), restored(teacher, dial=1, nfe=1, type="one_step"), atol=1e-5)


def refusal(**changes):
    options = model_options("BridgeStudentModel", **NOISY | changes)
    faults = BridgeStudentModel.option_faults(options)
    if faults:
        raise InputError(faults[0])
    built("BridgeStudentModel", **NOISY | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, r"path\.teacher is missing; give the checkpoint"),
        ({"path": {"teacher": 3}}, r"path\.teacher is 3; give the checkpoint"),
        ({"path": {"teacher": "nowhere.pth"}}, r"path\.teacher nowhere\.pth: no such file"),
        (GIVEN | {"val__sampler": {"nfe": 2}}, r"val\.sampler: nfe is 2; a student takes 1 evaluation"),
        (
            GIVEN | {"val__sampler": {"dial": 1.5}},
            r"val\.sampler: dial is 1\.5; it must be a number from 0 \(realism\) to 1",
        ),
        (GIVEN | {"val__sampler": {"type": "dbim"}}, r"type is 'dbim', but a student does not walk"),
        (GIVEN | {"val__sampler": {"eta": 0.5}}, r"eta is 0\.5, but a student does not walk"),
        (GIVEN | {"val__nfe_curve": [1, 2]}, r"val\.nfe_curve: .*nfe is 2"),
        ({"student": {"nodes": 1}}, r"student: nodes is 1; it must be a whole number from 2"),
        ({"student": {"nodes": 101}}, r"student\.nodes is 101; this bridge allows 2 to 100"),
        ({"student": {"anchor": 0.6, "x0_share": 0.6}}, r"anchor is 0\.6 and x0_share 0\.6; they are shares"),
        ({"student": {"spacing": "even"}}, r"spacing is 'even'"),
        ({"student": {"early_bias": -1}}, r"early_bias is -1"),
        ({"bridge__cond_x1": False}, r"bridge\.cond_x1 is false"),
        ({"bridge__ot_ode": True}, r"student\..*ot_ode"),
        (GIVEN | {"train__x0_losses": {"p": {"type": "L1Loss", "at": "x1"}}}, r"p\.at is 'x1'"),
        (GIVEN | {"train__bridge_opt": {"type": "BridgeLoss", "weighting": "sigma"}}, "weighting"),
    ],
)
def test_wrong_options_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        refusal(**changes)


@pytest.mark.parametrize(
    ("teacher", "student", "words"),
    [
        ({"bridge__cond_x1": False, "network_g__cond_channels": 0}, {}, r"cond_x1 is false: it does not see x1"),
        ({"bridge__ot_ode": True}, {}, r"ot_ode is true: it carries no noise"),
        ({"scale": 4}, {}, r"scale is 2, the teacher's is 4; set scale: 4"),
        ({}, {"bridge__steps": 50}, r"bridge\.steps is 50, the teacher's is 100; set bridge\.steps: 100"),
        ({}, {"network_g__in_channels": 1}, r"network_g\.in_channels is 1, the teacher's is 3"),
        ({}, {"network_g__channel_mult": [1]}, r"network_g\.channel_mult is \[1\], the teacher's is \[1, 1\]"),
        ({}, {"network_g__cond_channels": 3}, r"cond_channels is 3, but the teacher's 3 and the noise make 6; set"),
        ({}, {"network_g": {"type": "ConditionalNAFNet", "cond_channels": 6}}, r"type is ConditionalNAFNet, the teach"),
        (
            {"network_g": {"type": "BridgeAdapter", "cond_channels": 3,
                           "network": NETWORK, "unshuffle": 2}},
            {"network_g": {"type": "BridgeAdapter", "cond_channels": 6,
                           "network": NETWORK, "unshuffle": 2}},
            r"type is BridgeAdapter, of which it is not known where it would take the noise in",
        ),
    ],
)  # fmt: skip
def test_a_teacher_that_does_not_fit_is_refused(tmp_path, teacher, student, words):
    def whole(sight, changes):
        merged = sight | changes
        return {key: value for key, value in merged.items() if "network_g" not in merged or "network_g__" not in key}

    file = saved(tmp_path, built("I2SBModel", **whole(SIGHT, teacher)))
    options = model_options("BridgeStudentModel", **whole(NOISY, student), path={"teacher": file})
    said = BridgeStudentModel.data_faults(options, make_batch())
    assert len(said) == 1 and file in said[0]
    with pytest.raises(InputError, match=words):
        raise InputError(said[0])


def test_a_teacher_that_is_no_bridge_or_says_nothing_is_refused(tmp_path):
    twin = built("RegressionModel", regression={"cond_x1": True}, network_g__cond_channels=3)
    twin.opt["bridge"] = {}
    file = saved(tmp_path, twin)
    with pytest.raises(InputError, match=r"model_type is RegressionModel; it must be a bridge, I2SBModel"):
        refusal(path={"teacher": file})
    _, student = pair(tmp_path)
    with pytest.raises(InputError, match=r"model_type is BridgeStudentModel; it must be a bridge"):
        refusal(path={"teacher": saved(tmp_path, student, "student.pth")})
    (tmp_path / "alone").mkdir()
    torch.save({"params": twin.net_g.state_dict()}, tmp_path / "alone/bare.pth")
    with pytest.raises(InputError, match=r"path\.teacher .*bare\.pth: it holds no configuration.*basicsr export"):
        refusal(path={"teacher": str(tmp_path / "alone/bare.pth")})


def test_a_run_learns_resumes_bit_by_bit_and_its_network_restores(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    opt = bridge_options(tmp_path)
    opt["bridge"] |= {"cond_x1": True, "predicts": "preconditioned"}
    opt["network_g"] |= {"cond_channels": 3, "channel_mult": [1], "attention_ds": []}
    assert train(write(tmp_path, opt), "name=teacher", resume=False) == 0
    teacher = "experiments/teacher/models/net_g_latest.pth"
    opt |= {"model_type": "BridgeStudentModel", "path": {"teacher": teacher}, "student": {"nodes": 5, "x0_share": 0.3}}
    opt["network_g"]["cond_channels"] = 6
    opt["train"]["x0_losses"] = {"pixel": {"type": "L1Loss"}}
    opt["val"]["sampler"] = {"dial": 0.5}
    path = write(tmp_path, opt)
    assert train(path, "name=unbroken", resume=False) == 0
    stop_at(monkeypatch, path, 3, "name=stopped")
    assert train(path, "name=stopped") == 0
    unbroken, stopped = final(tmp_path, "unbroken"), final(tmp_path, "stopped")
    assert all(value.equal(unbroken[key]) for key, value in stopped.items())
    weights = tmp_path / "experiments/unbroken/models/net_g_latest.pth"
    kept = read_configuration(weights)["bridge"]["residual_variance"]
    assert kept == read_configuration(teacher)["bridge"]["residual_variance"] > 0
    assert "l_student" in "".join(log.read_text() for log in (tmp_path / "experiments/unbroken").glob("*.log"))

    cv2.imwrite("a.png", np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8))
    words = ["restore", "-i", "a.png", "--checkpoint", str(weights)]
    for dial in (0, 1):
        assert cli.main([*words, "-o", f"{dial}.png", "--dial", str(dial)]) == 0
    pictures = [cv2.imread(f"{dial}.png") for dial in (0, 1)]
    assert pictures[0].shape == (48, 48, 3) and not np.array_equal(*pictures)
    assert np.array_equal(Restorer.load(weights, device="cpu")("a.png", dial=1), pictures[1][..., ::-1])
    code, _, said = run(capsys, *words, "-o", "b.png", "--nfe", "2")
    assert code == 2 and "nfe is 2; a student takes 1 evaluation" in said
    code, _, said = run(capsys, *words, "-o", "b.png", "--dial", "2")
    assert code == 2 and "dial is 2" in said
    code, _, said = run(capsys, "check", "-opt", path, "--force_yml", "path:teacher=a.png")
    assert code == 2 and "path.teacher" in said
