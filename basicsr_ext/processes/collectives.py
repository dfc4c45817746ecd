"""Ranks, shards and sums: the same calls serve one process, gloo and nccl."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from basicsr_ext.processes import lifeline


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process in the group, 0 without a group."""
    return dist.get_rank() if _initialized() else 0


def world_size() -> int:
    """Number of processes in the group, 1 without a group."""
    return dist.get_world_size() if _initialized() else 1


def is_main() -> bool:
    """True in the one process that writes files and speaks to the user."""
    return rank() == 0


def _device() -> torch.device:
    """Where tensors must lie for a collective."""
    if _initialized() and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def barrier() -> None:
    """Wait for all processes of a group, however long that takes; LostRank if one failed or was lost meanwhile."""
    line = lifeline.current()
    if line is not None:
        line.wait_for_all()
    elif world_size() > 1:
        device = _device()
        dist.barrier(device_ids=[device.index] if device.type == "cuda" else None)


def all_reduce_sum(values: Mapping[str, Any]) -> dict[str, Any]:
    """Sum every entry over all processes, in float64 and in one collective; all of them give the same keys and shapes.

    Entries are numbers, sequences of numbers or tensors. Returns, on every process, a float where a number came in, or
    else a float64 CPU tensor of the same shape.
    """
    keys = sorted(values)
    tensors = {k: torch.as_tensor(values[k]).detach().to("cpu", torch.float64) for k in keys}
    if world_size() > 1 and keys:
        flat = torch.cat([tensors[k].reshape(-1) for k in keys]).to(_device())
        dist.all_reduce(flat)
        parts = flat.cpu().split([tensors[k].numel() for k in keys])
        tensors = {k: part.reshape(tensors[k].shape) for k, part in zip(keys, parts)}
    return {k: tensors[k].item() if tensors[k].dim() == 0 else tensors[k].clone() for k in values}


def gather_objects(thing: Any) -> list[Any]:
    """Picklable objects of all processes in order of rank, on every process; waits for them as :func:`barrier`."""
    if world_size() == 1:
        return [thing]
    if lifeline.current() is not None:
        barrier()  # makes the collective that follows free of its limit
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, thing)
    return gathered


def broadcast_object(thing: Any) -> Any:
    """The picklable object that rank 0 passed, on every process; waits for them as :func:`barrier`."""
    if world_size() == 1:
        return thing
    if lifeline.current() is not None:
        barrier()  # makes the collective that follows free of its limit
    box = [thing]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def shard_indices(count: int) -> list[int]:
    """The indices in ``range(count)`` that fall to this process: every index falls to exactly one process."""
    return list(range(rank(), count, world_size()))
