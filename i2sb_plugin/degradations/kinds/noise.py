"""Noise: white Gaussian, and Poisson, the noise of counted light."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from basicsr_ext.common.errors import InputError
from i2sb_plugin.degradations.base import DEGRADATIONS, Degraded
from i2sb_plugin.degradations.draws import Range, check_range, draw_from, draw_normal, each_image

__all__ = ["GaussNoise", "PoissonNoise"]


@DEGRADATIONS.register("noise_gauss")
@dataclass(frozen=True)
class GaussNoise:
    """White noise of standard deviation ``sigma`` in units of [0,1], so 25 grey levels are 25/255 = 0.098.

    A range [smallest, largest] draws the level of each image evenly. ``grey``: the same noise in all channels.

    Attributes:
        sigma: standard deviation in units of [0,1], or the range that it is drawn from.
        grey: the same noise in all channels.

    """

    sigma: Range = 0.098
    grey: bool = False
    scale: ClassVar[int] = 1

    def __post_init__(self) -> None:
        largest = max(self.sigma) if isinstance(self.sigma, tuple) else self.sigma
        if largest > 1:
            raise InputError(
                f"degradation.sigma reaches {largest:g}, but it counts in units of [0,1]; "
                f"write {largest:g} grey levels as {largest / 255:.4g}"
            )
        check_range(self.sigma, "sigma", 0, 1)

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Add noise to C,H,W or B,C,H,W; nothing is clamped."""
        return each_image(self._degrade, image, generator)

    def _degrade(self, image: torch.Tensor, generator: torch.Generator | None) -> Degraded:
        sigma = draw_from(self.sigma, generator)
        return Degraded(image + sigma * draw_normal(image[:1] if self.grey else image, generator))


@DEGRADATIONS.register("noise_poisson")
@dataclass(frozen=True)
class PoissonNoise:
    """Poisson noise where white counts ``peak`` photons: variance image/peak. A range is drawn for each image.

    Attributes:
        peak: photons that white counts, or the range that they are drawn from.

    """

    peak: Range = 100.0
    refuses_unbounded: ClassVar[str] = "it counts light from the lower end of data.range; give that, or noise_gauss"
    scale: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range(self.peak, "peak", 0.1, 1e6, " (photons at white)")

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Count photons for C,H,W or B,C,H,W; values below 0 count none, bright ones may exceed 1."""
        return each_image(self._degrade, image, generator)

    def _degrade(self, image: torch.Tensor, generator: torch.Generator | None) -> Degraded:
        peak = draw_from(self.peak, generator)
        expected = image.clamp(min=0) * peak
        device = expected.device if generator is None else generator.device
        return Degraded(torch.poisson(expected.to(device), generator=generator).to(image.device) / peak)
