"""Portable anymaps: PBM, PGM, PPM and PAM, as text or binary, of any largest value up to 65535."""

import math
import re
from typing import NamedTuple

import numpy as np

LONGEST_HEAD = 4096  # bytes, comments included
_GAP = rb"(?:\s|#[^\n]*\n)+"
# Kind (1 and 4 have no largest value), width, height, largest value
_ANYMAP = re.compile(rb"P([14]|([2356]))%b(\d{1,18})%b(\d{1,18})(?(2)%b(\d{1,5}))(?:\r\n|\s)" % (_GAP, _GAP, _GAP))
_PAM_LINE = re.compile(rb"(\w+) +(\w+)\s*")


class Layout(NamedTuple):
    """How the values of a portable anymap are stored; ``kind`` is 1 to 7, ``start`` where they begin."""

    kind: int
    width: int
    height: int
    channels: int
    largest: int
    start: int

    @property
    def bits(self) -> int:
        """Of the values once they are scaled to the full range, 8 or 16."""
        return 16 if self.largest > 255 else 8

    @property
    def bytes_needed(self) -> int:
        """Of binary values; an ASCII one takes two at least, but those of P1 one."""
        if self.kind == 4:
            return -(-self.width // 8) * self.height
        count = self.width * self.height * self.channels
        return count if self.kind == 1 else 2 * count - 1 if self.kind < 4 else count * (1 + (self.largest > 255))


def layout_of(head: bytes) -> Layout | None:
    """How a portable anymap is stored, from its first bytes; None if its header is damaged."""
    if head.startswith(b"P7"):
        text, mark, _ = head.partition(b"ENDHDR\n")
        said = {m[1]: m[2] for m in map(_PAM_LINE.fullmatch, text.splitlines()) if m}
        width, height, channels, largest = (int(said[key]) for key in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
        layout = Layout(7, width, height, channels, largest, len(text) + len(mark))
    elif match := _ANYMAP.match(head):
        kind, width, height, largest = (int(match[group] or 1) for group in (1, 3, 4, 5))
        layout = Layout(kind, width, height, 3 if kind in (3, 6) else 1, largest, match.end())
    else:
        return None
    return layout if 0 < layout.largest < 1 << 16 and 1 <= layout.channels <= 4 else None


def values_of(data: bytes) -> np.ndarray:
    """Read H,W,C of uint8 or uint16, scaled to the full range; ValueError if one is damaged, missing or too large."""
    layout = layout_of(data[:LONGEST_HEAD])
    if layout is None:
        raise ValueError("the header is damaged")
    shape = layout.height, layout.width, layout.channels
    count, body = math.prod(shape), memoryview(data)[layout.start : layout.start + layout.bytes_needed]
    if layout.kind == 1:
        values = np.array([int(digit) for digit in re.findall(rb"[01]", data[layout.start :])[:count]])
    elif layout.kind < 4:
        text = re.sub(rb"#[^\n]*", b"", data[layout.start :])
        values = np.array(text.split(None, count)[:count], np.int64)
    elif layout.kind == 4:
        rows = np.frombuffer(body, np.uint8).reshape(layout.height, -1)
        values = np.unpackbits(rows, axis=1)[:, : layout.width]
    else:
        values = np.frombuffer(body, np.uint8 if layout.largest < 256 else ">u2")
    values = 1 - values if layout.kind in (1, 4) else values
    if values.size and values.min() < 0:
        raise ValueError(f"a value is {values.min()}, below 0")
    if values.size and values.max() > layout.largest:
        raise ValueError(f"a value is {values.max()}, above the largest, {layout.largest}")
    return scaled(values, layout.largest).reshape(shape)


def scaled(values: np.ndarray, largest: int) -> np.ndarray:
    """Whole numbers up to ``largest`` as uint8 or, if that is above 255, uint16 of the full range."""
    bits = 16 if largest > 255 else 8
    full = (1 << bits) - 1
    if largest != full:
        values = (values.astype(np.uint32) * full + largest // 2) // largest
    return values.astype(f"uint{bits}")
