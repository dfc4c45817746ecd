"""What to say when memory runs out: what a training run takes for any batch, and which options lower the rest."""

import inspect
import math
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from basicsr_ext.common.contracts import restorer_of
from basicsr_ext.common.errors import InputError
from basicsr_ext.training.loop_state import TrainingRun
from basicsr_ext.training.memory import cause, is_out_of_memory

_FEWER = "lower datasets.train.num_worker_per_gpu"
_WORKERS = {  # what a loader with workers says -> what is the matter
    r"is killed by signal: Killed": "a worker of the data loader was killed by the system, as it does when the "
    f"machine's memory runs out: {_FEWER}, or end what else fills the memory",
    r"Too many open files|items of ancdata": f"too many open files: raise their limit (ulimit -n 4096), or {_FEWER}",
    r"[Bb]us error|shared memory|torch_\d+\S*: (No space|Cannot allocate)": "the shared memory (/dev/shm), through "
    f"which workers of the data loader hand on batches, is full: enlarge it (docker run --shm-size 2g), or {_FEWER}; "
    "0 needs none",
    r"worker \(pid\(s\) .* exited unexpectedly": f"a worker of the data loader ended, see above: {_FEWER}",
}


@contextmanager
def explained(run: TrainingRun, training: bool) -> Iterator[None]:
    """Turn lack of memory, shared memory or open files into InputError, with the options that lower it."""
    try:
        yield
        return
    except (RuntimeError, MemoryError, OSError) as error:
        if found := [said for pattern, said in _WORKERS.items() if re.search(pattern, str(error))]:
            hook, sys.unraisablehook = sys.unraisablehook, lambda _: None  # torch's loader, half built, ends in a fault
            traceback.clear_frames(error.__traceback__)
            sys.unraisablehook = hook
            onward = "; then go on with --auto_resume" if training and run.iteration else ""
            raise InputError(found[0] + onward) from error
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # the values of the failed call, which fill the memory
        said = cause(error)
    if not training:
        raise InputError(f"out of memory ({said}): an image is too large for this device; "
                         "`basicsr restore --tile` restores large images in tiles")  # fmt: skip
    if run.model is None:
        raise InputError(
            f"out of memory before a batch was trained ({said}): take a smaller network_g, or a larger device"
        )
    raise InputError(_advice(run.model, run.iteration, said))


def _advice(model: Any, iteration: int, said: str) -> str:
    networks = {k: v for k, v in vars(model).items() if k.startswith("net_") and isinstance(v, nn.Module)}
    sizes = {name: sum(t.nbytes for t in (*n.parameters(), *n.buffers())) for name, n in networks.items()}
    groups = [group for optimizer in model.optimizers for group in optimizer.param_groups]
    average = sum(size for name, size in sizes.items() if name.endswith("_ema"))
    parts = {
        "network": sum(sizes.values()) - average,
        "gradients": sum(p.nbytes for group in groups for p in group["params"]),
        "optimiser": sum(_moments(group) * p.nbytes for group in groups for p in group["params"]),
        "average": average,
    }
    said_parts = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items())
    lines = [
        f"out of memory in iteration {iteration} on {_device(model.device)} ({said})",
        f"  {said_parts}: {_gib(sum(parts.values()))} for any batch; the rest goes with its images",
        "what lowers it:",
        *(f"  - {line}" for line in _cures(model)),
        "then start again; with --auto_resume from the newest save, if there is one",
    ]
    return "\n".join(lines)


def _moments(group: dict[str, Any]) -> int:
    """Values that an optimiser keeps for each weight, by its options: it may not have stepped yet."""
    return 2 if "betas" in group else int(bool(group.get("momentum")))


def _device(device: torch.device) -> str:
    if device.type != "cuda":
        return "the CPU"
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    held = f", of which others hold {_gib(others)}" if others > 2**28 else ""
    return f"{torch.cuda.get_device_name(device)} with {_gib(total)}{held}"


def _gib(size: float) -> str:
    unit, name = next((u, n) for u, n in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")) if size >= u or n == "KiB")
    return f"{size / unit:.1f} {name}"


def _cures(model: Any) -> Iterator[str]:
    data, parts = model.opt["datasets"]["train"], restorer_of(model).accumulate
    images = data["batch_size_per_gpu"] * max(1, 1 if model.opt.get("dist") else model.opt.get("num_gpu") or 0)
    if parts is not None and math.ceil(images / parts) > 1:
        yield f"train.accumulate (now {parts}) trains a batch in parts; the gradient is the same, a step takes longer"
    if images > 1:
        yield f"datasets.train.batch_size_per_gpu (now {data['batch_size_per_gpu']})"
    if data.get("gt_size"):
        yield f"datasets.train.gt_size (now {data['gt_size']}); memory goes with its square"
    if model.device.type == "cuda" and restorer_of(model).precision == "fp32":
        yield "train.precision: bf16 (now fp32) halves what an image takes"
    network = model.opt.get("network_g") or {}
    arguments = inspect.signature(type(model.get_bare_model(model.net_g)).__init__).parameters
    for name in ("checkpoint", "use_checkpoint"):
        if name in arguments and not network.get(name):
            yield f"network_g.{name}: true recomputes in the backward pass what it would keep"
    yield f"a smaller network_g.preset (now {network['preset']})" if network.get("preset") else "a smaller network_g"
