"""Data-parallel training on paper: bytes and operations of an iteration at 8, 64 and 512 GPUs, and what breaks first.

A ring all-reduce over n ranks sends and receives 2 (n - 1) / n times the bytes of the gradients on every rank. That the
gradients cross once an iteration whatever the number of parts, and how many bytes they are, is counted on 1, 2 and 4
processes of a CPU by a hook that sees every bucket; what crosses then is read off the machine's loopback link, where
Linux counts it. Cards and links are assumptions, stated in the result.

    OMP_NUM_THREADS=1 python -m studies.speed.training.scaling --out studies/speed/results/scaling.json
"""

import argparse
import json
import socket
import tempfile
from pathlib import Path

import torch
import torch.multiprocessing as processes
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from i2sb_plugin.archs.adm_unet_arch import ADMUNet
from studies.speed.training.gpu import flops
from studies.timing import machine, write

__all__ = ["counted_bytes", "iteration", "ring_bytes"]
ASSUMED = {
    "tflops_per_gpu": 450.0,  # of bf16 in this network: to be replaced by what studies.speed.training.gpu measures
    "gb_per_s_inside": 450.0,  # NVLink, one direction
    "gpus_of_a_machine": 8,
    "bytes_per_image": 256 * 256 * 3,  # a prepared clean crop, raw in an LMDB; the degraded one is computed
    "gb_per_s_storage": 2.0,  # one NVMe disk of each machine, read at random
}
EXCHANGES = 20  # measured ones
NETWORKS = {"a card of 400 Gbit/s for each GPU": 400.0, "one such card for each machine": 50.0}  # GB/s of a machine


def ring_bytes(gradient_bytes: int, ranks: int) -> float:
    """Bytes that every rank sends (and receives) in one ring all-reduce."""
    return 2 * (ranks - 1) / ranks * gradient_bytes


def iteration(parameters: int, operations: int, gpus: int, images: int, between: float) -> dict:
    """Bytes, operations and seconds of one iteration.

    Args:
        parameters: of the network; gradients are float32.
        operations: of one image, forward and backward.
        gpus: number of them.
        images: of the whole batch.
        between: GB/s of the network that a machine has, in one direction; a ring crosses it once for all its GPUs.

    """
    a = ASSUMED
    gradients, share = 4 * parameters, images / gpus
    compute = share * operations / (a["tflops_per_gpu"] * 1e12)
    volume = ring_bytes(gradients, gpus)
    link = a["gb_per_s_inside"] if gpus <= a["gpus_of_a_machine"] else min(a["gb_per_s_inside"], between)
    exchange = volume / (link * 1e9)
    hidden = compute * 2 / 3  # buckets cross during the backward pass, two thirds of the operations
    seconds = compute + max(0.0, exchange - hidden)
    machines = max(1, gpus / a["gpus_of_a_machine"])
    data = images * a["bytes_per_image"] / seconds / machines
    return {
        "gpus": gpus,
        "images": images,
        "images_per_gpu": share,
        "gradient_gb": gradients / 1e9,
        "sent_gb_per_gpu": volume / 1e9,
        "tflop_per_gpu": share * operations / 1e12,
        "compute_s": compute,
        "exchange_s": exchange,
        "iteration_s": seconds,
        "efficiency": compute / seconds,
        "images_per_s": images / seconds,
        "data_gb_per_s_per_machine": data / 1e9,
        "data_share_of_storage": data / 1e9 / a["gb_per_s_storage"],
        "breaks_first": _weakest(compute, exchange, data / 1e9 / a["gb_per_s_storage"]),
    }


def _weakest(compute: float, exchange: float, data: float) -> str:
    loads = {"gradient exchange": exchange / (compute * 2 / 3), "storage": data}
    name = max(loads, key=loads.__getitem__)
    return f"{name}, at {100 * loads[name]:.0f} % of its limit"


