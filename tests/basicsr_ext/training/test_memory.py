"""When memory runs out: training says what lowers it; validation takes smaller batches."""

import math
import re
import sys

import pytest
import torch

from basicsr_ext import cli, repairs
from basicsr_ext.common.errors import InputError
from basicsr_ext.training import loop_state, memory
from tests.support.cli_runs import bridge_options, options, write

GPU = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB. Long advice."


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    repairs.apply()
    return tmp_path


def on_gpu():
    raise torch.cuda.OutOfMemoryError(GPU)


def on_cpu():
    torch.empty(2**60)


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        (on_gpu, "CUDA out of memory. Tried to allocate 2.00 GiB"),
        (on_cpu, "DefaultCPUAllocator: can't allocate"),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(fail, words):
    with pytest.raises(RuntimeError) as caught:
        fail()
    assert memory.is_out_of_memory(caught.value) and memory.cause(caught.value).startswith(words)
    assert "\n" not in memory.cause(caught.value) and "Long advice" not in memory.cause(caught.value)
    assert memory.is_out_of_memory(MemoryError()) and memory.cause(MemoryError()) == "MemoryError"
    for other in (RuntimeError("shapes differ"), ValueError("out of memory"), KeyError("memory")):
        assert not memory.is_out_of_memory(other)


# ---- training


def small(here, bridge):
    opt = bridge_options(here) if bridge else options(here)
    opt["network_g"] |= {"channel_mult": [1], "attention_ds": []} if bridge else {"num_feat": 8}
    opt["datasets"]["train"] |= {"batch_size_per_gpu": 4}
    return opt


def limited(monkeypatch, owner, method, most, fail):
    """Have a method of a model fail with more than ``most`` images; returns the sizes that were tried."""
    unrepaired, tried = getattr(owner, method), []

    def trying(self, *words, **settings):
        batch = words[0]["lq"] if words and isinstance(words[0], dict) else self.lq
        tried.append(len(batch))
        if len(batch) > most:
            fail()
        return unrepaired(self, *words, **settings)

    monkeypatch.setattr(owner, method, trying)
    return tried


def owner_of(bridge):
    from basicsr.models.sr_model import SRModel

    from i2sb_plugin.models.i2sb_model import I2SBModel

    return I2SBModel if bridge else SRModel


def test_training_names_the_options_that_lower_it(here, monkeypatch, capfd):
    opt = small(here, True)
    path = write(here, opt)
    limited(monkeypatch, owner_of(True), "training_loss", 2, on_gpu)
    assert cli.main(["train", "-opt", str(path)]) == 2
    said = capfd.readouterr().err
    said = said[said.index("error: ") :]
    assert said.startswith("error: out of memory (CUDA out of memory. Tried") and "in iteration 1;" in said
    assert "  - train.accumulate (now 1)" in said
    assert "datasets.train.batch_size_per_gpu (now 4)" in said and "datasets.train.gt_size (now 16)" in said
    assert "network_g.checkpoint: true" in said and "a smaller network_g.preset (now tiny)" in said
    assert cli.main(["train", "-opt", str(path), "--force_yml", "train:accumulate=2"]) == 0


def test_models_of_basicsr_get_the_same_without_what_they_lack(here, monkeypatch, capfd):
    path = write(here, small(here, False))
    limited(monkeypatch, owner_of(False), "optimize_parameters", 3, on_cpu)
    assert cli.main(["train", "-opt", str(path)]) == 2
    said = capfd.readouterr().err
    said = said[said.index("error: ") :]
    assert said.startswith("error: out of memory (DefaultCPUAll") and "in iteration 1;" in said
    assert "accumulate" not in said and "precision" not in said and "a smaller network_g\n" in said


