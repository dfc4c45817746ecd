"""JPEG: in floating point, batched, on any device, as the authors' release computes it; and through a real codec."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from basicsr_ext.common.errors import InputError
from i2sb_plugin.degradations.base import DEGRADATIONS, Degraded, check_image
from i2sb_plugin.degradations.draws import check_range, draw_index, each_image

__all__ = ["CodecJpeg", "Coefficients", "Jpeg", "compress"]

# Rows of RGB -> Y, Cb, Cr and back with the digits of the release (JFIF 1.02, section 7).
_TO_YCC = ((0.299, 0.587, 0.114), (-0.1687, -0.3313, 0.5), (0.5, -0.4187, -0.0813))
_TO_RGB = ((1.0, -3.68199903e-05, 1.40198758), (1.0, -0.344113281, -0.714103821), (1.0, 1.77197812, -1.34583413e-04))
_LUMA = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
           18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMA = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
             99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""
REFUSAL = "JPEG knows 8-bit brightness and colours alone; take a blur, a reduction, noise or a hole"


class Coefficients(NamedTuple):
    """Rounded DCT coefficients, B,C,rows of blocks,columns of blocks,64: ``luma``, of colour images ``chroma`` too."""

    luma: torch.Tensor
    chroma: torch.Tensor | None


@DEGRADATIONS.register("jpeg")
@dataclass(frozen=True)
class Jpeg:
    """JPEG at ``quality`` 1 to 100 in floating point (I2SB, 2302.05872, "JPEG"; ITU-T T.81).

    Chroma is halved by taking every second pixel, the input is not rounded and the output not clamped, so that ``lq``
    leaves [0,1] where JPEG overshoots. Grey images have luma only; a fourth channel is kept as it is.
    Sides that are no multiple of 16 (8 for grey) are filled with the edge and cropped again, unless ``pad`` is off.
    Raises InputError for other channel counts, and for such sides without ``pad``.

    Attributes:
        quality: 1 to 100.
        pad: fill sides up to whole blocks with the edge, and crop again.

    """

    quality: int = 10
    pad: bool = True
    refuses_data: ClassVar[str] = REFUSAL
    scale: ClassVar[int] = 1
    linear: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise InputError(f"degradation.quality is {self.quality}; give a whole number from 1 to 100")

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Compress and decode ``image``; nothing is drawn."""
        check_image(image)
        return Degraded(self.forward(image))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Compress and decode ``x``, C,H,W or B,C,H,W in [0,1]."""
        batch = x if x.ndim == 4 else x[None]
        height, width = batch.shape[-2:]
        padded = self._padded(batch)
        y = self.decode(self.encode(padded))
        if batch.shape[1] == 4:
            y = torch.cat([y, padded[:, 3:]], 1)
        return y[..., :height, :width].reshape(x.shape)

    def pseudo_inverse(self, y: torch.Tensor, size: tuple[int, int], mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return ``y``: it is already the image that the quantised coefficients decode to."""
        return y

    def table(self, plane: Literal["luma", "chroma"]) -> torch.Tensor:
        """Return the 64 divisors of ``plane``, rows first."""
        return _table(self.quality, _LUMA if plane == "luma" else _CHROMA).clone()

    def encode(self, x: torch.Tensor) -> Coefficients:
        """Quantise ``x``, B,C,H,W in [0,1] whose sides the blocks divide; channels beyond the third are left out."""
        if x.shape[1] == 1:
            return Coefficients(self._quantised(x * 255 - 128, _LUMA), None)
        ycc = (_matrix(_TO_YCC, x) @ x[:, :3].flatten(2)).unflatten(2, x.shape[-2:])
        luma = self._quantised(ycc[:, :1] * 255 - 128, _LUMA)
        chroma = self._quantised(ycc[:, 1:, ::2, ::2] * 255, _CHROMA)  # +128 of JFIF and -128 of JPEG cancel
        return Coefficients(luma, chroma)

    def decode(self, coefficients: Coefficients) -> torch.Tensor:
        """Turn ``coefficients`` back into a grey or an RGB image, B,C,H,W around [0,1]."""
        luma, chroma = coefficients
        grey = (self._pixels(luma, _LUMA) + 128) / 255
        if chroma is None:
            return grey
        small = self._pixels(chroma, _CHROMA)
        colour = (_matrix(_TO_RGB, small)[:, 1:] / 255 @ small.flatten(2)).unflatten(2, small.shape[-2:])
        return F.interpolate(colour, scale_factor=2, mode="nearest").add_(grey)

    def _quantised(self, planes: torch.Tensor, base: str) -> torch.Tensor:
        """Cut B,C,H,W into blocks, transform, divide by the table, round half to even."""
        blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4).flatten(4)
        table = _table(self.quality, base).to(planes)
        return (blocks @ _dct(planes.dtype, planes.device).T).div_(table).round_()

    def _pixels(self, blocks: torch.Tensor, base: str) -> torch.Tensor:
        """Undo :meth:`_quantised`, apart from its rounding."""
        table = _table(self.quality, base).to(blocks)
        planes = blocks @ (table[:, None] * _dct(blocks.dtype, blocks.device))
        return planes.unflatten(4, (8, 8)).transpose(3, 4).flatten(4).flatten(2, 3)

    def _padded(self, batch: torch.Tensor) -> torch.Tensor:
        channels, height, width = batch.shape[1:]
        if channels not in (1, 3, 4):
            raise InputError(f"degradation jpeg takes grey, RGB or RGBA images; got {channels} channels")
        block = 8 if channels == 1 else 16
        right, below = -width % block, -height % block
        if not right and not below:
            return batch
        if not self.pad:
            raise InputError(
                f"degradation jpeg takes sides that are multiples of {block}; the image is "
                f"{height}x{width} (height x width): crop it to {height - height % block}x{width - width % block} "
                "or set degradation.pad: true"
            )
        return F.pad(batch, (0, right, 0, below), mode="replicate")


@lru_cache(maxsize=256)
def _table(quality: int, base: str) -> torch.Tensor:
    """Return the 64 divisors, rows first, of a quality from 1 to 100: ITU-T T.81, annex K, scaled.

    The scale is libjpeg's without its rounding to whole per cent, so some qualities below 50 differ by one step.
    """
    percent = 5000 / quality if quality < 50 else 200 - 2 * quality
    table = torch.tensor([int(entry) for entry in base.split()], dtype=torch.float64)
    return ((table * percent + 50) / 100).floor().clamp(1, 255).float()


@lru_cache(maxsize=8)
def _dct(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Orthonormal DCT-II of an 8x8 block, rows first: 64 x 64."""
    k = torch.arange(8, dtype=torch.float64)
    rows = torch.cos(math.pi / 8 * (k + 0.5) * k[:, None]) / 2
    rows[0] /= math.sqrt(2)
    return torch.kron(rows, rows).to(device, dtype)


def _matrix(rows: tuple[tuple[float, ...], ...], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


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
    refuses_data: ClassVar[str] = REFUSAL
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
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR if image.shape[2] == 3 else cv2.IMREAD_GRAYSCALE))
    return decoded.reshape(image.shape)[:, :, ::-1] / 255.0
