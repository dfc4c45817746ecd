"""A run that was stopped and continued with the same command is the unbroken run, bit by bit."""

import resource

import pytest

from basicsr_ext import cli, repairs
from basicsr_ext.checkpoints import resumable
from basicsr_ext.checkpoints.storage import load_state, load_weights
from tests.support.cli_runs import bridge_options, options, run, write
from tests.support.toolkit import command

STEPS = 9


class Stopped(BaseException):
    """Ends a run in the middle of an iteration, as a kill does."""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    repairs.apply()
    return tmp_path


def small(here, bridge):
    opt = bridge_options(here) if bridge else options(here)
    if bridge:
        opt["network_g"] |= {"channel_mult": [1], "attention_ds": []}
    opt["train"] |= {"total_iter": STEPS, "ema_decay": 0.9}
    opt["train"]["scheduler"] = {"type": "CosineAnnealingRestartLR", "periods": [STEPS], "restart_weights": [1]}
    opt["val"]["val_freq"] = 4
    opt["logger"] |= {"save_checkpoint_freq": 4, "print_freq": 3}
    opt["network_g"] |= {} if bridge else {"num_feat": 8}
    return opt


def train(path, *overrides, resume=True):
    words = ["train", "-opt", str(path), *(["--auto_resume"] if resume else [])]
    return cli.main([*words, "--force_yml", *overrides] if overrides else words)


def stop_at(monkeypatch, path, iteration, *overrides):
    from basicsr.models.base_model import BaseModel

    update = BaseModel.update_learning_rate

    def stopping(self, current_iter, **options):
        if current_iter == iteration:
            raise Stopped
        update(self, current_iter, **options)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(BaseModel, "update_learning_rate", stopping)
        train(path, *overrides)


def final(here, name):
    path = here / "experiments" / name / "models" / "net_g_latest.pth"
    return {f"{key} {k}": v for key in ("params", "params_ema") for k, v in load_weights(path, key).items()}


@pytest.mark.parametrize("bridge", [False, True], ids=["SRModel", "I2SBModel"])
def test_stops_anywhere_and_any_number_of_workers_give_the_unbroken_weights(here, monkeypatch, capsys, bridge):
    path = write(here, small(here, bridge))
    assert train(path, "name=unbroken", resume=False) == 0
    workers = "datasets:train:num_worker_per_gpu={}".format
    assert train(path, "name=workers", workers(2), resume=False) == 0
    stop_at(monkeypatch, path, 2, "name=stopped")
    for iteration, count in ((6, 2), (9, 0)):
        stop_at(monkeypatch, path, iteration, "name=stopped", workers(count))
    assert train(path, "name=stopped", workers(2)) == 0
    unbroken = final(here, "unbroken")
    for name in ("workers", "stopped"):
        assert all(value.equal(unbroken[key]) for key, value in final(here, name).items()), name
    log = capsys.readouterr().err
    assert "Resuming training from epoch: 1, iter: 4" in log and "Resuming training from epoch: 3, iter: 8" in log
    assert "Options that differ" not in log, "the number of workers does not matter to the weights"


def test_another_seed_gives_other_weights_and_a_changed_option_is_said(here, monkeypatch, capsys):
    path = write(here, small(here, False))
    assert train(path, "name=unbroken", resume=False) == 0
    stop_at(monkeypatch, path, 6, "name=stopped")
    assert train(path, "name=stopped", "manual_seed=2", "datasets:train:gt_size=12") == 0
    assert not all(value.equal(final(here, "unbroken")[key]) for key, value in final(here, "stopped").items())
    log = capsys.readouterr().err
    assert "  manual_seed: 1 -> 2\n" in log and "  datasets.train.gt_size: 16 -> 12\n" in log


def test_three_then_two_then_four_processes_train_on_the_samples_of_one(here):
    """At the same batch of all processes the gradients are the same but for rounding."""
    opt = small(here, False)
    opt["datasets"]["train"] |= {"batch_size_per_gpu": 12, "dataset_enlarge_ratio": 7}
    path = write(here, opt)
    assert train(path, "name=one", resume=False) == 0
    said = ""
    for processes, last in ((3, 4), (2, 8), (4, STEPS)):
        changes = ["name=many", f"datasets:train:batch_size_per_gpu={12 // processes}", f"train:total_iter={last}"]
        words = ["train", "-opt", str(path), "--auto_resume", "--launcher", "pytorch", "--force_yml", *changes]
        out = command(*words, processes=processes)
        assert out.returncode == 0, out.stderr[-3000:]
        said += out.stderr
    one = final(here, "one")
    differences = [(value - one[key]).abs().max().item() for key, value in final(here, "many").items()]
    assert max(differences) < 1e-6
    for before, after in ((3, 2), (2, 4)):
        order = "it takes the samples in the same order, 12 -> 12"
        assert f"made by {before} process(es), this run has {after}: {order}" in said
    state = here / "experiments/many/training_states/8.state"
    assert load_state(state)["position"] == 8 * 12


def test_a_disk_that_is_full_ends_the_run_with_a_message_and_code_2(here, capsys):
    opt = small(here, False)
    opt["network_g"]["num_feat"] = 48
    path = write(here, opt)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        code, _, said = run(capsys, "train", "-opt", path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    last = said.strip().splitlines()[-1]
    assert last.startswith(f"error: cannot save {here}/experiments/tiny/models/net_g_4.pth: File too large")
    assert last.endswith("logger.max_failed_saves is 1). Put that right, then start again")


def test_old_saves_are_removed_in_a_run_and_the_best_is_kept(here):
    path = write(here, small(here, False))
    overrides = ["logger:save_checkpoint_freq=1", "val:val_freq=2", "+logger:keep_last=2", "+logger:keep_best=psnr"]
    assert train(path, *overrides) == 0
    paths = {k: here / "experiments/tiny" / k for k in ("models", "training_states")}
    left = resumable.resumable_iterations({"path": paths})
    best = resumable.load_best(paths["training_states"] / f"{max(i for i in left if i % 2 == 0)}.state")
    assert set(left) == {8, 9, best["val"]["psnr"]["iter"]}