def test_a_worker_that_the_system_killed_is_told(here, monkeypatch, capfd):
    path = write(here, small(here, False))

    def killed(self, number):
        raise RuntimeError("DataLoader worker (pid 17) is killed by signal: Killed. ")

    monkeypatch.setattr(owner_of(False), "optimize_parameters", killed)
    assert cli.main(["train", "-opt", str(path)]) == 2
    assert "lower datasets.train.num_worker_per_gpu" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "error, cure",
    [
        (RuntimeError("Too many open files. Communication with the workers is no longer possible."), "ulimit -n"),
        (OSError(24, "Too many open files"), "ulimit -n"),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Bus error. It is possible"), "--shm-size"),
        (RuntimeError("unable to write to file </torch_12_3_0>: No space left on device (28)"), "--shm-size"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "see above"),
    ],
)
def test_what_workers_lack_is_told_with_its_cure(error, cure):
    said = f"{cure}.*lower datasets.train.num_worker_per_gpu"
    with pytest.raises(InputError, match=said), memory.explained(loop_state.TrainingRun(), True):
        raise error


def test_a_loader_that_was_half_built_adds_nothing(monkeypatch):
    class Half:
        def __del__(self):
            raise AttributeError("no workers to end")

    def build():
        half = Half()
        raise OSError(24, f"Too many open files for {half}")

    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    with (
        pytest.raises(InputError, match="too many open files"),
        memory.explained(loop_state.TrainingRun(), True),
    ):
        build()
    assert not said and sys.unraisablehook == said.append


def test_a_rehearsal_tells_of_lack_of_memory_and_of_bad_steps(here, monkeypatch, capfd):
    path = write(here, small(here, True))
    with monkeypatch.context() as patch:
        limited(patch, owner_of(True), "training_loss", 2, on_gpu)
        assert cli.main(["check", "-opt", str(path)]) == 2
    said = capfd.readouterr().err
    assert "error: out of memory (CUDA out of memory" in said and "in iteration 1;" in said
    unrepaired = owner_of(True).training_loss
    monkeypatch.setattr(
        owner_of(True), "training_loss", lambda *words: {k: v * math.nan for k, v in unrepaired(*words).items()}
    )
    assert cli.main(["check", "-opt", str(path)]) == 3
    said = capfd.readouterr().err
    assert "training stopped at iteration 1" in said and "l_bridge is nan" in said


# ---- validation


@pytest.mark.parametrize("fail", [on_gpu, on_cpu])
def test_validation_goes_on_with_fewer_images_and_the_same_results(here, monkeypatch, capfd, fail):
    from tests.support.cli_runs import paired

    opt = small(here, True)
    opt["datasets"]["val"] = paired(here / "more", "val", count=7)
    del opt["datasets"]["val"]["dataroot_lq"]
    opt["datasets"]["val"] |= {"type": "PairedDegradationDataset", "degradation": {"type": "sr4x_bicubic", "scale": 2}}
    opt["val"]["batch_size"] = 5
    path = write(here, opt)
    words = ["train", "-opt", str(path), "--force_yml", "train:total_iter=2", "train:scheduler:periods=[2]"]
    assert cli.main(words) == 0
    whole = re.findall(r"# psnr: [\d.]+", capfd.readouterr().err)
    tried = limited(monkeypatch, owner_of(True), "restore", 2, fail)
    assert cli.main([*words, "train:total_iter=2"]) == 0
    log = capfd.readouterr().err
    assert re.findall(r"# psnr: [\d.]+", log) == whole and len(whole) == 1
    assert tried == [5, 2, 2, 1, 2]
    assert log.count("Validation on val: out of memory with 5 degraded images of 16 x 16 pixels at once (") == 1
    assert "val.batch_size: 2 " in log


@pytest.mark.parametrize("bridge", [False, True], ids=["SRModel", "I2SBModel"])
def test_an_image_that_does_not_fit_alone_is_named(here, monkeypatch, capfd, bridge):
    path = write(here, small(here, bridge))
    limited(monkeypatch, owner_of(bridge), "restore" if bridge else "test", 0, on_gpu)
    assert cli.main(["train", "-opt", str(path)]) == 2
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: datasets.val: out of memory while ") and "`basicsr restore --tile`" in said
    assert ("/val/gt/0.png " in said and "16 x 16 pixels" in said) == bridge
