"""The authors' release's "blur", for parity with its checkpoints: not what a kernel does, see :mod:`.blur` for that."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle
from typing import ClassVar, NamedTuple

import torch

from basicsr_ext.common.errors import InputError
from i2sb_plugin.degradations.base import DEGRADATIONS, Degraded, check_image

__all__ = ["ReleasedGaussBlur", "ReleasedUniformBlur"]

SMALLEST = 3e-2  # singular values of one axis below this are set to 0, as in the release


class _Factors(NamedTuple):
    """A x = left (weights * (right^T x right')) left'^T, by axes: H x H, H x H, W x W, W x W, and C,H,W."""

    left_rows: torch.Tensor
    right_rows: torch.Tensor
    left_columns: torch.Tensor
    right_columns: torch.Tensor
    weights: torch.Tensor


class _Released:
    """Shared parts: per axis a banded matrix without its last tap, of whose SVD the values are put at wrong places.

    With A = U S V^T the coefficients V^T x V of all channels are sorted by descending s_i s_j and counted pixel by
    pixel, channel by channel; number k gets the value of rank k modulo H*W, where k // channels is meant. So the
    image darkens, channels differ, and the result is up to 0.25 (of [0,1]) away from the blur of the kernel.
    """

    scale: ClassVar[int] = 1
    linear: ClassVar[bool] = True
    taps: ClassVar[tuple[float, ...]]
    stable: bool

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Apply the operator; nothing is drawn."""
        check_image(image)
        return Degraded(self.forward(image))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Apply A to C,H,W or B,C,H,W in [0,1] (the release's operator is linear there, not in [-1,1])."""
        f = self._factors(x)
        return _filtered(x, (f.right_rows, f.right_columns), f.weights, (f.left_rows, f.left_columns))

    def adjoint(
        self, y: torch.Tensor, size: tuple[int, int] | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Apply the transpose of A."""
        f = self._factors(y)
        return _filtered(y, (f.left_rows, f.left_columns), f.weights, (f.right_rows, f.right_columns))

    def pseudo_inverse(
        self, y: torch.Tensor, size: tuple[int, int] | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Apply the pseudo-inverse of A, which is exact: values that are not 0 are at least 9e-4."""
        f = self._factors(y)
        inverse = torch.where(f.weights > 0, 1 / f.weights, 0)
        return _filtered(y, (f.left_rows, f.left_columns), inverse, (f.right_rows, f.right_columns))

    def _factors(self, x: torch.Tensor) -> _Factors:
        if min(x.shape[-2:]) < len(self.taps):
            raise InputError(
                f"the image is {x.shape[-2]}x{x.shape[-1]} (height x width), smaller than the kernel of "
                f"{len(self.taps)} pixels of {type(self).__name__}; take a larger crop"
            )
        return _factors(self.taps, tuple(x.shape[-3:]), self.stable, x.dtype, x.device)


@DEGRADATIONS.register("blur_released_uniform")
@dataclass(frozen=True)
class ReleasedUniformBlur(_Released):
    """The release's "blur-uni" (kernel of 9), exactly; for its checkpoints. ``blur_uniform`` is the honest one.

    ``stable``: break ties of the sort as on a GPU, where the published models were trained; ``false``: as PyTorch's
    unstable sort does on a CPU. Takes and returns C,H,W or B,C,H,W. Raises InputError for images below 9 pixels.

    Attributes:
        stable: break ties of the sort as on a GPU; false: as PyTorch's unstable sort on a CPU.

    """

    stable: bool = True
    taps: ClassVar[tuple[float, ...]] = (1 / 9,) * 9


@DEGRADATIONS.register("blur_released_gauss")
@dataclass(frozen=True)
class ReleasedGaussBlur(_Released):
    """The release's "blur-gauss" (sigma 10 cut to 5 taps), exactly; for its checkpoints. ``blur_gauss`` is honest.

    ``stable`` as in :class:`ReleasedUniformBlur`. Raises InputError for images below 5 pixels.

    Attributes:
        stable: break ties of the sort as on a GPU; false: as PyTorch's unstable sort on a CPU.

    """

    stable: bool = True
    taps: ClassVar[tuple[float, ...]] = tuple(
        torch.softmax(-(torch.arange(-2, 3, dtype=torch.float64) ** 2) / 200, 0).tolist()
    )


def _filtered(
    x: torch.Tensor,
    into: tuple[torch.Tensor, torch.Tensor],
    weights: torch.Tensor,
    back: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Weigh the coefficients of C,H,W or B,C,H,W in the basis ``into`` (rows, columns), and lead them ``back``.

    On a CPU plane by plane: its four products stay in the cache, which saves a fifth of the time.
    """
    if x.device.type != "cpu":
        return back[0] @ (into[0].T @ (x @ into[1]) * weights @ back[1].T)
    planes = zip(x.reshape(-1, *x.shape[-2:]), cycle(weights))
    return torch.stack([back[0] @ ((into[0].T @ (p @ into[1])).mul_(w) @ back[1].T) for p, w in planes]).view(x.shape)


@lru_cache(maxsize=8)
def _factors(
    taps: tuple[float, ...], shape: tuple[int, ...], stable: bool, dtype: torch.dtype, device: torch.device
) -> _Factors:
    channels, height, width = shape
    (left_rows, rows, right_rows), (left_columns, columns, right_columns) = (_svd(taps, n) for n in (height, width))
    ranked, order = torch.outer(rows, columns).float().flatten().sort(descending=True, stable=stable)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    place = channels * rank + torch.arange(channels)[:, None]
    weights = ranked[place % len(order)].view(shape)
    return _Factors(*(t.to(device, dtype) for t in (left_rows, right_rows, left_columns, right_columns, weights)))


@lru_cache(maxsize=8)
def _svd(taps: tuple[float, ...], size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Singular vectors and values of one axis in float64: row i sees the pixels i-h to i+h-1, h half the kernel."""
    matrix = torch.zeros(size, size, dtype=torch.float64)
    half = len(taps) // 2
    for offset, tap in zip(range(-half, half), taps):
        matrix.diagonal(offset).fill_(tap)
    left, values, right = torch.linalg.svd(matrix)
    return left, torch.where(values < SMALLEST, 0, values), right.T
