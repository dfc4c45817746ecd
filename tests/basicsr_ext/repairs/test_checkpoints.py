import copy
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from basicsr_ext import repairs
from basicsr_ext.checkpoints import storage
from basicsr_ext.common import files
from basicsr_ext.common.contracts import RestorerContract
from basicsr_ext.common.errors import InputError
from basicsr_ext.training import loop_state
from tests.support.basicsr_runs import model_of, options

repairs.apply()

import basicsr.train  # noqa: E402
from basicsr.models.base_model import BaseModel  # noqa: E402
from basicsr.models.sr_model import SRModel  # noqa: E402


def stepped(opt, steps=1):
    """A model that has trained for some steps on fixed data."""
    model = model_of(opt)
    for k in range(1, steps + 1):
        model.update_learning_rate(k)
        generator = torch.Generator().manual_seed(k)
        lq, gt = torch.rand(2, 3, 8, 8, generator=generator), torch.rand(2, 3, 16, 16, generator=generator)
        model.feed_data({"lq": lq, "gt": gt})
        model.optimize_parameters(k)
    return model


def full_disk(*args, **kwargs):
    raise OSError(28, "No space left on device")


def test_files_have_basicsrs_layout(tmp_path):
    opt = options(tmp_path)
    stepped(opt).save(0, 3)
    stepped(opt).save(-1, -1)
    nets = storage.load_checkpoint(f"{opt['path']['models']}/net_g_3.pth")
    assert set(nets) == {"params", "params_ema", "config"}
    again = stepped(opt)
    BaseModel.load_network.unrepaired(again, again.net_g, f"{opt['path']['models']}/net_g_3.pth", True, "params_ema")
    assert all(value.equal(nets["params_ema"][name]) for name, value in again.net_g.state_dict().items())
    state = storage.load_state(f"{opt['path']['training_states']}/3.state")
    assert state["iter"] == 3 and state["epoch"] == 0 and len(state["optimizers"]) == len(state["schedulers"]) == 1
    names = {p.name for p in tmp_path.glob("experiments/run/*/*")}
    assert names == {"net_g_3.pth", "net_g_latest.pth", "3.state", "3.sha256"}


def test_a_failed_save_raises_and_keeps_what_was_there(tmp_path, monkeypatch):
    opt = options(tmp_path)
    model = stepped(opt)
    model.save(0, 1)
    before = storage.load_weights(f"{opt['path']['models']}/net_g_1.pth")
    model.net_g.conv_first.weight.data.zero_()
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(files.SaveError, match=r"net_g_1\.pth: .*No space left"):
        model.save(0, 1)
    with pytest.raises(files.SaveError, match=r"2\.state"):
        model.save_training_state(0, 2)
    monkeypatch.setattr("time.sleep", lambda s: None)
    BaseModel.save_training_state.unrepaired(model, 0, 2)  # ends without an error and without a file
    after = storage.load_weights(f"{opt['path']['models']}/net_g_1.pth")
    assert after["conv_first.weight"].equal(before["conv_first.weight"])
    assert {p.name for p in tmp_path.glob("experiments/run/*/*")} == {
        "net_g_1.pth",
        "net_g_latest.pth",
        "1.state",
        "1.sha256",
    }


def test_states_load_even_with_numpy_numbers_in_them(tmp_path):
    opt = options(tmp_path)
    model = stepped(opt)
    model.optimizers[0].param_groups[0]["lr"] = np.float64(0.5)
    model.best_metric_results = {"v": {"psnr": {"better": "higher", "val": np.float64(20.5), "iter": 7}}}
    model.save_training_state(0, 1)
    state = storage.load_state(f"{opt['path']['training_states']}/1.state")
    assert state["optimizers"][0]["param_groups"][0]["lr"] == 0.5
    assert state["best_metric_results"]["v"]["psnr"] == {"better": "higher", "val": 20.5, "iter": 7}


# ---- loading a network


def loading(tmp_path, **path):
    opt = options(tmp_path)
    stepped(opt).save(0, 1)
    saved = f"{opt['path']['models']}/net_g_1.pth"
    opt["path"].update({"pretrain_network_g": saved, **path})
    return opt, saved


