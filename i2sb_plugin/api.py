"""Restoring from Python, in three lines::

from i2sb_plugin import Restorer
restorer = Restorer.load("experiments/i2sb_sr4x/models/net_g_latest.pth")
image = restorer("photo.png", nfe=10, seed=0)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from basicsr_ext.common.errors import InputError
from basicsr_ext.images.pictures import read_picture, write_picture
from basicsr_ext.models import register
from basicsr_ext.restoring import restorer as toolkit
from basicsr_ext.restoring.arrays import Image, check_range, to_array, to_mask, to_picture
from basicsr_ext.restoring.loading import load_restorer
from i2sb_plugin import plugin
from i2sb_plugin.weights import builtin

__all__ = ["Restorer"]


class Restorer:
    """A trained network and the call that restores with it.

    It writes no file and starts no log. BasicSR's registries learn the classes of this package and the toolkit's, which
    are named there once and for all; nothing else of BasicSR, and no random stream of torch, is changed.

    Attributes:
        scale: how much larger the restored images are.

    """

    def __init__(self, loaded: toolkit.Restorer) -> None:
        self._loaded = loaded
        self.scale = loaded.scale

    @classmethod
    def load(
        cls,
        checkpoint: str | os.PathLike[str] | None = None,
        options: str | os.PathLike[str] | None = None,
        device: str = "auto",
        tile: int | None = None,
        overlap: int | None = None,
        tile_batch: int = 1,
        say: Callable[[str], None] = print,
    ) -> Restorer:
        """Load a checkpoint.

        Args:
            checkpoint: ``net_g_*.pth`` of a run, a ``.safetensors`` or an ``.onnx`` file; None for the network that is
                built in, which enlarges photographs 4 times.
            options: option file; None to take the configuration inside the checkpoint, or that of its run.
            device: of these and the following see :class:`basicsr_ext.restoring.restorer.Loading`.
            tile: side of the tiles; 0 for none.
            overlap: pixels that tiles share.
            tile_batch: tiles at once.
            say: told of a tile that was halved.

        Raises:
            InputError: A ValueError that names the file or the option that is wrong, and the cure.

        """
        plugin.register()
        register.register()
        checkpoint = Path(builtin.checkpoint() if checkpoint is None else checkpoint)
        how = {"device": device, "tile": tile, "overlap": overlap, "tile_batch": tile_batch, "say": say}
        return cls(load_restorer(checkpoint, options, **how))

    def __call__(
        self,
        image: Image,
        mask: Image | None = None,
        *,
        seed: int = 0,
        sampler: str | None = None,
        nfe: int | None = None,
        samples: int | None = None,
        **options: Any,
    ) -> np.ndarray | Tensor:
        """Restore one image.

        Args:
            image: a path; an array H,W or H,W,C of uint8, uint16 or floats in [0, 1]; or a tensor C,H,W or B,C,H,W of
                floats in [0, 1]. Channels are grey, RGB or RGBA, in this order. A network that was trained on data
                takes a path, an array of their dtype and axes, or a tensor of their numbers.
            mask: white (or 1, or True) in the hole: a path, an array H,W, or a tensor of the image's axes with one
                channel.
            seed: of the noise; the same seed gives the same image.
            sampler: name of a sampler, such as ``ancestral`` or ``ot_ode``.
            nfe: network evaluations.
            samples: restorations that are averaged.
            options: the model's further flags of ``basicsr restore``, such as ``eta``; None, here as above, leaves
                the option file's value.

        Returns:
            The restored image of the same kind: a tensor for a tensor, otherwise an array H,W,C with the numbers of
            the image; for a path uint8 or uint16, as the file has. Arrays of one plane come back as H,W.

        Raises:
            InputError: The image cannot be read, has channels that the network does not take, or an option is wrong.

        """
        flags = {"sampler": sampler, "nfe": nfe, "samples": samples, **options}
        if isinstance(image, Tensor):
            return self._restore_tensor(image, mask, seed, flags)
        masks = None if mask is None else [to_mask(mask)]
        restored, _ = self._loaded.restore_pictures([to_picture(image, self._loaded.values)], masks, seed, **flags)[0]
        return to_array(restored, like=image)

    def _restore_tensor(self, image: Tensor, mask: Image | None, seed: int, flags: dict[str, Any]) -> Tensor:
        if image.dim() not in (3, 4) or not image.is_floating_point():
            raise InputError(
                f"the image is a tensor {tuple(image.shape)} of {image.dtype}; give floats C,H,W or B,C,H,W"
            )
        values = self._loaded.values
        if values is None or not image.numel():
            check_range(image.detach())
        batch = image.detach().float().cpu().reshape(-1, *image.shape[-3:])
        if values is not None:
            values.check(batch.numpy(), "the image")
            batch = torch.stack([values.to_unit(one.permute(1, 2, 0).numpy()) for one in batch])
        hole = None if mask is None else to_mask(mask)
        if hole is not None and (hole.dim() == 3 or len(hole) == 1):
            hole = hole.expand(len(batch), -1, -1, -1)
        restored, _ = self._loaded.restore(batch, hole, seed, **flags)
        if values is not None:
            restored = torch.stack([values.numbers(one).to(image.dtype) for one in restored])
        return (restored if image.dim() == 4 else restored[0]).to(image.device)

    def restore_file(
        self, source: str | os.PathLike[str], target: str | os.PathLike[str], mask: Image | None = None, **flags: Any
    ) -> None:
        """Restore a file into another one (PNG, TIFF, WebP, JPEG); keeps its bits, alpha and colour profile.

        ``flags`` are those of a call: seed, sampler, nfe, ... Raises InputError as a call does.
        """
        if os.path.exists(target) and os.path.samefile(source, target):
            raise InputError(f"{target} is the picture to restore; give another name for the result")
        masks = None if mask is None else [to_mask(mask)]
        picture = read_picture(source, self._loaded.values)
        restored, _ = self._loaded.restore_pictures([picture], masks, **flags)[0]
        write_picture(target, restored)
