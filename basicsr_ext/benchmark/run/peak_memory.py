"""The most memory that is held at a time: of a GPU by torch's own count, of a Linux process by the kernel's."""

from __future__ import annotations

import re
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Afterwards ``bytes`` is the peak of the block; None where this machine does not tell.

    On a GPU: everything that torch holds, weights included. On Linux: the resident memory of the whole process.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._resettable = self._device.type == "cpu" and _reset()
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self._device)
        elif self._resettable:
            found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
            self.bytes = int(found[1]) * 1024 if found else None


def _reset() -> bool:
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True
