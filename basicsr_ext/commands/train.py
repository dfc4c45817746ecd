"""``basicsr train`` and ``basicsr test``: BasicSR's own pipelines, repaired and watched over."""

import argparse
import functools
import logging
import os
import sys

from basicsr_ext import repairs
from basicsr_ext.common import folder_lock
from basicsr_ext.common.errors import Interrupted
from basicsr_ext.options.arguments import add_arguments


def _pipeline(name: str, rest: list[str]) -> int:
    """Run one of BasicSR's pipelines by an option file; returns 1 if a test could not save or measure all, else 0."""
    parser = argparse.ArgumentParser(prog=f"basicsr {name}")
    add_arguments(parser)
    parser.parse_args(rest)  # wrong arguments and --help end here, before the toolkit is imported
    repairs.apply()
    import basicsr.test
    import basicsr.train

    from basicsr_ext.processes import collectives, group
    from basicsr_ext.training import loop_state, memory

    pipeline = basicsr.train.train_pipeline if name == "train" else basicsr.test.test_pipeline
    before, sys.argv = sys.argv, [f"basicsr {name}", *rest]  # which the pipelines read
    try:
        with loop_state.watched_run() as run, memory.explained(run, name == "train"):
            pipeline(os.getcwd())
            unmeasured = run.unmeasured
            unsaved: list[str] = sum(collectives.gather_objects(run.unsaved), [])
        if unsaved and name == "test":
            if collectives.is_main():
                print(f"{len(unsaved)} result(s) could not be saved", file=sys.stderr)
            return 1
        return int(name == "test" and unmeasured)
    except Interrupted:
        group.leave()
        raise
    finally:
        sys.argv = before
        folder_lock.release_all()
        logger = logging.getLogger("basicsr")
        for handler in list(logger.handlers):  # so that a second run in this process begins a log of its own
            logger.removeHandler(handler)
            handler.close()


train = functools.partial(_pipeline, "train")  # by an option file
test = functools.partial(_pipeline, "test")  # restore and measure by an option file
