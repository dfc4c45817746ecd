"""The most memory that is held at a time: of a GPU by torch's own count, of a Linux process by the kernel's."""

import contextlib
import re
from pathlib import Path

import torch


def start_peak(device: torch.device) -> bool:
    """Begin a new peak; False where this machine does not tell.

    On a GPU: everything that torch holds, weights included. On Linux: the resident memory of the whole process.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    with contextlib.suppress(OSError):
        return device.type == "cpu" and Path("/proc/self/clear_refs").write_text("5") > 0
    return False


def peak_since(device: torch.device) -> int | None:
    """Bytes of the peak since :func:`start_peak`, where that told that it is known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else None
