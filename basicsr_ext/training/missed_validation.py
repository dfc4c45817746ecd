"""A validation that a signal or a kill cut short is made up for, when the run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from basicsr.utils.logger import get_root_logger

from basicsr_ext.checkpoints.resumable import best_file
from basicsr_ext.processes import collectives
from basicsr_ext.training import loop_state

__all__ = ["make_up_validation"]


def make_up_validation(model: Any) -> None:
    """Validate the state that a run goes on from, if its iteration was to be validated and no result of that is there.

    To be called before the first iteration, on every process. Without metrics nothing is kept of a validation, and
    nothing is made up for; nor is it for a state of another run.
    """
    opt, now = model.opt, loop_state.now
    if not collectives.broadcast_object(_is_due(opt) if collectives.is_main() else None):
        return
    iteration = opt["start"]["iter"]
    get_root_logger().warning(f"The validation of iteration {iteration} was not finished: it is made up for.")
    for loader in now.val_loaders:
        model.validation(loader, iteration, now.tb_logger, opt["val"]["save_img"])


def _is_due(opt: dict[str, Any]) -> bool:
    iteration, val = (opt.get("start") or {}).get("iter"), opt.get("val") or {}
    state = opt["path"].get("resume_state")
    if not iteration or not state or not val.get("metrics") or iteration % val["val_freq"]:
        return False
    own = Path(state).absolute().parent == Path(opt["path"].get("training_states") or "").absolute()
    return own and not best_file(Path(state)).exists()
