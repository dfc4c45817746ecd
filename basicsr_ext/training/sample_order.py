"""The order of a run's training samples: one endless row of positions, whatever processes and workers take them.

Position ``p`` lies in epoch ``p // epoch_size``, whose order is a permutation that its number alone decides. Iteration
by iteration the row is cut into batches of all processes together, and position by position a batch is dealt out to
the ranks. What a sample draws (crop, flip, degradation) follows from the seed and its position.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from basicsr_ext.common.seeds import kept_streams, seed_from, seed_streams


def global_batch_size(opt: Mapping[str, Any]) -> int | None:
    """Images that one iteration takes in all processes together; None where the options do not say it."""
    train = (opt.get("datasets") or {}).get("train") or {}
    if "batch_size_per_gpu" not in train:
        return None
    here = 1 if opt.get("dist") else max(1, opt.get("num_gpu") or 0)
    return train["batch_size_per_gpu"] * here * opt.get("world_size", 1)


@dataclass(eq=False)
class PositionSampler:
    """Gives, epoch by epoch, exactly the samples that this rank has to take up to ``total_iter``, as (index, position).

    Nothing is given before the first :meth:`set_epoch`. No sample is dropped: a batch may reach into the next epoch. An
    epoch has ``ceil(count * ratio)`` samples; ``batch_size`` are those of this rank in an iteration.

    ``start`` has the ``epoch``, ``iter`` and ``position`` to begin at; a position that is unknown or not in the epoch
    (the data set has another size now) becomes the epoch's first one.
    """

    count: int
    ratio: float
    batch_size: int
    start: Mapping[str, int]
    total_iter: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        self.epoch_size, self._in_all = math.ceil(self.count * self.ratio), self.batch_size * self.world_size
        self.first_iter, position = self.start["iter"], self.start.get("position")
        position = self.first_iter * self._in_all if position is None else position
        begin = self.start["epoch"] * self.epoch_size
        self.first_position = position if begin <= position <= begin + 2 * self.epoch_size else begin
        self.epoch: int | None = None
        self._order: tuple[int, list[int]] = (-1, [])

    def window(self) -> tuple[int, int]:
        """The iterations, counted from 0, whose batches begin in this epoch: the first one, and the one after them."""
        if self.epoch is None:
            return 0, 0
        return self._first_in(self.epoch), self._first_in(self.epoch + 1)

    def _first_in(self, epoch: int) -> int:
        ahead = epoch * self.epoch_size - self.first_position
        iteration = self.first_iter + max(0, -(-ahead // self._in_all))
        return max(self.first_iter, min(iteration, self.total_iter))

    @property
    def last_epoch(self) -> int:
        """The epoch in which the last batch begins; the one before the start if nothing is left to do."""
        if self.first_iter >= self.total_iter:
            return self.start["epoch"] - 1
        return self._begin_of(self.total_iter - 1) // self.epoch_size

    def _begin_of(self, iteration: int) -> int:
        return self.first_position + (iteration - self.first_iter) * self._in_all

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for iteration in range(*self.window()):
            begin = self._begin_of(iteration) + self.rank
            for position in range(begin, begin + self._in_all, self.world_size):
                yield self._index_at(position), position

    def _index_at(self, position: int) -> int:
        epoch, place = divmod(position, self.epoch_size)
        if self._order[0] != epoch:
            shuffle = torch.Generator().manual_seed(epoch)  # as BasicSR's EnlargedSampler in one process
            self._order = epoch, torch.randperm(self.epoch_size, generator=shuffle).tolist()
        return self._order[1][place] % self.count

    def __len__(self) -> int:
        return self.epoch_size // self.world_size


class SeededSamples(torch.utils.data.Dataset):
    """A data set read by (index, position): what a sample draws from Python, NumPy and torch follows from its position.

    So it is the same in this process and in any worker, and the streams of this process stay where they were.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, place: tuple[int, int]) -> Any:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[tuple[int, int]]) -> list[Any]:
        """Read a batch, as torch's loader asks for it."""
        samples = []
        with kept_streams():
            for index, position in places:
                seed_streams(seed_from("sample", self.seed, position))
                samples.append(self.dataset[index])
        return samples

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == "dataset" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dataset, name)  # BasicSR asks a loader's data set for what it likes
