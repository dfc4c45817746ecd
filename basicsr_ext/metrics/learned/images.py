"""Pixels as networks take them: RGB, float, the same sums on any machine of one kind."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np
import torch

__all__ = ["digest_of", "exact", "metric_device", "to_rgb"]


def to_rgb(image: np.ndarray) -> torch.Tensor:
    """H,W,C uint8 in OpenCV's order to 1,3,H,W float32 RGB in [0, 255]; grey is repeated, alpha left out."""
    channels = {1: [0, 0, 0], 3: [2, 1, 0], 4: [2, 1, 0]}[image.shape[2]]
    return torch.from_numpy(np.ascontiguousarray(image[:, :, channels])).permute(2, 0, 1)[None].float()


def digest_of(image: np.ndarray) -> str:
    """SHA-256 of the pixels and the shape of an image."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


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
