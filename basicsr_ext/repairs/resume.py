"""Repair of the way back into a run: the newest state that loads, on any device, from any folder."""

import json
from pathlib import Path
from typing import Any

import basicsr.train
from basicsr.utils.logger import get_root_logger
from basicsr.utils.misc import check_resume

from basicsr_ext.checkpoints.resumable import network_labels, newest_resumable, resumable_iterations
from basicsr_ext.checkpoints.run_record import changed_options, changed_versions
from basicsr_ext.checkpoints.storage import load_state
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import remove_unfinished
from basicsr_ext.processes import collectives, launch
from basicsr_ext.repairs.repair import Repairs
from basicsr_ext.repairs.startup import STARTERS, make_folders
from basicsr_ext.training.sample_order import global_batch_size

REPAIRS = Repairs()


@REPAIRS.replaces(basicsr.train, "load_resume_state", "resume",
                  "Resuming needs CUDA, looks under the current folder only, and dies at a damaged or oddly named "
                  "state.", "torch.cuda.current_device()")  # fmt: skip
def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Find and load the state from which a run goes on.

    With ``--auto_resume``, or where torchrun started the run again, it is the newest one in the run's own folder that
    loads together with its networks; if there is none, or without the flag, ``path.resume_state``. Says which one it is
    and what differs from its options. Writes ``opt['start']`` (epoch, iteration, position in the data),
    ``opt['path']['resume_state']`` and the paths of the networks.

    Raises InputError if ``path.resume_state`` is no training state or its networks are missing, if the run's folder
    holds states, of which not one loads, or if the options name another optimiser than the state's.
    """
    opt["start"] = {"epoch": 0, "iter": 0, "position": 0}
    wanted = _goes_on(opt)
    path = collectives.broadcast_object(_newest_in_run(opt) if wanted and collectives.is_main() else None)
    path = path or opt["path"].get("resume_state")
    if path is None:
        return None
    state = load_state(path, "path.resume_state")
    _refuse_other_optimizers(opt, state, path)
    opt["path"]["resume_state"] = str(path)
    opt["start"] = {"epoch": state["epoch"], "iter": state["iter"], "position": state.get("position")}
    if opt.get("manual_seed_drawn") and (state.get("random") or {}).get("manual_seed") is not None:
        opt["manual_seed"] = state["random"]["manual_seed"]
    if collectives.is_main():
        _say_what_changed(opt, state, path)
    for label in network_labels(opt):
        opt["path"].pop(f"pretrain_network_{label.removeprefix('net_')}", None)
    check_resume(opt, state["iter"])
    _point_to_networks(opt, Path(path), state["iter"])
    if collectives.is_main():
        make_folders(opt["path"])
    return state


def _goes_on(opt: dict[str, Any]) -> bool:
    """Whether the run goes on from what its folder holds: by the flag, or since its own torchrun started it again."""
    starters = set(collectives.gather_objects(launch.starter()))
    if opt["auto_resume"] or not launch.is_restart() or not collectives.is_main():
        return opt["auto_resume"]
    try:
        mine = starters & set(json.loads(Path(opt["path"]["experiments_root"], STARTERS).read_text()))
    except (OSError, ValueError):  # torchrun's first attempt did not come to make the folder
        mine = set()
    if mine:
        get_root_logger().warning("torchrun started the processes again: the run goes on from its newest save.")
    return bool(mine)


def _newest_in_run(opt: dict[str, Any]) -> str | None:
    remove_unfinished(opt["path"]["models"], opt["path"]["training_states"])
    path, passed_over = newest_resumable(opt)
    logger = get_root_logger()
    for sentence in passed_over:
        logger.warning(f"--auto_resume {sentence}")
    if path is not None:
        return str(path)
    if resumable_iterations(opt):
        raise InputError(
            f"--auto_resume: not one training state in {opt['path']['training_states']} loads; {passed_over[0]}. "
            "Remove the damaged files, or start without --auto_resume, which puts the old run aside"
        )
    where = f"--auto_resume: no training state in {opt['path']['training_states']}"
    explicit = opt["path"].get("resume_state")
    logger.warning(f"{where}; {f'resuming from {explicit}' if explicit else 'training starts from the beginning'}.")
    return None


def _refuse_other_optimizers(opt: dict[str, Any], state: dict[str, Any], path: str) -> None:
    """The moments of one optimiser mean something else to another one, where it takes them at all."""
    saved = json.loads(state.get("options") or "{}").get("train") or {}
    for key, block in opt["train"].items():
        if not key.startswith("optim_") or not isinstance(saved.get(key), dict):
            continue
        before, now = saved[key].get("type"), block["type"]
        if before not in (None, now):
            raise InputError(
                f"train.{key}.type is {now}, but {path} holds the moments of {before}; set train.{key}.type: {before}, "
                "or begin a run of another name with the network of the save as path.pretrain_network_g"
            )


def _say_what_changed(opt: dict[str, Any], state: dict[str, Any], path: str) -> None:
    """List the options and versions that differ from those of the save, before the run goes on with the new ones."""
    logger = get_root_logger()
    logger.warning(f"Resuming from {path}, iteration {state['iter']} of {opt['train']['total_iter']}.")
    if not opt["auto_resume"] and (later := [i for i in resumable_iterations(opt) if i > state["iter"]]):
        logger.warning(
            f"{opt['path']['training_states']} holds later saves of another course (up to {later[0]}.state): "
            "--auto_resume would go on from the newest of them; move them away before it is given."
        )
    if "options" not in state:
        logger.warning("The state does not hold the options that it was saved with; changes cannot be listed.")
        return
    if changed := [f"  {line}" for line in changed_options(state["options"], opt)]:
        logger.warning("\n".join(["Options that differ from those of the save (the new ones hold):", *changed]))
    saved = json.loads(state["options"])
    before, now = (o.get("world_size", 1) for o in (saved, opt))
    if before != now:
        logger.warning(
            f"The save was made by {before} process(es), this run has {now}: it takes the samples in the same order, "
            f"{global_batch_size(saved)} -> {global_batch_size(opt)} in an iteration; a network's own draws (dropout) "
            "differ."
        )
    if others := changed_versions(state.get("versions") or {}):
        logger.warning(
            f"Versions that differ from those of the save: {', '.join(others)}; results may be rounded otherwise."
        )


def _point_to_networks(opt: dict[str, Any], state: Path, iteration: int) -> None:
    """Take the networks from beside the state if the run's own folder lacks them (a state of another run)."""
    for label in network_labels(opt):
        key = f"pretrain_network_{label.removeprefix('net_')}"
        own = Path(opt["path"][key])
        beside = state.resolve().parent.parent / "models" / own.name
        if not own.is_file() and not beside.is_file():
            raise InputError(
                f"path.resume_state is {state}, iteration {iteration}: its network is neither {own} nor {beside}; "
                "a state needs the network of the same iteration"
            )
        opt["path"][key] = str(own if own.is_file() else beside)
