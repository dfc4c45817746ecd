"""Blurs by a kernel: uniform, Gaussian, motion, anisotropic, and the user's own."""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from basicsr_ext.common.errors import InputError, did_you_mean
from i2sb_plugin.degradations.base import DEGRADATIONS, Degraded, check_image
from i2sb_plugin.degradations.draws import Range, check_range, draw_from, each_image
from i2sb_plugin.degradations.filters import Padding, PlanarFilter, SeparableFilter

__all__ = ["AnisotropicBlur", "GaussBlur", "KernelBlur", "MotionBlur", "UniformBlur"]

PADDINGS = ("reflect", "zeros")
SUBPIXELS = 8  # per axis, to draw the edge of a motion kernel


class _Blur:
    """Shared parts: the kernel sums to one, so a constant stays; ``padding`` says what lies beyond the edge.

    An option that is a range is drawn anew for every image; the operator is known only if none is.
    """

    scale: ClassVar[int] = 1
    linear: ClassVar[bool] = True
    padding: Padding

    def _filter(self, generator: torch.Generator | None) -> SeparableFilter | PlanarFilter:
        raise NotImplementedError

    def __post_init__(self) -> None:
        if self.padding not in PADDINGS:
            raise InputError(f"degradation.padding is {self.padding!r}; {did_you_mean(self.padding, PADDINGS)}")

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Blur C,H,W or B,C,H,W; raises InputError if the kernel is larger than the image."""
        check_image(image)
        if self.drawn_options:
            return each_image(lambda one, g: Degraded(self._filter(g).forward(one)), image, generator)
        return Degraded(self._filter(None).forward(image))

    @property
    def drawn_options(self) -> tuple[str, ...]:
        """Options that are ranges."""
        return tuple(name for name, value in vars(self).items() if isinstance(value, tuple))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the blur A; raises InputError if an option is a range."""
        return self._known().forward(x)

    def adjoint(
        self, y: torch.Tensor, size: tuple[int, int] | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Apply the transpose of A; raises InputError if an option is a range."""
        return self._known().adjoint(y)

    def pseudo_inverse(
        self, y: torch.Tensor, size: tuple[int, int] | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Sharpen by the pseudo-inverse of A, leaving frequencies alone that are all but lost; as :meth:`forward`."""
        return self._known().pseudo_inverse(y)

    def _known(self) -> SeparableFilter | PlanarFilter:
        if self.drawn_options:
            raise InputError(
                f"degradation.{self.drawn_options[0]} is a range, so every image has another blur; give one number"
            )
        return self._filter(None)


@DEGRADATIONS.register("blur_uniform")
@dataclass(frozen=True)
class UniformBlur(_Blur):
    """Mean of the ``size`` x ``size`` pixels around each; ``size`` is odd, ``padding`` reflect or zeros.

    Attributes:
        size: side of the kernel in pixels, odd.
        padding: ``reflect`` or ``zeros``: what lies beyond the edge.

    """

    size: int = 9
    padding: Padding = "reflect"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_odd(self.size)

    def _filter(self, generator: torch.Generator | None) -> SeparableFilter:
        return SeparableFilter((1 / self.size,) * self.size, self.padding)


@DEGRADATIONS.register("blur_gauss")
@dataclass(frozen=True)
class GaussBlur(_Blur):
    """Gaussian of ``sigma`` pixels, a number or a range; cut to ``size`` pixels (odd; 6 sigma if left out).

    Attributes:
        sigma: standard deviation in pixels, or the range that it is drawn from.
        size: side of the kernel in pixels, odd; None for 6 sigma.
        padding: ``reflect`` or ``zeros``: what lies beyond the edge.

    """

    sigma: Range = 2.0
    size: int | None = None
    padding: Padding = "reflect"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self.sigma, "sigma", 0.1, 100, " (pixels)")
        _check_odd(self.size)

    def _filter(self, generator: torch.Generator | None) -> SeparableFilter:
        sigma = draw_from(self.sigma, generator)
        offset = _offsets(self.size or _six(sigma))
        return SeparableFilter(tuple(torch.softmax(-0.5 * (offset / sigma) ** 2, 0).tolist()), self.padding)


@DEGRADATIONS.register("blur_motion")
@dataclass(frozen=True)
class MotionBlur(_Blur):
    """Straight movement over ``length`` pixels, ``angle`` degrees counter-clockwise from the right; ranges allowed.

    Attributes:
        length: of the movement in pixels, or the range that it is drawn from.
        angle: degrees counter-clockwise from the right, or the range that they are drawn from.
        padding: ``reflect`` or ``zeros``: what lies beyond the edge.

    """

    length: Range = 15.0
    angle: Range = 30.0
    padding: Padding = "reflect"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self.length, "length", 1, 500, " (pixels)")
        check_range(self.angle, "angle", -360, 360, " (degrees)")

    def _filter(self, generator: torch.Generator | None) -> PlanarFilter:
        length, angle = draw_from(self.length, generator), draw_from(self.angle, generator)
        size = 2 * math.ceil(length / 2) + 1
        fine = (torch.arange(size * SUBPIXELS, dtype=torch.float64) + 0.5) / SUBPIXELS - size / 2
        along, aside = _turned(fine, angle)
        line = ((along.abs() <= length / 2) & (aside.abs() <= 0.5)).double()
        kernel = line.view(size, SUBPIXELS, size, SUBPIXELS).sum((1, 3))
        return PlanarFilter(kernel / kernel.sum(), self.padding)


