"""Repairs to BasicSR's training loop: its seeds, its budget of iterations, its prefetcher and its clock."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterator
from typing import Any

import basicsr.data
import basicsr.train
import numpy as np
import torch
from basicsr.data import prefetch_dataloader
from basicsr.utils import logger as basicsr_logger

from basicsr_ext.compat import Repair, apply, rebind, source_says
from basicsr_ext.errors import InputError

__all__ = ["REPAIRS", "BudgetLoader", "BudgetSampler", "worker_init_fn"]


def worker_init_fn(worker_id: int, num_workers: int, rank: int, seed: int) -> None:
    """Seed a worker's Python and NumPy streams from torch's, which differs by worker, rank and epoch.

    In a spawned worker it also repairs the BasicSR that was just imported there.
    """
    del worker_id, num_workers, rank, seed
    apply()
    stream = torch.initial_seed()
    random.seed(stream)
    np.random.seed(stream % 2**32)


class BudgetSampler:
    """A sampler that gives each epoch exactly the batches that are left of the run's budget.

    Epoch ``e`` covers the iterations from ``e * per_epoch`` on. A resumed run skips those behind it, and the last epoch
    ends at ``total_iter``. Nothing is given before the first :meth:`set_epoch`.
    """

    def __init__(self, sampler: Any, batch_size: int, start: dict[str, int], total_iter: int):
        self.sampler = sampler
        self.batch_size = batch_size
        self.per_epoch = len(sampler) // batch_size
        self.total_iter = total_iter
        self.start = start
        first = start["epoch"] * self.per_epoch
        same_epochs = first <= start["iter"] <= first + self.per_epoch
        self.origin = 0 if same_epochs else start["iter"] - first
        self.epoch: int | None = None

    def window(self) -> tuple[int, int]:
        """First batch of this epoch to give, and the one to stop before."""
        if self.epoch is None:
            return 0, 0
        first_iter = self.origin + self.epoch * self.per_epoch
        begin = min(max(self.start["iter"] - first_iter, 0), self.per_epoch)
        end = min(max(self.total_iter - first_iter, begin), self.per_epoch)
        return begin, end

    @property
    def last_epoch(self) -> int:
        """The epoch in which ``total_iter`` falls; the one before the start if nothing is left to do."""
        if self.start["iter"] >= self.total_iter:
            return self.start["epoch"] - 1
        return math.ceil((self.total_iter - self.origin) / self.per_epoch) - 1

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch."""
        self.epoch = epoch
        self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        begin, end = self.window()
        indices = list(self.sampler) if end > begin else []
        return iter(indices[begin * self.batch_size : end * self.batch_size])

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        if name == "sampler":
            raise AttributeError(name)
        return getattr(self.sampler, name)


class BudgetLoader:
    """A data loader that starts no worker before its first batch is asked for.

    BasicSR's prefetchers call ``iter(loader)`` twice before the first epoch. The seeds of the workers follow from seed,
    rank and epoch alone.
    """

    def __init__(self, loader: Any, sampler: BudgetSampler, seed: int):
        self.loader = loader
        self.budget = sampler
        self.seed = seed

    def __iter__(self) -> Iterator[Any]:
        begin, end = self.budget.window()
        if end > begin:
            rank = getattr(self.budget.sampler, "rank", 0)
            seed = ((self.seed * 1_000_003 + rank) * 1_000_003 + int(self.budget.epoch or 0)) % 2**63
            self.loader.generator = torch.Generator().manual_seed(seed)
            try:
                yield from self.loader
            except InputError as error:
                raise InputError(_without_traceback(str(error))) from error

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        if name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)


def _without_traceback(message: str) -> str:
    """The message of an error that a worker process raised, without the traceback that torch puts around it."""
    return message.rsplit("InputError: ", 1)[-1].strip() if message.startswith("Caught ") else message


