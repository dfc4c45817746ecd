"""Train, validate, test and restore on several gloo processes and compare with one; kill ranks; start again.

    python -m studies.reliability.runs.worlds

The ranks of most runs are forks without a launcher, so that nothing ends a rank but itself; those of ``restarts``,
``torchrun`` and ``two nodes`` are started by torchrun.
"""

import argparse
import itertools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2

from studies.reliability.runs import ranks
from studies.reliability.runs import tiny_runs as tiny
from studies.reliability.runs.ranks import Fault

REPOSITORY = Path(__file__).parents[3]
LIMIT = 60  # seconds in which a run must be down after a rank has died
BATCH = 12  # images of all ranks together


def options(root: Path, name: str, size: int, bridge: bool = False, last: int = 12, accumulate: int = 1, **more: Any):
    """A run of ``last`` iterations with ``BATCH`` images in each, shared out over ``size`` ranks."""
    opt = tiny.options(root, name, bridge, save_checkpoint_freq=4)
    opt["datasets"]["train"] |= {"batch_size_per_gpu": BATCH // size, "gt_size": 16, "dataset_enlarge_ratio": 7}
    opt["train"] |= {"total_iter": last} | ({"accumulate": accumulate} if bridge else {})
    return opt | more


def train(root: Path, opt: dict, size: int, *faults: Fault) -> tuple[list[int], list[list[dict]]]:
    """Run to the end; exit codes and the records of the ranks."""
    path = tiny.write_options(root, opt)
    with ranks.clean_record(root) as read:
        words = ["train", "-opt", str(path), "--auto_resume", *launcher(size)]
        return ranks.run(root, path.with_suffix(".out"), words, size, *faults), read()


def launcher(size: int) -> list[str]:
    return ["--launcher", "pytorch"] if size > 1 else []


def losses(record: list[list[dict]]) -> list[float]:
    return [sum(entry["losses"].values()) for entry in record[0] if "losses" in entry]


def samples(record: list[list[dict]]) -> list[list[str]]:
    """The images of each iteration, in the order in which one process takes them."""
    taken = [[entry["samples"] for entry in rank if "samples" in entry] for rank in record]
    return [list(itertools.chain(*zip(*parts))) for parts in zip(*taken)]


def written(record: list[list[dict]]) -> list[str]:
    return [entry["wrote"] for rank in record for entry in rank if "wrote" in entry]


def difference(first: dict, second: dict) -> float:
    return max((first[k] - second[k]).abs().max().item() for k in first)


def same_batch(root: Path, sizes: tuple[int, ...], cases: tuple = ((False, 1), (True, 1), (True, 3))) -> dict:
    """Losses, samples and weights of several processes against one, at the same batch of all."""
    found = {}
    for bridge, accumulate in cases:
        kind = ("I2SBModel" if bridge else "SRModel") + (f", accumulate {accumulate}" if accumulate > 1 else "")
        whole: tuple | None = None
        for size in sizes:
            opt = options(root, f"same_{int(bridge)}_{accumulate}_{size}", size, bridge, accumulate=accumulate)
            codes, record = train(root, opt, size)
            if any(codes):
                raise RuntimeError(f"{opt['name']} ended with {codes}; see {root}")
            now = losses(record), samples(record), tiny.final_weights(root, opt)
            whole = whole or now
            found[f"{kind}, {size} processes"] = {
                "iterations": len(now[0]),
                "largest relative difference of a loss": max(abs(a / b - 1) for a, b in zip(now[0], whole[0])),
                "largest difference of a weight": difference(now[2], whole[2]),
                "same samples in the same order": now[1] == whole[1] and len(now[1]) == len(now[0]),
                "files of the run that ranks above 0 wrote": len(written(record[1:])),
            }
    return found


def changing(root: Path, sizes: tuple[int, ...] = (3, 2, 4)) -> dict:
    """Runs whose number of processes changes at each resume, against the unbroken run of one process."""
    found = {}
    for bridge in (False, True):
        name = f"changing_{int(bridge)}"
        opt = options(root, f"unbroken_{name}", 1, bridge)
        _, record = train(root, opt, 1)
        taken, codes = [], []
        for size, last in zip(sizes, (4, 8, 12)):
            part = options(root, name, size, bridge, last)
            code, seen = train(root, part, size)
            codes, taken = codes + code, taken + samples(seen)
        found["I2SBModel" if bridge else "SRModel"] = {
            "processes": " -> ".join(map(str, sizes)),
            "all ended with code 0": not any(codes),
            "same samples in the same order": taken == samples(record) and len(taken) == 12,
            "largest difference of a weight": difference(tiny.final_weights(root, part), tiny.final_weights(root, opt)),
        }
    return found


def validation(root: Path, sizes: tuple[int, ...]) -> dict:
    """The figures of ``basicsr test``, and the pictures of ``basicsr restore``, on any number of processes."""
    trained = {bridge: options(root, f"tested_{int(bridge)}", 1, bridge, 4) for bridge in (False, True)}
    for opt in trained.values():
        train(root, opt, 1)
    (root / "bad").mkdir(exist_ok=True)
    (root / "bad" / "broken.png").write_bytes(b"no picture")
    for path in sorted((root / "lq").iterdir())[1:]:
        shutil.copy(path, root / "bad" / path.name)
    found: dict[str, Any] = {"images": len(list((root / "gt").iterdir()))}
    whole: tuple = ()
    for size in sizes:
        now = {bridge: test(root, opt, size) for bridge, opt in trained.items()}, *restore(root, trained[True], size)
        whole = whole or now
        found[f"{size} processes"] = {
            "test ended with code 0": not (now[0][False][0] or now[0][True][0]),
            "SRModel: means of test are those of one process": now[0][False] == whole[0][False],
            "I2SBModel: figures of every image and means are those of one process": now[0][True] == whole[0][True],
            "restore: pictures are those of one process": now[1] == whole[1],
            "restore: exit codes with one broken picture": now[2],
        }
    return found


def network(root: Path, opt: dict) -> str:
    return str(root / "experiments" / opt["name"] / "models" / "net_g_latest.pth")


def test(root: Path, opt: dict, size: int) -> tuple:
    """Exit codes, means, and the figures of every image where ``metrics.json`` tells them."""
    metrics = {name: {"type": f"calculate_{name}", "crop_border": 2} for name in ("psnr", "ssim")}
    tested = opt | {"name": f"{opt['name']}_{size}", "val": opt["val"] | {"metrics": metrics}}
    path = tiny.write_options(root, tested | {"path": {"pretrain_network_g": network(root, opt)}})
    with ranks.clean_record(root) as read:
        codes = ranks.run(root, path.with_suffix(".out"), ["test", "-opt", str(path), *launcher(size)], size)
        means = [entry["figures"] for entry in read()[0] if "figures" in entry]
    stored = root / "results" / tested["name"] / "metrics.json"
    images = json.loads(stored.read_text())["datasets"]["v"]["images"] if stored.exists() else []
    return any(codes), means, [{metric: image[metric] for metric in metrics} for image in images]


def restore(root: Path, opt: dict, size: int) -> tuple[dict, list[int]]:
    """Pictures of ``basicsr restore``, one of whose inputs is broken, and the exit codes."""
    target = root / f"restored_{size}"
    words = ["restore", "-i", str(root / "bad"), "-o", str(target), "--checkpoint", network(root, opt)]
    codes = ranks.run(root, target.with_suffix(".out"), [*words, *launcher(size)], size)
    return {path.name: cv2.imread(str(path)).tolist() for path in target.iterdir()}, sorted(set(codes))


DEATHS = [
    ("in an iteration, the others in a collective", True, 2, Fault(1, "", "iteration", 6)),
    ("rank 0 in an iteration", True, 2, Fault(0, "", "iteration", 6)),
    ("one of four in an iteration", True, 4, Fault(2, "", "iteration", 6)),
    ("in its share of a validation", True, 2, Fault(1, "", "validation", 2)),
    ("rank 0 in its share of a validation (SRModel)", False, 2, Fault(0, "", "validation", 2)),
    ("rank 0 in a save", True, 2, Fault(0, "", "save", 8)),
]


def deaths(root: Path, cases: list[tuple] = DEATHS) -> dict:
    """One rank dies, nobody kills the others: seconds until the last one has ended, and what it says."""
    found = {}
    for (text, bridge, size, place), kind in itertools.product(cases, ("kill", "raise")):
        fault = Fault(place.rank, kind, place.place, place.at)
        opt = options(root, f"death_{len(found)}", size, bridge)
        path = tiny.write_options(root, opt)
        out = path.with_suffix(".out")
        children = ranks.start(root, out, ["train", "-opt", str(path), "--launcher", "pytorch"], size, fault)
        codes = ranks.wait(children)
        said = [line for line in out.read_text().splitlines() if line.startswith(("error: ", "Traceback"))]
        found[f"{kind}: {text}"] = {
            "seconds until all were down": round(time.time() - float((root / "struck").read_text()), 1),
            "exit codes": codes,
            "first line": (said or [""])[0].replace(socket.gethostname(), "HOST")[:200],
            "one traceback, of the rank that failed": "\n".join(said).count("Traceback") == (kind == "raise"),
        }
    return found


def slow_ranks(root: Path, timeout: float = 8, seconds: float = 20, most: int = 3) -> dict:
    """A rank that is slower than ``dist_params.timeout`` where the others wait for it, but not in a collective."""
    cases = {
        "in its share of a validation": (True, Fault(1, "sleep", "validation", 2, seconds=seconds)),
        "rank 0 in its share of a validation (SRModel)": (False, Fault(0, "sleep", "validation", 2, seconds=seconds)),
        "rank 0 in a save": (True, Fault(0, "sleep", "save", 4, seconds=seconds)),
    }
    found: dict[str, Any] = {"dist_params.timeout": timeout, "seconds that it sleeps": seconds}
    for text, (bridge, fault) in list(cases.items())[:most]:
        opt = options(root, f"slow_{len(found)}", 2, bridge, 6, dist_params={"backend": "gloo", "timeout": timeout})
        found[text] = {"exit codes": train(root, opt, 2, fault)[0]}
    return found


def torchrun(root: Path, words: list[str], faults: list[Fault], *flags: str, seconds: float = 600):
    """Run a group under torchrun: exit code, output, and seconds from the last fault to the end."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = ranks.torchrun(root, words, faults, *flags)
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=seconds)
    struck = root / "struck"
    return done.returncode, done.stdout + done.stderr, time.time() - float(struck.read_text()) if struck.exists() else 0


def restarts(root: Path, size: int = 3, attempts: int = 3) -> dict:
    """``torchrun --max-restarts=3`` without --auto_resume: a kill and an exception, then the run goes on to its end."""
    opt = options(root, "restarted", size, True)
    unbroken = opt | {"name": "unbroken_restarted"}
    train(root, unbroken, size)
    faults = [Fault(1, "kill", "iteration", 6), Fault(2, "raise", "iteration", 10, attempt=1)][: attempts - 1]
    words = ["train", "-opt", str(tiny.write_options(root, opt)), "--launcher", "pytorch"]
    flags = ("--standalone", f"--nproc-per-node={size}", "--max-restarts=3")
    code, said, _ = torchrun(root, words, faults, *flags)
    (root / "restarts.out").write_text(said)
    return {
        "processes": size,
        "exit code": code,
        "restarts": said.count("torchrun started the processes again"),
        "resumed from": [i for i in (4, 8) if f"{i}.state, iteration {i} of" in said],
        "runs put aside": len(list((root / "experiments").glob("restarted_archived*"))),
        "weights bit-equal to the unbroken run": tiny.same(
            tiny.final_weights(root, opt), tiny.final_weights(root, unbroken)
        ),
    }


def under_torchrun(root: Path, size: int = 2) -> dict:
    """A killed and a failing rank under torchrun: seconds to its end, and whose traceback stands first."""
    found = {}
    for kind in ("kill", "raise"):
        opt = options(root, f"torchrun_{kind}", size, True)
        words = ["train", "-opt", str(tiny.write_options(root, opt)), "--launcher", "pytorch"]
        flags = ("--standalone", f"--nproc-per-node={size}")
        code, said, seconds = torchrun(root, words, [Fault(1, kind, "iteration", 6)], *flags)
        (root / f"torchrun_{kind}.out").write_text(said)
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        found[kind] = {"exit code": code, "seconds until torchrun had ended": round(seconds, 1),
                       "first line of the fault": (lines or [""])[0][:200],
                       "torchrun names the signal": "Signal 9 (SIGKILL) received" in said}  # fmt: skip
    return found


def two_nodes(root: Path) -> dict:
    """Two torchrun agents on this machine that meet by ``--rdzv-backend=c10d``."""
    opt = options(root, "two_nodes", 2, True, 4)
    words = ["train", "-opt", str(tiny.write_options(root, opt)), "--launcher", "pytorch"]
    flags = ("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=worlds",
             f"--rdzv-endpoint=127.0.0.1:{ranks.free_port()}")  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = ranks.torchrun(root, words, [], *flags)
    agents = [subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.DEVNULL) for _ in range(2)]
    codes = [agent.wait(timeout=600) for agent in agents]
    alone = options(root, "one_node", 2, True, 4)
    train(root, alone, 2)
    same = tiny.same(tiny.final_weights(root, opt), tiny.final_weights(root, alone))
    return {"exit codes": codes, "weights bit-equal to those of one node": same}


PARTS = {
    "same batch": lambda root: same_batch(root, (1, 2, 4)),
    "changing processes": changing,
    "test and restore": lambda root: validation(root, (1, 2, 4, 9)),
    "deaths": deaths,
    "slow ranks": slow_ranks,
    "restarts": restarts,
    "torchrun": under_torchrun,
    "two nodes": two_nodes,
}


# What the tests can afford.
SMALL = {
    "same batch": lambda root: same_batch(root, (1, 2), ((False, 1), (True, 3))),
    "test and restore": lambda root: validation(root, (1, 3, 9)),
    "deaths": lambda root: deaths(root, DEATHS[:1] + DEATHS[-1:]),
    "slow ranks": lambda root: slow_ranks(root, 4, 8, 2),
    "restarts": lambda root: restarts(root, 3, 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kept = "the others stay as they are in the file"
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help=kept)
    parser.add_argument("--out", type=Path, default=tiny.RESULTS / "worlds.json")
    parser.add_argument("--small", action="store_true", help="fewer cases, for the tests")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="worlds-") as folder:
        root = Path(folder)
        tiny.write_images(root)
        tiny.warm_up()
        record = {}
        for part in args.parts:
            record[part] = (SMALL if args.small and part in SMALL else PARTS)[part](root)
            print(json.dumps({part: record[part]}, indent=1), flush=True)
    before = json.loads(args.out.read_text()) if args.out.exists() else {}
    tiny.store(args.out, {part: {**before, **record}[part] for part in PARTS if part in before or part in record})


if __name__ == "__main__":
    main()
