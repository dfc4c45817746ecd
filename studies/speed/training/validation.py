r"""Images per second of validation: in batches against one by one, and on several processes.

A bridge with a small network restores photographs cut to one size, by the function that training validates with; PSNR
included, nothing saved. Batches against single images: in one process, A B A B ... Processes: one thread each, started
by torchrun, gloo; the slowest one counts. With more processes than cores nothing can be gained.

    OMP_NUM_THREADS=1 python -m studies.speed.training.validation --ranks 1 2 4 \
        --out studies/speed/results/validation.json
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import i2sb_plugin.data  # noqa: F401  (makes basicsr importable)

# isort: split
from basicsr_ext import repairs
from basicsr_ext.images.pictures import Picture, write_picture
from basicsr_ext.models.validation import validate
from basicsr_ext.processes import collectives
from i2sb_plugin.data.paired_degradation_dataset import PairedDegradationDataset
from i2sb_plugin.data.photographs import sample_folder
from i2sb_plugin.models.i2sb_model import I2SBModel
from i2sb_plugin.plugin import register
from studies.timing import machine, paired, write

SEED = 0
NFE = 4
NETWORK = {"type": "ADMUNet", "preset": "tiny", "in_channels": 3, "out_channels": 3}


def make_images(root: Path, count: int, side: int) -> Path:
    """Write ``count`` squares of ``side`` pixels cut from a bundled photograph."""
    block = {"dataroot_gt": str(sample_folder("sample:val", root / "photographs")), "phase": "val"}
    block |= {"degradation": {"type": "sr4x_bicubic"}}
    photograph = PairedDegradationDataset(block)[0]["gt"]
    for number in range(count):
        top, left = (number * step % (photograph.shape[1] - side) for step in (7, 13))
        square = Picture(photograph[:, top : top + side, left : left + side])
        write_picture(root / "images" / f"{number:03d}.png", square)
    return root / "images"


def build(root: Path) -> tuple[I2SBModel, PairedDegradationDataset]:
    """A model with random weights, and the images as a data set of x4 super-resolution."""
    repairs.apply()
    register()
    logging.getLogger("basicsr").setLevel(logging.ERROR)
    torch.manual_seed(SEED)
    opt = {
        "name": "speed", "model_type": "I2SBModel", "scale": 4, "num_gpu": 0, "dist": False, "is_train": False,
        "manual_seed": SEED, "network_g": dict(NETWORK), "bridge": {"steps": 100, "beta_max": 0.3},
        "path": {"pretrain_network_g": None, "results_root": str(root), "visualization": str(root)},
        "val": {"sampler": {"type": "ancestral", "nfe": NFE}, "batch_size": 8, "pbar": False,
                "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}}},
    }  # fmt: skip
    block = {"name": "val", "type": "PairedDegradationDataset", "phase": "val", "scale": 4}
    block |= {"dataroot_gt": str(root / "images"), "degradation": {"type": "sr4x_bicubic"}}
    return I2SBModel(opt), PairedDegradationDataset(block)


def run(model: I2SBModel, dataset: PairedDegradationDataset, batch: int) -> None:
    """Validate once in batches of ``batch``."""
    model.opt["val"]["batch_size"] = batch
    validate(model, dataset, "speed", None, False)


def worker(root: Path, batch: int, repeats: int) -> None:
    """What each process of a distributed run does; the first one prints the seconds of every repetition."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    model, dataset = build(root)
    run(model, dataset, batch)
    times = []
    for _ in range(repeats):
        torch.distributed.barrier()
        start = time.perf_counter()
        run(model, dataset, batch)
        torch.distributed.barrier()
        times.append(time.perf_counter() - start)
    if collectives.is_main():
        print("seconds", json.dumps(times), flush=True)
    torch.distributed.destroy_process_group()


def on_ranks(root: Path, ranks: int, batch: int, repeats: int) -> list[float]:
    """Seconds of each validation on ``ranks`` processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]
    command += [
        "studies.speed.training.validation",
        "--worker",
        str(root),
        "--batch",
        str(batch),
        "--repeats",
        str(repeats),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(done.stderr)
    line = next(line for line in done.stdout.splitlines() if line.startswith("seconds "))
    return json.loads(line.removeprefix("seconds "))


def measure(
    count: int = 32, side: int = 64, batch: int = 8, pairs: int = 5, ranks: tuple[int, ...] = ()
) -> list[dict[str, object]]:
    """A row for batches against single images, and one for each number of processes."""
    shape = {"images": count, "side": side, "nfe": NFE, "batch": batch}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_images(root, count, side)
        model, dataset = build(root)
        result = paired(lambda: run(model, dataset, 1), lambda: run(model, dataset, batch), pairs)
        rows = [{"what": f"batches of {batch} against 1", **shape, "ranks": 1, **result}]
        times = {number: on_ranks(root, number, batch, pairs) for number in ranks}
    for number, seconds in times.items():
        ratios = sorted(one / other for one, other in zip(times[ranks[0]], seconds))
        rows.append({
            "what": f"{number} process(es) against {ranks[0]}", **shape, "ranks": number,
            "ratio_median": ratios[len(ratios) // 2], "ratio_min": ratios[0], "ratio_max": ratios[-1],
            "reference_seconds": sorted(times[ranks[0]])[len(seconds) // 2],
            "seconds": sorted(seconds)[len(seconds) // 2], "pairs": len(seconds),
        })  # fmt: skip
    return rows


def quick() -> list[dict[str, object]]:
    """What a check of a few seconds needs."""
    return measure(count=8, side=32, pairs=2)


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown."""
    lines = [
        f"| {r['what']} | {r['images'] / r['reference_seconds']:.1f} | {r['images'] / r['seconds']:.1f} "
        f"| {r['ratio_median']:.2f} ({r['ratio_min']:.2f} to {r['ratio_max']:.2f}) |"
        for r in rows
    ]
    head = "| validation | images/s before | images/s | ratio (least to most) |"
    return "\n".join([head, "| --- | --- | --- | --- |", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--side", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5, help="measured pairs, and validations of each run")
    parser.add_argument("--ranks", type=int, nargs="*", default=[], help="numbers of processes to start")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.batch, args.repeats)
        return
    torch.set_num_threads(1)
    rows = measure(args.images, args.side, args.batch, args.repeats, tuple(args.ranks))
    print(table(rows))
    write(args.out, {"machine": machine(), "seed": SEED, "rows": rows})


if __name__ == "__main__":
    main()
