"""Put things that are alike together, such as images of one size that a network takes at once."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch

_Thing = TypeVar("_Thing")


def in_groups(
    things: Iterable[_Thing], alike: Callable[[_Thing], Hashable], size: int, most: int | None = None
) -> Iterator[list[_Thing]]:
    """Groups of at most ``size`` things for which ``alike`` is equal, in their order; each thing is in one group.

    Things are taken as they are needed: up to ``most`` wait for their like, then the largest group goes; None for
    three times ``size``.
    """
    most = 3 * size if most is None else most
    waiting: dict[Hashable, list[_Thing]] = {}
    for thing in things:
        key = alike(thing)
        group = waiting.setdefault(key, [])
        group.append(thing)
        if len(group) == size or sum(map(len, waiting.values())) > most:
            yield waiting.pop(max(waiting, key=lambda key: len(waiting[key])))
    yield from waiting.values()


def shapes_of(item: Mapping[str, Any], keys: Iterable[str] | None = None) -> tuple:
    """Names and shapes of the tensors of an item of a data set, or of those among ``keys``."""
    chosen = sorted(item if keys is None else set(keys) & set(item))
    return tuple((key, item[key].shape) for key in chosen if torch.is_tensor(item[key]))
