"""The flags that a model brings to a command: ``restore_flags`` of its contract."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from basicsr_ext.common.contracts import Flags
from basicsr_ext.common.errors import InputError, did_you_mean
from basicsr_ext.options.file import parse_value


def read_flags(known: Flags, rest: Sequence[str], shared: argparse.ArgumentParser) -> dict[str, Any]:
    """Read ``rest``, which ``shared`` left over: text as it is, everything else as in an option file."""
    parser = argparse.ArgumentParser(prog=shared.prog, add_help=False, allow_abbrev=False)
    for name in known:
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS)
    given, strange = parser.parse_known_args(rest)
    if strange:
        names = [*(f"--{name}" for name in known), *options_of(shared)]
        raise InputError(f"{strange[0]} is no flag of restoring with this model; {did_you_mean(strange[0], names)}")
    texts = vars(given)
    return {name: texts[name] if known[name][0] is str else parse_value(texts[name], f"--{name}") for name in texts}


def options_of(parser: argparse.ArgumentParser) -> Iterable[str]:
    """The options of a parser, as they are written."""
    return (text for action in parser._actions for text in action.option_strings)
