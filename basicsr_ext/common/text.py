"""Words for messages."""

import argparse
from collections.abc import Iterable


def path_text(text: str) -> str:
    """A path on the command line; an empty one, as an empty variable of the shell gives it, is refused."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; give a path, such as . for the current folder")
    return text


def listed(names: Iterable[object], most: int = 3) -> str:
    """The first ``most`` names, and how many there are besides: ``a, b, c and 4 more``."""
    words = [str(name) for name in names]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
