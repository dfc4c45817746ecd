"""A repair to what BasicSR says while it trains."""

from __future__ import annotations

import functools
from typing import Any

from basicsr.utils import logger as basicsr_logger

from basicsr_ext.processes import collectives
from basicsr_ext.repairs.repair import Repair, source_says
from basicsr_ext.training.progress import Progress

__all__ = ["REPAIRS"]


def _init(self: Any, opt: dict[str, Any], start_iter: int = 1, tb_logger: Any = None) -> None:
    _init.unrepaired(self, opt, start_iter, tb_logger)  # type: ignore[attr-defined]
    self.progress = Progress(opt, start_iter) if collectives.is_main() else None


def _call(self: Any, log_vars: dict[str, Any]) -> None:
    """Show the line; figures whose name has a slash go to TensorBoard alone, the others to the log file as well."""
    if self.progress is None:
        return
    iteration = log_vars["iter"]
    board = {name: log_vars.pop(name) for name in list(log_vars) if "/" in name}
    losses = {name: value for name, value in log_vars.items() if name.startswith("l_")}
    figures = self.progress.figures(iteration, log_vars.get("time", 0.0), log_vars.get("data_time", 0.0))
    with self.progress.file_alone():
        _call.unrepaired(self, log_vars)  # type: ignore[attr-defined]
    self.progress.show(iteration, losses, figures)
    if self.use_tb_logger and "debug" not in self.exp_name:
        board |= {name: value for name, value in figures.items() if "/" in name}
        for name, value in board.items():
            self.tb_logger.add_scalar(name, value, iteration)


def _repair() -> None:
    cls = basicsr_logger.MessageLogger
    _init.unrepaired, _call.unrepaired = cls.__init__, cls.__call__  # type: ignore[attr-defined]
    cls.__init__ = functools.wraps(cls.__init__)(_init)  # its source is looked at by another repair
    cls.__call__ = _call


REPAIRS = [
    Repair(
        "progress-line",
        "The console says neither how fast a run is nor how much memory it takes, and buries warnings among its lines.",
        lambda: not source_says(basicsr_logger.MessageLogger.__call__, "self.progress"),
        _repair,
    )
]
