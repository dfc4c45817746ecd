import torch
import torch.multiprocessing as mp

from basicsr_ext.processes import collectives
from tests.support.toolkit import context


def test_without_a_group_there_is_one_process():
    assert (collectives.rank(), collectives.world_size(), collectives.is_main()) == (0, 1, True)
    collectives.barrier()
    assert collectives.gather_objects("a") == ["a"] and collectives.broadcast_object("b") == "b"
    assert collectives.shard_indices(3) == [0, 1, 2]
    summed = collectives.all_reduce_sum({"n": 2, "t": torch.ones(2, dtype=torch.float16)})
    assert summed["n"] == 2.0 and summed["t"].tolist() == [1.0, 1.0]


def _member(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {
        "sum": collectives.all_reduce_sum({"b": (rank + 0.5, 1), "a": rank + 1}),
        "gathered": collectives.gather_objects({"rank": rank}),
        "broadcast": collectives.broadcast_object(f"from {rank}"),
        "shard": collectives.shard_indices(5),
        "main": collectives.is_main(),
    }
    collectives.barrier()
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_share_sums_objects_and_indices(tmp_path):
    mp.start_processes(_member, (str(tmp_path),), nprocs=2, start_method=context().get_start_method())
    first, second = (torch.load(tmp_path / f"{r}.pt") for r in (0, 1))
    for found in (first, second):
        assert found["sum"]["a"] == 3.0 and found["sum"]["b"].tolist() == [2.0, 2.0]
        assert found["gathered"] == [{"rank": 0}, {"rank": 1}] and found["broadcast"] == "from 0"
    assert sorted(first["shard"] + second["shard"]) == [0, 1, 2, 3, 4]
    assert (first["main"], second["main"]) == (True, False)
