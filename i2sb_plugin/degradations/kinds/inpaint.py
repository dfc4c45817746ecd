"""Holes to be filled: in the centre, free-form, or the user's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from basicsr_ext.common.errors import InputError
from i2sb_plugin.degradations.base import DEGRADATIONS, Degraded
from i2sb_plugin.degradations.draws import draw_index, each_image
from i2sb_plugin.degradations.masks import MaskFile, MaskFolder, draw_mask, load_masks

__all__ = ["CenterInpainting", "FreeformInpainting", "MaskInpainting"]

FILL = 1.0  # what the hole shows: white, as in the release; the bridge starts from noise there
_OWN_MASKS = "each image has its own mask: pass the mask that came with lq"


class _Inpainting:
    """Shared parts: ``lq`` is white in the hole, ``mask`` is 1 there (1,H,W; B,1,H,W for a batch), in lq's type."""

    scale: ClassVar[int] = 1
    linear: ClassVar[bool] = True
    makes_mask: ClassVar[bool] = True

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Cut a hole into C,H,W or into every image of B,C,H,W."""
        return each_image(self._degrade, image, generator)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Apply A: the image with 0 in the hole; lq is that with the hole filled."""
        return x * (1 - self._given(x, mask))

    def adjoint(
        self, y: torch.Tensor, size: tuple[int, int] | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Apply the transpose of A, which is A."""
        return self.forward(y, mask)

    def pseudo_inverse(
        self, y: torch.Tensor, size: tuple[int, int] | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Apply the pseudo-inverse of A, which is A: whatever fills the hole of y does not count."""
        return self.forward(y, mask)

    def _degrade(self, image: torch.Tensor, generator: torch.Generator | None) -> Degraded:
        mask = self._draw(image, generator)
        return Degraded(image.masked_fill(mask.bool(), FILL), mask)

    def _given(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if mask is None:
            raise InputError(f"{type(self).__name__}: {_OWN_MASKS}")
        return mask.to(x)

    def _draw(self, image: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        raise NotImplementedError


@DEGRADATIONS.register("inpaint_center")
@dataclass(frozen=True)
class CenterInpainting(_Inpainting):
    """A hole of half the height and half the width in the middle (I2SB, 2302.05872, "inpaint-center")."""

    def _draw(self, image: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        return self._given(image, None)

    def _given(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if mask is not None:
            return mask.to(x)
        height, width = x.shape[-2:]
        hole = x.new_zeros(1, height, width)
        hole[:, height // 4 : height // 4 + height // 2, width // 4 : width // 4 + width // 2] = 1
        return hole


class _FromStore(_Inpainting):
    """Shared parts of holes that come from files: ``index`` is the mask's number, or drawn if left out."""

    index: int | None
    masks: str | None

    def at(self, index: int) -> _FromStore:
        """Return the degradation of the validation image ``index``: it takes the mask of that number."""
        return replace(self, index=index)  # type: ignore[type-var]  # those that inherit are dataclasses

    def _from(
        self, store: MaskFile | MaskFolder, image: torch.Tensor, generator: torch.Generator | None, resize: bool = False
    ) -> torch.Tensor:
        number = draw_index(len(store), generator) if self.index is None else self.index % len(store)
        mask = torch.from_numpy(store.get(number)).to(image)[None]
        if mask.shape[-2:] == image.shape[-2:]:
            return mask
        if resize:
            return F.interpolate(mask[None], tuple(image.shape[-2:]), mode="nearest-exact")[0]
        cure = "crop the images to it, or" + (" set degradation.resize: true, or" if hasattr(self, "resize") else "")
        raise InputError(
            f"degradation.masks {self.masks}: mask {number} is {mask.shape[1]}x{mask.shape[2]} (height x width) "
            f"but the image is {image.shape[-2]}x{image.shape[-1]}; {cure} give masks of its size"
        )


@DEGRADATIONS.register("inpaint_freeform")
@dataclass(frozen=True)
class FreeformInpainting(_FromStore):
    """Holes of free form (I2SB, 2302.05872, "freeform"): ``area`` [0.1, 0.2] and [0.2, 0.3] are the paper's tasks.

    Without ``masks``, brush strokes are drawn anew for every image of any size; they cover a part within ``area``.
    ``masks``: Palette's .npz file, in which ``area`` finds the array (or ``key``, its name) of masks of ``mask_size``
    pixels square, or a folder of mask images, white in the hole; one is drawn for every image, or ``index`` is taken.
    Raises InputError naming the option or file; images must have the size of the masks.

    Attributes:
        area: smallest and largest part of the image that a hole covers.
        masks: Palette's .npz file, or a folder of mask images, white in the hole; None draws brush strokes.
        key: name of the array in the file; None for the one of ``area``.
        mask_size: side of the masks in the file, in pixels.
        index: number of the mask to take; None draws one for every image.

    """

    area: tuple[float, float] = (0.1, 0.2)
    masks: str | None = None
    key: str | None = None
    mask_size: int = 256
    index: int | None = None

    def __post_init__(self) -> None:
        if len(self.area) != 2 or not 0 <= self.area[0] <= self.area[1] <= 1 or self.area[1] == 0:
            raise InputError(
                f"degradation.area is {list(self.area)}; give the smallest and the largest part of the "
                "image that is covered, such as [0.1, 0.2]"
            )
        if self.masks is not None:
            self._store()

    def _store(self) -> MaskFile | MaskFolder:
        return load_masks(self.masks, self.key, self.mask_size, tuple(self.area))

    def _draw(self, image: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        if self.masks is not None:
            return self._from(self._store(), image, generator)
        rng = np.random.default_rng(draw_index(2**62, generator) if self.index is None else self.index)
        return torch.from_numpy(draw_mask(image.shape[-2], image.shape[-1], self.area, rng)).to(image)[None]


@DEGRADATIONS.register("inpaint_masks")
@dataclass(frozen=True)
class MaskInpainting(_FromStore):
    """The user's masks: a folder of images, white in the hole (black with ``invert``), or a bit-packed .npz file.

    One is drawn for every image, or ``index`` is taken, counted in the order of the names. ``resize`` fits masks to
    images of another size (nearest pixel); without it other sizes raise InputError, as do masks without a hole.
    ``key`` and ``mask_size`` belong to .npz files.

    Attributes:
        masks: folder of mask images, white in the hole, or .npz file of bit-packed masks.
        invert: the hole is black in the images.
        resize: fit masks to images of another size, to the nearest pixel.
        key: name of the array in the file.
        mask_size: side of the masks in the file, in pixels.
        index: number of the mask to take, in the order of names; None draws one for every image.

    """

    masks: str
    invert: bool = False
    resize: bool = False
    key: str | None = None
    mask_size: int = 256
    index: int | None = None

    def __post_init__(self) -> None:
        self._store()

    def _store(self) -> MaskFile | MaskFolder:
        return load_masks(self.masks, self.key, self.mask_size, None, self.invert)

    def _draw(self, image: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        return self._from(self._store(), image, generator, self.resize)
