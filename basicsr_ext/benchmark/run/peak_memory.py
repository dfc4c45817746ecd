"""The most memory that is held at a time: of a GPU by torch's own count, of a Linux process by the kernel's."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import torch


class PeakMemory:
    """Afterwards ``bytes`` is the peak of the block; None where this machine does not tell.

    On a GPU: everything that torch holds, weights included. On Linux: the resident memory of the whole process.
    """

    bytes: int | None = None

    def __init__(self, device: torch.device) -> None:
        self._device, self._counted = device, False

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif self._device.type == "cpu":
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
                self._counted = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self._device)
        elif self._counted and (found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())):
            self.bytes = int(found[1]) * 1024
