"""SIGTERM and SIGINT in a training run: the iteration is finished, a complete state is saved, and the run ends.

From the first batch on a thread reads the signals as the system delivers them (``signal.set_wakeup_fd``), so that a
second one ends the process even while the main thread waits inside a collective or for a device. Between two iterations
the loop asks :func:`iteration_ended` whether to stop. One process looks at its own signals. Several have to stop at the
same iteration: about once a second, after a number of iterations that all of them know, they take the maximum of their
flags over the CPU, which waits for no device.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist
from basicsr.utils.logger import get_root_logger

from basicsr_ext.checkpoints.resumable import save_best
from basicsr_ext.checkpoints.saves import saves_of
from basicsr_ext.common.errors import Interrupted
from basicsr_ext.common.files import SaveError
from basicsr_ext.processes import collectives
from basicsr_ext.training import loop_state

__all__ = ["abandonable", "iteration_ended", "leave_signals_to_parent", "validation_abandoned", "watch"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ECHO = 1.0  # seconds within which a second signal is the first one again: launchers pass on what the group got as well
INTERVAL = 1.0  # seconds between two questions of the processes to each other
MOST_ITERATIONS = 20  # between two questions, however short the iterations are


class Watch:
    """Listens for signals from :meth:`begin` to :meth:`end`."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.agreed = False
        self.abandoned: str | None = None
        self.group: dist.ProcessGroup | None = None
        self._first_at: float | None = None
        self._saved = False
        self._prompt = False
        self._handlers: dict[signal.Signals, object] | None = None
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
            signal.signal(number, handler)  # type: ignore[arg-type]
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
        elif time.monotonic() - self._first_at >= ECHO and not self._saved:
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

    def iteration_ended(self) -> None:
        """Save and raise Interrupted if any process was asked to stop."""
        if self._agree():
            self._leave()

    def _agree(self) -> bool:
        if self.agreed or collectives.world_size() == 1:
            return self.agreed or self.asked is not None
        self._iterations_left -= 1
        if self._iterations_left > 0:
            return False
        time_now, done = time.monotonic(), loop_state.now.iteration
        seconds = (time_now - self._asked_at) / max(done - self._asked_after, 1)
        self._asked_at, self._asked_after = time_now, done
        flag, slowest = self._maximum(float(self.asked is not None), seconds)
        self._iterations_left = max(1, min(MOST_ITERATIONS, int(INTERVAL / slowest)))
        return flag > 0

    def _maximum(self, *numbers: float) -> list[float]:
        """The largest of each number over all processes, on every one of them."""
        if self.group is None:
            self.group = dist.group.WORLD if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
        values = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self.group)
        return values.tolist()

    def _leave(self) -> None:
        """Save the state of the iteration that has ended, unless that is done, and raise Interrupted.

        Raises:
            SaveError: The state could not be saved.
            Interrupted: It is saved.

        """
        now = loop_state.now
        saves, failure = saves_of(now.model), None
        try:
            if saves.newest_whole != now.iteration:
                now.model.save(now.epoch, now.iteration)
        except SaveError as error:
            failure = error
        whole = saves.newest_whole == now.iteration
        collectives.barrier()  # without the limit of a collective: only rank 0 has written
        if collectives.world_size() > 1:  # whoever leaves early makes the launcher stop the one who writes
            whole = bool(self._maximum(float(whole))[0])
        if not whole:
            raise SaveError(f"the run was to stop at iteration {now.iteration}, whose state could not be saved: "
                            f"{failure or 'see the log'}") from failure  # fmt: skip
        self._saved = True
        if collectives.is_main():
            if self.abandoned:
                save_best(now.model.opt, None, now.iteration)  # of several data sets, the first may have been validated
            get_root_logger().warning(self._farewell())
        raise Interrupted

    def _farewell(self) -> str:
        now = loop_state.now
        name = self.asked.name if self.asked else "A signal to another process"
        state = saves_of(now.model).states / f"{now.iteration}.state"
        return (
            f"{name}: the run stops after iteration {now.iteration}. {self.abandoned or ''}Its complete state is saved "
            f"in {state}; the same command with --auto_resume goes on from there"
        )

    def run_ended(self) -> None:
        """After the last validation: raise Interrupted if it was abandoned, with the state saved."""
        abandoned = float(self.abandoned is not None)
        if collectives.world_size() > 1:
            abandoned = self._maximum(abandoned)[0]
        if abandoned:
            self._leave()


def _tell(text: str) -> None:
    """Write to stderr past Python's buffers, which the main thread may hold."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


_watch: Watch | None = None


@contextmanager
def watch() -> Iterator[None]:
    """Have a training run stopped by signals; they are taken over when its first batch is fetched.

    Raises:
        Interrupted: The run was stopped and its state saved.

    """
    global _watch
    loop_state.now.clear()
    _watch = Watch()
    try:
        yield
        if loop_state.now.model is not None:
            _watch.run_ended()
    finally:
        try:
            loop_state.now.clear()
        finally:
            _watch.end()
            _watch = None


def iteration_ended() -> None:
    """To be called on every process before a batch is fetched: stop the run here if a signal asked for it.

    Raises:
        Interrupted: The state of the iteration that has ended is saved; the run must end.
        SaveError: It could not be saved.

    """
    if _watch is None:
        return
    _watch.begin()
    if loop_state.now.model is not None:
        _watch.iteration_ended()


@contextmanager
def abandonable() -> Iterator[None]:
    """Work that may be dropped when the run is stopped: no state of training changes in it, no collective runs in it.

    Raises:
        Interrupted: A signal came, before or meanwhile.

    """
    if _watch is None:
        yield
        return
    with _watch.abandonable():
        yield


def validation_abandoned(name: str, everywhere: bool) -> None:
    """Remember that a validation was dropped.

    Args:
        name: The data set.
        everywhere: All processes know it, so that they stop after this iteration without asking each other.

    """
    if _watch is not None:
        _watch.abandoned = f"The validation on {name} was left unfinished; --auto_resume makes up for it. "
        _watch.agreed = _watch.agreed or everywhere


def leave_signals_to_parent() -> None:
    """In a worker of a data loader: let signals that a whole group of processes gets pass.

    The loop needs its workers until it has stopped. SIGTERM ends a worker only if its parent sent it (where the system
    can tell, which macOS can not); a worker whose parent is gone ends by itself.
    """
    if os.name != "posix":
        return
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_parent, name="signals", daemon=True).start()


def _wait_for_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
