"""Repair of the process group: gloo or nccl by device, one GPU per local rank, a timeout that can be set."""

from __future__ import annotations

from basicsr.utils import dist_util

from basicsr_ext.processes.group import init_dist
from basicsr_ext.repairs.repair import Repair, rebind, source_says

__all__ = [
    "REPAIRS",
]


def _is_faulty() -> bool:
    if dist_util.init_dist is init_dist:
        return False
    pytorch = getattr(dist_util, "_init_dist_pytorch", dist_util.init_dist)
    return source_says(pytorch, "% num_gpus") or source_says(dist_util.init_dist, "set_start_method")


REPAIRS = [
    Repair(
        "process-group",
        "Distributed runs need CUDA and nccl, take GPUs by global rank, ignore a timeout, and force spawned workers.",
        _is_faulty,
        lambda: rebind(dist_util.init_dist, init_dist),
    ),
]
