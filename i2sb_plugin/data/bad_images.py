"""Train on in spite of a few unreadable images: others stand in for them, up to a stated share."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from basicsr.utils.logger import get_root_logger

from basicsr_ext.common.errors import InputError

T = TypeVar("T")


def first_readable(load: Callable[[int], T], count: int) -> T:
    """Return the first of ``load(0)``, ``load(1)``, ... that raises no InputError: what is wrong comes to light later.

    Raises the error of ``load(0)`` where no one of the first hundred can be read.
    """
    first: InputError | None = None
    for index in range(min(count, 100)):
        try:
            return load(index)
        except InputError as error:
            first = first or error
    raise first or InputError("there are no images")


class BadImages:
    """The images that cannot be used, known to all worker processes; ``names`` are what to call each in a message.

    ``share`` of them, in [0, 1), may be unreadable; 0 lets the first one stop the run.
    """

    def __init__(self, share: float, names: Sequence[str]) -> None:
        self.share = share
        self._names = names if share else ()
        self._bad = torch.zeros(len(names), dtype=torch.bool).share_memory_() if share else None

    def readable(self, index: int, load: Callable[[int], T]) -> tuple[int, T]:
        """Return ``index`` and ``load(index)``, or those of the image that stands in where that raises InputError.

        Which one it is depends on the index alone, not on process or epoch, and the default generator is left alone.
        Raises InputError as ``load`` does where ``share`` is 0, or listing the bad ones where they are more than that.
        """
        if self._bad is None:
            return index, load(index)
        generator = torch.Generator().manual_seed(index)
        while True:
            if not self._bad[index]:
                try:
                    return index, load(index)
                except InputError as error:
                    self._take_note(self._bad, index, error)
            index = int(torch.randint(len(self._bad), (), generator=generator))

    def _take_note(self, known: torch.Tensor, index: int, error: InputError) -> None:
        known[index] = True
        bad = known.nonzero().flatten().tolist()
        get_root_logger().warning(f"skip_bad: another image stands in for one that cannot be used: {error}")
        if len(bad) > self.share * len(known):
            said = f"{len(bad)} of {len(known)} images cannot be used, more than skip_bad {self.share:g} allows"
            raise InputError(
                f"{said}: {', '.join(self._names[k] for k in bad)}; see `basicsr check --data`; replace or remove "
                "them, or raise skip_bad"
            )
