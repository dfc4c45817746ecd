"""Who this process is before a process group exists: launcher, rank and number of processes, from the environment."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from basicsr_ext.common.errors import InputError


@dataclass(frozen=True)
class Launch:
    """One process of a run: ``launcher`` is "none", "pytorch" or "slurm"; ``note`` says what was assumed."""

    launcher: str = "none"
    rank: int = 0
    world_size: int = 1
    note: str | None = None

    @property
    def is_main(self) -> bool:
        """True in the one process that speaks to the user."""
        return self.rank == 0


def find_launch(launcher: str, environ: Mapping[str, str] | None = None) -> Launch:
    """Work out rank and number of processes; ``none`` under torchrun becomes ``pytorch``.

    Raises InputError if a launcher is asked for but its environment variables are absent or no numbers.
    """
    environ = os.environ if environ is None else environ
    note = None
    if launcher == "none" and environ.get("RANK") and environ.get("WORLD_SIZE"):
        launcher, note = "pytorch", "started by torchrun without --launcher: --launcher pytorch is assumed"
    if launcher == "none":
        return Launch()
    names = ("RANK", "WORLD_SIZE") if launcher == "pytorch" else ("SLURM_PROCID", "SLURM_NTASKS")
    rank, world_size = (variable(name, launcher, environ) for name in names)
    if rank >= world_size:
        raise InputError(
            f"the environment variables say {names[0]} {rank} of {names[1]} {world_size}; ranks count from 0 to "
            f"{names[1]} - 1: correct them, or unset both to start one process"
        )
    return Launch(launcher, rank, world_size, note)


def variable(name: str, launcher: str, environ: Mapping[str, str]) -> int:
    """A whole number from 0 that ``launcher`` sets; InputError if it is absent or something else."""
    value = environ.get(name, "")
    if not value.isdigit():
        said = f"sets whole numbers, but the environment variable {name} is {value!r}"
        raise InputError(f"--launcher {launcher} {said}; {cure(launcher)}")
    return int(value)


def cure(launcher: str) -> str:
    """How to start several processes, or one."""
    if launcher == "slurm":
        return "start the run with srun, or leave --launcher out for one process"
    start = "torchrun --nproc-per-node N -m basicsr_ext"
    return f"start the run with {start}, or unset RANK and WORLD_SIZE and leave --launcher out for one process"


def rank_of_process() -> int:
    """The rank that torchrun or Slurm gave this process; 0 without them."""
    rank = os.environ.get("RANK")
    if rank is None and os.environ.get("SLURM_NTASKS", "1") != "1":
        rank = os.environ.get("SLURM_PROCID")
    return int(rank) if rank and rank.isdigit() else 0


def is_restart() -> bool:
    """True if torchrun started this process again after a failure (``--max-restarts``)."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") not in ("", "0")


def starter() -> str | None:
    """A name of the torchrun on this machine that started this process, the same after a restart; None without it."""
    # .../<drawn for this torchrun>/attempt_0/0/<file>
    parts = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", "")).parts
    return f"{parts[-4]} on {socket.gethostname()}" if len(parts) > 3 else None
