"""One live run for each folder; no lock outlives its process, no file its run."""

import os
import signal
import subprocess
import sys
import time

import pytest

from basicsr_ext.common import folder_lock
from basicsr_ext.common.errors import InputError

ASK = "import sys; from basicsr_ext.common import folder_lock; print(folder_lock.held_by(sys.argv[1]))"
HOLD_AND_FORK = """
import os, sys, time
from basicsr_ext.common import folder_lock
folder_lock.hold(sys.argv[1])
if os.fork() == 0:  # a worker that loads images, and outlives the run for a while
    folder_lock.release_all()
    print("released", flush=True)
    time.sleep(60)
time.sleep(60)
"""


def asked(folder):
    return subprocess.run([sys.executable, "-c", ASK, str(folder)], capture_output=True, text=True).stdout.strip()


def test_the_owner_is_named_and_nothing_stays(tmp_path):
    folder = tmp_path / "runs" / "run"
    assert folder_lock.held_by(folder) is None and not list(tmp_path.iterdir())
    assert folder_lock.hold(folder) is None and folder_lock.hold(folder) is None
    assert folder_lock.held_by(folder) is None, "it is ours"
    assert asked(folder).startswith(f"pid {os.getpid()} on ") and asked(folder) == asked(folder)
    folder_lock.release_all()
    assert asked(folder) == "None" and not list((tmp_path / "runs").iterdir())


def test_a_place_without_the_right_to_write_is_no_live_run(tmp_path, monkeypatch):
    def refuse(self):
        raise folder_lock.Timeout(str(tmp_path))

    monkeypatch.setattr(folder_lock.FileLock, "acquire", refuse)
    with pytest.raises(InputError, match="cannot be written; choose another place"):
        folder_lock.hold(tmp_path / "run")


def test_a_forked_worker_neither_drops_nor_keeps_the_lock(tmp_path):
    folder = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_AND_FORK, str(folder)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert holder.stdout.readline() == "released\n"
        with pytest.raises(InputError, match=f"name: .*pid {holder.pid} .*wait for its end"):
            folder_lock.hold(folder)
        holder.kill()
        holder.wait()
        deadline = time.monotonic() + 20
        while folder_lock.held_by(folder) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert folder_lock.hold(folder) is None, "the worker is still there"
        folder_lock.release_all()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()
