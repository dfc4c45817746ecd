"""Linear filters with their transposes and pseudo-inverses: separable ones as matrices, others by FFT."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch.nn import functional as F

from basicsr_ext.common.errors import InputError

__all__ = ["Padding", "PlanarFilter", "SeparableFilter", "least_squares"]

Padding = Literal["reflect", "zeros"]
SMALLEST = 3e-2  # pseudo-inverse of an axis: singular values below this part of a sum of 1 count as 0
TILE = 64  # rows at a time in a product with a band matrix, whose zeros are skipped
STEPS = 30  # of the conjugate gradients that stand for a pseudo-inverse; few enough not to blow up noise


@dataclass(frozen=True)
class SeparableFilter:
    """Convolution of rows and columns with the same odd, symmetric ``taps``; images are B,C,H,W or C,H,W.

    ``padding`` reflect mirrors the image with its edge repeated (OpenCV's and SciPy's "reflect"), so the filter is its
    own transpose; zeros darkens the border.
    """

    taps: tuple[float, ...]
    padding: Padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Filter ``x``; raises InputError if the kernel is larger than it."""
        check_fits((len(self.taps), len(self.taps)), x)
        rows, columns = (_bands(self.taps, n, self.padding, x.dtype, x.device) for n in x.shape[-2:])
        x = torch.cat([x[..., low:high] @ band.T for low, high, band in columns], -1)
        return torch.cat([band @ x[..., low:high, :] for low, high, band in rows], -2)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """Apply the transpose, which is the filter itself since the taps are symmetric."""
        return self.forward(y)

    def pseudo_inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Apply the pseudo-inverse of the filter without the frequencies that it all but removes."""
        rows, columns = (_inverse_axis(self.taps, n, self.padding, y.dtype, y.device) for n in y.shape[-2:])
        return rows @ (y @ columns.T)


@dataclass(frozen=True, eq=False)
class PlanarFilter:
    """Convolution with any ``kernel`` (h,w, odd sides, float64): the picture of a point is the kernel."""

    kernel: torch.Tensor
    padding: Padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Filter ``x``, B,C,H,W or C,H,W; raises InputError if the kernel is larger than it."""
        check_fits(tuple(self.kernel.shape), x)
        halves = [side // 2 for side in self.kernel.shape]
        if self.padding == "zeros":
            padded = F.pad(x, (halves[1], halves[1], halves[0], halves[0]))
        else:
            rows, columns = (_mirrored(n, half).to(x.device) for n, half in zip(x.shape[-2:], halves))
            padded = x.index_select(-2, rows).index_select(-1, columns)
        size = padded.shape[-2:]
        full = torch.fft.irfft2(torch.fft.rfft2(padded) * self._spectrum(x, size), s=size)
        return full[..., 2 * halves[0] :, 2 * halves[1] :].contiguous()  # the rest wrapped around

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """Apply the transpose: correlate, then fold the border back to where its pixels came from."""
        check_fits(tuple(self.kernel.shape), y)
        halves = [side // 2 for side in self.kernel.shape]
        embedded = F.pad(y, (2 * halves[1], 0, 2 * halves[0], 0))
        size = embedded.shape[-2:]
        spread = torch.fft.irfft2(torch.fft.rfft2(embedded) * self._spectrum(y, size).conj(), s=size)
        for axis, half, n in zip((-2, -1), halves, y.shape[-2:]):
            if self.padding == "zeros":
                spread = spread.narrow(axis, half, n)
            else:
                folded = torch.zeros_like(spread.narrow(axis, 0, n))
                spread = folded.index_add_(axis, _mirrored(n, half).to(y.device), spread)
        return spread

    def pseudo_inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Apply the pseudo-inverse as far as conjugate gradients come: frequencies all but removed stay so."""
        return least_squares(self.forward, self.adjoint, y)

    def _spectrum(self, like: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
        return torch.fft.rfft2(self.kernel.to(like), s=size)


def check_fits(kernel: tuple[int, ...], image: torch.Tensor) -> None:
    """Raise InputError if the ``kernel`` (height, width) is larger than the image."""
    height, width = image.shape[-2:]
    if kernel[0] > height or kernel[1] > width:
        raise InputError(
            f"the blur's kernel is {kernel[0]}x{kernel[1]} but the image is {height}x{width}; "
            "choose a smaller kernel or a larger crop"
        )


def least_squares(
    forward: Callable[[torch.Tensor], torch.Tensor], adjoint: Callable[[torch.Tensor], torch.Tensor], y: torch.Tensor
) -> torch.Tensor:
    """Solve A x = y in the least-squares sense, smallest x, by conjugate gradients (CGLS), every image for itself."""
    axes = (-3, -2, -1)
    residual, x = y.clone(), torch.zeros_like(adjoint(y))
    direction = gradient = adjoint(residual)
    energy = first = (gradient**2).sum(axes, keepdim=True)
    for _ in range(STEPS):
        image = forward(direction)
        step = _ratio(energy, (image**2).sum(axes, keepdim=True), first)
        x, residual = x + step * direction, residual - step * image
        gradient = adjoint(residual)
        energy, before = (gradient**2).sum(axes, keepdim=True), energy
        direction = gradient + _ratio(energy, before, first) * direction
    return x


def _ratio(above: torch.Tensor, below: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """Return above / below; 0 once an image has converged."""
    done = below <= first * torch.finfo(first.dtype).eps ** 2
    return torch.where(done, 0, above / below.masked_fill(done, 1))


@lru_cache(maxsize=32)
def _bands(
    taps: tuple[float, ...], size: int, padding: Padding, dtype: torch.dtype, device: torch.device
) -> list[tuple[int, int, torch.Tensor]]:
    """Matrix size x size that filters one axis, in tiles of rows: first column, end, and the columns between."""
    half = len(taps) // 2
    sources = _mirrored(size, half) if padding == "reflect" else torch.arange(-half, size + half)
    bands = []
    for start in range(0, size, TILE):
        height = min(TILE, size - start)
        tile = torch.zeros(height, height + 2 * half, dtype=torch.float64)
        for offset, tap in enumerate(taps):
            tile.diagonal(offset).fill_(tap)
        source = sources[start : start + height + 2 * half]
        inside = (source >= 0) & (source < size)
        low, high = int(source[inside].min()), int(source[inside].max()) + 1
        band = torch.zeros(height, high - low, dtype=torch.float64)
        band.index_add_(1, source[inside] - low, tile[:, inside])
        bands.append((low, high, band.to(device, dtype)))
    return bands


@lru_cache(maxsize=16)
def _inverse_axis(
    taps: tuple[float, ...], size: int, padding: Padding, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    bands = _bands(taps, size, padding, torch.float64, torch.device("cpu"))
    matrix = torch.cat([F.pad(band, (low, size - high)) for low, high, band in bands])
    return torch.linalg.pinv(matrix, atol=SMALLEST * abs(sum(taps)), rtol=0, hermitian=True).to(device, dtype)


def _mirrored(size: int, half: int) -> torch.Tensor:
    """Indices of ``size`` pixels with ``half`` more on both sides, mirrored with the edge repeated."""
    index = torch.arange(-half, size + half) % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)
