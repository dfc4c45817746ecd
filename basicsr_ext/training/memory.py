"""When memory runs out: how to tell, and halving a validation's batches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from basicsr.utils.logger import get_root_logger

from basicsr_ext.common.errors import InputError

_Result = TypeVar("_Result")

_TOO_LARGE = (
    "its images are too large for this device. Give smaller images or crops, a lighter network_g, or in a training "
    "file no val; `basicsr restore --tile` restores large images in tiles"
)
_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


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
