"""How many cores this process may use."""

import os


def usable_cores() -> int:
    """Number of cores that this process may use, which a container or a job scheduler may have lowered."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS
