"""Train, validate, save and resume for half an hour; see that memory, file handles and processes stay as they are.

    python -m studies.reliability.runs.soak --minutes 30

Three processes run at once: two runs that never end (SRModel on folders, I2SBModel on LMDB, two workers each, a new set
of workers every epoch), and one that starts a short run, resumes it and resumes it again, over four kinds of runs. All
write TensorBoard logs. Each process is looked at from outside, through /proc, every second.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats

from studies.reliability.runs import tiny_runs as tiny

FOREVER = 10**9
STEP = 24  # iterations of one stretch of a resumed run
# (name, I2SBModel, LMDB, worker processes) of the runs that are resumed
RESUMED = [("sr_folders", False, False, 2), ("i2sb_lmdb", True, True, 2), ("sr_lmdb", False, True, 0),
           ("i2sb_folders", True, False, 1)]  # fmt: skip
ENDLESS = [("endless_sr", False, False, 2), ("endless_i2sb", True, True, 2)]


def write_data(root: Path) -> None:
    """Write the pictures of the runs as folders and as LMDB."""
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs

    tiny.write_images(root, count=12)
    for folder in ("gt", "lq"):
        names = sorted(path.name for path in (root / folder).glob("*.png"))
        keys = [Path(name).stem for name in names]
        make_lmdb_from_imgs(str(root / folder), str(root / f"{folder}.lmdb"), names, keys, map_size=1 << 24)


def options(root: Path, name: str, bridge: bool, lmdb: bool, workers: int, iterations: int = FOREVER) -> dict:
    """Options of a run that saves every 12 iterations, validates every 24 and keeps two saves."""
    opt = tiny.options(root, name, bridge, workers, keep_last=2, save_checkpoint_freq=STEP // 2, print_freq=STEP,
                       use_tb_logger=True)  # fmt: skip
    opt["train"] |= {"total_iter": iterations}
    opt["train"]["scheduler"]["periods"] = [FOREVER]
    opt["val"]["val_freq"] = STEP
    for block in opt["datasets"].values():
        if lmdb:
            block["io_backend"] = {"type": "lmdb"}
            block |= {key: f"{value}.lmdb" for key, value in block.items() if key.startswith("dataroot")}
    opt["datasets"]["train"]["dataset_enlarge_ratio"] = 40
    return opt


def resume_over_and_over(root: Path, seconds: float, cycles: int = FOREVER) -> list[dict]:
    """Start and resume runs in this process; returns what it holds after each round over all kinds of runs."""
    from basicsr_ext import cli

    os.chdir(root)
    start, held = time.monotonic(), []
    while time.monotonic() - start < seconds and len(held) < cycles:
        for name, bridge, lmdb, workers in RESUMED:
            opt = options(root, name, bridge, lmdb, workers, STEP * (len(held) + 1))
            code = cli.main(["train", "-opt", str(tiny.write_options(root, opt)), "--auto_resume"])
            if code != 0:
                raise RuntimeError(f"{name}: exit code {code}")
        time.sleep(1)  # threads that have ended leave the system's count a moment later on a busy machine
        held.append(look(os.getpid()))
        (root / "resumed.rounds").write_text(str(len(held)))
    return held


def look(process: int) -> dict:
    """What a process holds now: memory in KiB (all, and what is its own), file handles, threads, children, zombies."""
    folder = Path(f"/proc/{process}")
    said = dict(re.findall(r"^(\w+):\s+(\d+)", (folder / "status").read_text(), re.MULTILINE))
    children = [int(c) for task in folder.glob("task/*/children") for c in task.read_text().split()]
    states = []
    for child in children:
        try:
            states.append(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0])
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
    return {
        "rss_kib": int(said["VmRSS"]),
        "own_kib": int(said["RssAnon"]),
        "handles": len(os.listdir(folder / "fd")),
        "threads": int(said["Threads"]),
        "children": len(states),
        "zombies": states.count("Z"),
    }


def trend(times: np.ndarray, values: np.ndarray, blocks: int = 20) -> dict:
    """Slope per hour, by least squares over the means of ``blocks`` stretches of time, whose errors are independent."""
    parts = [part for part in np.array_split(np.arange(len(times)), blocks) if len(part)]
    hours = np.array([times[part].mean() for part in parts]) / 3600
    means = np.array([values[part].mean() for part in parts])
    fit = stats.linregress(hours, means)
    found = {"mean": values.mean(), "per_hour": fit.slope, "standard_error": fit.stderr}
    return {**{key: round(float(value), 3) for key, value in found.items()}, "stretches": means.round(1).tolist()}


def summary(samples: list[dict], warm_up: float) -> dict:
    """Trends and extremes of what was seen of one process after ``warm_up`` seconds."""
    kept = [sample for sample in samples if sample["seconds"] >= warm_up]
    times = np.array([sample["seconds"] for sample in kept])
    of = {key: np.array([sample[key] for sample in kept]) for key in kept[0] if key != "seconds"}
    longest = streak = 0
    for count in of["zombies"]:
        streak = streak + 1 if count else 0
        longest = max(longest, streak)
    return {
        "samples": len(kept),
        "rss_mib": trend(times, of["rss_kib"] / 1024),
        "own_memory_mib": trend(times, of["own_kib"] / 1024),
        "handles": {"least": int(of["handles"].min()), "most": int(of["handles"].max()), **trend(times, of["handles"])},
        "threads": {"least": int(of["threads"].min()), "most": int(of["threads"].max())},
        "children": {"least": int(of["children"].min()), "most": int(of["children"].max())},
        "longest_row_of_samples_with_a_zombie": longest,
    }


def _start(root: Path, name: str, words: list[str], folder: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    with (root / f"{name}.out").open("w") as out:
        return subprocess.Popen(words, cwd=root, env=environment, stdout=out, stderr=subprocess.STDOUT)


def soak(root: Path, minutes: float, warm_up: float) -> dict:
    """Run the three processes for so long; the record of each."""
    here = Path(__file__).parents[3]
    words = {}
    for name, *kind in ENDLESS:
        path = tiny.write_options(root, options(root, name, *kind))
        words[name] = [sys.executable, "-m", "basicsr_ext", "train", "-opt", str(path)]
    words["resumed"] = [sys.executable, "-m", "studies.reliability.runs.soak", "--resume", str(root)]
    words["resumed"] += ["--minutes", str(minutes)]
    processes = {name: _start(root, name, command, here) for name, command in words.items()}
    samples: dict[str, list[dict]] = {name: [] for name in processes}
    start = time.monotonic()
    try:
        while time.monotonic() - start < 60 * minutes:
            time.sleep(1)
            for name, process in processes.items():
                if process.poll() not in (None, 0):
                    raise RuntimeError(f"{name} ended with {process.returncode}: {(root / name).with_suffix('.out')}")
                if process.poll() is None:
                    samples[name].append({"seconds": time.monotonic() - start, **look(process.pid)})
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    record: dict = {"minutes": round((time.monotonic() - start) / 60, 2), "warm_up_seconds": warm_up}
    for name, seen in samples.items():
        record[name] = {**_work(root, name), **summary(seen, warm_up)}
    return record


def _work(root: Path, name: str) -> dict:
    """What a process did: iterations, validations, saves and, for the resumed runs, how often it resumed."""
    if name != "resumed":
        last = max(tiny.whole_saves(root, {"name": name}), default=0)
        return {"iterations": last, "validations": last // STEP, "saves": last // (STEP // 2)}
    rounds = int((root / "resumed.rounds").read_text())
    runs = rounds * len(RESUMED)
    counts = {"iterations": runs * STEP, "validations": runs, "saves": 2 * runs}
    return {"runs": runs, "resumes": runs - len(RESUMED), **counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--warm-up", type=float, default=240, help="seconds at the start that are not looked at")
    parser.add_argument("--cycles", type=int, default=FOREVER, help=argparse.SUPPRESS)
    parser.add_argument("--resume", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=tiny.RESULTS / "soak.json")
    args = parser.parse_args()
    tiny.warm_up()
    if args.resume:
        resume_over_and_over(args.resume, 60 * args.minutes)
        return
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    write_data(root)
    if args.cycles < FOREVER:
        record: dict = {"rounds": resume_over_and_over(root, 60 * args.minutes, args.cycles)}
    else:
        record = soak(root, args.minutes, args.warm_up)
    shutil.rmtree(root)  # what failed stays for a look
    tiny.store(args.out, record)


if __name__ == "__main__":
    main()
