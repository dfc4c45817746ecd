"""Run many generated cases in child processes that may neither hang nor take more than 2 GiB, and count what happens.

A case ends as ``accepted``, as ``refused`` (InputError or NonFiniteLoss: one message for the user) or as a fault: any
other exception, a hang, a crash or lack of memory. The cases follow from the seed of their chunk, which the record
keeps.
"""

import argparse
import json
import platform
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from basicsr_ext.common.errors import InputError, NonFiniteLoss

MEMORY = 2 << 30  # bytes that a child may hold
SECONDS = 60  # of one case
RESULTS = Path(__file__).parents[1] / "results"
PACKAGES = ("torch", "numpy", "opencv-python", "pillow", "pyyaml", "hypothesis", "basicsr")


class Hang(BaseException):
    """A case took longer than ``SECONDS``."""


@contextmanager
def alarm(seconds: float):
    """Raise Hang after ``seconds``; where the process was stopped meanwhile, or waited for its turn, after more."""
    start, rings = time.process_time(), 0

    def stop(*_: object) -> None:
        nonlocal rings
        rings += 1
        if time.process_time() - start < seconds / 2 and rings < 30:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        else:
            raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def limit_memory() -> None:
    """Let this process hold ``MEMORY`` at most: its address space, with torch's libraries, may grow by the rest."""
    pages = [int(number) for number in Path("/proc/self/statm").read_text().split()[:2]]
    mapped, resident = (number * resource.getpagesize() for number in pages)
    limit = mapped + MEMORY - resident
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def outcome(run: Callable[[Any], None], case: Any, seconds: float = SECONDS) -> tuple[str, str]:
    """Run one case; returns ``accepted``, ``refused`` or the kind of fault, and the message or where it arose."""
    try:
        with alarm(seconds):
            run(case)
    except (InputError, NonFiniteLoss) as error:
        return ("refused", str(error)) if str(error).strip() else ("empty message", "InputError")
    except Hang as error:
        return "hang", _place(error)
    except Exception as error:
        return type(error).__name__, f"{_place(error)}: {str(error)[:200]}"
    return "accepted", ""


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "basicsr_ext" in frame.filename or "i2sb_plugin" in frame.filename]
    shown = dict.fromkeys(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in (*ours[-1:], *frames[-1:]))
    return " > ".join(shown)


def run_cases(
    strategy: SearchStrategy, run: Callable[[Any], None], count: int, seed_number: int, on_case: Callable[[Any], None]
) -> dict[str, Any]:
    """Run ``count`` cases of one seed here; returns counts, faults with a first example each, and the slowest case."""
    counts: Counter[str] = Counter()
    faults: dict[str, dict[str, Any]] = {}
    slowest = (0.0, "")

    @seed(seed_number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def each(case: Any) -> None:
        nonlocal slowest
        on_case(case)
        start = time.perf_counter()
        kind, where = outcome(run, case)
        slowest = max(slowest, (time.perf_counter() - start, repr(case)[:2000]))
        counts[kind] += 1
        if kind not in ("accepted", "refused"):
            entry = faults.setdefault(f"{kind} at {where}", {"count": 0, "case": repr(case)[:4000]})
            entry["count"] += 1

    each()
    return {
        "seed": seed_number,
        "counts": dict(counts),
        "faults": faults,
        "slowest_seconds": round(slowest[0], 2),
        "slowest_case": slowest[1],
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main(module: str, cases: int, strategy: Callable[[], SearchStrategy], run: Callable[[Any], None]) -> int:
    """Command line of a campaign: the parent starts one child after another, a child runs one chunk."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--cases", type=int, default=cases)
    parser.add_argument("--chunk", type=int, default=250, help="cases of one child")
    parser.add_argument("--seed", type=int, default=0, help="of the first chunk; the others count on")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{module.rpartition('.')[2]}.json")
    parser.add_argument("--jobs", type=int, default=1, help="children at a time")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        last = args.child.with_suffix(".last")
        cases = strategy()
        limit_memory()
        record = run_cases(cases, run, args.chunk, args.seed, lambda case: last.write_text(repr(case)))
        args.child.write_text(json.dumps(record))
        return 0
    return _parent(module, args)


def _parent(module: str, args: argparse.Namespace) -> int:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    start = time.time()
    chunks = _chunks(module, args)
    faults: dict[str, dict[str, Any]] = {}
    for record in chunks:
        for name, entry in record.pop("faults").items():
            faults.setdefault(name, {**entry, "count": 0, "seed": record["seed"]})["count"] += entry["count"]
    totals = Counter()
    for record in chunks:
        totals.update(record["counts"])
    slowest = max(chunks, key=lambda record: record["slowest_seconds"])
    result = {
        "cases": sum(totals.values()),
        "outcomes": dict(totals),
        "faults": faults,
        "memory_limit_mib": MEMORY >> 20,
        "peak_rss_mib": max(record["peak_rss_mib"] for record in chunks),
        **{key: slowest[key] for key in ("slowest_seconds", "slowest_case")},
        "seconds": round(time.time() - start),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "chunks": [{key: record[key] for key in ("seed", "counts")} for record in chunks],
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: result[key] for key in ("cases", "outcomes", "faults", "slowest_seconds")}, indent=1))
    return 1 if faults else 0


def _chunks(module: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run children until there are enough cases; a child that died counts for one case."""
    chunks: list[dict[str, Any]] = []

    def run(number: int, count: int) -> dict[str, Any]:
        file = args.out.with_suffix(f".chunk{number}")
        words = ["--child", str(file), "--chunk", str(count), "--seed", str(number)]
        record = _child([sys.executable, "-m", module, *words], file, number)
        for leftover in (file, file.with_suffix(".last")):
            leftover.unlink(missing_ok=True)
        print(f"seed {number}: {record['counts']} {list(record['faults'])}", flush=True)
        return record

    while (left := args.cases - sum(sum(record["counts"].values()) for record in chunks)) > 0:
        counts = [min(args.chunk, left - done) for done in range(0, left, args.chunk)][: 8 * args.jobs]
        first = args.seed + len(chunks)
        with ThreadPoolExecutor(args.jobs) as pool:
            found = list(pool.map(run, range(first, first + len(counts)), counts))
        if all(set(record["counts"]) == {"died"} for record in found):
            raise SystemExit(f"every child died: {list(found[0]['faults'])}")
        chunks += found
    return chunks


def _commit() -> str | None:
    """The commit of the code, marked where files differ from it; None outside of a repository."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


def _child(command: list[str], file: Path, number: int) -> dict[str, Any]:
    file.unlink(missing_ok=True)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    last = file.with_suffix(".last")
    try:
        _, said = process.communicate(timeout=3600)
    except subprocess.TimeoutExpired:
        process.kill()
        said = "killed after an hour"
        process.communicate()
    if file.exists():
        return json.loads(file.read_text())
    case = last.read_text()[:4000] if last.exists() else ""
    name = f"died with {process.returncode}: {' '.join(said.strip().splitlines()[-1:])[:300]}"
    faults = {name: {"count": 1, "case": case}}
    return {
        "seed": number,
        "counts": {"died": 1},
        "faults": faults,
        "slowest_seconds": 0,
        "slowest_case": case,
        "peak_rss_mib": 0,
    }
