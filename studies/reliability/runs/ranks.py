"""Groups of processes for the evidence: started by fork or by torchrun, what they train on recorded, faults put in.

``torchrun ... -m studies.reliability.runs.ranks FOLDER FAULTS train -opt ...`` runs a command of ``basicsr`` as one
rank of a group. FAULTS is a JSON list of :class:`Fault`.
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from basicsr_ext import cli, repairs
from basicsr_ext.common import plugins
from basicsr_ext.training import loop_state
from studies.reliability.runs.children import fork


@dataclass(frozen=True)
class Fault:
    """What goes wrong in one rank: ``kind`` is kill, raise or sleep (for ``seconds``), once, in ``attempt``.

    ``place`` is iteration (``at`` the number), validation (``at`` the image) or save (``at`` the iteration).
    """

    rank: int
    kind: str
    place: str
    at: int
    attempt: int = 0
    seconds: float = 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(root: Path, out: Path, words: list[str], size: int, *faults: Fault) -> list[int]:
    """Fork ``size`` ranks of a command that nothing watches over; all write to ``out``. Returns their process ids."""
    port = free_port()

    def be_rank(rank: int) -> int:
        if size > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        return act(root, words, list(faults))

    return [fork(partial(be_rank, rank), root, out) for rank in range(size)]


def wait(children: list[int], seconds: float = 300) -> list[int]:
    """Exit codes, negative for signals; what still runs after so many seconds is killed, which counts as a hang."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + seconds
    while len(codes) < len(children):
        for child in children:
            done, status = os.waitpid(child, os.WNOHANG) if child not in codes else (0, 0)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
            elif child not in codes and time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    return [codes[child] for child in children]


def run(root: Path, out: Path, words: list[str], size: int, *faults: Fault) -> list[int]:
    """Run a group to its end; exit codes."""
    return wait(start(root, out, words, size, *faults))


def torchrun(root: Path, words: list[str], faults: list[Fault], *flags: str) -> list[str]:
    """The command that has torchrun start the ranks of a group."""
    module = ["-m", "studies.reliability.runs.ranks", str(root), json.dumps([asdict(fault) for fault in faults])]
    return [sys.executable, "-m", "torch.distributed.run", *flags, *module, *words]


# ---- inside a rank


def act(root: Path, words: list[str], faults: list[Fault]) -> int:
    """Run a command as this rank, with its faults; what it does goes to ``record.RANK.jsonl``."""
    rank, attempt = int(os.environ.get("RANK", 0)), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    _record(root / f"record.{rank}.jsonl")
    for fault in faults:
        if (fault.rank, fault.attempt) == (rank, attempt):
            _put_in(root, fault)
    return cli.main(words)


def _before(owner: type, method: str, act: Callable[..., None]) -> None:
    """Have ``act(self, *arguments)`` called before a method."""
    original = getattr(owner, method)

    def both(self: Any, *arguments: Any, **options: Any) -> Any:
        act(self, *arguments)
        return original(self, *arguments, **options)

    setattr(owner, method, both)


def _models() -> list[type]:
    from basicsr.models.sr_model import SRModel

    from basicsr_ext.models.restoration_model import RestorationModel

    return [SRModel, RestorationModel]


def _record(path: Path) -> None:
    from basicsr.models.base_model import BaseModel

    def note(**entry: Any) -> None:
        with path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def watch(event: str, arguments: tuple) -> None:
        if event in ("os.mkdir", "os.rename") or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            name = str(arguments[0])
            if any(f"{path.parent}/{folder}/" in name for folder in ("experiments", "results")):
                note(wrote=name)

    sys.addaudithook(watch)

    def feed(self: Any, data: dict) -> None:
        if self.is_train and not getattr(self, "_validates", False):
            note(iteration=loop_state.current().iteration, samples=[Path(name).name for name in data["lq_path"]])

    for owner in _models():
        if "feed_data" in vars(owner):
            _before(owner, "feed_data", feed)
    for owner in (BaseModel, _models()[1]):
        _mark_validation(owner)
    _before(_models()[0], "_log_validation_metric_values", lambda self, *_: note(figures=dict(self.metric_results)))
    _before(
        _models()[0], "_log_validation_metric_values", lambda self, at, *_: note(at=at, figures=self.metric_results)
    )
    for owner in (BaseModel, _models()[1]):
        log = owner.get_current_log

        def noted(self: Any, log: Callable = log) -> dict:
            found = log(self)
            note(
                iteration=loop_state.current().iteration, losses={k: v for k, v in found.items() if k.startswith("l_")}
            )
            return found

        owner.get_current_log = noted


def _mark_validation(owner: type) -> None:
    validate = owner.validation

    def validation(self: Any, *arguments: Any, **options: Any) -> None:
        self._validates = True
        try:
            validate(self, *arguments, **options)
        finally:
            self._validates = False

    owner.validation = validation


def _put_in(root: Path, fault: Fault) -> None:
    from basicsr.models.base_model import BaseModel

    from basicsr_ext.checkpoints import saves

    counts = {"images": 0}

    def strike() -> None:
        (root / "struck").write_text(str(time.time()))
        if fault.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.kind == "raise":
            raise RuntimeError("put in on purpose")
        time.sleep(fault.seconds)

    def in_validation(self: Any, *_: Any) -> None:
        counts["images"] += getattr(self, "_validates", False)
        if counts["images"] == fault.at and self._validates:
            strike()

    if fault.place == "iteration":
        _before(BaseModel, "update_learning_rate", lambda self, at, *_: strike() if at == fault.at else None)
    elif fault.place == "validation":
        for owner in _models():
            if "feed_data" in vars(owner):
                _before(owner, "feed_data", in_validation)
    else:
        _before(saves.Saves, "write", lambda self, at, *_: strike() if (at == fault.at != self._iteration) else None)


@contextmanager
def clean_record(root: Path):
    """Begin new records; the function that is lent reads them: one list of entries for each rank."""
    for path in root.glob("record.*.jsonl"):
        path.unlink()

    def read() -> list[list[dict]]:
        paths = sorted(root.glob("record.*.jsonl"))
        return [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]

    yield read


def main() -> None:
    repairs.apply()
    plugins.load_entry_points()
    faults = [Fault(**entry) for entry in json.loads(sys.argv[2])]
    sys.exit(act(Path(sys.argv[1]), sys.argv[3:], faults))


if __name__ == "__main__":
    main()
