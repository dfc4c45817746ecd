"""What the user got wrong, said once and clearly."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input of the user: the command prints the message alone and exits with code 2.

    The message names the option or the file, the value received, the values allowed and the cure.
    """


class UnknownName(InputError, KeyError):
    """A name that no registry entry has; also a ``KeyError``, as BasicSR raises it."""

    __str__ = Exception.__str__


class Interrupted(KeyboardInterrupt):
    """A signal stopped a training run between two iterations; its state is saved."""


class NonFiniteLoss(RuntimeError):
    """A loss or a gradient became NaN or infinite; names iteration, learning rate and the newest checkpoint."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """List the known names, the nearest to ``name`` first: ``'did you mean a? known: a, b, c'``."""
    names = sorted(set(known))
    if not names:
        return "none is known here"
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
    listing = "known: " + ", ".join(near + [n for n in names if n not in near])
    return f"did you mean {near[0]}? {listing}" if near else listing
