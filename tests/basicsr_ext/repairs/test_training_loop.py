import logging
import os
import random
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError
from basicsr_ext.training.sample_order import PositionSampler, SeededSamples
from tests.support.basicsr_runs import options

repairs.apply()

import basicsr.data  # noqa: E402
import basicsr.train  # noqa: E402
from basicsr.data.data_sampler import EnlargedSampler  # noqa: E402
from basicsr.data.prefetch_dataloader import CPUPrefetcher, PrefetchDataLoader  # noqa: E402
from basicsr.utils import MessageLogger  # noqa: E402

from basicsr_ext.repairs.training_loop import BudgetLoader  # noqa: E402

LOG = logging.getLogger("test")


class Draws(Dataset):
    """Gives its index and what the random streams say."""

    def __init__(self, count=6):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"index": index, "draws": torch.tensor([random.random(), np.random.random()], dtype=torch.float64)}


def loop(loader, sampler, last_epoch, total_iter, start_epoch=0, start_iter=0):
    """BasicSR's training loop; the batches it trains on, and the iteration that it counts up to."""
    batches, current = [], start_iter
    prefetcher = CPUPrefetcher(loader)
    for epoch in range(start_epoch, last_epoch + 1):
        sampler.set_epoch(epoch)
        prefetcher.reset()
        data = prefetcher.next()
        while data is not None:
            current += 1
            if current > total_iter:
                break
            batches.append(data)
            data = prefetcher.next()
    return batches, current


def budgeted(count, batch, total, start=(0, 0), workers=0, ratio=1, kind=DataLoader, seed=1, **loader_options):
    data = Draws(count)
    init = partial(basicsr.data.worker_init_fn, num_workers=workers, rank=0, seed=seed)
    loader = kind(
        dataset=data,
        batch_size=batch,
        sampler=EnlargedSampler(data, 1, 0, ratio),
        drop_last=True,
        num_workers=workers,
        worker_init_fn=init,
        **loader_options,
    )
    where = dict(zip(("epoch", "iter", "position"), start))
    budget = PositionSampler(count, ratio, batch, where, total)
    loader.batch_sampler.sampler = budget
    vars(loader)["dataset"] = SeededSamples(data, seed)
    return BudgetLoader(loader, budget, seed), budget


def test_the_unrepaired_loop_stops_before_total_iter(tmp_path):
    opt = options(tmp_path, total_iter=30)
    built = basicsr.train.create_train_val_dataloader.unrepaired(opt, LOG)
    loader, sampler, _, last_epoch, total = built
    assert loop(loader, sampler, last_epoch, total)[1] == 22


@pytest.mark.parametrize("total_iter", [1, 2, 3, 30])
def test_the_loop_ends_exactly_at_total_iter(tmp_path, total_iter):
    opt = options(tmp_path, total_iter=total_iter)
    loader, sampler, val, last_epoch, total = basicsr.train.create_train_val_dataloader(opt, LOG)
    batches, counted = loop(loader, sampler, last_epoch, total)
    assert len(batches) == counted == total_iter and len(val) == 1
    assert len(loader) == 2 and len(loader.dataset) == 5 and loader.batch_size == 2 and len(sampler) == 5


@pytest.mark.parametrize("count, batch, ratio", [(5, 2, 1), (7, 3, 2), (42, 4, 1), (4, 4, 1), (3, 4, 5)])
@pytest.mark.parametrize("cut", [0, 1, 4, 5, 8, 11])
def test_a_resumed_loop_sees_the_batches_that_the_unbroken_one_would(count, batch, ratio, cut):
    total = 11
    loader, budget = budgeted(count, batch, total, ratio=ratio)
    whole, _ = loop(loader, budget, budget.last_epoch, total)
    assert len(whole) == total
    epoch = max(cut - 1, 0) * batch // budget.epoch_size  # the epoch in which iteration `cut` was saved
    loader, budget = budgeted(count, batch, total, (epoch, cut, cut * batch), ratio=ratio)
    rest, counted = loop(loader, budget, budget.last_epoch, total, epoch, cut)
    assert counted == total and len(rest) == total - cut
    for mine, theirs in zip(rest, whole[cut:]):
        assert mine["index"].tolist() == theirs["index"].tolist()
        assert mine["draws"].equal(theirs["draws"])


def test_a_state_of_another_batch_size_still_ends_at_total_iter():
    loader, budget = budgeted(6, 3, 60, (2, 40))  # epoch 2 of 2 batches would begin at iteration 4
    batches, counted = loop(loader, budget, budget.last_epoch, 60, 2, 40)
    assert counted == 60 and len(batches) == 20


def test_a_finished_run_has_nothing_to_do():
    loader, budget = budgeted(6, 2, 9, (3, 9))
    assert loop(loader, budget, budget.last_epoch, 9, 3, 9) == ([], 9)
    assert budget.last_epoch == 2


@pytest.mark.parametrize("kind, extra", [(PrefetchDataLoader, {"num_prefetch_queue": 1}), (DataLoader, {})])
@pytest.mark.parametrize("persistent", [False, True])
def test_prefetchers_that_ask_twice_get_every_batch_once(kind, extra, persistent):
    loader, budget = budgeted(8, 2, 6, workers=1, kind=kind, persistent_workers=persistent, **extra)
    batches, counted = loop(loader, budget, budget.last_epoch, 6)
    seen = [i for b in batches[:4] for i in b["index"].tolist()]
    assert counted == 6 and sorted(seen) == list(range(8))


