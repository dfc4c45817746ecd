"""Means by position, such as the loss by time step: gathered on the device, read when a line of the log is written."""

from __future__ import annotations

import torch
from torch import Tensor

from basicsr_ext.processes import collectives

__all__ = ["BINS", "Profiles"]

BINS = 10  # equal parts of [0, 1]


class Profiles:
    """Sums of values by their position in [0, 1]."""

    def __init__(self) -> None:
        self._tables: dict[str, Tensor] = {}

    @torch.no_grad()
    def note(self, name: str, position: Tensor, values: Tensor) -> None:
        """Add ``values`` (B,) that belong to ``position`` (B,) in [0, 1], on the same device; waits for nothing."""
        bins = (position * BINS).long().clamp_(0, BINS - 1)
        hits = (bins[:, None] == torch.arange(BINS, device=bins.device)).float()
        values = values.detach().float()
        table = torch.stack([values, torch.ones_like(values)]) @ hits
        self._tables[name] = self._tables[name] + table if name in self._tables else table

    def read(self) -> dict[str, float]:
        """Means over all processes since the last call: ``<name>/0.0-0.1`` and so on, without empty bins.

        Every process must have noted the same names.
        """
        tables = collectives.all_reduce_sum(self._tables)
        self._tables = {}
        return {
            f"{name}/{k / BINS:.1f}-{(k + 1) / BINS:.1f}": float(table[0, k] / table[1, k])
            for name, table in tables.items()
            for k in range(BINS)
            if table[1, k] > 0
        }
