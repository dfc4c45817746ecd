"""Several degradations one after another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch.nn import functional as F

from basicsr_ext.common.errors import InputError, did_you_mean
from i2sb_plugin.degradations.base import DEGRADATIONS, Degradation, Degraded, build_degradation
from i2sb_plugin.degradations.draws import draw_index, draw_uniform, each_image

__all__ = ["Composition"]

ORDERS = ("given", "shuffled")


@DEGRADATIONS.register("compose")
@dataclass(frozen=True)
class Composition:
    """Applies the degradations ``of`` (blocks with ``type``), in the order given or shuffled anew for every image.

    ``probabilities``: one for each, that it is applied at all (1 if left out); a member that reduces the size must have
    1, and the scale is the product of all. Holes add up; ``mask`` is there if any member makes one, 0 where it did not.
    Raises InputError naming the member.

    Attributes:
        of: degradation blocks, each with its type.
        order: the one in which they are given, or shuffled anew for every image.
        probabilities: that each is applied at all; None for 1. One that reduces the size must have 1.

    """

    of: tuple[Mapping[str, Any], ...] = field(metadata={"blocks": DEGRADATIONS})
    order: Literal["given", "shuffled"] = "given"
    probabilities: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise InputError(f"degradation.order is {self.order!r}; {did_you_mean(self.order, ORDERS)}")
        if not self.of:
            raise InputError("degradation.of is empty; list degradations, each with its type")
        chances = self._chances
        if len(chances) != len(self.of) or not all(0 <= chance <= 1 for chance in chances):
            raise InputError(
                f"degradation.probabilities is {list(chances)}; give {len(self.of)} numbers from 0 to 1, "
                "one for each member of degradation.of"
            )
        for number, (member, chance) in enumerate(zip(self.members, chances)):
            if member.scale > 1 and chance < 1:
                raise InputError(
                    f"degradation.probabilities[{number}] is {chance}, but {self.of[number]['type']} "
                    "changes the size, which must be the same for all images; set it to 1"
                )

    @cached_property
    def members(self) -> tuple[Degradation, ...]:
        """The degradations, built."""
        built = []
        for number, options in enumerate(self.of):
            try:
                built.append(build_degradation(options))
            except InputError as error:
                raise InputError(f"degradation.of[{number}]: {error}") from None
        return tuple(built)

    @property
    def scale(self) -> int:
        """Product of the members' scales."""
        return math.prod(member.scale for member in self.members)

    @property
    def makes_mask(self) -> bool:
        """Whether any member makes a mask."""
        return any(getattr(member, "makes_mask", False) for member in self.members)

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Degrade C,H,W, or every image of B,C,H,W with its own order and choice."""
        return each_image(self._degrade, image, generator)

    def _degrade(self, image: torch.Tensor, generator: torch.Generator | None) -> Degraded:
        mask = image.new_zeros(1, *image.shape[-2:])
        for number in self._drawn_order(generator):
            member, chance = self.members[number], self._chances[number]
            if chance < 1 and draw_uniform(generator) >= chance:
                continue
            image, hole = member(image, generator)
            if member.scale > 1:
                mask = F.max_pool2d(mask, member.scale)
            if hole is not None:
                mask = torch.maximum(mask, hole)
        return Degraded(image, mask if self.makes_mask else None)

    def _drawn_order(self, generator: torch.Generator | None) -> list[int]:
        order = list(range(len(self.members)))
        if self.order == "shuffled":
            for last in range(len(order) - 1, 0, -1):
                other = draw_index(last + 1, generator)
                order[last], order[other] = order[other], order[last]
        return order

    @property
    def _chances(self) -> tuple[float, ...]:
        return (1.0,) * len(self.of) if self.probabilities is None else self.probabilities
