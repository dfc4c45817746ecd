"""What the training loop is at: its model, iteration, epoch and batch, for those who watch over it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Running", "now"]


@dataclass
class Running:
    """The run of this process; ``model`` is None before the first iteration and after the last one."""

    model: Any = None
    iteration: int = 0
    epoch: int = 0
    batch: Any = None
    train_loader: Any = None
    val_loaders: list[Any] = field(default_factory=list)
    tb_logger: Any = None

    def clear(self) -> None:
        """End the workers of the data loader and forget the run, so that its memory is free."""
        if self.train_loader is not None:
            self.train_loader.end_workers()
        self.__init__()  # type: ignore[misc]


now = Running()
