import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from basicsr_ext.common.seeds import seed_from
from basicsr_ext.training.sample_order import PositionSampler, SeededSamples, global_batch_size
from tests.support.toolkit import context


def taken(world, batch, start, stop, count=7, ratio=1.5):
    """What each rank takes in iterations start.iter .. stop: ranks x iterations x batch of (index, position)."""
    ranks = []
    for rank in range(world):
        sampler = PositionSampler(count, ratio, batch, start, stop, rank, world)
        places = []
        for epoch in range(start["epoch"], sampler.last_epoch + 1):
            sampler.set_epoch(epoch)
            places += list(sampler)
        ranks.append([places[k : k + batch] for k in range(0, len(places), batch)])
    return ranks


def in_order(ranks):
    """The samples of all ranks by position."""
    return sorted({place for rank in ranks for batch in rank for place in batch}, key=lambda place: place[1])


START = {"epoch": 0, "iter": 0, "position": 0}


@pytest.mark.parametrize(("world", "batch"), [(1, 4), (2, 2), (4, 1)])
def test_any_number_of_processes_takes_the_same_samples_in_each_iteration(world, batch):
    ranks = taken(world, batch, START, 9)
    one = taken(1, 4, START, 9)[0]
    assert all(len(rank) == 9 for rank in ranks)
    for iteration in range(9):
        together = sorted((p for rank in ranks for p in rank[iteration]), key=lambda place: place[1])
        assert together == one[iteration]


def test_three_then_two_then_four_processes_go_through_one_row_of_samples():
    start, seen = START, []
    for world, iterations in ((3, 3), (2, 4), (4, 2)):
        places = in_order(taken(world, 2, start, start["iter"] + iterations))
        seen += places
        position = start["position"] + iterations * 2 * world
        start = {"epoch": (position - 1) // 11, "iter": start["iter"] + iterations, "position": position}
    assert [position for _, position in seen] == list(range(50))
    assert seen == in_order(taken(1, 1, START, 50))


def test_an_epoch_shows_every_image_as_often_and_in_basicsrs_order():
    from basicsr_ext import repairs

    repairs.apply()
    from basicsr.data.data_sampler import EnlargedSampler

    sampler = PositionSampler(6, 2, 3, START, 8)
    theirs = EnlargedSampler(range(6), 1, 0, 2)
    for epoch in (0, 1):
        sampler.set_epoch(epoch), theirs.set_epoch(epoch)
        assert [index for index, _ in sampler] == list(theirs)
        assert sorted(theirs) == sorted(list(range(6)) * 2)


def test_a_data_set_of_another_size_begins_its_epoch_anew():
    sampler = PositionSampler(100, 1, 2, {"epoch": 3, "iter": 40, "position": 80}, 60)
    assert sampler.first_position == 300
    sampler.set_epoch(3)
    assert next(iter(sampler))[1] == 300
    assert PositionSampler(10, 1, 2, {"epoch": 3, "iter": 16, "position": None}, 60).first_position == 32


def test_the_batch_of_all_processes_is_counted():
    train = {"datasets": {"train": {"batch_size_per_gpu": 3}}}
    assert global_batch_size({**train, "dist": True, "num_gpu": 1, "world_size": 4}) == 12
    assert global_batch_size({**train, "dist": False, "num_gpu": 2, "world_size": 1}) == 6
    assert global_batch_size({"dist": False}) is None


class Draws(Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return torch.tensor([index, random.random(), np.random.random(), torch.rand(()).item()], dtype=torch.float64)


def read(workers, started=None, seed=1):
    sampler = PositionSampler(5, 1, 2, START, 6)
    data = SeededSamples(Draws(), seed)
    loader = DataLoader(data, batch_size=2, sampler=sampler, num_workers=workers, multiprocessing_context=started)
    batches = []
    for epoch in range(sampler.last_epoch + 1):
        sampler.set_epoch(epoch)
        batches += list(loader)
    return torch.cat(batches)


@pytest.mark.parametrize(("workers", "forked"), [(1, True), (3, True), (2, False)])
def test_samples_are_the_same_in_this_process_and_in_any_worker(workers, forked):
    here = read(0)
    assert len(here) == 12 and len(here[:, 1:].unique()) == 36, "every draw is another"
    assert read(workers, "fork" if forked else context()).equal(here)
    assert not read(0, seed=2)[:, 1:].equal(here[:, 1:])


def test_reading_samples_leaves_the_streams_of_this_process_alone():
    def after(read_samples):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        if read_samples:
            batch = SeededSamples(Draws(), seed=1).__getitems__([(0, 7), (3, 8)])
            assert batch[1].equal(SeededSamples(Draws(), seed=1)[3, 8]), "alone as in a batch"
        return random.random(), np.random.random(), torch.rand(1).item()

    assert after(True) == after(False)


def test_seeds_of_other_purposes_and_numbers_differ():
    seeds = {seed_from(purpose, *n) for purpose in ("sample", "iteration") for n in ((1, 23), (12, 3), (1, 2, 3))}
    assert len(seeds) == 6 and all(0 <= seed < 2**63 for seed in seeds)