def test_a_network_that_fits_is_loaded(tmp_path):
    opt, saved = loading(tmp_path)
    model = model_of(opt)
    for net, key in ((model.net_g, "params"), (model.net_g_ema, "params_ema")):
        for name, value in storage.load_weights(saved, key).items():
            assert net.state_dict()[name].equal(value)


def test_a_bare_state_dict_is_loaded(tmp_path):
    opt, saved = loading(tmp_path)
    bare = {f"module.{k}": v for k, v in storage.load_weights(saved).items()}
    torch.save(bare, tmp_path / "bare.pth")
    opt["path"]["pretrain_network_g"] = str(tmp_path / "bare.pth")
    model = model_of(opt)
    assert model.net_g.conv_last.weight.equal(bare["module.conv_last.weight"])
    with pytest.raises(KeyError):
        BaseModel.load_network.unrepaired(model, model.net_g, str(tmp_path / "bare.pth"))


def test_other_keys_and_shapes_are_listed_both_ways(tmp_path):
    opt, saved = loading(tmp_path)
    weights = storage.load_weights(saved)
    weights["extra.weight"] = weights.pop("conv_hr.bias")
    weights["conv_last.bias"] = torch.zeros(4)
    torch.save({"params": weights}, saved)
    Path(tmp_path / "experiments/run/training_states/1.sha256").unlink()
    with pytest.raises(InputError) as caught:
        model_of(opt)
    text = str(caught.value)
    assert "path.pretrain_network_g" in text and "does not fit network MSRResNet" in text
    assert "1 missing: conv_hr.bias" in text and "1 unknown: extra.weight" in text
    assert "conv_last.bias (4,) instead of (3,)" in text and "path.strict_load_g: false" in text
    with pytest.raises(InputError) as caught:
        model_of({**opt, "path": {**opt["path"], "resume_state": "1.state"}})
    assert "strict_load_g" not in str(caught.value) and "goes on with the network of its save" in str(caught.value)
    opt["path"]["strict_load_g"] = False
    assert model_of(opt).net_g.conv_first.weight.equal(weights["conv_first.weight"])


