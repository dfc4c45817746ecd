"""Images that go with the clean ones, by the same names and of the same size: masks, and conditions."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch

from basicsr_ext.common.errors import InputError
from basicsr_ext.images.arrays import hole_of
from basicsr_ext.images.decode import match_channels
from basicsr_ext.images.headers import image_header
from basicsr_ext.images.inventory import listed_sizes
from basicsr_ext.images.values import Values
from i2sb_plugin.data.image_source import ImageSource
from i2sb_plugin.data.pairs import pair_names


class _Companions:
    """The images of the option ``option``, one for each of ``gt``; ``subset`` allows more of them.

    Raises InputError as :class:`ImageSource` and :func:`pair_names` do.
    """

    def __init__(
        self,
        root: str,
        option: str,
        gt: ImageSource,
        io_backend: Mapping[str, Any],
        subset: bool = False,
        values: Values | None = None,
    ) -> None:
        self.gt = gt
        self.source = ImageSource(root, option, io_backend, values=values)
        self._names = dict(pair_names(gt, self.source, subset=subset))

    def load(self, gt_name: str, size: tuple[int, int]) -> np.ndarray:
        """Return the pixels (H,W,C) that go with ``gt_name``; raises InputError unless H,W is ``size``."""
        pixels = self.source.load(self._names[gt_name])
        if fault := self._size_fault(gt_name, pixels.shape[:2], size):
            raise InputError(fault)
        return pixels

    def header_faults(self, gt_name: str) -> list[str]:
        """Say why the image that goes with ``gt_name`` would be refused, as far as headers tell."""
        try:
            sizes = self._size(self.source, self._names[gt_name]), self._size(self.gt, gt_name)
        except InputError as error:
            return [str(error)]
        fault = self._size_fault(gt_name, *sizes)
        return [fault] if fault else []

    def describe(self, gt_name: str) -> str:
        """Name the image that goes with ``gt_name`` in a message."""
        return self.source.describe(self._names[gt_name])

    @cached_property
    def _stored_sizes(self) -> dict[str, dict[str, tuple[int, int]]]:
        return {source.root: listed_sizes(source.root) for source in (self.gt, self.source)}

    def _size(self, source: ImageSource, name: str) -> tuple[int, int] | None:
        if source.kind == "lmdb":
            return self._stored_sizes[source.root].get(name)
        return image_header(source.path(name), source.values)[:2]

    def _size_fault(self, gt_name: str, found: tuple[int, int] | None, size: tuple[int, int] | None) -> str | None:
        if found == size or found is None or size is None:
            return None
        return (
            f"{self.describe(gt_name)} is {found[0]}x{found[1]} (height x width) but {self.gt.describe(gt_name)} is "
            f"{size[0]}x{size[1]}; the images of {self.source.option} must have the size of the clean ones"
        )


class Masks(_Companions):
    """Masks of inpainting: white, half of full scale or more in any colour, is the hole."""

    def load(self, gt_name: str, size: tuple[int, int]) -> np.ndarray:
        """Return the hole that goes with ``gt_name``, bool (H,W,1); raises InputError if there is none."""
        hole = hole_of(super().load(gt_name, size))
        if not hole.any():
            cure = "paint what is to be restored white and the rest black"
            raise InputError(f"{self.describe(gt_name)}: the mask has no hole; {cure}")
        return hole


class Conditions(_Companions):
    """Images that the network sees beside xt; ``channels`` of each, or those of the first. Data where ``gt`` is data.

    ``grey_to_rgb`` accepts grey files where the channels are 3. ``option`` may end in the number of the folder.
    """

    def __init__(
        self,
        root: str,
        option: str,
        gt: ImageSource,
        io_backend: Mapping[str, Any],
        subset: bool = False,
        channels: int | None = None,
        grey_to_rgb: bool = False,
    ) -> None:
        super().__init__(root, option, gt, io_backend, subset, gt.values)
        self.channels = channels or self.source.load(self._names[gt.names[0]]).shape[2]
        self._wanted = self.channels, grey_to_rgb, option.replace("dataroot", "channels")  # the option that counts them

    def load(self, gt_name: str, size: tuple[int, int]) -> np.ndarray:
        """Return the pixels (H,W,``channels``) that go with ``gt_name``; raises InputError if they do not fit."""
        return match_channels(super().load(gt_name, size), self.describe(gt_name), *self._wanted, self.source.values)

    def header_faults(self, gt_name: str) -> list[str]:
        """Say why the image that goes with ``gt_name`` would be refused, as far as headers tell."""
        return super().header_faults(gt_name) or self.source.header_faults(self._names[gt_name], *self._wanted)


def to_mask(hole: np.ndarray) -> torch.Tensor:
    """Turn a hole, bool H,W,1, into float32 1,H,W: 1 in the hole."""
    return torch.from_numpy(np.ascontiguousarray(hole[:, :, 0])[None].astype(np.float32))
