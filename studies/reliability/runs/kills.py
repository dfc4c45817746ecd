"""Kill small training runs at random moments, start them again with the same command, compare with the unbroken run.

    python -m studies.reliability.runs.kills --kills 200 --seed 0

A moment is drawn uniformly over the time of an unbroken run, start and saves included. After each kill every save that
was whole before must be whole still (with ``keep_last``: those that it keeps), and after each run the weights and the
averaged weights must be bit-equal to those of the unbroken run without worker processes.
"""

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from studies.reliability.runs import tiny_runs as tiny

# (name, I2SBModel, worker processes, newest saves kept)
CASES = [("srmodel_0", False, 0, None), ("srmodel_2", False, 2, 2), ("i2sb_0", True, 0, 2), ("i2sb_2", True, 2, None)]


def run_with_kills(root: Path, opt: dict, seconds: float, draw: random.Random, most: int, count: Counter) -> list[int]:
    """Start a run until it ends by itself, killing it up to ``most`` times; returns the exit codes of its starts."""
    path, codes, before = tiny.write_options(root, opt), [], set()
    keep = opt["logger"].get("keep_last")
    while not codes or codes[-1] < 0:
        child = tiny.start(root, path, "--auto_resume")
        if sum(code < 0 for code in codes) < most:
            time.sleep(draw.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
        codes.append(tiny.wait(child))
        unfinished = list((root / "experiments" / opt["name"]).glob("*/.*.unfinished"))
        now = tiny.whole_saves(root, opt)
        count["kills"] += codes[-1] < 0
        count["kills while a file was written"] += codes[-1] < 0 and bool(unfinished)
        count["kills between the files of a save"] += codes[-1] < 0 and not unfinished and half_saved(root, opt)
        count["kills before the first save"] += codes[-1] < 0 and not now
        count["lost checkpoints"] += len({i for i in before if i not in now and (keep is None or i > max(now or {0}))})
        count["lost checkpoints"] += bool(keep and len(before) >= keep and len(now) < keep)
        before = now
    return codes


def half_saved(root: Path, opt: dict) -> bool:
    """True if the newest numbered file belongs to a save without a record."""
    here = tiny.folders(root, opt)["path"]
    numbers = [int(p.stem.split("_")[-1]) for p in Path(here["models"]).glob("net_g_[0-9]*.pth")]
    return bool(numbers) and not (Path(here["training_states"]) / f"{max(numbers)}.sha256").exists()


def campaign(root: Path, kills: int, seed: int, cases: list[tuple] = CASES) -> dict:
    """Run cases in turn until ``kills`` kills were made; a record of counts."""
    tiny.write_images(root)
    tiny.warm_up()
    unbroken, seconds = {}, {}
    for name, bridge, workers, _ in cases:
        opt = tiny.options(root, f"unbroken_{name}", bridge, workers)
        code, seconds[name] = tiny.run(root, tiny.write_options(root, opt))
        if code != 0:
            raise RuntimeError(f"the unbroken run ended with {code}; see {root}")
        if workers == 0:  # with and without workers a run must be the same
            unbroken[bridge] = tiny.final_weights(root, opt)
    draw, count, runs = random.Random(seed), Counter(), 0
    by_case = {case[0]: Counter() for case in cases}
    while count["kills"] < kills:
        name, bridge, workers, keep = cases[runs % len(cases)]
        opt = tiny.options(root, f"{name}_{runs}", bridge, workers, keep_last=keep)
        codes = run_with_kills(root, opt, seconds[name], draw, kills - count["kills"], count)
        equal = codes[-1] == 0 and tiny.same(tiny.final_weights(root, opt), unbroken[bridge])
        runs += 1
        count["runs that ended bit-equal to the unbroken one"] += equal
        count["manual steps"] += sum(code > 0 for code in codes)
        by_case[name].update({"runs": 1, "kills": sum(code < 0 for code in codes), "bit-equal": int(equal)})
        if equal:  # what failed stays for a look
            for folder in (root / "experiments").glob(f"{opt['name']}*"):
                shutil.rmtree(folder)
    return {
        "seed": seed,
        "seconds_unbroken": {k: round(v, 2) for k, v in seconds.items()},
        "runs": runs,
        **count,
        "by_case": {k: dict(v) for k, v in by_case.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=tiny.RESULTS / "kills.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        record = campaign(Path(folder), args.kills, args.seed)
    tiny.store(args.out, record)


if __name__ == "__main__":
    main()
