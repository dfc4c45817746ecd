"""Repairs to BasicSR's training loop: its seeds, its budget of iterations, its prefetchers, its log and its clock."""

import functools
import random
from collections.abc import Callable, Iterator
from typing import Any

import basicsr.data
import basicsr.train
import numpy as np
import torch
from basicsr.data import prefetch_dataloader
from basicsr.models.base_model import BaseModel
from basicsr.utils import logger as basicsr_logger
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from basicsr_ext.checkpoints.run_record import option_text, write_options
from basicsr_ext.common import folder_lock
from basicsr_ext.common.contracts import DatasetContract, RestorerContract
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.seeds import seed_from, seed_streams
from basicsr_ext.preflight.data import training_size_faults
from basicsr_ext.processes import collectives
from basicsr_ext.repairs import apply
from basicsr_ext.repairs.repair import Repairs, source_says, unrepaired
from basicsr_ext.training import loop_state, signals
from basicsr_ext.training.progress import Progress
from basicsr_ext.training.sample_order import PositionSampler, SeededSamples

REPAIRS = Repairs()


@REPAIRS.replaces(basicsr.data, "worker_init_fn", "worker-seeds",
                  "Workers are seeded alike in every epoch, so the same crops and flips come back each time.",
                  "initial_seed", absent=True)  # fmt: skip
def worker_init_fn(worker_id: int, num_workers: int, rank: int, seed: int) -> None:
    """Let a worker go its own way: its streams follow from torch's seed, which differs by worker, rank and epoch.

    What the samples of a training run draw does not depend on that (see
    :class:`~basicsr_ext.training.sample_order.SeededSamples`). The run's lock is left to the process that trains, and
    in a spawned worker BasicSR is repaired.
    """
    signals.leave_signals_to_parent()
    folder_lock.release_all()
    apply()
    stream = torch.initial_seed()
    random.seed(stream)
    np.random.seed(stream % 2**32)


