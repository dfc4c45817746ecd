"""``basicsr completion``: a script by which a shell completes commands, flags and files."""

import argparse
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any

from basicsr_ext.commands.table import COMMANDS, all_commands
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import path_text

_SHELLS = ("bash", "zsh", "tcsh")
_PLACES = """where it goes:
  bash  basicsr completion bash > ~/.local/share/bash-completion/completions/basicsr
  zsh   basicsr completion zsh > FOLDER/_basicsr, a folder of $fpath
  tcsh  basicsr completion tcsh > FILE, and `source FILE` in ~/.tcshrc"""


class _Asked(BaseException):
    """Carries the parser of a command out of it, before it reads any argument."""


def run(rest: list[str]) -> int:
    """Print the script; InputError if the package shtab is missing."""
    description = "Print a script that completes commands, flags and files in a shell."
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="basicsr completion", description=description, epilog=_PLACES, formatter_class=raw
    )
    parser.add_argument("shell", choices=_SHELLS, help="bash, zsh or tcsh")
    args = parser.parse_args(rest)
    try:
        shtab: Any = import_module("shtab")
    except ImportError as error:
        raise InputError(f"completion needs the package shtab ({error}); run: pip install shtab") from error
    print(shtab.complete(_whole_parser(shtab.FILE), shell=args.shell))
    return 0


def _whole_parser(file: Any) -> argparse.ArgumentParser:
    """One parser of all commands; those of plugins by their names alone, since they may do anything when called."""
    whole = argparse.ArgumentParser(prog="basicsr")
    whole.add_argument("--version", action="store_true", help="show the versions, and end")
    commands = whole.add_subparsers(dest="command")
    for name, command in all_commands().items():
        own = [_parser_of(command.target)] if name in COMMANDS and name != "completion" else []
        for parser in own:
            for action in parser._actions:
                if action.type is path_text:
                    vars(action)["complete"] = file
        commands.add_parser(name, help=command.help, parents=own, add_help=False)
    return whole


def _parser_of(target: str) -> argparse.ArgumentParser:
    """The parser that a command of ours makes: the command is called, and ends where it would read its arguments."""
    run: Callable[[list[str]], int] = metadata.EntryPoint("", target, "").load()
    read = argparse.ArgumentParser.parse_known_args

    def ask(self: argparse.ArgumentParser, *_: Any, **__: Any) -> Any:
        raise _Asked(self)

    argparse.ArgumentParser.parse_known_args = ask  # type: ignore[method-assign]
    try:
        run([])
    except _Asked as asked:
        return asked.args[0]
    finally:
        argparse.ArgumentParser.parse_known_args = read  # type: ignore[method-assign]
    raise TypeError(f"{target} reads no arguments")
