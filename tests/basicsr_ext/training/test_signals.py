"""Signals in a training run: the iteration is finished, the state saved, and the resumed run is the unbroken one."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from basicsr_ext import cli, repairs
from basicsr_ext.checkpoints import resumable
from basicsr_ext.checkpoints.storage import load_weights
from basicsr_ext.training import loop_state
from basicsr_ext.training import signals as stopping
from tests.support.cli_runs import bridge_options, options, write
from tests.support.toolkit import apart, environment, torchrun

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGTERM")
STEPS = 7


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    repairs.apply()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    yield tmp_path
    signal.signal(signal.SIGINT, before)


def small(here, bridge=False):
    opt = bridge_options(here) if bridge else options(here)
    opt["network_g"] |= {"channel_mult": [1], "attention_ds": []} if bridge else {"num_feat": 8}
    opt["train"] |= {"total_iter": STEPS, "ema_decay": 0.9}
    opt["train"]["scheduler"] = {"type": "CosineAnnealingRestartLR", "periods": [STEPS], "restart_weights": [1]}
    opt["val"]["val_freq"] = 3
    opt["logger"] |= {"save_checkpoint_freq": 100, "print_freq": 1}
    return opt


def train(path, *overrides):
    return cli.main(["train", "-opt", str(path), "--auto_resume", "--force_yml", "name=tiny", *overrides])


def on_iteration(monkeypatch, number, act):
    """Have ``act`` called in the middle of an iteration."""
    from basicsr.models.base_model import BaseModel

    update = BaseModel.update_learning_rate

    def acting(self, current_iter, **settings):
        update(self, current_iter, **settings)
        if current_iter == number:
            act()

    monkeypatch.setattr(BaseModel, "update_learning_rate", acting)


def send(*signals):
    for one in signals:
        os.kill(os.getpid(), one)


def paths(here, name):
    folder = here / "experiments" / name
    return {"network_g": {}, "path": {k: str(folder / k) for k in ("models", "training_states")}}


def final(here, name):
    path = here / "experiments" / name / "models" / "net_g_latest.pth"
    return {f"{key} {k}": v for key in ("params", "params_ema") for k, v in load_weights(path, key).items()}


@pytest.mark.parametrize(
    ("bridge", "number", "workers"),
    [(False, signal.SIGTERM, 2), (False, signal.SIGINT, 0), (True, signal.SIGTERM, 0)],
    ids=["SRModel, SIGTERM, workers", "SRModel, SIGINT", "I2SBModel, SIGTERM"],
)
def test_a_signal_saves_the_iteration_and_the_resumed_run_is_the_unbroken_one(
    here, monkeypatch, capfd, bridge, number, workers
):
    path = write(here, small(here, bridge))
    assert cli.main(["train", "-opt", str(path), "--force_yml", "name=unbroken"]) == 0
    before = signal.getsignal(number)
    loader = f"datasets:train:num_worker_per_gpu={workers}"
    for iteration in (2, 5):
        with monkeypatch.context() as patch:
            on_iteration(patch, iteration, lambda: send(number, number))
            assert train(path, loader) == 75
        assert resumable.newest_resumable(paths(here, "tiny"))[0].name == f"{iteration}.state"
    assert signal.getsignal(number) is before and loop_state.current().model is None
    assert train(path, loader) == 0
    unbroken, resumed = final(here, "unbroken"), final(here, "tiny")
    assert len(unbroken) > 10 and all(value.equal(resumed[key]) for key, value in unbroken.items())
    log = capfd.readouterr().err
    assert f"{number.name}: the run ends after this iteration" in log
    state = here / "experiments/tiny/training_states/5.state"
    assert f"{number.name}: the run stops after iteration 5. Its complete state is saved in {state}; the same" in log
    assert re.findall(r"Resuming training from epoch: \d, iter: (\d)", log) == ["2", "5"] and "Traceback" not in log
    assert re.findall(rf"INFO: (\d)/{STEPS} ", log) == [str(k) for k in (*range(1, STEPS + 1), *range(1, STEPS + 1))]


@pytest.mark.parametrize("bridge", [False, True], ids=["SRModel", "I2SBModel"])
@pytest.mark.parametrize("iteration", [3, STEPS])
def test_a_validation_is_abandoned(here, monkeypatch, capfd, bridge, iteration):
    opt = small(here, bridge)
    opt["val"]["batch_size"] = 1
    if not bridge:
        del opt["val"]["batch_size"]
    path = write(here, opt)
    calls = []

    def restoring(self, *_):
        calls.append(loop_state.current().iteration)
        if loop_state.current().iteration == iteration:
            send(signal.SIGTERM)
            time.sleep(0)
            pytest.fail("the signal did not end the restoration")
        return unrepaired(self, *_)

    from basicsr.models.sr_model import SRModel

    from i2sb_plugin.models.i2sb_model import I2SBModel

    owner, method = (I2SBModel, "restore") if bridge else (SRModel, "test")
    unrepaired = getattr(owner, method)
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, restoring)
        assert train(path) == 75
    assert calls.count(iteration) == 1
    assert resumable.newest_resumable(paths(here, "tiny"))[0].name == f"{iteration}.state"
    log = capfd.readouterr().err
    assert f"stops after iteration {iteration}. The validation on val was left unfinished; --auto" in log
    assert train(path) == 0
    log = capfd.readouterr().err
    assert ("The validation of iteration 3 was not finished: it is made up for." in log) == (iteration == 3)
    assert log.count("# psnr: ") == {3: 3, STEPS: 1}[iteration]


def test_an_ignored_signal_stays_ignored(here, monkeypatch):
    path = write(here, small(here))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    on_iteration(monkeypatch, 2, lambda: send(signal.SIGINT))
    assert train(path) == 0


def test_a_signal_before_the_first_batch_ends_the_command_with_130(here, monkeypatch, capfd):
    from basicsr_ext.repairs import training_loop

    path = write(here, small(here))
    monkeypatch.setattr(training_loop, "write_options", lambda opt: send(signal.SIGINT))
    assert train(path) == 130
    assert capfd.readouterr().err.endswith("interrupted\n")
    assert resumable.resumable_iterations(paths(here, "tiny")) == []


def test_a_save_that_fails_is_said_and_is_no_clean_stop(here, monkeypatch, capfd):
    path = write(here, small(here))

    def stop_and_break():
        send(signal.SIGTERM)
        os.rename(here / "experiments/tiny/models", here / "experiments/tiny/gone")

    on_iteration(monkeypatch, 2, stop_and_break)
    assert train(path, "+logger:max_failed_saves=3") == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: the run was to stop at iteration 2, whose state could not be saved:")


SLEEPER = """
import ctypes, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from basicsr_ext import cli, repairs
repairs.apply()
from basicsr.models.base_model import BaseModel
update, stuck = BaseModel.update_learning_rate, sys.argv[2] == "stuck"
def slow(self, current_iter, **settings):
    update(self, current_iter, **settings)
    if current_iter == 2:
        print("in iteration 2", file=sys.stderr, flush=True)
        if stuck:  # in C, where no handler of Python runs: it locks what it has locked
            mutex = ctypes.create_string_buffer(128)
            ctypes.CDLL(None).pthread_mutex_lock(mutex), ctypes.CDLL(None).pthread_mutex_lock(mutex)
        time.sleep(2)
