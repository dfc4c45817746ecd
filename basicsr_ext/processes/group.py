"""Joining and leaving the process group that torchrun or Slurm laid out."""

import os
import socket
import subprocess
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from basicsr_ext.common.errors import InputError
from basicsr_ext.processes import collectives, lifeline
from basicsr_ext.processes.launch import cure, variable


def init_dist(launcher: str, backend: str | None = None, timeout: float | None = None, port: int | None = None) -> None:
    """Join the process group that torchrun or Slurm laid out.

    Args:
        launcher: ``pytorch`` (torchrun) or ``slurm``.
        backend: ``nccl`` or ``gloo``; None takes nccl where CUDA is. Without CUDA it is always gloo, since BasicSR's
            option files ask for nccl everywhere.
        timeout: seconds that a collective may wait; None keeps torch's default.
        port: of the first node under Slurm; None takes ``MASTER_PORT``, or else 29500.

    Raises InputError if the launcher's variables are missing, a value is not allowed, the machine lacks GPUs, or the
    processes cannot meet.
    """
    if launcher not in ("pytorch", "slurm"):
        raise InputError(f"--launcher is {launcher!r}; it must be none, pytorch or slurm")
    if backend not in (None, "nccl", "gloo"):
        raise InputError(f"dist_params.backend is {backend!r}; it must be nccl or gloo")
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0):
        raise InputError(f"dist_params.timeout is {timeout!r}; it must be a number of seconds above 0")
    if launcher == "slurm":
        _lay_out_slurm(port)
    local_rank, rank, world_size = (variable(k, launcher, os.environ) for k in ("LOCAL_RANK", "RANK", "WORLD_SIZE"))
    if not torch.cuda.is_available():
        backend = "gloo"
    elif backend != "gloo":
        backend = "nccl"
        _take_gpu(local_rank)
    _check_address(launcher)
    further: dict[str, Any] = {} if timeout is None else {"timeout": timedelta(seconds=timeout)}
    try:
        dist.init_process_group(backend, rank=rank, world_size=world_size, **further, **_store(world_size))
    except (RuntimeError, ValueError, OSError, OverflowError) as error:
        place = " and ".join(f"{name}={os.environ.get(name, '')}" for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise InputError(
            f"the {world_size} process(es) cannot meet at {place}: {str(error).splitlines()[0]}; choose a free port "
            f"that all of them reach (torchrun --master-port N; dist_params.port with Slurm), or {cure(launcher)}"
        ) from error
    if collectives.world_size() > 1:
        lifeline.begin(collectives.gather_objects)


def _check_address(launcher: str) -> None:
    """Refuse a ``MASTER_ADDR`` that has no address, which torch would ask for again and again."""
    if address := os.environ.get("MASTER_ADDR"):
        try:
            socket.getaddrinfo(address, None)
        except (OSError, UnicodeError) as error:
            said = f"MASTER_ADDR is {address!r}, of which this machine knows no address ({error})"
            raise InputError(f"{said}; give the first node's name or address, or {cure(launcher)}") from error


def _store(world_size: int) -> dict[str, Any]:
    """The store of torchrun's agent, under a name for each attempt; nothing where rank 0 makes the store itself.

    torchrun keeps one store over its restarts, and gloo would take up the addresses of the processes that are gone.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    address = os.environ.get("MASTER_ADDR", ""), variable("MASTER_PORT", "pytorch", os.environ)
    store = dist.TCPStore(*address, world_size, is_master=False, wait_for_workers=False)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return {"store": dist.PrefixStore(f"attempt {attempt} of {world_size}", store)}


def _take_gpu(local_rank: int) -> None:
    count = torch.cuda.device_count()
    if local_rank >= count:
        ways = f"start at most {count} processes on it, or set dist_params.backend: gloo and num_gpu: 0"
        raise InputError(f"local rank {local_rank} has no GPU: this machine shows {count}; {ways}")
    torch.cuda.set_device(local_rank)


def _lay_out_slurm(port: int | None) -> None:
    for name, theirs in (("RANK", "SLURM_PROCID"), ("WORLD_SIZE", "SLURM_NTASKS"), ("LOCAL_RANK", "SLURM_LOCALID")):
        os.environ[name] = str(variable(theirs, "slurm", os.environ))
    os.environ["MASTER_PORT"] = os.environ.get("MASTER_PORT", "29500") if port is None else str(port)
    os.environ["MASTER_ADDR"] = _first_host(os.environ.get("SLURM_NODELIST", ""))


def _first_host(nodes: str) -> str:
    command = ["scontrol", "show", "hostnames", nodes]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise InputError(f"--launcher slurm: scontrol names no host for SLURM_NODELIST={nodes!r}: {error}") from error


def leave() -> None:
    """Leave the process group, if there is one; what watches over the other processes ends."""
    lifeline.end()
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
