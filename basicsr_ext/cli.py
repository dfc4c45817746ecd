"""The command ``basicsr``: its sub-commands, those of plugins among them, its version and its exit codes."""

import argparse
import errno
import io
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

# Importing the package makes `import basicsr` work, in spawned workers too; torch is imported by what needs it.
from basicsr_ext.commands.table import COMMANDS, GROUP, Command, all_commands
from basicsr_ext.common.errors import InputError, Interrupted, NonFiniteLoss, did_you_mean
from basicsr_ext.common.versions import versions_of
from basicsr_ext.processes.launch import rank_of_process

ONLY_HERE = 3  # seconds after which a fault that ends a rank before it met the others is taken for its own


_SYSTEM = {  # what the system refuses -> what to do
    errno.EMFILE: "raise the limit of open files, such as ulimit -n 4096",
    errno.ENFILE: "end other programs: the machine has too many open files",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "ask for the right to it, or choose another place"),
    errno.EROFS: "choose another place",
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, or choose another place"),
    errno.ENAMETOOLONG: "choose a shorter name",
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST), "correct the path"),
    errno.ELOOP: "correct the link",
}


def _run(name: str, command: Command, rest: list[str]) -> int:
    try:
        run = metadata.EntryPoint(name, command.target, GROUP).load()
    except (ImportError, AttributeError) as error:
        if name in COMMANDS:
            raise
        raise InputError(f"{name}: {command.target} cannot be loaded: {error}; repair its plugin") from error
    return _with_other_ranks(run, rest) if command.shared else run(rest)


def _with_other_ranks(run: Callable[[list[str]], int], rest: list[str]) -> int:
    """Run what several processes may do together; the fault of one is told once, by the one that has it."""
    try:
        code = run(rest)
        from basicsr_ext.processes import group

        group.leave()
        return code
    except Exception as error:
        if "torch" not in sys.modules:  # no group without it
            raise
        from basicsr_ext.processes import collectives, lifeline

        if collectives.world_size() == 1:
            raise
        return lifeline.failed(error, *_verdict(error))


def _verdict(error: Exception) -> tuple[str | None, int]:
    """What to tell the user (None: the traceback), and the exit code."""
    if isinstance(error, InputError):
        return _plain(error), 2
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; {_SYSTEM[error.errno]}", 2
    return (str(error), 3) if isinstance(error, NonFiniteLoss) else (None, 1)


def _command(words: Sequence[str], known: dict[str, Command]) -> str:
    """The name of the command that the first word is; ends the process, with usage, where it is none."""
    parser = argparse.ArgumentParser(prog="basicsr", description="Train and test image restoration models.")
    parser.add_argument("--version", action="version", version=_versions() if "--version" in words else "")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in known.items():
        commands.add_parser(name, help=command.help, add_help=False)
    for word in words:
        if word not in known and not word.startswith("-"):
            parser.error(f"there is no command {word}; {did_you_mean(word, known)}")
    return parser.parse_known_args(words)[0].command


def _versions() -> str:
    """What is installed, on one line, and nothing of it imported."""
    found = versions_of(("basicsr-i2sb", "basicsr", "torch"))
    return ", ".join(f"{name} {version}" for name, version in reversed(found.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0 done, 1 something is wrong (``doctor``), 2 bad input, 3 the loss or the gradient became NaN or infinite, 75 a
    signal (SIGTERM, SIGINT) stopped a training run, whose complete state is saved (sysexits' "try again later"), 130
    interrupted with nothing saved. A second signal, and SIGTERM before the first iteration, end the process as the
    system does it (130 or 143). Other exceptions keep their traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if any(option.startswith("error") for option in sys.warnoptions):  # the libraries warn, and so could not be used
        warnings.simplefilter("default")
    _open_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no UTF-8, a terminal know ASCII alone
    known = all_commands()
    name = _command(words[:1], known)
    try:
        _check_folder()
        return _run(name, known[name], words[1:])
    except BrokenPipeError:  # the reader (head, say) has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (InputError, NonFiniteLoss, OSError) as error:
        message, code = _verdict(error)
        if message is None:
            raise
        rank = rank_of_process()
        if rank:  # most faults are those of every rank: rank 0 says them, and torchrun ends the others
            time.sleep(ONLY_HERE)
        print(f"error: rank {rank}: {message}" if rank else f"error: {message}", file=sys.stderr, flush=True)
        return code
    except Interrupted:  # the log has said what was saved
        return 75
    except KeyboardInterrupt:
        if not rank_of_process():
            print("interrupted", file=sys.stderr, flush=True)
        return 130


def _open_streams() -> None:
    """Let what is written to a stream that was closed at the start go nowhere, and not into the next file opened."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # by descriptor, each the lowest free one
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def _check_folder() -> None:
    try:
        os.getcwd()
    except OSError as error:  # torch's libraries would end the process
        raise InputError(f"the current folder is gone or forbidden ({error.strerror}); change to another") from error


def _plain(error: Exception) -> str:
    """The message alone: a loader's worker wraps it into a traceback, whose last part is the message."""
    text = str(error)
    if "Traceback (most recent call last)" not in text:
        return text
    return re.split(r"^(?:[\w.]+\.)?(?:InputError|UnknownName): ", text, flags=re.MULTILINE)[-1].strip()


if __name__ == "__main__":
    sys.exit(main())
