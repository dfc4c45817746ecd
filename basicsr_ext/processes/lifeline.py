"""The line between the processes of a run: it tells who has ended and why, and lets them wait without a time limit.

A collective waits for the others up to a limit, and a GPU's waits on after a process has died. So the processes also
beat through the key-value store that brought them together, and one whose neighbour has stopped, or who hears that
another one failed, ends within a minute wherever it is stuck.
"""

import atexit
import contextlib
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

TICK = 1.0  # seconds between two beats
SILENCE = 30  # ticks without a beat after which a process counts as dead
GRACE = 5  # ticks that a process has to end by itself, once another one is lost
_BROKEN = re.compile(  # what gloo says, as a mere RuntimeError; the store has a type for it
    r"connection (was )?(closed|reset|refused)|broken pipe|socket (is )?closed|remote process exited",
    re.IGNORECASE,
)


class LostRank(RuntimeError):
    """Another process of the run failed or was lost, so this one cannot go on; the message says why."""


class Lifeline:
    """One end of the line; made on every rank at once, with the group at hand.

    ``connect`` makes a connection to the store (the main thread and the one that beats have one each), ``hosts`` are
    the machines of the ranks.
    """

    def __init__(self, connect: Callable[[], Any], rank: int, hosts: list[str]) -> None:
        self.rank, self.hosts, self.size = rank, hosts, len(hosts)
        self.cause: str | None = None
        self._store, self._beats = connect(), connect()
        self._over = threading.Event()
        self._waits = self._silent = self._cut_off = 0
        self._beats.set(f"beat {rank}", "0")
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._beat, self._watch)]

    def start(self) -> None:
        """Begin to beat and to watch."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop to beat and to watch; a thread that is left in a call to the store may abort the process at its end."""
        self._over.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(2 * TICK)

    def wait_for_all(self) -> None:
        """Wait until every rank has come here, however long that takes; LostRank if one failed or was lost."""
        self._waits += 1
        if self._store.add(f"wait {self._waits}", 1) == self.size:
            self._store.set(f"go {self._waits}", "1")
            for key in ("wait", "go"):
                self._store.delete_key(f"{key} {self._waits - 1}")
            return
        pause = 0.001
        while not self._store.check([f"go {self._waits}"]):
            if self.cause is not None:
                raise LostRank(self.cause)
            time.sleep(pause)
            pause = min(2 * pause, 0.25)

    def leave_last(self) -> None:
        """Let rank 0, which may be the home of the store, stay until the others need it no more."""
        if self._store.add("left", 1) < self.size and self.rank == 0:
            deadline = time.monotonic() + 10
            while self._store.add("left", 0) < self.size and time.monotonic() < deadline:
                time.sleep(0.01)

    def tell(self, text: str) -> bool:
        """Let the others know why this process ends; False if another one, who was first, said the same."""
        with contextlib.suppress(RuntimeError):
            if not _publish(self._store, f"rank {self.rank} on {self.hosts[self.rank]} failed: {text}"):
                return self._store.get("cause").decode().partition(" failed: ")[2] != text
        return True

    def heard(self, seconds: float) -> str | None:
        """Why another process ended, if that is known within so many seconds."""
        deadline = time.monotonic() + seconds
        while self.cause is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.cause

    # ---- the two threads

    def _beat(self) -> None:
        """Beat, listen to the neighbour (every rank has one that listens) and hear why another process ended."""
        neighbour, beat, last = (self.rank + 1) % self.size, 0, None
        try:
            while not self._over.wait(TICK):
                beat += 1
                self._beats.set(f"beat {self.rank}", str(beat))
                heard = self._beats.get(f"beat {neighbour}")
                if heard != last:
                    last, self._silent = heard, 0
                if self._beats.check(["cause"]):
                    self.cause = self._beats.get("cause").decode()
                elif self.cause is not None:
                    _publish(self._beats, self.cause)
                self._cut_off = 0
        except RuntimeError as error:
            if not self._over.is_set():
                self.cause = f"the processes' store is gone, with rank 0 or torchrun ({_first_line(error)})"

    def _watch(self) -> None:
        """End the process once another one is lost: counted in ticks, since a machine that sleeps ages nobody."""
        lost = 0
        while not self._over.wait(TICK):
            self._silent, self._cut_off = self._silent + 1, self._cut_off + 1
            if self.cause is None and self._cut_off > SILENCE:
                self.cause = f"the processes' store has not answered for {SILENCE} s"
            if self.cause is None and self._silent > SILENCE:
                other = (self.rank + 1) % self.size
                self.cause = (f"rank {other} on {self.hosts[other]} has not been heard for {SILENCE} s: it was "
                              "killed or stopped, or its machine or network is down")  # fmt: skip
            lost += self.cause is not None
            if lost > GRACE:
                _say(f"error: rank {self.rank} ends, because {self.cause}")
                os._exit(1)


_line: Lifeline | None = None


def current() -> Lifeline | None:
    """The line of this process, or None where it runs alone."""
    return _line


def begin(share: Callable[[Any], list[Any]]) -> None:
    """Draw the line between the processes of a group that is joined already; ``share`` gathers an object of each."""
    global _line
    end(wait=False)
    rank, address = dist.get_rank(), (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    token = share(os.urandom(8).hex())[0]  # a store may outlive one attempt of torchrun's

    def connect() -> Any:
        limit = timedelta(seconds=60)
        store = dist.TCPStore(*address, is_master=False, timeout=limit, wait_for_workers=False)
        return dist.PrefixStore(f"lifeline {token}", store)

    line = Lifeline(connect, rank, share(socket.gethostname()))
    share(None)  # every rank has its first beat in the store
    line.start()
    _line = line
    atexit.register(end, wait=False)


def end(wait: bool = True) -> None:
    """Take the line down; with ``wait`` when every rank has come to its end, or LostRank if one failed before."""
    global _line
    line, _line = _line, None
    if line is None:
        return
    if wait:
        line.wait_for_all()
        line.stop()
        with contextlib.suppress(RuntimeError):
            line.leave_last()
    line.stop()


def failed(error: Exception, message: str | None = None, code: int = 1) -> int:
    """Say why this process ends, and let the others know; returns its exit code, ``code`` where the fault lies here.

    The process where it began gives ``message``, or else its traceback, to torchrun's summary too; the others a line
    that names it.
    """
    rank = dist.get_rank()
    lost = isinstance(error, (LostRank, dist.DistNetworkError))
    if lost or (isinstance(error, RuntimeError) and _BROKEN.search(str(error))):
        known = None if _line is None else _line.heard(3 * TICK)
        why = known or f"the connection to another rank broke off, which was killed or lost ({_first_line(error)})"
        _say(f"error: rank {rank} ends, because {why}")
        code = 1
    elif message is not None:
        if _line is None or _line.tell(message):  # not what another rank has said before
            _say(f"error: rank {rank}: {message}")
    else:
        _say(f"error: rank {rank} failed:\n{''.join(traceback.format_exception(error))}")
        with contextlib.suppress(OSError):
            get_error_handler().record_exception(error)
        if _line is not None:
            _line.tell(f"{type(error).__name__}: {_first_line(error)}")
    end(wait=False)
    return code


def _publish(store: Any, cause: str) -> bool:
    """Put down why a process ended; False if another one was first."""
    first = store.add("failures", 1) == 1
    if first:
        store.set("cause", cause)
    return first


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
