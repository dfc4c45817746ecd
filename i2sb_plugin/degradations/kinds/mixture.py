"""One of the release's nine degradations for every image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch

from basicsr_ext.common.errors import InputError
from i2sb_plugin.degradations.base import DEGRADATIONS, Degradation, Degraded, build_degradation
from i2sb_plugin.degradations.draws import draw_index, draw_normal, each_image

__all__ = ["Mixture"]

COUNT = 9


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
