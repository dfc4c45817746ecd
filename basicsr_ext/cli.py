"""The command ``basicsr``: train, test, restore, check, prepare, export, list, doctor, benchmark, report, plugins'."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata

# Importing the package makes `import basicsr` work, in spawned workers too; torch is imported by what needs it.
from basicsr_ext.common.errors import InputError, Interrupted, NonFiniteLoss
from basicsr_ext.processes.launch import is_main_process, rank_of_process

__all__ = ["COMMANDS", "GROUP", "Command", "main"]

ONLY_HERE = 3  # seconds after which a fault that ends a rank before it met the others is taken for its own
GROUP = "basicsr.commands"  # entry points of plugins: name of the sub-command = module:function(rest) -> exit code


@dataclass(frozen=True)
class Command:
    """One sub-command: its line in ``--help`` and what runs it with the remaining arguments; returns the exit code."""

    help: str
    run: Callable[[list[str]], int]


@contextmanager
def _arguments(program: str, rest: Sequence[str]) -> Iterator[None]:
    """Let BasicSR's pipelines, which read ``sys.argv``, see the arguments of one sub-command."""
    before = sys.argv
    sys.argv = [program, *rest]
    try:
        yield
    finally:
        sys.argv = before


def _train(rest: list[str]) -> int:
    return _with_other_ranks(lambda: _pipeline("train", rest))


def _test(rest: list[str]) -> int:
    return _with_other_ranks(lambda: _pipeline("test", rest))


def _with_other_ranks(run: Callable[[], int]) -> int:
    """Run what several processes may do together; the fault of one is told once, by the one that has it."""
    try:
        code = run()
        _leave_process_group()
        return code
    except Exception as error:
        from basicsr_ext.processes import collectives, lifeline

        if collectives.world_size() == 1:
            raise
        return lifeline.failed(error, *_verdict(error))


def _verdict(error: Exception) -> tuple[str | None, int]:
    """What to tell the user (None: the traceback), and the exit code."""
    if isinstance(error, InputError):
        return _plain(error), 2
    return (str(error), 3) if isinstance(error, NonFiniteLoss) else (None, 1)


def _pipeline(name: str, rest: list[str]) -> int:
    from basicsr_ext.options.resolve import add_arguments

    parser = argparse.ArgumentParser(prog=f"basicsr {name}")
    add_arguments(parser)
    parser.parse_args(rest)  # wrong arguments and --help end here, before the toolkit is imported
    from basicsr_ext.common import folder_lock
    from basicsr_ext.repairs import imports

    imports.apply()
    from basicsr import test, train

    from basicsr_ext.training import memory_advice, signals

    run = train.train_pipeline if name == "train" else test.test_pipeline
    try:
        with _arguments(f"basicsr {name}", rest), signals.watch(), memory_advice.explained(name == "train"):
            run(os.getcwd())
    except Interrupted:
        _leave_process_group()
        raise
    finally:
        folder_lock.release_all()
        _close_log()
    return 0


def _leave_process_group() -> None:
    import torch.distributed as dist

    from basicsr_ext.processes import lifeline

    lifeline.end()
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _close_log() -> None:
    """Let a second run in this process begin a log of its own."""
    logger = logging.getLogger("basicsr")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def _check(rest: list[str]) -> int:
    from basicsr_ext.commands import check

    return check.run(rest)


def _restore(rest: list[str]) -> int:
    from basicsr_ext.commands import restore

    return _with_other_ranks(lambda: restore.run(rest))


def _prepare(rest: list[str]) -> int:
    from basicsr_ext.images.packing import pack

    return pack.run(rest)


def _export(rest: list[str]) -> int:
    from basicsr_ext.commands import export

    return export.run(rest)


def _list(rest: list[str]) -> int:
    from basicsr_ext.commands import list as listing

    return listing.run(rest)


def _doctor(rest: list[str]) -> int:
    from basicsr_ext.commands import doctor

    return doctor.run(rest)


def _benchmark(rest: list[str]) -> int:
    from basicsr_ext.commands import benchmark
    from basicsr_ext.common import folder_lock

    try:
        return _with_other_ranks(lambda: benchmark.run(rest))
    finally:
        folder_lock.release_all()


def _report(rest: list[str]) -> int:
    from basicsr_ext.commands import report

    return report.main(rest)


COMMANDS = {
    "train": Command("train a model by an option file", _train),
    "test": Command("restore and measure the test images (val ones for a training file)", _test),
    "restore": Command("restore pictures by a trained model", _restore),
    "check": Command("build everything and push one batch through; trains nothing", _check),
    "prepare": Command("pack a folder of images, cut into crops, for fast training", _prepare),
    "export": Command("put a trained network and its options into one file, to give away", _export),
    "list": Command("name everything that is registered, and who provides it", _list),
    "doctor": Command("show versions, device, repairs and plugins, and what is wrong", _doctor),
    "benchmark": Command("compare methods on data sets by metrics: tables, pictures, a page", _benchmark),
    "report": Command("compare finished tests in a table", _report),
}


def _commands() -> dict[str, Command]:
    """All commands; those of plugins are imported when they run, and can not take the place of one of ours."""
    known = dict(COMMANDS)
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name):
        owner = point.dist.name if point.dist else "a plugin"
        known.setdefault(point.name, Command(f"added by {owner}", _added(point)))
    return known


def _added(point: metadata.EntryPoint) -> Callable[[list[str]], int]:
    def run(rest: list[str]) -> int:
        try:
            command = point.load()
        except (ImportError, AttributeError) as error:
            raise InputError(f"{point.name}: {point.value} can not be loaded: {error}; repair its plugin") from error
        return benchmark(rest)

    return run


def _parser(known: dict[str, Command]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="basicsr", description="Train and test image restoration models.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in known.items():
        commands.add_parser(name, help=benchmark.help, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0 done, 1 something is wrong (``doctor``), 2 bad input, 3 the loss or the gradient became NaN or infinite, 75 a
    signal (SIGTERM, SIGINT) stopped a training run, whose complete state is saved (sysexits' "try again later"), 130
    interrupted with nothing saved. A second signal, and SIGTERM before the first iteration, end the process as the
    system does it (130 or 143). Other exceptions keep their traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    known = _commands()
    parsed, _ = _parser(known).parse_known_args(words[:1])
    try:
        return known[parsed.command].run(words[1:])
    except (InputError, NonFiniteLoss) as error:
        message, code = _verdict(error)
        if is_main_process():
            _say(f"error: {message}")
        else:  # most faults are those of every rank: rank 0 says them, and torchrun ends the others
            time.sleep(ONLY_HERE)
            print(f"error: rank {rank_of_process()}: {message}", file=sys.stderr, flush=True)
        return code
    except BrokenPipeError:  # the reader (head, say) has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Interrupted:  # the log has said what was saved
        return 75
    except KeyboardInterrupt:
        _say("interrupted")
        return 130


def _say(text: str) -> None:
    if is_main_process():
        print(text, file=sys.stderr, flush=True)


def _plain(error: Exception) -> str:
    """The message alone: a loader's worker wraps it into a traceback, whose last part is the message."""
    text = str(error)
    if "Traceback (most recent call last)" not in text:
        return text
    last = re.split(r"^(?:[\w.]+\.)?(?:InputError|UnknownName): ", text, flags=re.MULTILINE)[-1]
    return last.strip()


if __name__ == "__main__":
    sys.exit(main())