BaseModel.update_learning_rate = slow
sys.exit(cli.main(["train", "-opt", sys.argv[1], "--force_yml", "datasets:train:num_worker_per_gpu=2"]))
"""


@contextmanager
def started(command, **settings):
    """A process whose stderr is read; it is killed with its group if the test fails, or after a quarter of an hour."""
    run = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment(), **settings
    )
    alarm = threading.Timer(900, os.killpg, (run.pid, signal.SIGKILL))
    alarm.start()
    try:
        yield run
    finally:
        alarm.cancel()
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)


def read_until(run, text):
    """What the process says up to the line with this text."""
    said = ""
    while text not in said:
        line = run.stderr.readline()
        assert line, f"it ended without {text!r}: {said[-3000:]}"
        said += line
    return said


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def gone_within(group, seconds):
    end = time.monotonic() + seconds
    while alive(group) and time.monotonic() < end:
        time.sleep(0.1)
    return not alive(group)


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_a_whole_group_of_processes_gets_the_signal(here, again):
    """As torchrun, Slurm and a terminal send it: the loader's workers live until the state is saved; a second signal
    ends the run although its main thread hangs outside of Python."""
    path = write(here, small(here))
    command = [sys.executable, "-c", SLEEPER, str(path), "stuck" if again else "slow"]
    with started(command) as run:
        read_until(run, "in iteration 2")
        os.killpg(run.pid, signal.SIGTERM)
        said = read_until(run, "another signal ends it at once")
        if again:
            time.sleep(stopping.ECHO + 0.1)
            os.killpg(run.pid, signal.SIGINT)
        said += run.communicate()[1]
    assert "Traceback" not in said and "Error" not in said, said
    assert said.count("SIGTERM: the run ends after this iteration") == 1
    assert gone_within(run.pid, 20), "a worker was left behind"
    if again:
        assert run.returncode == 130
        assert "SIGINT again: the run ends at once, nothing more is saved" in said
        assert resumable.resumable_iterations(paths(here, "tiny")) == []
    else:
        assert run.returncode == 75
        assert resumable.newest_resumable(paths(here, "tiny"))[0].name == "2.state"


def ranks_of(launcher):
    """Process ids of the processes that torchrun has started, by rank."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(launcher)], capture_output=True, text=True).stdout
    environments = {int(pid): Path(f"/proc/{int(pid)}/environ").read_bytes().split(b"\0") for pid in children.split()}
    found = {line: pid for pid, lines in environments.items() for line in lines if line.startswith(b"RANK=")}
    return [found[b"RANK=%d" % rank] for rank in range(len(found))]