def counted_bytes(ranks: int, parts: int) -> dict:
    """Count what one iteration in ``parts`` hands to the all-reduce, on ``ranks`` processes of this machine."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        processes.spawn(_count, (ranks, parts, port, folder), nprocs=ranks)
        found = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(ranks)]
    expected = 4 * sum(p.numel() for p in _small().parameters())
    result = {"ranks": ranks, "parts": parts, "counted_bytes": found[0]["bytes"], "formula_bytes": expected}
    result |= {"ring_bytes": ring_bytes(expected, ranks), "sent_bytes": found[0].pop("sent")}
    found[1:] = [{key: value for key, value in one.items() if key != "sent"} for one in found[1:]]
    return result | {"same_on_all_ranks": all(f == found[0] for f in found), "buckets": found[0]["buckets"]}


def _small() -> nn.Module:
    torch.manual_seed(0)
    return ADMUNet(preset="tiny", channel_mult=[1, 2])


def _count(rank: int, ranks: int, parts: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    net = DistributedDataParallel(_small(), gradient_as_bucket_view=True)
    seen = {"bytes": 0, "buckets": 0}

    def hook(_, bucket):  # torch refuses annotations that are texts
        seen["bytes"] += bucket.buffer().nbytes
        seen["buckets"] += 1
        work = distributed.all_reduce(bucket.buffer(), async_op=True)
        return work.get_future().then(lambda done: done.value()[0].div_(ranks))

    net.register_comm_hook(None, hook)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([1.0, 500.0])
    for part in range(parts):
        if part < parts - 1:
            with net.no_sync():
                net(x, t).square().mean().backward()
        else:
            net(x, t).square().mean().backward()
    seen["sent"] = _sent(ranks, seen["bytes"])
    Path(folder, f"{rank}.json").write_text(json.dumps(seen))
    distributed.destroy_process_group()


def _sent(ranks: int, size: int) -> float | None:
    """Bytes that cross the loopback link for each rank in one all-reduce of ``size`` bytes; None where nobody counts.

    Other traffic of the machine counts too.
    """
    counters, gradients = Path("/proc/net/dev"), torch.ones(size // 4)
    if not counters.is_file():
        return None

    def crossed() -> int:
        distributed.barrier()
        line = next(line for line in counters.read_text().splitlines() if line.strip().startswith("lo:"))
        return int(line.split(":")[1].split()[8])  # sent

    distributed.all_reduce(gradients)
    before = crossed()
    for _ in range(EXCHANGES):
        distributed.all_reduce(gradients)
    return (crossed() - before) / ranks / EXCHANGES


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    head = (
        "| network of a machine | GPUs | images on each | sent, GB on each | TFLOP on each | exchange, ms "
        "| iteration, ms | efficiency | data, GB/s of a machine | breaks first |"
    )
    lines = [
        f"| {r['network']} | {r['gpus']} | {r['images_per_gpu']:.0f} | {r['sent_gb_per_gpu']:.2f} "
        f"| {r['tflop_per_gpu']:.0f} | {1e3 * r['exchange_s']:.0f} | {1e3 * r['iteration_s']:.0f} "
        f"| {100 * r['efficiency']:.0f} % | {r['data_gb_per_s_per_machine']:.2f} | {r['breaks_first']} |"
        for r in rows
    ]
    return "\n".join([head, "|" + " --- |" * 10, *lines])


def main() -> None:
    """Print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-gpu", type=int, nargs="+", default=[4, 32], help="images on each GPU")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    with torch.device("meta"):
        net = ADMUNet(preset="adm256")
    parameters, (_, operations) = sum(p.numel() for p in net.parameters()), flops(net, 256)
    rows = [
        {"network": name} | iteration(parameters, operations, gpus, gpus * each, between)
        for name, between in NETWORKS.items()
        for each in args.per_gpu
        for gpus in (8, 64, 512)
    ]
    counts = [counted_bytes(ranks, parts) for ranks in (1, 2, 4) for parts in (1, 3)]
    for row in [*rows, *counts]:
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    result = {
        "machine": machine(),
        "preset": "adm256",
        "size": 256,
        "assumed": ASSUMED,
        "rows": rows,
        "counted": counts,
    }
    write(args.out, result)


if __name__ == "__main__":
    main()
