"""Words for messages."""

from collections.abc import Iterable


def listed(names: Iterable[object], most: int = 3) -> str:
    """The first ``most`` names, and how many there are besides: ``a, b, c and 4 more``."""
    words = [str(name) for name in names]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
