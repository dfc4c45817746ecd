"""JPEG through a real codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch

from basicsr_ext.common.errors import InputError
from i2sb_plugin.degradations.base import DEGRADATIONS, Degraded
from i2sb_plugin.degradations.draws import check_range, draw_index, each_image

__all__ = ["CodecJpeg", "compress"]


@DEGRADATIONS.register("jpeg_codec")
@dataclass(frozen=True)
class CodecJpeg:
    """JPEG as libjpeg writes and reads it, 8 bits, chroma averaged 2x2; ``quality`` 1 to 100 or a range.

    Takes grey, RGB or RGBA (the fourth channel is kept) of any size and runs on the CPU.
    Raises InputError for other channel counts.

    Attributes:
        quality: 1 to 100, or the range that it is drawn from.

    """

    quality: int | tuple[int, int] = 10
    scale: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range(self.quality, "quality", 1, 100)

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Compress and decode C,H,W or B,C,H,W; the result is in [0,1]."""
        return each_image(self._degrade, image, generator)

    def _degrade(self, image: torch.Tensor, generator: torch.Generator | None) -> Degraded:
        if image.shape[0] not in (1, 3, 4):
            raise InputError(f"degradation jpeg_codec takes grey, RGB or RGBA images; got {image.shape[0]} channels")
        quality = self.quality
        if isinstance(quality, tuple):
            quality = quality[0] + draw_index(quality[1] - quality[0] + 1, generator)
        colour = image[:3].permute(1, 2, 0).cpu().double().numpy()
        decoded = torch.from_numpy(compress(colour, quality)).permute(2, 0, 1).to(image)
        return Degraded(torch.cat([decoded, image[3:]]))


def compress(image: np.ndarray, quality: int) -> np.ndarray:
    """Compress H,W,C (1 or RGB) in [0,1] at ``quality`` and return what a viewer sees, in [0,1]."""
    pixels = np.rint(image.clip(0, 1) * 255).astype(np.uint8)[:, :, ::-1]
    _, data = cv2.imencode(".jpg", pixels, [int(cv2.IMWRITE_JPEG_QUALITY), int(quality)])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR if image.shape[2] == 3 else cv2.IMREAD_GRAYSCALE)
    return decoded.reshape(image.shape)[:, :, ::-1] / 255.0