@DEGRADATIONS.register("blur_anisotropic")
@dataclass(frozen=True)
class AnisotropicBlur(_Blur):
    """Gaussian of ``sigma_x`` pixels along ``angle`` (as in blur_motion) and ``sigma_y`` across; ranges allowed.

    Cut to ``size`` pixels (odd; 6 times the larger sigma if left out).

    Attributes:
        sigma_x: standard deviation along ``angle`` in pixels, or the range that it is drawn from.
        sigma_y: the same across ``angle``.
        angle: degrees counter-clockwise from the right, or the range that they are drawn from.
        size: side of the kernel in pixels, odd; None for 6 times the larger sigma.
        padding: ``reflect`` or ``zeros``: what lies beyond the edge.

    """

    sigma_x: Range = 4.0
    sigma_y: Range = 1.0
    angle: Range = 30.0
    size: int | None = None
    padding: Padding = "reflect"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self.sigma_x, "sigma_x", 0.1, 100, " (pixels)")
        check_range(self.sigma_y, "sigma_y", 0.1, 100, " (pixels)")
        check_range(self.angle, "angle", -360, 360, " (degrees)")
        _check_odd(self.size)

    def _filter(self, generator: torch.Generator | None) -> PlanarFilter:
        sigma_x, sigma_y, angle = (draw_from(v, generator) for v in (self.sigma_x, self.sigma_y, self.angle))
        along, aside = _turned(_offsets(self.size or _six(max(sigma_x, sigma_y))), angle)
        exponent = -0.5 * ((along / sigma_x) ** 2 + (aside / sigma_y) ** 2)
        return PlanarFilter(torch.softmax(exponent.flatten(), 0).view(exponent.shape), self.padding)


@DEGRADATIONS.register("blur_kernel")
@dataclass(frozen=True)
class KernelBlur(_Blur):
    """The user's kernel: ``path`` is a .npy file of numbers, h x w, odd sides; the picture of a point is the kernel.

    ``normalise`` divides it by its sum. The file is read when this is built; raises InputError naming it.

    Attributes:
        path: .npy file of the kernel.
        normalise: divide the kernel by its sum.
        padding: ``reflect`` or ``zeros``: what lies beyond the edge.

    """

    path: str
    normalise: bool = True
    padding: Padding = "reflect"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._filter(None)

    def _filter(self, generator: torch.Generator | None) -> PlanarFilter:
        kernel = _load_kernel(self.path)
        total = kernel.sum()
        if self.normalise and total.abs() < 1e-8 * kernel.abs().sum():
            raise InputError(
                f"degradation.path {self.path}: the kernel sums to {total:g} and cannot be divided by it; "
                "set degradation.normalise: false"
            )
        return PlanarFilter(kernel / total if self.normalise else kernel, self.padding)


@lru_cache(maxsize=8)
def _load_kernel(path: str) -> torch.Tensor:
    where = f"degradation.path {path}"
    if not Path(path).is_file():
        raise InputError(f"{where}: no such file; give a .npy file, as numpy.save writes it")
    try:
        kernel = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError):
        kernel = None
    if not isinstance(kernel, np.ndarray) or kernel.dtype.kind not in "fiu":
        raise InputError(f"{where}: is no .npy file of real numbers; write the kernel with numpy.save")
    if kernel.ndim != 2 or any(side % 2 == 0 for side in kernel.shape):
        raise InputError(f"{where}: the kernel has shape {kernel.shape}; give height x width, both odd")
    if not np.isfinite(kernel).all() or not kernel.any():
        raise InputError(f"{where}: the kernel is all zero or not finite; give finite weights")
    return torch.from_numpy(kernel.astype(np.float64))


def _check_odd(size: int | None) -> None:
    if size is not None and (size < 1 or size % 2 == 0):
        raise InputError(f"degradation.size is {size}; give an odd number of pixels, 1 or more")


def _six(sigma: float) -> int:
    return 2 * math.ceil(3 * sigma) + 1


def _offsets(size: int) -> torch.Tensor:
    return torch.arange(size, dtype=torch.float64) - size // 2


def _turned(offsets: torch.Tensor, angle: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates along and across ``angle`` of a square grid; image rows point down."""
    right, up = offsets, -offsets[:, None]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return right * cos + up * sin, up * cos - right * sin