def train_until_rank_1_gets_a_signal(words):
    from basicsr.models.base_model import BaseModel

    update = BaseModel.update_learning_rate

    def updating(self, current_iter, **settings):
        update(self, current_iter, **settings)
        if current_iter == 3 and os.environ["RANK"] == "1":
            send(signal.SIGTERM)

    BaseModel.update_learning_rate = updating
    return cli.main(words)


def test_a_signal_to_one_process_stops_all_at_the_same_iteration(here):
    opt = small(here)
    opt["train"]["total_iter"] = opt["train"]["scheduler"]["periods"][0] = 10**6
    del opt["val"], opt["datasets"]["val"]
    words = ["train", "-opt", str(write(here, opt)), "--launcher", "pytorch"]
    done = apart(train_until_rank_1_gets_a_signal, words, processes=2)
    assert done.returncode == 75, done.stderr
    stopped = int(re.search(r"the run stops after iteration (\d+)", done.stderr)[1])
    assert resumable.newest_resumable(paths(here, "tiny"))[0].name == f"{stopped}.state"
    assert "A signal to another process: the run stops" in done.stderr and "destroy_process_group" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("to", ["launcher", "rank 1"])
def test_all_processes_stop_at_the_same_iteration(here, to):
    opt = small(here)
    opt["train"]["total_iter"] = opt["train"]["scheduler"]["periods"][0] = 10**6
    del opt["val"], opt["datasets"]["val"]
    path = write(here, opt)
    with started([*torchrun(2), "-m", "basicsr_ext", "train", "-opt", str(path)]) as run:
        said = read_until(run, " 3/1000000 ")
        os.kill(run.pid if to == "launcher" else ranks_of(run.pid)[1], signal.SIGTERM)
        said += run.communicate()[1]
    stopped = int(re.search(r"the run stops after iteration (\d+)", said)[1])
    assert resumable.newest_resumable(paths(here, "tiny"))[0].name == f"{stopped}.state"
    assert int(re.findall(r"INFO: +(\d+)/1000000 ", said)[-1]) == stopped
    assert "NCCL" not in said and "destroy_process_group" not in said and "DataLoader" not in said
    if to == "launcher":
        assert run.returncode != 0 and "SIGKILL" not in said
    else:
        assert said.count("exitcode  : 75") >= 1 and "A signal to another process: the run stops" in said


ORPHAN = """
import multiprocessing, os, signal, sys, time
from basicsr_ext.training.signals import leave_signals_to_parent

def work():
    parent = os.getppid()
    os.kill(parent, signal.SIGKILL)
    while os.getppid() == parent:
        time.sleep(0.01)
    leave_signals_to_parent()  # too late: torch, which asks for its parent now, is told of another process
    time.sleep(60)

if __name__ == "__main__":
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
"""


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="this system cannot wait for a signal with a limit")
def test_a_worker_whose_parent_was_killed_while_it_began_ends(here):
    begun = time.monotonic()
    run = subprocess.Popen([sys.executable, "-c", ORPHAN], cwd=here, stdout=subprocess.PIPE)
    run.stdout.read()  # until the worker, which holds the pipe too, has ended
    assert run.wait() == -signal.SIGKILL and time.monotonic() - begun < 30
