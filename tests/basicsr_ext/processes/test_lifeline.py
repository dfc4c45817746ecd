"""A connection that breaks off is told as the loss of another rank, not as an error of this one."""

import subprocess
import sys
from datetime import timedelta

import pytest
import torch.distributed as dist

from basicsr_ext.processes import lifeline

SERVER = """
import sys, time, torch.distributed as dist
store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
print(store.port, flush=True)
time.sleep(300)
"""


@pytest.fixture
def lost_store():
    """The client of a store whose home has been killed."""
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline())
        store = dist.TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=60))
        store.add("calls", 1)
    finally:
        server.kill()
        server.wait()
    return store


def test_a_store_that_is_gone_is_the_loss_of_a_rank(lost_store, monkeypatch, capfd):
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    for _ in range(2):  # nothing to receive, then a broken pipe
        with pytest.raises(RuntimeError) as error:
            lost_store.check(["calls"])
        assert lifeline.failed(error.value) == 1
        said = [line for line in capfd.readouterr().err.splitlines() if line.startswith(("error: ", "Traceback"))]
        assert len(said) == 1 and "rank 1 ends" in said[0]


def test_any_other_error_keeps_its_traceback(monkeypatch, capfd):
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    assert lifeline.failed(RuntimeError("shapes differ")) == 1
    said = capfd.readouterr().err
    assert said.startswith("error: rank 1 failed:") and "RuntimeError: shapes differ" in said
