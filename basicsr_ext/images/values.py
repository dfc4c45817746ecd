"""What the numbers of data mean that are no pictures: their kind, and the interval that a network sees as [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.option_blocks import read_block

DISPLAYED = 255.0  # what the upper end of the interval is to metrics, as the white of a picture
_DEVIATIONS = 2  # the interval of mean and std: so many on either side, so that the bridge sees a std of 0.5
_IN_FILES = {"key", "axes"}  # fields that say where numbers lie, which a network does not see
_HOW = "give one of range: [lo, hi], mean and std, or percentiles: [1, 99]"

Numbers = float | tuple[float, ...]  # one for all channels, or one for each


@dataclass(frozen=True)
class Values:
    """The block ``data:`` of images that are arrays of numbers, stored with the network; without it they are pictures.

    Attributes:
        dtype: kind of the numbers in every file, and in every result.
        range: smallest and largest number there is, [lo, hi]; others are refused in files and cut off in results.
        mean: of the numbers, one or one for each channel; with ``std`` the network sees the mean as the middle.
        std: standard deviation of the numbers, one or one for each channel.
        percentiles: two numbers from 0 to 100, such as [1, 99]: the interval of each channel lies between these
            percentiles of the training set's clean images, measured once, when training starts.
        low: lower end of each channel's interval, which the training measured; belongs to ``percentiles``.
        high: upper end of each channel's interval, as ``low``.
        axes: order in arrays of three axes: HWC (channels last) or CHW.
        key: name of the array in ``.npz`` files of several.
    """

    dtype: Literal["uint8", "uint16", "int16", "int32", "float16", "float32", "float64"] = "float32"
    range: tuple[float, float] | None = None
    mean: Numbers | None = None
    std: Numbers | None = None
    percentiles: tuple[float, float] | None = None
    low: Numbers | None = None
    high: Numbers | None = None
    axes: Literal["HWC", "CHW"] = "HWC"
    key: str | None = None

    def __post_init__(self) -> None:
        chosen = [name for name in ("range", "mean", "percentiles") if vars(self)[name] is not None]
        if len(chosen) != 1 or (self.mean is None) != (self.std is None):
            given = [name for name in ("range", "mean", "std", "percentiles") if vars(self)[name] is not None]
            raise ValueError(f"it has {' and '.join(given) or 'nothing to normalise by'}; {_HOW}")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range is {list(self.range)}; the first number must be below the second")
        if self.std is not None and not all(number > 0 for number in _each(self.std)):
            raise ValueError(f"std is {self.std}; it must be above 0 in every channel")
        if self.percentiles is not None and not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles is {list(self.percentiles)}; give two numbers that rise, from 0 to 100")
        if (self.low is None) != (self.high is None) or (self.low is not None and self.percentiles is None):
            raise ValueError("low and high are what a training measures for percentiles; give both of them, or none")
        for one, other in (("mean", "std"), ("low", "high")):
            counts = [len(_each(vars(self)[name])) for name in (one, other) if vars(self)[name] is not None]
            if len({*counts} - {1}) > 1:
                raise ValueError(f"{one} has {counts[0]} numbers and {other} {counts[1]}; give one for each channel")
        if self.low is not None and self.high is not None and not np.all(_row(self.low) < _row(self.high)):
            raise ValueError(f"low is {self.low} and high {self.high}; low must be below high in every channel")

    @property
    def kind(self) -> np.dtype:
        """NumPy's kind of the numbers in files."""
        return np.dtype(self.dtype)

    @property
    def bounded(self) -> bool:
        """Whether there are no numbers outside of the interval."""
        return self.range is not None

    @property
    def measured(self) -> bool:
        """Whether the interval is known: percentiles have to be measured first."""
        return self.percentiles is None or self.low is not None

    def interval(self, channels: int) -> tuple[np.ndarray, np.ndarray]:
        """Both ends of the interval for each of so many channels, float64; InputError if they are of other channels."""
        if self.range is not None:
            low, high = (np.full(1, end) for end in self.range)
            name = "range"
        elif self.mean is not None and self.std is not None:
            low, high = (_row(self.mean) + sign * _DEVIATIONS * _row(self.std) for sign in (-1, 1))
            name = "mean and std"
        elif self.low is not None and self.high is not None:
            low, high, name = _row(self.low), _row(self.high), "low and high"
        else:
            raise InputError("data.percentiles: low and high are not measured yet; `basicsr train` measures them")
        if max(len(low), len(high)) not in (1, channels):
            count = max(len(low), len(high))
            raise InputError(f"data: {name} are of {count} channels, but the images have {channels}; give {channels}")
        return np.broadcast_to(low, channels), np.broadcast_to(high, channels)

    def check(self, numbers: np.ndarray, path: str) -> None:
        """InputError naming ``path`` if there is a number that is not finite, or not within ``range``."""
        least, most = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 0.0)
        if not np.isfinite(least) or not np.isfinite(most):
            wrong = np.argwhere(~np.isfinite(numbers))
            where = ", ".join(map(str, wrong[0]))
            said = f"{path}: holds {len(wrong):,} number(s) that are NaN or infinite, the first at [{where}]"
            raise InputError(f"{said}; mend it, or take it out")
        if self.range is not None and not self._allows(least, most):
            said = f"{path}: holds numbers from {least:g} to {most:g}, but data.range is {list(self.range)}"
            raise InputError(f"{said}; widen the range, take the file out, or give mean and std, which are no bounds")

    def _allows(self, least: float, most: float) -> bool:
        low, high = self.range or (least, most)
        if self.kind.kind == "f":  # whose nearest number to an end may lie beyond it
            with np.errstate(over="ignore"):
                low, high = min(low, float(self.kind.type(low))), max(high, float(self.kind.type(high)))
        return low <= least and most <= high

    def to_unit(self, numbers: np.ndarray) -> Tensor:
        """H,W,C as files hold it to C,H,W float32, the interval becoming [0, 1]."""
        low, high = self.interval(numbers.shape[2])
        planes = np.moveaxis((numbers.astype(np.float64) - low) / (high - low), 2, 0)
        return torch.from_numpy(np.ascontiguousarray(planes, np.float32))

    def numbers(self, planes: Tensor) -> Tensor:
        """C,H,W on the scale of :meth:`to_unit` to the numbers that they stand for, float64; cut off at ``range``."""
        unit = planes.detach().cpu().double()
        low, high = (torch.tensor(ends)[:, None, None] for ends in self.interval(len(unit)))
        return low + (unit.clamp(0, 1) if self.bounded else unit) * (high - low)

    def from_unit(self, planes: Tensor) -> np.ndarray:
        """C,H,W on the scale of :meth:`to_unit` to H,W,C as files hold it: rounded and cut where the kind has to be."""
        numbers = self.numbers(planes).permute(1, 2, 0).numpy()
        limits = np.iinfo(self.kind) if self.kind.kind in "iu" else np.finfo(self.kind)
        if self.kind.kind in "iu":
            numbers = np.rint(numbers)
        return np.ascontiguousarray(numbers.clip(float(limits.min), float(limits.max)).astype(self.kind))

    def to_measure(self, numbers: np.ndarray) -> np.ndarray:
        """H,W,C as files hold it to float64 whose interval is 0 to :data:`DISPLAYED`, for metrics of pictures."""
        low, high = self.interval(numbers.shape[2])
        return (numbers.astype(np.float64) - low) / (high - low) * DISPLAYED