def test_missing_and_damaged_networks_are_named(tmp_path):
    opt, saved = loading(tmp_path, param_key_g="weights")
    with pytest.raises(InputError, match=r"'weights'.*params, params_ema"):
        model_of(opt)
    with open(saved, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(InputError, match=r"path\.pretrain_network_g: .*net_g_1\.pth is damaged"):
        model_of(opt)
    Path(tmp_path / "experiments/run/training_states/1.sha256").unlink()
    with pytest.raises(InputError, match=r"path\.pretrain_network_g: .*net_g_1\.pth is damaged"):
        model_of(opt)
    opt["path"]["pretrain_network_g"] = "no.pth"
    with pytest.raises(InputError, match=r"path\.pretrain_network_g: .*no\.pth"):
        model_of(opt)


# ---- resuming


def resumed(opt, auto=True):
    """The state that load_resume_state finds; opt as it leaves it."""
    opt = {**json.loads(json.dumps(opt)), "auto_resume": auto}
    return basicsr.train.load_resume_state(opt), opt


def test_nothing_to_resume_is_said(tmp_path, capsys, monkeypatch):
    said = []
    log = type("Log", (), {"warning": staticmethod(said.append)})
    monkeypatch.setattr("basicsr_ext.repairs.resume.get_root_logger", lambda: log)
    state, opt = resumed(options(tmp_path))
    assert state is None and opt["start"] == {"epoch": 0, "iter": 0, "position": 0}
    assert "no training state in" in said[0] and "from the beginning" in said[0]
    assert resumed(options(tmp_path), auto=False)[0] is None and len(said) == 1


def test_the_newest_whole_pair_is_resumed_from_any_folder(tmp_path, monkeypatch):
    opt = options(tmp_path)
    model = stepped({**opt, "resolved": json.dumps(opt)})
    for iteration in (9, 10, 20):
        model.save(1, iteration)
    states = tmp_path / "experiments/run/training_states"
    (states / "best.state").touch()
    (states / "20.state").write_bytes((states / "20.state").read_bytes()[:300])
    (states / ".30.state.unfinished").touch()
    said = []
    log = type("Log", (), {"warning": staticmethod(said.append)})
    monkeypatch.setattr("basicsr_ext.repairs.resume.get_root_logger", lambda: log)
    monkeypatch.chdir(tmp_path / "gt")
    state, opt = resumed(opt)
    assert state["iter"] == 10 and opt["start"] == {"epoch": 1, "iter": 10, "position": 20}
    assert opt["path"]["resume_state"] == str(states / "10.state")
    assert opt["path"]["pretrain_network_g"] == str(tmp_path / "experiments/run/models/net_g_10.pth")
    assert "20.state is damaged" in said[0] and "Resuming from" in said[1] and "10.state, iteration 10" in said[1]
    assert len(said) == 2, "no option differs"
    assert not (states / ".30.state.unfinished").exists()


def test_later_saves_of_another_course_are_said(tmp_path, monkeypatch):
    opt = options(tmp_path)
    model = stepped({**opt, "resolved": json.dumps(opt)})
    for iteration in (4, 8, 12):
        model.save(1, iteration)
    said = []
    log = type("Log", (), {"warning": staticmethod(said.append)})
    monkeypatch.setattr("basicsr_ext.repairs.resume.get_root_logger", lambda: log)
    for iteration, later in ((4, True), (12, False)):
        opt["path"]["resume_state"] = f"{opt['path']['training_states']}/{iteration}.state"
        resumed(opt, auto=False)
        assert any("up to 12.state" in line and "move them away" in line for line in said) is later
        said.clear()


def test_a_run_with_damaged_states_only_is_not_started_afresh(tmp_path):
    opt = options(tmp_path)
    stepped(opt).save(0, 5)
    (tmp_path / "experiments/run/training_states/5.state").write_bytes(b"")
    with pytest.raises(InputError, match=r"passed over 5\.state"):
        resumed(opt)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fault needs a machine without a GPU")
def test_the_unrepaired_resume_asks_for_cuda(tmp_path):
    opt = options(tmp_path)
    stepped(opt).save(0, 5)
    opt["path"]["resume_state"] = f"{opt['path']['training_states']}/5.state"
    with pytest.raises((RuntimeError, AssertionError)):
        basicsr.train.load_resume_state.unrepaired(opt)


def test_a_state_of_another_run_brings_its_networks(tmp_path):
    first = options(tmp_path)
    stepped(first).save(0, 5)
    second = options(tmp_path, "other")
    second["path"]["resume_state"] = f"{first['path']['training_states']}/5.state"
    state, opt = resumed(second, auto=False)
    assert state["iter"] == 5 and opt["path"]["pretrain_network_g"].endswith("run/models/net_g_5.pth")
    assert (tmp_path / "experiments/other/models").is_dir()
    (tmp_path / "experiments/run/models/net_g_5.pth").unlink()
    with pytest.raises(InputError, match=r"its network is neither"):
        resumed(second, auto=False)


def test_wrong_resume_states_are_refused(tmp_path):
    opt, saved = loading(tmp_path)
    for path, said in ((saved, "is not a training state"), ("no.state", "no such checkpoint file: no.state")):
        opt["path"]["resume_state"] = path
        with pytest.raises(InputError, match=said):
            resumed(opt, auto=False)


def test_best_metrics_come_back(tmp_path):
    opt = options(tmp_path)
    model = stepped(opt, 2)
    model.best_metric_results = {
        "v": {"psnr": {"better": "higher", "val": 30.0, "iter": 1}},
        "old": {"gone": {"better": "higher", "val": 1.0, "iter": 1}},
    }
    model.save(0, 2)
    state, opt = resumed(opt)
    again = model_of(opt)
    again.resume_training(state)
    assert again.best_metric_results == {"v": model.best_metric_results["v"]}
    assert again.optimizers[0].state_dict()["state"][0]["step"] == 2
    again = model_of(opt)
    BaseModel.resume_training.unrepaired(again, state)
    assert not hasattr(again, "best_metric_results")


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda opt: opt["datasets"]["val"].update(num_worker_per_gpu=3), True),
        (lambda opt: opt["datasets"]["val"].update(dataroot_gt="other"), False),
        (lambda opt: opt["val"]["metrics"]["psnr"].update(crop_border=2), False),
    ],
)
def test_best_figures_of_other_images_or_borders_are_not_taken_over(tmp_path, change, kept):
    opt = options(tmp_path)
    opt["datasets"]["val"] = {"name": "v", "dataroot_gt": "some"}
    opt["val"] = {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}}
    model = stepped(opt, 2)
    model.best_metric_results = {"v": {"psnr": {"better": "higher", "val": 30.0, "iter": 1}}}
    model.save(0, 2)
    state, opt = resumed(opt)
    change(opt)
    again = model_of(opt)
    again.resume_training(state)
    assert ("best_metric_results" in vars(again)) is kept


