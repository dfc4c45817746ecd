"""JSON that every reader takes: it has no NaN and no infinity."""

import json
import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any, as_text: bool = False) -> Any:
    """A copy of nested dicts and lists in which NaN and infinities are None, or ``"nan"`` and ``"inf"`` as text."""
    if isinstance(value, Mapping):
        return {key: finite(item, as_text) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item, as_text) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value)) if as_text else None
    return value


def json_text(value: Any) -> str:
    """JSON for a file: indented by 1, letters as they are, ending with a line; see :func:`finite`."""
    return json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
