"""See whether a training run holds more memory after each pass over its data: Python's blocks and malloc's bytes.

    python -m studies.reliability.runs.heap --passes 600

Unlike the size of a process, which the soak looks at, both count what is in use and nothing that waits to be used
again. SRModel with TensorBoard, validations and saves, once without worker processes and once with two, which every
pass starts anew.
"""

import argparse
import ctypes
import gc
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from studies.reliability.runs import soak
from studies.reliability.runs import tiny_runs as tiny
from studies.reliability.runs.children import fork

PASS = 24  # iterations: 12 pictures, each four times, in batches of 2
WARM_UP = 0.5  # share of the passes that is not looked at: what is kept for later use fills up slowly


class _Malloc(ctypes.Structure):
    """What glibc's ``mallinfo2`` returns."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks",
                                                      "fsmblks", "uordblks", "fordblks", "keepcost")]  # fmt: skip


def held() -> tuple[int, int]:
    """Blocks that Python holds, and bytes that malloc does."""
    gc.collect()
    library = ctypes.CDLL("libc.so.6")
    library.mallinfo2.restype = _Malloc
    return sys.getallocatedblocks(), library.mallinfo2().uordblks


def train(root: Path, workers: int, passes: int) -> None:
    """Train in this process; one look for each pass goes to ``root``/<workers>.json."""
    from basicsr.models.sr_model import SRModel

    from basicsr_ext import cli

    opt = soak.options(root, f"heap_{workers}", False, False, workers, PASS * passes)
    opt["datasets"]["train"]["dataset_enlarge_ratio"] = 4
    looks, feed, fed = np.zeros((passes, 2), np.int64), SRModel.feed_data, 0  # an array, which does not grow itself

    def looking(self: SRModel, data: dict) -> None:
        nonlocal fed
        if fed % PASS == PASS // 2 and self.is_train:
            looks[fed // PASS] = held()
        fed += self.is_train and "gt" in data and len(data["gt"]) > 1
        feed(self, data)

    SRModel.feed_data = looking
    os.chdir(root)
    if code := cli.main(["train", "-opt", str(tiny.write_options(root, opt))]):
        raise RuntimeError(f"exit code {code}")
    (root / f"{workers}.json").write_text(json.dumps(looks.tolist()))


def summary(looks: list[tuple[int, int]]) -> dict:
    """Slopes for each pass and their standard errors, by means of ten stretches."""
    values = np.array(looks[round(WARM_UP * len(looks)) :], dtype=float)
    found = {}
    for name, column in zip(("python_blocks", "malloc_bytes"), values.T):
        fit = soak.trend(3600.0 * np.arange(len(column)), column, blocks=10)  # so that a pass is its hour
        found[name] = {"mean": fit["mean"], "per_pass": fit["per_hour"], "standard_error": fit["standard_error"]}
    return {"passes": len(looks), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=600)
    parser.add_argument("--out", type=Path, default=tiny.RESULTS / "heap.json")
    args = parser.parse_args()
    tiny.warm_up()
    root = Path(tempfile.mkdtemp(prefix="heap-"))
    soak.write_data(root)
    record = {}
    for workers in (0, 2):
        child = fork(lambda n=workers: train(root, n, args.passes) or 0, root, root / f"{workers}.out")
        if code := tiny.wait(child):
            raise SystemExit(f"exit code {code}, see {root / f'{workers}.out'}")
        record[f"{workers} workers"] = summary(json.loads((root / f"{workers}.json").read_text()))
    shutil.rmtree(root)  # what failed stays for a look
    tiny.store(args.out, record)


if __name__ == "__main__":
    main()
