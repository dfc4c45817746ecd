"""Random streams that follow from numbers alone: nothing of what happened before changes what is drawn next."""

import contextlib
import hashlib
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch

MOST_SEED = 2**32 - 1  # that NumPy takes


def seed_from(purpose: str, *numbers: int) -> int:
    """A seed in [0, 2**63) from a purpose and whole numbers; other numbers give an unrelated seed."""
    text = ":".join([purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_streams(seed: int, device: torch.device | None = None) -> None:
    """Seed the default streams of Python, NumPy and torch on the CPU and, if it is given, on a CUDA device."""
    random.seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32, 1])  # without the 1 it would draw what Python draws
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextlib.contextmanager
def kept_streams(devices: Sequence[int] = ()) -> Iterator[None]:
    """Put the default streams, those of the CPU and of CUDA devices, back to where they were before."""
    before = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