def _each(numbers: Numbers) -> tuple[float, ...]:
    return numbers if isinstance(numbers, tuple) else (numbers,)


def _row(numbers: Numbers) -> np.ndarray:
    return np.array(_each(numbers), np.float64)


def difference(ours: Values | None, its: Values | None) -> str | None:
    """What a network was trained on, and what the options say instead; None where they mean the same numbers.

    ``its`` are the network's own values; what it measured may be missing in ``ours``.
    """
    cure = "give the block that it was trained with"
    if ours is None or its is None:
        if ours is its:
            return None
        if its is None:
            return "pictures, but data is given; leave that block out, or train on data"
        return f"{its.dtype} data, but the options have no block data: its images are no pictures; {cure}"
    for field in fields(Values):
        one, other = vars(ours)[field.name], vars(its)[field.name]
        missing = field.name in ("low", "high") and one is None
        if field.name not in _IN_FILES and one != other and not missing:
            return f"data.{field.name} {_shown(other)}, but the options say {_shown(one)}; {cure}"
    return None


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(list(value) if isinstance(value, tuple) else value)


def values_of(block: Any, where: str = "data") -> Values | None:
    """The values that a block ``data`` of options describes, None for pictures; InputError if it is wrong.

    ``block`` are options that may hold one, or a data set's.
    """
    given = block.get("data") if isinstance(block, Mapping) else None
    if isinstance(given, Values):
        return given
    return read_block(Values, given, where) if given else None
