"""The training run of this process: what BasicSR's loop is at, for those who watch over it.

The loop is BasicSR's own and passes none of our objects on. So this is the one place where the repairs of the loop
leave what they see, :func:`current`; what we call ourselves is given the run.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from basicsr.utils.logger import get_root_logger

from basicsr_ext.checkpoints.resumable import best_file, save_best
from basicsr_ext.checkpoints.saves import saves_of
from basicsr_ext.common.errors import Interrupted
from basicsr_ext.common.files import SaveError
from basicsr_ext.images.results import Results
from basicsr_ext.processes import collectives
from basicsr_ext.training.signals import Watch


@dataclass
class TrainingRun:
    """``model`` is None before the first iteration, ``watch`` where nobody asked for signals to stop the run."""

    watch: Watch | None = None
    model: Any = None
    iteration: int = 0
    epoch: int = 0
    batch: Any = None
    train_loader: Any = None
    val_loaders: list[Any] = field(default_factory=list)
    tb_logger: Any = None
    abandoned: str | None = None
    unmeasured: bool = False  # whether a metric failed, at an image or at all
    results: Results | None = None  # of the validation under way, if BasicSR's own code makes it
    unsaved: list[str] = field(default_factory=list)  # results of this process that could not be saved, and why

    def not_saved(self, error: Exception, is_train: bool) -> None:
        """Take note of a result that cannot be saved, which ends nothing; a training tells of the first one alone."""
        logger = get_root_logger()
        if not is_train:
            logger.error(f"not saved: {error}")
        elif not self.unsaved:
            logger.warning(f"{error}; the run goes on, and is silent about further images that cannot be saved.")
        self.unsaved.append(str(error))

    def iteration_ended(self) -> None:
        """To be called on every process before a batch is fetched: stop the run here if a signal asked for it.

        Raises Interrupted once the state of the iteration that has ended is saved, or SaveError if it cannot be.
        """
        if self.watch is None:
            return
        self.watch.begin()
        if self.model is not None and self.watch.agree(self.iteration):
            self._leave(self.watch)

    def abandonable(self) -> AbstractContextManager[None]:
        """Around work that may be dropped when the run is stopped: a signal, before or meanwhile, raises Interrupted.

        No state of training may change in it, and no collective run.
        """
        return nullcontext() if self.watch is None else self.watch.abandonable()

    def validation_abandoned(self, name: str, everywhere: bool) -> None:
        """Remember that the validation of a data set was dropped.

        ``everywhere``: all processes know it, so that they stop after this iteration without asking each other.
        """
        if self.watch is not None:
            self.abandoned = f"The validation on {name} was left unfinished; --auto_resume makes up for it. "
            self.watch.agreed = self.watch.agreed or everywhere

    def make_up_validation(self, model: Any) -> None:
        """Validate the state that a run goes on from, if that was due and a signal or a kill cut it short.

        To be called before the first iteration, on every process. Without metrics nothing is kept of a validation, and
        nothing is made up for; nor is it for a state of another run.
        """
        opt = model.opt
        if not collectives.broadcast_object(_lacks_validation(opt) if collectives.is_main() else None):
            return
        iteration = opt["start"]["iter"]
        get_root_logger().warning(f"The validation of iteration {iteration} was not finished: it is made up for.")
        for loader in self.val_loaders:
            model.validation(loader, iteration, self.tb_logger, opt["val"]["save_img"])

    def loop_ended(self) -> None:
        """After the last validation: raise Interrupted if it was abandoned on any process, with the state saved."""
        if self.model is not None and self.watch and self.watch.maximum(float(self.abandoned is not None))[0]:
            self._leave(self.watch)

    def _leave(self, watch: Watch) -> None:
        """Save the state of the iteration that has ended, unless that is done, and raise Interrupted, or SaveError."""
        saves, failure = saves_of(self.model), None
        try:
            if saves.newest_whole != self.iteration:
                self.model.save(self.epoch, self.iteration)
        except SaveError as error:
            failure = error
        whole = saves.newest_whole == self.iteration
        collectives.barrier()  # without the limit of a collective: only rank 0 has written
        # whoever leaves early makes the launcher stop the one who writes
        if not watch.maximum(float(whole))[0]:
            raise SaveError(f"the run was to stop at iteration {self.iteration}, whose state could not be saved: "
                            f"{failure or 'see the log'}") from failure  # fmt: skip
        watch.saved = True
        if collectives.is_main():
            if self.abandoned:
                # of several data sets, the first may have been validated
                save_best(self.model.opt, None, self.iteration)
            name = watch.asked.name if watch.asked else "A signal to another process"
            get_root_logger().warning(
                f"{name}: the run stops after iteration {self.iteration}. {self.abandoned or ''}Its complete state is "
                f"saved in {saves.states / f'{self.iteration}.state'}; the same command with --auto_resume goes on "
                "from there"
            )
        raise Interrupted

    def end(self) -> None:
        """End the workers of the data loader and forget the run, so that its memory is free."""
        loader, watch = self.train_loader, self.watch
        self.__dict__.update(vars(TrainingRun()))
        try:
            if loader is not None:
                loader.end_workers()
        finally:
            if watch is not None:
                watch.end()


def _lacks_validation(opt: dict[str, Any]) -> bool:
    """Whether the state that a run goes on from was to be validated, and no result of that is there."""
    iteration, val = (opt.get("start") or {}).get("iter"), opt.get("val") or {}
    state = opt["path"].get("resume_state")
    if not iteration or not state or not val.get("metrics") or iteration % val["val_freq"]:
        return False
    own = Path(state).absolute().parent == Path(opt["path"].get("training_states") or "").absolute()
    return own and not best_file(Path(state)).exists()


_current = TrainingRun()


def current() -> TrainingRun:
    """The run of this process; one without a watch where BasicSR's pipeline is called by others."""
    return _current


@contextmanager
def watched_run() -> Iterator[TrainingRun]:
    """Begin a run that signals may stop; they are taken over when its first batch is fetched.

    Raises Interrupted if the run was stopped and its state saved.
    """
    global _current
    _current.end()
    run = _current = TrainingRun(Watch())
    try:
        yield run
        run.loop_ended()
    finally:
        run.end()
