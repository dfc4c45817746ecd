"""The loss by time step: gathered on the device, read when a line of the log is written."""

import torch
from torch import Tensor

from basicsr_ext.processes import collectives

BINS = 10  # equal parts of [0, 1]


class LossByTime:
    """Sums and numbers of losses by their time in [0, 1]."""

    def __init__(self) -> None:
        self._table: Tensor | None = None

    @torch.no_grad()
    def add(self, time: Tensor, losses: Tensor) -> None:
        """Add ``losses`` (B,) at ``time`` (B,) in [0, 1], on the same device; waits for nothing."""
        bins = (time * BINS).long().clamp_(0, BINS - 1)
        hits = (bins[:, None] == torch.arange(BINS, device=bins.device)).float()
        losses = losses.detach().float()
        table = torch.stack([losses, torch.ones_like(losses)]) @ hits
        self._table = table if self._table is None else self._table + table

    def read(self) -> dict[str, float]:
        """Means over all processes since the last call: ``loss_by_time/0.0-0.1`` and so on, without empty bins.

        Every process must have added to it, or none.
        """
        tables = {} if self._table is None else {"sums": self._table}
        self._table = None
        return {
            f"loss_by_time/{k / BINS:.1f}-{(k + 1) / BINS:.1f}": float(table[0, k] / table[1, k])
            for table in collectives.all_reduce_sum(tables).values()
            for k in range(BINS)
            if table[1, k] > 0
        }
