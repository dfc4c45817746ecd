"""Values from the CPU to a device that is not waited for."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sent"]


def sent(values: Tensor, device: torch.device) -> Tensor:
    """``values`` of the CPU on ``device``; a GPU is not waited for, so that it always has work ahead of it.

    A plain copy to a GPU first waits until everything that was asked of it is done; one from page-locked memory queues.
    """
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
