"""``basicsr train`` and ``basicsr test``: BasicSR's own pipelines, repaired and watched over."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from basicsr_ext.common.errors import Interrupted


def train(rest: list[str]) -> int:
    """Train by an option file; returns 0."""
    return _pipeline("train", rest)


def test(rest: list[str]) -> int:
    """Restore and measure by an option file; returns 0."""
    return _pipeline("test", rest)


def _pipeline(name: str, rest: list[str]) -> int:
    from basicsr_ext.options.arguments import add_arguments

    parser = argparse.ArgumentParser(prog=f"basicsr {name}")
    add_arguments(parser)
    parser.parse_args(rest)  # wrong arguments and --help end here, before the toolkit is imported
    from basicsr_ext import repairs
    from basicsr_ext.common import folder_lock

    repairs.apply()
    import basicsr.test
    import basicsr.train

    from basicsr_ext.processes import group
    from basicsr_ext.training import loop_state, memory_advice

    pipeline = basicsr.train.train_pipeline if name == "train" else basicsr.test.test_pipeline
    try:
        with (
            _arguments(f"basicsr {name}", rest),
            loop_state.watched_run() as run,
            memory_advice.explained(run, name == "train"),
        ):
            pipeline(os.getcwd())
    except Interrupted:
        group.leave()
        raise
    finally:
        folder_lock.release_all()
        _close_log()
    return 0


@contextmanager
def _arguments(program: str, rest: Sequence[str]) -> Iterator[None]:
    """Let BasicSR's pipelines, which read ``sys.argv``, see the arguments of one sub-command."""
    before = sys.argv
    sys.argv = [program, *rest]
    try:
        yield
    finally:
        sys.argv = before


def _close_log() -> None:
    """Let a second run in this process begin a log of its own."""
    logger = logging.getLogger("basicsr")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
