"""Random draws of degradations: one generator, image after image; and options that are a number or a range."""

from collections.abc import Callable
from typing import TypeVar

import torch

from basicsr_ext.common.errors import InputError
from i2sb_plugin.bridge import sent
from i2sb_plugin.degradations.base import Degraded, check_image

__all__ = ["Range", "check_range", "draw_from", "draw_index", "draw_normal", "draw_uniform", "each_image"]

Number = TypeVar("Number", int, float)
Range = float | tuple[float, float]


def check_range(value: Range | int | tuple[int, int], option: str, low: float, high: float, unit: str = "") -> None:
    """Raise InputError unless ``value`` is a number, or an ascending pair of numbers, from ``low`` to ``high``."""
    ends = value if isinstance(value, tuple) else (value, value)
    if len(ends) != 2 or not low <= ends[0] <= ends[1] <= high:
        shown = list(value) if isinstance(value, tuple) else value
        raise InputError(
            f"degradation.{option} is {shown}; give a number from {low:g} to {high:g}{unit}, "
            "or a range [smallest, largest] within it"
        )


def draw_from(value: Range, generator: torch.Generator | None) -> float:
    """Return the number ``value``, or draw one evenly from the range (smallest, largest)."""
    if not isinstance(value, tuple):
        return value
    low, high = value
    return low + (high - low) * draw_uniform(generator)


def draw_uniform(generator: torch.Generator | None) -> float:
    """Draw from [0, 1)."""
    return torch.rand((), generator=generator, device=_device(generator)).item()


def draw_index(count: int, generator: torch.Generator | None) -> int:
    """Draw one of 0 .. ``count`` - 1."""
    return int(torch.randint(count, (), generator=generator, device=_device(generator)))


def draw_normal(like: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Draw N(0,1) in the shape, type and place of ``like``: on the device of ``generator``, so CPU and GPU agree."""
    device = like.device if generator is None else generator.device
    noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=device)
    return noise if device == like.device else sent(noise, like.device)


def each_image(
    degrade: Callable[[torch.Tensor, torch.Generator | None], Degraded],
    image: torch.Tensor,
    generator: torch.Generator | None,
) -> Degraded:
    """Apply ``degrade`` to a C,H,W, or to the images of a B,C,H,W one after another, each with its own draws."""
    check_image(image)
    if image.ndim == 3:
        return degrade(image, generator)
    results = [degrade(one, generator) for one in image]
    masks = [result.mask for result in results if result.mask is not None]
    return Degraded(torch.stack([result.lq for result in results]), torch.stack(masks) if masks else None)


def _device(generator: torch.Generator | None) -> torch.device | str:
    return "cpu" if generator is None else generator.device
