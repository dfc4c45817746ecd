"""Pixels as networks take them: RGB, float, the same sums on any machine of one kind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

__all__ = [
    "exact",
    "metric_device",
]


def metric_device() -> torch.device:
    """Where the networks of metrics run: the current GPU if there is one."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """Compute without gradients, in full float32 and with deterministic kernels."""
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with (
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
