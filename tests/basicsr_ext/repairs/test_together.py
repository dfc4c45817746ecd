"""The repairs in BasicSR's own train_pipeline."""

import re

import pytest
import torch

from basicsr_ext.checkpoints import resumable, storage
from basicsr_ext.common.errors import NonFiniteLoss
from tests.support.basicsr_runs import model_of, options, train, train_here


def weights(opt, name="net_g_latest.pth", key="params"):
    return storage.load_weights(f"{opt['path']['models']}/{name}", key)


def validated(log):
    """(psnr, best, iteration of the best) of the last validation in a log."""
    return re.findall(r"# psnr: ([\d.]+)\tBest: ([\d.]+) @ (\d+) iter", log)[-1]


def test_a_run_that_was_cut_and_resumed_equals_the_unbroken_one(tmp_path, monkeypatch):
    whole, cut = options(tmp_path, "whole", 7), options(tmp_path, "cut", 4)
    for opt in (whole, cut):
        opt["val"]["val_freq"] = 2
    log = train_here(whole, tmp_path, monkeypatch)
    train_here(cut, tmp_path, monkeypatch)
    cut["train"]["total_iter"] = 7
    resumed_log = train_here(cut, tmp_path, monkeypatch, auto_resume=True)
    assert "Resuming training from epoch: 1, iter: 4" in resumed_log
    assert validated(resumed_log) == validated(log)
    for key in ("params", "params_ema"):
        for name, value in weights(whole, key=key).items():
            assert weights(cut, key=key)[name].equal(value), name
    states = [storage.load_state(f"{o['path']['training_states']}/6.state") for o in (whole, cut)]
    first, second = (s["optimizers"][0]["state"][0]["exp_avg"] for s in states)
    assert first.equal(second)
    assert not (tmp_path / "vgg.pth").exists()


def test_a_killed_run_goes_on_from_its_last_state(tmp_path, monkeypatch):
    opt = options(tmp_path, total_iter=7)
    done = train(opt, tmp_path, kill_at=5)
    assert done.returncode == -9, done.stderr
    log = train_here(opt, tmp_path, monkeypatch, auto_resume=True)
    assert "Resuming training from epoch: 1, iter: 4" in log
    assert re.findall(r"iter: +(\d+), lr", log) == ["5", "6", "7"] and validated(log)[2] == "7"
    assert resumable.resumable_iterations(opt) == [6, 4, 2]


def test_a_finished_run_that_is_resumed_changes_nothing(tmp_path, monkeypatch):
    opt = options(tmp_path, total_iter=4)
    train_here(opt, tmp_path, monkeypatch)
    before = weights(opt)
    log = train_here(opt, tmp_path, monkeypatch, auto_resume=True)
    assert "total_iter is 4 and the resumed state is at 4: nothing to do" in log
    assert all(weights(opt)[k].equal(v) for k, v in before.items())


@pytest.mark.parametrize("prefetch", [None, "cpu"])
def test_worker_processes_deliver_the_whole_budget(tmp_path, monkeypatch, prefetch):
    opt = options(tmp_path, total_iter=5)
    opt["datasets"]["train"].update(num_worker_per_gpu=2, prefetch_mode=prefetch)
    log = train_here(opt, tmp_path, monkeypatch)
    assert re.findall(r"iter: +(\d+), lr", log) == ["1", "2", "3", "4", "5"]


def test_a_run_that_diverges_stops_and_saves_nothing_more(tmp_path, monkeypatch):
    opt = options(tmp_path, total_iter=8)
    opt["train"]["optim_g"] = {"type": "SGD", "lr": 1e25}
    opt["logger"]["save_checkpoint_freq"] = 1
    with pytest.raises(NonFiniteLoss, match=r"iteration [23], learning rate 1\.000e\+25: l_pix is (nan|inf)"):
        train_here(opt, tmp_path, monkeypatch)
    newest = storage.newest_checkpoint(opt)
    assert newest.samefile(f"{opt['path']['models']}/net_g_latest.pth"), "the end of the run was not saved"
    assert all(torch.isfinite(v).all() for v in storage.load_weights(newest).values())


def test_two_gloo_ranks_train_and_validate_like_one(tmp_path):
    opt = options(tmp_path, total_iter=4)
    opt["dist_params"] = {"backend": "nccl", "timeout": 60}
    done = train(opt, tmp_path, ranks=2)
    assert done.returncode == 0, done.stderr
    log = next((tmp_path / "experiments/run").glob("*.log")).read_text()
    assert re.findall(r"iter: +(\d+), lr", log) == ["1", "2", "3", "4"]
    assert "Network: DistributedDataParallel - MSRResNet" in log
    opt["path"]["pretrain_network_g"] = f"{opt['path']['models']}/net_g_latest.pth"
    opt["path"]["param_key_g"] = "params_ema"
    model = model_of(opt)
    from basicsr.data import build_dataloader, build_dataset

    loader = build_dataloader(build_dataset(opt["datasets"]["val"]), opt["datasets"]["val"])
    model.validation(loader, 4, None, False)
    assert f"{model.metric_results['psnr']:.4f}" == validated(log)[0]
