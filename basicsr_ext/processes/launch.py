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
        launcher = "pytorch"
        note = "started by torchrun without --launcher: --launcher pytorch is assumed"
    if launcher == "none":
        return Launch()
    names = ("RANK", "WORLD_SIZE") if launcher == "pytorch" else ("SLURM_PROCID", "SLURM_NTASKS")
    missing = [name for name in names if not environ.get(name)]
    if missing:
        starter = "torchrun --nproc-per-node N -m basicsr_ext train ..." if launcher == "pytorch" else "srun"
        raise InputError(
            f"--launcher {launcher}: the environment has no {' and no '.join(missing)}; start with {starter}, "
            "or leave --launcher out for one process"
        )
    for name in names:
        if not environ[name].isdigit():
            raise InputError(
                f"the environment variable {name} is {environ[name]!r}, but a launcher sets it to a whole number; "
                f"unset {' and '.join(names)} to start one process"
            )
    rank, world_size = (int(environ[name]) for name in names)
    if rank >= world_size:
        raise InputError(
            f"the environment variables say {names[0]} {rank} of {names[1]} {world_size}; ranks count from 0 to "
            f"{names[1]} - 1: correct them, or unset both to start one process"
        )
    return Launch(launcher, rank, world_size, note)


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
