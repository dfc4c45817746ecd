"""Paired timings and what ran them: shared by the benchmarks."""

import contextlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

import torch

__all__ = ["machine", "paired", "replaced", "write"]


def seconds(run: Callable[[], object], device: torch.device | None = None) -> float:
    """Seconds of one call, with the queue of a GPU emptied before and after."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def paired(
    reference: Callable[[], object], ours: Callable[[], object], pairs: int, device: torch.device | None = None
) -> dict[str, float]:
    """Run A B A B ... after one unmeasured pair; ratios above 1 mean that ours is faster.

    Ratios are those of neighbours, so that a machine that slows down slows both.
    """
    reference()
    ours()
    times = [(seconds(reference, device), seconds(ours, device)) for _ in range(pairs)]
    ratios = [a / b for a, b in times]
    return {
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "reference_seconds": statistics.median(a for a, _ in times),
        "seconds": statistics.median(b for _, b in times),
        "pairs": pairs,
    }


def machine(*packages: str, device: torch.device | None = None) -> dict[str, object]:
    """What ran it, without names of hosts, and the versions of ``packages``."""
    cuda = device is not None and device.type == "cuda"
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{package: metadata.version(package) for package in packages},
    }


def write(path: Path | None, result: Mapping[str, object]) -> None:
    """Write ``result`` as JSON, unless there is no ``path``."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")


@contextlib.contextmanager
def replaced(owner: type, name: str, value: object) -> Iterator[None]:
    """Let an attribute of a class be another one meanwhile: how calls of a library are timed."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