def test_an_abandoned_iterator_has_started_no_worker():
    loader, budget = budgeted(8, 2, 4, workers=1)
    budget.set_epoch(0)
    iter(loader)
    assert loader.loader._iterator is None and not torch.multiprocessing.active_children()


def test_workers_draw_anew_in_each_epoch_and_alike_in_each_run():
    def draws(seed):
        loader, budget = budgeted(4, 2, 6, workers=1, seed=seed)
        batches, _ = loop(loader, budget, budget.last_epoch, 6)
        return [b["draws"].flatten().tolist() for b in batches]

    first = draws(seed=1)
    assert first[0] != first[2] != first[4]
    assert len({x for row in first for x in row}) == 24
    assert draws(seed=1) == first and draws(seed=2) != first


def test_the_unrepaired_workers_repeat_their_draws():
    unrepaired = basicsr.data.worker_init_fn.unrepaired
    init = partial(unrepaired, num_workers=1, rank=0, seed=1)
    loader = DataLoader(Draws(2), num_workers=1, worker_init_fn=init)
    first, second = ([b["draws"].tolist() for b in loader] for _ in range(2))
    assert first == second


def test_a_batch_that_no_epoch_fills_is_refused_with_its_numbers(tmp_path):
    opt = options(tmp_path)
    opt["datasets"]["train"]["batch_size_per_gpu"] = 12
    with pytest.raises(InputError) as caught:
        basicsr.train.create_train_val_dataloader(opt, LOG)
    for part in (
        "batch_size_per_gpu is 12",
        "5 images",
        "dataset_enlarge_ratio 1",
        "1 process",
        "ratio to 3 or more",
    ):
        assert part in str(caught.value)
    opt["datasets"]["train"]["dataset_enlarge_ratio"] = 3
    assert len(basicsr.train.create_train_val_dataloader(opt, LOG)[0]) == 1


class Failing(Draws):
    def __getitem__(self, index):
        if index == 1:
            raise InputError("image 1 is bad")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_the_data_set_arrives_without_a_traceback(workers, monkeypatch):
    monkeypatch.setitem(globals(), "Draws", Failing)
    loader, budget = budgeted(4, 2, 4, workers=workers)
    with pytest.raises(InputError) as caught:
        loop(loader, budget, budget.last_epoch, 4)
    assert str(caught.value) == "image 1 is bad"


def test_a_prefetching_loader_passes_errors_on():
    loader = PrefetchDataLoader(num_prefetch_queue=1, dataset=Failing(), batch_size=1)
    with pytest.raises(InputError, match="image 1 is bad"):
        list(islice(loader, 4))


def test_the_time_to_come_ends_at_zero(caplog):
    opt = {"name": "x", "logger": {"print_freq": 1}, "train": {"total_iter": 5}}
    logger = MessageLogger(opt, 0, None)
    assert logger.use_tb_logger is False and "use_tb_logger" not in opt["logger"]
    said = []
    logger.logger = type("Log", (), {"info": staticmethod(said.append)})
    logger({"epoch": 0, "iter": 5, "lrs": [0.1], "time": 1.0, "data_time": 0.1, "l_pix": 0.5})
    assert "eta: 0:00:00" in said[0]
    opt["logger"]["use_tb_logger"] = False
    logger.__init__.__func__.unrepaired(logger, opt, 0, None)
    logger.start_time -= 60
    logger.logger = type("Log", (), {"info": staticmethod(said.append)})
    logger({"epoch": 0, "iter": 5, "lrs": [0.1], "time": 1.0, "data_time": 0.1})
    assert "eta: -1 day" in said[1]


def test_memory_of_a_batch_copied_ahead_is_kept_until_the_step_that_reads_it(monkeypatch):
    """Without a GPU: what the repair says to tensors, not what a GPU does with it."""
    from basicsr_ext.repairs import training_loop

    told = []

    class OnGpu(torch.Tensor):
        is_cuda = True

        def record_stream(self, stream):
            told.append(stream)

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    batch = {"lq": torch.zeros(2).as_subclass(OnGpu), "gt": torch.zeros(2), "lq_path": ["a", "b"]}
    monkeypatch.setattr(training_loop._next_on_gpu, "unrepaired", lambda self: self)
    assert training_loop._next_on_gpu(batch) is batch
    assert told == ["stream of cpu"]
    assert training_loop._next_on_gpu(None) is None


def test_workers_stay_from_epoch_to_epoch_unless_told_otherwise(tmp_path):
    from basicsr_ext.options.resolve import resolve_dataset

    def resolved(gpus, **block):
        block = {"dataroot_gt": str(tmp_path), **block}
        resolve_dataset({"num_gpu": gpus}, "train", block)
        return block.get("persistent_workers"), block["pin_memory"]

    assert resolved(0, num_worker_per_gpu=2) == (True, False)
    assert resolved(1, num_worker_per_gpu=2, persistent_workers=False) == (False, True)
    assert resolved(1, num_worker_per_gpu=0, pin_memory=False) == (None, False), "torch refuses it without workers"


@pytest.mark.parametrize("fault", ["name", "disk"])
def test_a_board_that_cannot_be_written_ends_nothing(tmp_path, fault):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9") if fault == "name" else str(tmp_path / "board")
    if fault == "disk":
        (tmp_path / "board").write_text("no folder")
    board = basicsr.train.init_tb_logger(log_dir=folder)
    board.add_scalar("loss", 1.0, 1)
    board.close()


def test_a_board_that_can_be_written_is(tmp_path):
    board = basicsr.train.init_tb_logger(log_dir=str(tmp_path / "board"))
    board.add_scalar("loss", 1.0, 1)
    board.close()
    assert len(list((tmp_path / "board").glob("events.*"))) == 1
