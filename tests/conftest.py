"""What every test starts from."""

import logging
import sys

import pytest


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
        home.initialized_logger.clear()
