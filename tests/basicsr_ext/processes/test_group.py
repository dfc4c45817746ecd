import os
import socket
import subprocess
from datetime import timedelta

import pytest
import torch

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError

repairs.apply()

from basicsr.utils import dist_util  # noqa: E402
from basicsr.utils import options as basicsr_options  # noqa: E402

from basicsr_ext.processes import group, launch  # noqa: E402


@pytest.fixture
def joined(monkeypatch):
    """What init_process_group was called with, in an environment as torchrun makes it."""
    calls = []
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *a, **k: calls.append((a, k)))
    for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NODELIST", "MASTER_PORT", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    return calls


def gpus(monkeypatch, count):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    return taken


def test_basicsr_uses_the_repaired_function():
    assert basicsr_options.init_dist is dist_util.init_dist is group.init_dist


def test_without_gpus_the_unrepaired_function_divides_by_zero(monkeypatch, joined):
    gpus(monkeypatch, 0)
    monkeypatch.setattr(torch.multiprocessing, "get_start_method", lambda allow_none: "fork")
    with pytest.raises(ZeroDivisionError):
        dist_util.init_dist.unrepaired("pytorch")


@pytest.mark.parametrize("backend", [None, "gloo", "nccl"])
def test_without_gpus_it_is_gloo(monkeypatch, joined, backend):
    taken = gpus(monkeypatch, 0)
    dist_util.init_dist("pytorch", backend=backend)
    assert joined == [(("gloo",), {"rank": 5, "world_size": 8})] and taken == []


def test_with_gpus_it_is_nccl_on_the_local_rank(monkeypatch, joined):
    taken = gpus(monkeypatch, 3)
    dist_util.init_dist("pytorch")
    assert joined[0][0] == ("nccl",) and taken == [1]  # the global rank 5 would give GPU 2


def test_the_timeout_is_forwarded_in_seconds(monkeypatch, joined):
    gpus(monkeypatch, 0)
    dist_util.init_dist("pytorch", timeout=90)
    assert joined[0][1]["timeout"] == timedelta(seconds=90)


def test_no_start_method_is_forced(monkeypatch, joined):
    gpus(monkeypatch, 0)
    monkeypatch.setattr(torch.multiprocessing, "set_start_method", lambda *a, **k: pytest.fail("forced"))
    monkeypatch.setattr(torch.multiprocessing, "get_start_method", lambda *a, **k: None)
    dist_util.init_dist("pytorch")
    assert len(joined) == 1


def test_slurm_is_translated(monkeypatch, joined):
    taken = gpus(monkeypatch, 4)
    for name, value in {"PROCID": "9", "NTASKS": "16", "LOCALID": "3", "NODELIST": "node[7-8]"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)

    def scontrol(command, **options):
        assert command == ["scontrol", "show", "hostnames", "node[7-8]"]
        return subprocess.CompletedProcess(command, 0, "127.0.0.7\nnode8\n")

    monkeypatch.setattr(subprocess, "run", scontrol)
    dist_util.init_dist("slurm", port=1234, timeout=60.5)
    assert joined == [(("nccl",), {"rank": 9, "world_size": 16, "timeout": timedelta(seconds=60.5)})]
    assert taken == [3]
    found = [os.environ[k] for k in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK")]
    assert found == ["127.0.0.7", "1234", "9", "16", "3"]


def test_slurm_without_scontrol_is_refused(monkeypatch, joined):
    gpus(monkeypatch, 0)
    for name, value in {"PROCID": "0", "NTASKS": "1", "LOCALID": "0", "NODELIST": "n"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="scontrol .*SLURM_NODELIST='n'"):
        dist_util.init_dist("slurm")


@pytest.mark.parametrize(
    "launcher, options, message",
    [
        ("mpi", {}, "--launcher is 'mpi'"),
        ("pytorch", {"backend": "mpi"}, "dist_params.backend is 'mpi'"),
        ("pytorch", {"timeout": 0}, "dist_params.timeout is 0"),
        ("pytorch", {"timeout": "10"}, "dist_params.timeout is '10'"),
        ("slurm", {}, "environment variable SLURM_PROCID is ''; start the run with srun"),
    ],
)
def test_wrong_values_are_refused(monkeypatch, joined, launcher, options, message):
    gpus(monkeypatch, 0)
    with pytest.raises(InputError) as caught:
        dist_util.init_dist(launcher, **options)
    assert message in str(caught.value) and joined == []


def test_a_run_that_torchrun_did_not_start_is_refused(monkeypatch, joined):
    gpus(monkeypatch, 0)
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(InputError, match="LOCAL_RANK is ''.*torchrun"):
        dist_util.init_dist("pytorch")


def test_more_processes_than_gpus_are_refused(monkeypatch, joined):
    gpus(monkeypatch, 1)
    with pytest.raises(InputError, match="local rank 1 .*GPU.* 1"):
        dist_util.init_dist("pytorch")


@pytest.mark.parametrize(
    "environ, said",
    [
        ({"RANK": "x", "WORLD_SIZE": "1"}, "RANK is 'x'.*unset RANK and WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "-1"}, "WORLD_SIZE is '-1'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK 2 of WORLD_SIZE 2.*unset both"),
    ],
)
def test_variables_that_no_launcher_sets_are_refused_by_name(environ, said, monkeypatch):
    with pytest.raises(InputError, match=said):
        launch.find_launch("none", environ)
    assert launch.find_launch("none", {"RANK": "", "WORLD_SIZE": ""}) == launch.Launch()
    monkeypatch.setenv("RANK", environ["RANK"])
    assert launch.rank_of_process() == int(environ["RANK"] if environ["RANK"].isdigit() else 0)


@pytest.mark.parametrize("address", ["nowhere.invalid", "a..b"])
def test_an_address_that_has_none_is_named_before_the_processes_meet(address, monkeypatch, joined):
    def unknown(host, port):
        raise socket.gaierror(-2, "Name or service not known") if host == "nowhere.invalid" else UnicodeError("idna")

    gpus(monkeypatch, 0)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("MASTER_ADDR", address)
    with pytest.raises(InputError, match=rf"MASTER_ADDR is '{address}'.*first node's name.*torchrun"):
        group.init_dist("pytorch")
    assert joined == []


@pytest.mark.parametrize("port", [None, "no", "taken"])
def test_processes_that_cannot_meet_say_where_and_how_to(port, monkeypatch):
    gpus(monkeypatch, 0)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with socket.socket() as busy:
        busy.bind(("localhost", 0))
        busy.listen()
        if port:
            monkeypatch.setenv("MASTER_PORT", str(busy.getsockname()[1]) if port == "taken" else port)
        with pytest.raises(InputError, match="MASTER_ADDR=localhost and MASTER_PORT=.*port.*torchrun"):
            group.init_dist("pytorch")
