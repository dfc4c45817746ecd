"""Several processes train, validate, test and restore as one does; the death of one ends all, and torchrun goes on."""

import json
import os

import pytest
import torch

from basicsr_ext import repairs
from basicsr_ext.processes import launch
from tests.studies.reliability.test_reliability import record
from tests.support.toolkit import command

repairs.apply()

from basicsr.models import build_model  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from basicsr_ext.repairs import resume, startup  # noqa: E402
from i2sb_plugin import plugin  # noqa: E402
from tests.support.cli_runs import bridge_options, write  # noqa: E402

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="ranks are started by fork")


@forks
@pytest.mark.slow
def test_two_processes_train_as_one_and_only_rank_0_writes(tmp_path):
    found = record(tmp_path, "worlds", "--small", "--parts", "same batch")["same batch"]
    assert len(found) == 4
    for case in found.values():
        assert case["iterations"] == 12 and case["same samples in the same order"]
        assert case["largest relative difference of a loss"] < 1e-5
        assert case["files of the run that ranks above 0 wrote"] == 0


SPARE = """
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn


@ARCH_REGISTRY.register()
class Spare(nn.Module):
    def __init__(self, in_channels: int = 3, out_channels: int = 3) -> None:
        super().__init__()
        self.used, self.unused = (nn.Conv2d(in_channels, out_channels, 3, padding=1) for _ in range(2))

    def forward(self, x):
        return self.used(x)
"""


@forks
@pytest.mark.slow
@pytest.mark.parametrize(
    ("inner", "unused"), [({"type": "EDSR", "num_feat": 4, "num_block": 1}, False), ({"type": "Spare"}, True)]
)
def test_a_network_inside_the_adapter_trains_in_two_processes_as_in_one(inner, unused, tmp_path, monkeypatch):
    found = []
    for ranks in (1, 2):
        root = tmp_path / str(ranks)
        root.mkdir()
        monkeypatch.chdir(root)
        (root / "spare.py").write_text(SPARE)
        opt = bridge_options(root) | {"num_gpu": 0, "plugins": ["./spare.py"], "find_unused_parameters": unused}
        opt["network_g"] = {"type": "BridgeAdapter", "network": inner}
        opt["datasets"]["train"] |= {"batch_size_per_gpu": 4 // ranks, "dataset_enlarge_ratio": 10}
        launcher = ["--launcher", "pytorch"] if ranks > 1 else []
        out = command("train", "-opt", write(root, opt), *launcher, processes=ranks)
        assert out.returncode == 0, out.stderr[-3000:]
        found.append(torch.load("experiments/tiny/models/net_g_4.pth", weights_only=True)["params"])
    assert float(found[0]["last.weight"].abs().max()) > 1e-4, "it has learned"
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)


@forks
@pytest.mark.slow
def test_figures_and_pictures_are_those_of_one_process_with_more_ranks_than_images_too(tmp_path):
    found = record(tmp_path, "worlds", "--small", "--parts", "test and restore")["test and restore"]
    assert found.pop("images") == 7 and set(found) == {"1 processes", "3 processes", "9 processes"}
    for case in found.values():
        assert case.pop("restore: exit codes with one broken picture") == [1]
        assert len(case) == 4 and all(case.values())


@forks
@pytest.mark.slow
def test_the_death_of_a_rank_ends_all_with_its_cause(tmp_path):
    found = record(tmp_path, "worlds", "--small", "--parts", "deaths")["deaths"]
    assert len(found) == 4
    for case, end in found.items():
        assert end["seconds until all were down"] < 60
        assert sorted(end["exit codes"]) == ([-9, 1] if case.startswith("kill") else [1, 1])
        assert end["one traceback, of the rank that failed"], end
        assert case.startswith("kill") or " failed:" in end["first line"]


@forks
@pytest.mark.slow
def test_a_slow_rank_outlasts_the_limit_of_a_collective(tmp_path):
    found = record(tmp_path, "worlds", "--small", "--parts", "slow ranks")["slow ranks"]
    assert found.pop("seconds that it sleeps") > found.pop("dist_params.timeout")
    assert [case["exit codes"] for case in found.values()] == [[0, 0]] * 2


@forks
@pytest.mark.slow
def test_torchrun_goes_on_from_the_last_save_without_a_flag(tmp_path):
    found = record(tmp_path, "worlds", "--small", "--parts", "restarts")["restarts"]
    assert found == {
        "processes": 3,
        "exit code": 0,
        "restarts": 1,
        "resumed from": [4],
        "runs put aside": 0,
        "weights bit-equal to the unbroken run": True,
    }


def test_accumulated_gradients_are_exchanged_once_in_an_iteration(tmp_path):
    plugin.register()
    opt = bridge_options(tmp_path)
    opt["network_g"] |= {"channel_mult": [1], "attention_ds": []}
    opt |= {"dist": True, "is_train": True, "rank": 0, "world_size": 1, "num_gpu": 0}
    opt["train"]["accumulate"] = 4
    exchanges = []
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model = build_model(opt)
        assert isinstance(model.net_g, DistributedDataParallel) and model.net_g.gradient_as_bucket_view

        def hook(_, bucket):
            exchanges.append(bucket.buffer().numel())
            done = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        model.net_g.register_comm_hook(None, hook)
        images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        for iteration in (1, 2, 3):
            model.feed_data({"lq": images[:, :, ::2, ::2], "gt": images, "lq_path": ["a"] * 4})
            model.optimize_parameters(iteration)
    finally:
        torch.distributed.destroy_process_group()
    assert exchanges == [sum(p.numel() for p in model.net_g.parameters())] * 3


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="nccl needs two GPUs")
def test_two_gpus_train_by_nccl(tmp_path):
    opt = bridge_options(tmp_path) | {"dist_params": {"backend": "nccl"}}
    folder = f"path:experiments_root={tmp_path / 'experiments'}"
    words = ["train", "-opt", str(write(tmp_path, opt)), "--launcher", "pytorch", "--force_yml", f"+{folder}"]
    out = command(*words, processes=2)
    assert out.returncode == 0, out.stderr[-3000:]


def test_a_restart_goes_on_in_the_folder_of_its_own_torchrun_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/t/run_drawn/attempt_1/0/error.json")
    opt = {"auto_resume": False, "path": {"experiments_root": str(tmp_path)}}
    mine = launch.starter()
    assert mine.startswith("run_drawn on ")
    for attempt, signed, goes_on in (("1", None, False), ("0", mine, False), ("1", "other", False), ("1", mine, True)):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
        if signed:
            (tmp_path / startup.STARTERS).write_text(json.dumps([signed]))
        assert resume._goes_on(opt) == goes_on
