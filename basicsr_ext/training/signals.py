"""SIGTERM and SIGINT in a training run: the iteration is finished, a complete state is saved, and the run ends.

From the first batch on a thread reads the signals as the system delivers them (``signal.set_wakeup_fd``), so that a
second one ends the process even while the main thread waits inside a collective or for a device. Between two
iterations the loop asks :meth:`Watch.agree` whether to stop. One process looks at its own signals. Several have to stop
at the same iteration: about once a second, after a number of iterations that all of them know, they take the maximum of
their flags over the CPU, which waits for no device.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
import torch.distributed as dist

from basicsr_ext.common.errors import Interrupted
from basicsr_ext.processes import collectives

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ECHO = 1.0  # seconds within which a second signal is the first one again: launchers pass on what the group got as well
INTERVAL = 1.0  # seconds between two questions of the processes to each other
MOST_ITERATIONS = 20  # between two questions, however short the iterations are


class Watch:
    """Listens for signals from :meth:`begin` to :meth:`end`."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None  # the first one that this process got
        self.agreed = False  # every process knows that the run is to stop
        self.saved = False  # a second signal need not end the process at once
        self._group: Any = None
        self._first_at: float | None = None
        self._prompt = False
        self._handlers: dict[signal.Signals, Any] | None = None
        self._iterations_left, self._asked_at, self._asked_after = 1, 0.0, 0

    # ---- signals

    def begin(self) -> None:
        """Take the signals over, unless they are ignored (as in a shell's background job); a second call does nothing.

        Other threads than the main one, and Windows, keep the handlers that they have.
        """
        if self._handlers is not None:
            return
        self._handlers = {}
        if os.name != "posix" or threading.current_thread() is not threading.main_thread():
            return
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._handle)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Give the signals back."""
        if not self._handlers:
            return
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.write(self._writer, b"\0")
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    def _handle(self, number: int, _: object) -> None:
        """In the main thread, as soon as it runs Python."""
        self.asked = self.asked or signal.Signals(number)
        if self._prompt:
            raise Interrupted

    def _listen(self) -> None:
        """In a thread of its own."""
        while (number := os.read(self._reader, 1)[0]) != 0:
            if number in SIGNALS:
                self._arrived(signal.Signals(number))

    def _arrived(self, number: signal.Signals) -> None:
        if self._first_at is None:
            self._first_at, self.asked = time.monotonic(), self.asked or number
            if collectives.is_main():
                _tell(f"{number.name}: the run ends after this iteration, with its complete state saved; "
                      "another signal ends it at once")  # fmt: skip
        elif time.monotonic() - self._first_at >= ECHO and not self.saved:
            _tell(f"{number.name} again: the run ends at once, nothing more is saved")
            for worker in multiprocessing.active_children():
                worker.kill()
            os._exit(128 + number)

    @contextmanager
    def abandonable(self) -> Iterator[None]:
        """Inside, a signal raises Interrupted at once."""
        self._prompt = True
        try:
            if self.asked:
                raise Interrupted
            yield
        finally:
            self._prompt = False

    # ---- between iterations

    def agree(self, done: int) -> bool:
        """Whether any process was asked to stop, after ``done`` iterations; to be called by all of them."""
        if self.agreed or collectives.world_size() == 1:
            return self.agreed or self.asked is not None
        self._iterations_left -= 1
        if self._iterations_left > 0:
            return False
        time_now = time.monotonic()
        seconds = (time_now - self._asked_at) / max(done - self._asked_after, 1)
        self._asked_at, self._asked_after = time_now, done
        flag, slowest = self.maximum(float(self.asked is not None), seconds)
        self._iterations_left = max(1, min(MOST_ITERATIONS, int(INTERVAL / slowest)))
        return flag > 0

    def maximum(self, *numbers: float) -> list[float]:
        """The largest of each number over all processes, on every one of them."""
        if collectives.world_size() == 1:
            return list(numbers)
        if self._group is None and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo")
        values = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self._group)
        return values.tolist()


def _tell(text: str) -> None:
    """Write to stderr past Python's buffers, which the main thread may hold."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


def leave_signals_to_parent() -> None:
    """In a worker of a data loader: let signals that a whole group of processes gets pass.

    The loop needs its workers until it has stopped. SIGTERM ends a worker only if its parent sent it (where the system
    can tell, which macOS cannot); a worker whose parent is gone ends by itself.
    """
    if os.name != "posix":
        return
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # macOS has none
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_parent, name="signals", daemon=True).start()


def _wait_for_parent() -> None:
    made_by = multiprocessing.parent_process()  # who may be gone already, which torch's own watch would never see
    parent = made_by.pid if made_by else os.getppid()
    told = None
    while os.getppid() == parent and (told is None or told.si_pid != parent):
        told = signal.sigtimedwait({signal.SIGTERM}, 5)
    os._exit(0)