def create_train_val_dataloader(opt: dict[str, Any], logger: Any) -> tuple[Any, Any, list[Any], int, int]:
    """Build the loaders, with a training loader that delivers ``total_iter`` iterations, no more and no less.

    Raises:
        InputError: An epoch has no whole batch, or a validation set is empty.

    """
    loader, sampler, val_loaders, _, total_iter = create_train_val_dataloader.unrepaired(opt, logger)
    for val_loader in val_loaders:
        if len(val_loader.dataset) == 0:
            name = val_loader.dataset.opt["name"]
            raise InputError(f"validation set {name} is empty; correct its folders, or remove it and the val section")
    _refuse_empty_epoch(opt, loader, sampler)
    start = opt.get("start") or {"epoch": 0, "iter": 0}
    budget = BudgetSampler(sampler, loader.batch_size, start, total_iter)
    loader.batch_sampler.sampler = budget
    logger.info(f"Whole batches per epoch: {budget.per_epoch}; the run ends in epoch {budget.last_epoch}.")
    if start["iter"] >= total_iter:
        logger.warning(f"train.total_iter is {total_iter} and the resumed state is at {start['iter']}: nothing to do.")
    return BudgetLoader(loader, budget, opt["manual_seed"]), budget, val_loaders, budget.last_epoch, total_iter


def _refuse_empty_epoch(opt: dict[str, Any], loader: Any, sampler: Any) -> None:
    if len(loader):
        return
    data = opt["datasets"]["train"]
    ratio = data.get("dataset_enlarge_ratio", 1)
    needed = math.ceil(loader.batch_size * opt["world_size"] / max(len(loader.dataset), 1))
    raise InputError(
        f"datasets.train.batch_size_per_gpu is {data['batch_size_per_gpu']}, but an epoch has {len(sampler)} images "
        f"per process ({len(loader.dataset)} images x dataset_enlarge_ratio {ratio} / {opt['world_size']} processes): "
        f"not one batch of {loader.batch_size}; lower the batch size, or set dataset_enlarge_ratio to {needed} or more"
    )


# ---- prefetcher and clock


def _generator_run(self: Any) -> None:
    """Fill the queue; an error travels through it instead of ending the thread in silence."""
    try:
        for item in self.generator:
            self.queue.put(item)
        self.queue.put(None)
    except Exception as error:
        self.queue.put(_Failure(error))


class _Failure:
    def __init__(self, error: Exception):
        self.error = error


def _generator_next(self: Any) -> Any:
    item = self.queue.get()
    if isinstance(item, _Failure):
        raise item.error
    if item is None:
        raise StopIteration
    return item


def _repair_prefetcher() -> None:
    generator = prefetch_dataloader.PrefetchGenerator
    generator.run, generator.__next__ = _generator_run, _generator_next


def _prefetcher_loses_errors() -> bool:
    """Prefetch from a generator that fails, without starting the thread whose traceback would be printed."""
    generator = prefetch_dataloader.PrefetchGenerator
    return issubclass(generator, threading.Thread) and not source_says(generator.run, "except")


def _message_logger_init(self: Any, opt: dict[str, Any], start_iter: int = 1, tb_logger: Any = None) -> None:
    """Count the time to come up to the last iteration, and do without TensorBoard where there is none."""
    options = {**opt["logger"], "use_tb_logger": bool(opt["logger"].get("use_tb_logger")) and tb_logger is not None}
    _message_logger_init.unrepaired(self, {**opt, "logger": options}, start_iter, tb_logger)
    self.max_iters += 1  # the class counts max_iters - iter - 1


def _repair_message_logger() -> None:
    cls = basicsr_logger.MessageLogger
    _message_logger_init.unrepaired = cls.__init__
    cls.__init__ = _message_logger_init


REPAIRS = [
    Repair(
        "worker-seeds",
        "Workers are seeded alike in every epoch, so the same crops and flips come back each time.",
        lambda: not source_says(basicsr.data.worker_init_fn, "initial_seed"),
        lambda: rebind(basicsr.data.worker_init_fn, worker_init_fn),
    ),
    Repair(
        "train-budget",
        "Training can stop before total_iter without a word, or count past it, because epochs are rounded up while "
        "incomplete batches are dropped.",
        lambda: source_says(basicsr.train.create_train_val_dataloader, "math.ceil"),
        lambda: rebind(basicsr.train.create_train_val_dataloader, create_train_val_dataloader),
    ),
    Repair(
        "prefetch-errors",
        "With prefetch_mode cpu an error in the data set leaves the run waiting for ever.",
        _prefetcher_loses_errors,
        _repair_prefetcher,
    ),
    Repair(
        "time-to-come",
        "The log's eta ends at -1 day, 23:59:59, and a missing use_tb_logger ends the run.",
        lambda: source_says(basicsr_logger.MessageLogger.__init__, "self.max_iters = opt"),
        _repair_message_logger,
    ),
]