def test_moments_of_other_shapes_are_refused_and_factored_ones_are_not(tmp_path):
    opt = options(tmp_path)
    opt["train"]["optim_g"] = {"type": "Adafactor", "lr": 1e-3}
    stepped(opt).save(0, 2)
    state, opt = resumed(opt)
    model_of(opt).resume_training(state)
    opt["network_g"]["num_feat"] *= 2
    model = model_of({**opt, "path": {**opt["path"], "pretrain_network_g": None}})
    with pytest.raises(InputError, match=r"2\.state does not fit train\.optim_g: .* shape \("):
        model.resume_training(state)


def test_the_draws_of_an_iteration_follow_from_seed_and_number_alone(tmp_path):
    model = model_of(options(tmp_path))

    def drawn(iteration):
        model.update_learning_rate(iteration)
        return random.random(), np.random.random(), torch.rand(1).item()

    assert drawn(2) == drawn(2) and len({*drawn(2), *drawn(3)}) == 6
    BaseModel.update_learning_rate.unrepaired(model, 2)
    assert random.random() != drawn(2)[0]


def test_a_state_that_does_not_fit_is_refused(tmp_path):
    opt = options(tmp_path)
    stepped(opt).save(0, 2)
    state, opt = resumed(opt)
    model = model_of(opt)
    with pytest.raises(InputError, match="holds 0 optimizers, the options make 1"):
        model.resume_training({**state, "optimizers": []})
    state["optimizers"][0]["param_groups"][0]["params"].pop()
    with pytest.raises(InputError, match=r"2\.state .*train\.optim_g"):
        model.resume_training(state)


def test_resuming_begins_no_iteration(tmp_path, monkeypatch):
    opt = options(tmp_path)
    stepped(opt).save(0, 2)
    state, opt = resumed(opt)
    repaired, begun = BaseModel.update_learning_rate, []

    def wrapped(self, current_iter, warmup_iter=-1):  # as others who look at the loop may wrap it
        begun.append(current_iter)
        repaired(self, current_iter, warmup_iter)

    monkeypatch.setattr(BaseModel, "update_learning_rate", wrapped)
    model = model_of(opt)
    model.resume_training(state)
    assert begun == [] and loop_state.current().model is not model


def rates(model, first, last, warmup=-1):
    found = []
    for k in range(first, last + 1):
        model.update_learning_rate(k, warmup)
        model.optimizers[0]._opt_called = True
        found.append(model.get_current_learning_rate()[0])
    return found


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"optim_g": {"type": "Adam", "lr": 5e-4, "betas": [0.5, 0.9], "weight_decay": 0.1}},
        {"scheduler": {"type": "MultiStepLR", "milestones": [2, 4], "gamma": 0.3}},
        {"scheduler": {"type": "CosineAnnealingRestartLR", "periods": [2, 9], "restart_weights": [1, 0.5]}},
        {"scheduler": {"type": "OneCycleLR", "max_lr": 0.01, "total_steps": 20}},
        {"warmup_iter": 5},
    ],
)
def test_a_resumed_run_has_the_schedule_and_settings_of_its_options(tmp_path, train):
    opt = options(tmp_path)
    stepped(opt, 3).save(0, 3)
    state, opt = resumed(opt)
    opt["train"].update(copy.deepcopy(train))
    warmup = train.get("warmup_iter", -1)
    wanted, again = model_of(copy.deepcopy(opt)), model_of(opt)
    expected = rates(wanted, 1, 8, warmup)
    again.resume_training(state)
    assert rates(again, 4, 8, warmup) == expected[3:]
    ours, theirs = again.optimizers[0].state_dict(), wanted.optimizers[0].state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert again.schedulers[0].state_dict() == wanted.schedulers[0].state_dict()
    assert all(moments["step"] == 3 for moments in ours["state"].values())
    saved = state["optimizers"][0]["state"]
    assert all(ours["state"][k]["exp_avg"].equal(saved[k]["exp_avg"]) for k in saved)