class BudgetLoader:
    """A data loader that starts no worker before its first batch is asked for.

    BasicSR's prefetchers call ``iter(loader)`` twice before the first epoch.
    """

    def __init__(self, loader: Any, sampler: PositionSampler, seed: int, complete: Callable | None = None) -> None:
        self.loader, self.budget, self.seed = loader, sampler, seed
        self.complete = complete or (lambda batch: batch)  # what the data set left to the device
        self._batches: Any = None

    def __iter__(self) -> Iterator[Any]:
        begin, end = self.budget.window()
        if end > begin:
            seed = seed_from("loader", self.seed, self.budget.rank, self.budget.epoch or 0)
            self.loader.generator = torch.Generator().manual_seed(seed)
            try:
                # a thread that reads images itself would share the random streams of the training step
                self._batches = iter(self.loader) if self.loader.num_workers else DataLoader.__iter__(self.loader)
                yield from map(self.complete, self._batches)
            except InputError as error:
                text = str(error)
                if text.startswith("Caught "):  # by a worker process; torch puts its traceback around the message
                    text = text.rsplit("InputError: ", 1)[-1].strip()
                raise InputError(text) from error

    def first_look(self, images: int = 128) -> Iterator[Any]:
        """Batches of images from all over the data set, whose crops no iteration draws; the same on every process."""
        data, size = self.loader.dataset, self.loader.batch_size
        places = [(k * len(data) // images, k - images) for k in range(images)]
        for first in range(0, images, size):
            yield self.complete(self.loader.collate_fn([data[place] for place in places[first : first + size]]))

    def end_workers(self) -> None:
        """End the worker processes: at the end of the program torch waits for them, five seconds each, untold."""
        batches = self._batches
        if isinstance(batches, prefetch_dataloader.PrefetchGenerator):  # the thread of prefetch_mode cpu
            batches = batches.generator
        if isinstance(batches, _MultiProcessingDataLoaderIter):
            batches._shutdown_workers()

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)  # BasicSR and torch ask a loader for what they like


@REPAIRS.replaces(basicsr.train, "create_train_val_dataloader", "train-budget",
                  "Training can stop before total_iter without a word, or count past it, because epochs are rounded up "
                  "while incomplete batches are dropped; order and augmentation depend on the number of workers and "
                  "processes.", "math.ceil")  # fmt: skip
def create_train_val_dataloader(opt: dict[str, Any], logger: Any) -> tuple[Any, Any, list[Any], int, int]:
    """Build the loaders, with a training loader that delivers ``total_iter`` iterations, no more and no less.

    Raises InputError if an epoch has no whole batch.
    """
    loader, _, val_loaders, _, total_iter = unrepaired(create_train_val_dataloader)(opt, logger)
    loop_state.current().val_loaders = val_loaders
    data = loader.dataset
    for fault in training_size_faults(opt, len(data), opt["world_size"]):
        raise InputError(fault)
    start = opt.setdefault("start", {"epoch": 0, "iter": 0, "position": 0})
    if collectives.is_main():
        write_options(opt)
    opt["resolved"] = option_text(opt)  # for the saves: models take pieces out of their options
    ratio = opt["datasets"]["train"].get("dataset_enlarge_ratio", 1)
    budget = PositionSampler(len(data), ratio, loader.batch_size, start, total_iter, opt["rank"], opt["world_size"])
    device = torch.device("cuda" if opt["num_gpu"] else "cpu")
    complete = data.defer(device) if isinstance(data, DatasetContract) else None
    logger.info(_loading(loader, complete is not None))
    start["position"] = budget.first_position  # what the model's saves count on from
    loader.batch_sampler.sampler = budget
    vars(loader)["dataset"] = SeededSamples(data, opt["manual_seed"])  # torch refuses a plain assignment
    logger.info(f"Images per epoch: {budget.epoch_size}; the run ends in epoch {budget.last_epoch}.")
    if start["iter"] >= total_iter:
        logger.warning(f"train.total_iter is {total_iter} and the resumed state is at {start['iter']}: nothing to do.")
    budgeted = loop_state.current().train_loader = BudgetLoader(loader, budget, opt["manual_seed"], complete)
    return budgeted, budget, val_loaders, budget.last_epoch, total_iter


def _loading(loader: Any, deferred: bool) -> str:
    kept = "kept from epoch to epoch" if loader.persistent_workers else "started anew in every epoch"
    who = f"{loader.num_workers} processes, {kept}" if loader.num_workers else "this process"
    done = "; degraded in batches by the device" if deferred else ""
    return f"Images are loaded by {who}; batches are {'' if loader.pin_memory else 'not '}page-locked{done}."


# ---- an iteration


@REPAIRS.replaces(BaseModel, "update_learning_rate", "iteration-seeds",
                  "What an iteration draws depends on all that was drawn before, so a resumed run is another run; and "
                  "no message of a model can name its iteration.", "seed", absent=True)  # fmt: skip
def _update_learning_rate(self: Any, current_iter: int, warmup_iter: int = -1) -> None:
    """Begin an iteration: its random draws follow from ``manual_seed``, its number and the rank, then the schedule."""
    run = loop_state.current()
    if run.model is not self:
        if isinstance(self, RestorerContract) and isinstance(run.train_loader, BudgetLoader):
            self.begin_training(run.train_loader.first_look())
        run.make_up_validation(self)
    run.model, run.iteration = self, current_iter
    seed = seed_from("iteration", self.opt.get("manual_seed") or 0, current_iter, collectives.rank())
    seed_streams(seed, self.device)
    unrepaired(_update_learning_rate)(self, current_iter, warmup_iter)


# ---- prefetchers


@REPAIRS.cures("prefetch-errors", "With prefetch_mode cpu an error in the data set leaves the run waiting for ever.",
               lambda: not source_says(prefetch_dataloader.PrefetchGenerator.run, "except"))  # fmt: skip
def _repair_prefetcher() -> None:
    """Let an error travel through the queue instead of ending the thread in silence."""

    def run(self: Any) -> None:
        try:
            for item in self.generator:
                self.queue.put(item)
            raise StopIteration
        except Exception as error:
            self.queue.put(error)

    def fetch_next(self: Any) -> Any:
        if isinstance(item := self.queue.get(), Exception):
            raise item
        return item

    generator = prefetch_dataloader.PrefetchGenerator
    generator.run, generator.__next__ = run, fetch_next


@REPAIRS.replaces(prefetch_dataloader.CUDAPrefetcher, "next", "prefetch-memory",
                  "With prefetch_mode cuda the next batch may be copied over one that the GPU still reads.",
                  "record_stream", absent=True)  # fmt: skip
def _next_on_gpu(self: Any) -> Any:
    """Let the memory of a batch, which was copied by another stream, not be used again before this one is done."""
    batch = unrepaired(_next_on_gpu)(self)
    for value in (batch or {}).values():
        if torch.is_tensor(value) and value.is_cuda:
            value.record_stream(torch.cuda.current_stream(value.device))
    return batch


@REPAIRS.cures("stop-between-iterations",
               "SIGTERM (Slurm's preemption) and Ctrl-C end a run in the middle of an iteration; all since the last "
               "save is lost.",
               lambda: not source_says(prefetch_dataloader.CPUPrefetcher.next, "iteration_ended"))  # fmt: skip
def _repair_fetching() -> None:
    """Let the prefetchers stop the run, if that was asked for, before they fetch a batch."""
    for prefetcher in (prefetch_dataloader.CPUPrefetcher, prefetch_dataloader.CUDAPrefetcher):

        def fetch_next(self: Any, fetch: Callable[[Any], Any] = prefetcher.next) -> Any:
            run = loop_state.current()
            _await_rank_0(run)
            run.iteration_ended()
            if isinstance(self.ori_loader, BudgetLoader):
                run.epoch = self.ori_loader.budget.epoch or 0
            run.batch = fetch(self)
            return run.batch

        prefetcher.next = fetch_next


def _await_rank_0(run: loop_state.TrainingRun) -> None:
    """After a save or a validation, which rank 0 may have made alone, wait for it without the limit of a collective."""
    if run.model is None:
        return
    freqs = (("logger", "save_checkpoint_freq"), ("val", "val_freq"))
    steps = [(run.model.opt.get(block) or {}).get(key) for block, key in freqs]
    if any(step and run.iteration % step == 0 for step in steps):
        collectives.barrier()


# ---- log and clock


class _Board:
    """A TensorBoard writer that, once it cannot write, says so and does nothing from then on."""

    def __init__(self, folder: str) -> None:
        self._folder, self._board = folder, None
        self._board = self._tried(unrepaired(init_tb_logger), folder)

    def _tried(self, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        try:
            return call(*given, **named)
        except (OSError, UnicodeError) as error:
            self._board = None
            basicsr_logger.get_root_logger().warning(f"{self._folder}: TensorBoard's log cannot be written ({error}).")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if self._board is None:
            return lambda *_, **__: None
        return functools.partial(self._tried, getattr(self._board, name))


@REPAIRS.replaces(basicsr_logger, "init_tb_logger", "board-errors",
                  "A TensorBoard log that cannot be written, on a full disk or since its folder's name is no UTF-8, "
                  "ends the training.", "SummaryWriter(log_dir=log_dir)")  # fmt: skip
def init_tb_logger(log_dir: str) -> _Board | None:
    """TensorBoard's writer on rank 0, whose failures end nothing; None elsewhere."""
    return _Board(log_dir) if collectives.is_main() else None


@REPAIRS.replaces(basicsr_logger.MessageLogger, "__init__", "time-to-come",
                  "The log's eta ends at -1 day, 23:59:59, and a missing use_tb_logger ends the run.",
                  "self.max_iters = opt")  # fmt: skip
def _message_logger_init(self: Any, opt: dict[str, Any], start_iter: int = 1, tb_logger: Any = None) -> None:
    """Count the time up to the last iteration, do without TensorBoard where there is none, begin the progress line."""
    loop_state.current().tb_logger = tb_logger
    options = {**opt["logger"], "use_tb_logger": bool(opt["logger"].get("use_tb_logger")) and tb_logger is not None}
    unrepaired(_message_logger_init)(self, {**opt, "logger": options}, start_iter, tb_logger)
    self.progress = Progress(opt, start_iter) if collectives.is_main() else None
    self.max_iters += 1  # the class counts max_iters - iter - 1


@REPAIRS.replaces(basicsr_logger.MessageLogger, "__call__", "progress-line",
                  "The console says neither how fast a run is nor how much memory it takes, and buries warnings among "
                  "its lines.", "self.progress", absent=True)  # fmt: skip
def _show_progress(self: Any, log_vars: dict[str, Any]) -> None:
    """Show the line; figures whose name has a slash go to TensorBoard alone, the others to the log file as well."""
    if self.progress is None:
        return
    iteration = log_vars["iter"]
    board = {name: log_vars.pop(name) for name in list(log_vars) if "/" in name}
    losses = {name: value for name, value in log_vars.items() if name.startswith("l_")}
    figures = self.progress.figures(iteration, log_vars.get("time", 0.0), log_vars.get("data_time", 0.0))
    with self.progress.file_alone():
        unrepaired(_show_progress)(self, log_vars)
    self.progress.show(iteration, losses, figures)
    if self.use_tb_logger and "debug" not in self.exp_name:
        board |= {name: value for name, value in figures.items() if "/" in name}
        for name, value in board.items():
            self.tb_logger.add_scalar(name, value, iteration)
