"""What every test starts from."""

import logging
import os
import sys

# Before torch is imported, here and in the processes that tests start: networks this small gain nothing from a second
# thread, and lose much where they wait for a busy core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def sample_photographs(tmp_path_factory):
    """The folder that `sample:train` and `sample:val` lie in, written once for all tests of a process."""
    from i2sb_plugin.data.photographs import prepare

    return prepare(tmp_path_factory.mktemp("samples") / "photographs")


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory):
    """A folder of the files that learned metrics and losses read, of the right shapes: not the published weights."""
    from tests.support import metric_weights

    return metric_weights.write(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def weights_at_hand(random_weights, monkeypatch):
    """What needs LPIPS or DISTS finds files of weights."""
    monkeypatch.setenv("BASICSR_WEIGHTS", str(random_weights))


@pytest.fixture(autouse=True)
def fresh_toolkit_log():
    """BasicSR keeps one logger for the process: a test's handlers must not write to the next one's closed streams."""
    yield
    home = sys.modules.get("basicsr.utils.logger")
    if home is not None:
        logger = logging.getLogger("basicsr")
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
        home.initialized_logger.clear()