def test_what_follows_the_options_is_said_with_the_rate_before_and_after(tmp_path, monkeypatch):
    opt = options(tmp_path)
    stepped(opt).save(0, 2)
    state, opt = resumed(opt)
    said = []
    log = type("Log", (), {"info": staticmethod(said.append)})
    monkeypatch.setattr("basicsr_ext.repairs.checkpoints.get_root_logger", lambda: log)
    same = copy.deepcopy(opt)
    model_of(same | {"resolved": state["options"]}).resume_training(state)
    assert all(line.startswith("Loading") for line in said)
    said.clear()
    opt["train"]["optim_g"]["lr"] = 5e-4
    opt["resolved"] = json.dumps(opt, default=str)
    model_of(opt).resume_training(state)
    assert "train.optim_g.lr: 0.001 -> 0.0005" in said[-1] and "lr of iteration 2: 0.001 -> 0.0005" in said[-1]


def test_moments_that_a_new_setting_needs_begin_at_zero(tmp_path):
    opt = options(tmp_path)
    stepped(opt).save(0, 2)
    state, opt = resumed(opt)
    opt["train"]["optim_g"]["amsgrad"] = True
    model = model_of(opt)
    model.resume_training(state)
    held = next(iter(model.optimizers[0].state.values()))
    assert held["max_exp_avg_sq"].count_nonzero() == 0 and held["exp_avg"].count_nonzero() > 0
    model.feed_data({"lq": torch.rand(1, 3, 8, 8), "gt": torch.rand(1, 3, 16, 16)})
    model.optimize_parameters(3)


def test_the_moments_of_another_optimiser_are_refused_by_name(tmp_path):
    opt = options(tmp_path)
    opt["resolved"] = json.dumps(opt)
    stepped(opt).save(0, 2)
    state, opt = resumed(opt)
    opt["train"]["optim_g"] = {"type": "SGD", "lr": 1e-3, "momentum": 0.9}
    with pytest.raises(InputError, match="exp_avg.*SGD needs momentum_buffer"):  # where the options are not known
        model_of(copy.deepcopy(opt)).resume_training(state)
    with pytest.raises(InputError, match=r"optim_g\.type is SGD.*AdamW; set train\.optim_g\.type: AdamW"):
        resumed(opt)


def test_a_model_with_rates_of_its_own_goes_on_with_those_of_the_state(tmp_path):
    class Own(SRModel):
        def update_learning_rate(self, current_iter, warmup_iter=-1):
            self._set_lr([[1.0 / current_iter]])

    opt = options(tmp_path)
    stepped(opt).save(0, 2)
    state, opt = resumed(opt)
    opt["train"]["optim_g"]["lr"] = 5e-4
    model = model_of(opt)
    model.__class__ = Own
    model.resume_training(state)
    assert model.get_current_learning_rate() == [1e-3]


def test_a_model_can_keep_state_of_its_own(tmp_path):
    class Scaled(RestorerContract, SRModel):
        def training_state_extras(self):
            return {"scale": np.float32(2)}

        def load_training_state_extras(self, extras):
            self.taken = extras

    opt = options(tmp_path)
    model = stepped(opt)
    model.__class__ = Scaled
    model.save(0, 2)
    state, opt = resumed(opt)
    again = model_of(opt)
    again.__class__ = Scaled
    again.resume_training(state)
    assert again.taken == {"scale": 2.0}
