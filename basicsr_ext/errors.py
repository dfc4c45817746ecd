"""What the user got wrong, said once and clearly."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

__all__ = ["InputError", "Interrupted", "NonFiniteLoss", "UnknownName", "did_you_mean", "raise_nonfinite"]


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
    """A loss became NaN or infinite; names iteration, learning rate and the newest checkpoint."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """List the known names, the nearest to ``name`` first: ``'did you mean a? known: a, b, c'``."""
    names = sorted(set(known))
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
    listing = "known: " + ", ".join(near + [n for n in names if n not in near])
    return f"did you mean {near[0]}? {listing}" if near else listing


def raise_nonfinite(model: Any, losses: Mapping[str, float], iteration: int) -> NoReturn:
    """Stop a run whose loss is no longer a number.

    Args:
        model: A BasicSR model; its learning rate and its checkpoint folder enter the message.
        losses: Losses by name; those that are NaN or infinite are listed.
        iteration: The iteration at which the loss went bad.

    Raises:
        NonFiniteLoss: Always.

    """
    from basicsr_ext.checkpoint import newest_checkpoint  # imports torch, which an error message rarely needs

    bad = ", ".join(f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value))
    rates = ", ".join(f"{group['lr']:.3e}" for optimizer in model.optimizers for group in optimizer.param_groups)
    newest = newest_checkpoint(model.opt)
    raise NonFiniteLoss(
        f"training stopped at iteration {iteration}, learning rate {rates or 'unknown'}: "
        f"{bad or 'a loss is NaN or infinite'}. "
        + (f"The newest checkpoint is {newest}. " if newest else "There is no checkpoint yet. ")
        + "Nothing was saved since; lower the learning rate or look for bad images, then start again"
        + (" with --auto_resume" if newest else "")
    )
