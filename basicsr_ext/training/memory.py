"""When memory runs out: what ran out, which options lower it, and halving a validation's batches."""

import inspect
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from basicsr.utils.logger import get_root_logger

from basicsr_ext.common.contracts import restorer_of
from basicsr_ext.common.errors import InputError
from basicsr_ext.training.loop_state import TrainingRun

_Result = TypeVar("_Result")

_TOO_LARGE = (
    "its images are too large for this device. Set val.tile, such as 512, or give smaller images or crops, a lighter "
    "network_g, or in a training file no val; `basicsr restore --tile` restores large images in tiles as well"
)
_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
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


def is_out_of_memory(error: BaseException) -> bool:
    """True if a device or the machine had too little memory; torch has a class of its own for GPUs alone."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def cause(error: BaseException) -> str:
    """The first sentences of an error, on one line: what was asked for and what there was."""
    text = str(error).partition("\n")[0]
    start = max(text.find(words) for words in ("DefaultCPUAllocator", "CUDA out of memory", ""))
    return ". ".join(text[start:].split(". ")[:3]).rstrip(".") or type(error).__name__


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
        said = f"out of memory ({cause(error)})"
    if not training:
        where = "an image is too large for this device"
        raise InputError(f"{said}: {where}; set val.tile, such as 512, or use `basicsr restore --tile`")
    if run.model is None:
        raise InputError(f"{said} before a batch was trained: take a smaller network_g, or a larger device")
    cures = "\n  - ".join([f"{said} in iteration {run.iteration}; what lowers it:", *_cures(run.model)])
    raise InputError(f"{cures}\nthen start again; with --auto_resume from the newest save, if there is one")


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


@contextmanager
def in_validation(name: str) -> Iterator[None]:
    """Turn lack of memory into InputError, for models that validate image by image."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"datasets.{name}: out of memory while an image was validated ({cause(error)}); "
                         f"{_TOO_LARGE}") from error  # fmt: skip


def in_fitting_parts(
    model: Any, name: str, batch: dict[str, Any], work: Callable[[slice], _Result]
) -> Iterator[tuple[slice, _Result]]:
    """Do ``work`` on a validation batch; where memory does not suffice, on halves of it, from then on.

    ``batch`` has tensors and lists, with the images along the first axis. Yields slices of it and what ``work`` gave
    for each, while ``model.batch`` is that part. The model keeps what was found to fit, ``val_limit`` images, for the
    next ones. Raises InputError, which gives ``name``, the data set, if memory does not suffice for one image.
    """
    count, start = len(batch["lq"]), 0
    while start < count:
        size = min(count - start, model.val_limit or count)
        part, said = slice(start, start + size), None
        try:
            model.feed_data({key: value[part] for key, value in batch.items()})
            result = work(part)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = cause(error)
        if said is None:
            yield part, result
            start += size
            continue
        # outside of `except`, whose traceback holds on to the memory of the failed call
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        _halve(model, name, batch, start, size, said)


def _halve(model: Any, name: str, batch: dict[str, Any], start: int, size: int, said: str) -> None:
    height, width = batch["lq"].shape[-2:]
    what = f"degraded images of {width} x {height} pixels"
    if size == 1:
        raise InputError(
            f"datasets.{name}: out of memory while {batch['lq_path'][start]} was validated, one of {what}, alone "
            f"({said}); {_TOO_LARGE}"
        )
    model.val_limit = size // 2
    get_root_logger().warning(
        f"Validation on {name}: out of memory with {size} {what} at once ({said}). It goes on with {size // 2}; the "
        f"results are the same. val.batch_size: {size // 2} spares the failed attempt."
    )
