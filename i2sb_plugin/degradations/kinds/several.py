"""Several degradations: one after another, or one of the release's nine for every image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Literal

import torch
from torch.nn import functional as F

from basicsr_ext.common.errors import InputError, did_you_mean
from i2sb_plugin.degradations.base import DEGRADATIONS, Degradation, Degraded, build_degradation
from i2sb_plugin.degradations.draws import draw_index, draw_normal, draw_uniform, each_image

__all__ = ["Composition", "Mixture"]

ORDERS = ("given", "shuffled")
COUNT = 9  # the release's degradations


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


@DEGRADATIONS.register("mixture")
@dataclass(frozen=True)
class Mixture:
    """The nine of I2SB (2302.05872) by turns: JPEG 5 and 10, both released blurs, both reductions, three inpaintings.

    All results have the size of the image: the reductions are enlarged again by repetition. Holes are filled with
    N(0,1) of the scale [-1,1], so ``lq`` leaves [0,1] there, and no mask is given: the network has to find the hole.
    ``masks`` is Palette's file or a folder, as for ``inpaint_freeform``; without it strokes are drawn.
    ``honest_blur`` takes true blurs (uniform of 9 pixels, Gaussian of sigma 10 cut to 5 pixels) for the released
    ones, which break ties as ``stable`` says;
    ``index`` fixes the choice: number ``index`` modulo 9. Raises InputError as the nine do (sides divisible by 4).

    Attributes:
        masks: Palette's .npz file, or a folder of mask images; None draws brush strokes.
        mask_size: side of the masks in the file, in pixels.
        honest_blur: true blurs, uniform of 9 pixels and Gaussian of sigma 10 cut to 5, for the released ones.
        stable: how the released blurs break ties, see blur_released_uniform.
        index: take number ``index`` modulo 9; None draws one for every image.

    """

    masks: str | None = None
    mask_size: int = 256
    honest_blur: bool = False
    stable: bool = True
    index: int | None = None
    refuses_data: ClassVar[str] = "two of its nine are JPEG; list those that are meant in compose"
    scale: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for number in (7, 8):
            self._member(number)

    def at(self, index: int) -> Mixture:
        """Return the degradation of the validation image ``index``: type and mask have the number index modulo 9."""
        return replace(self, index=index)

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Degrade C,H,W, or every image of B,C,H,W by its own choice."""
        return each_image(self._degrade, image, generator)

    def _degrade(self, image: torch.Tensor, generator: torch.Generator | None) -> Degraded:
        number = draw_index(COUNT, generator) if self.index is None else self.index % COUNT
        member = self._member(number)
        if self.index is not None and hasattr(member, "at"):
            member = member.at(number)
        lq, mask = member(image, generator)
        if mask is not None:
            lq = torch.where(mask.bool(), (draw_normal(image, generator) + 1) / 2, image)
        if member.scale > 1:
            lq = lq.repeat_interleave(member.scale, -1).repeat_interleave(member.scale, -2)
        return Degraded(lq)

    def _member(self, number: int) -> Degradation:
        return _nine(self.masks, self.mask_size, self.honest_blur, self.stable)[number]


@lru_cache(maxsize=8)
def _nine(masks: str | None, mask_size: int, honest_blur: bool, stable: bool) -> tuple[Degradation, ...]:
    if masks is not None and not isinstance(masks, str):
        raise InputError(f"degradation.masks is {masks!r}; give the path of an .npz file or a folder")
    freeform = {"type": "inpaint_freeform", "masks": masks, "mask_size": mask_size}
    uniform, gauss = ({"type": f"blur_released_{kind}", "stable": stable} for kind in ("uniform", "gauss"))
    if honest_blur:
        uniform, gauss = {"type": "blur_uniform", "size": 9}, {"type": "blur_gauss", "sigma": 10.0, "size": 5}
    options = (
        {"type": "jpeg", "quality": 5},
        {"type": "jpeg", "quality": 10},
        uniform,
        gauss,
        {"type": "sr4x_pool"},
        {"type": "sr4x_bicubic"},
        {"type": "inpaint_center"},
        {**freeform, "area": (0.1, 0.2)},
        {**freeform, "area": (0.2, 0.3)},
    )
    return tuple(build_degradation(option) for option in options)
