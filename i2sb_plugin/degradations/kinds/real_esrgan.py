"""Real-ESRGAN's blind degradation, built from BasicSR's own functions."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch.nn import functional as F

import basicsr_ext  # noqa: F401  (makes basicsr importable)
from basicsr_ext.common.errors import InputError
from i2sb_plugin.degradations.base import DEGRADATIONS, Degraded, check_scale
from i2sb_plugin.degradations.draws import draw_index, each_image
from i2sb_plugin.degradations.kinds.jpeg import REFUSAL, compress

__all__ = ["RealESRGAN"]

KERNELS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
KERNEL_SIZES = range(7, 22, 2)
INTERPOLATIONS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
Pair = tuple[float, float]


@DEGRADATIONS.register("real_esrgan")
@dataclass(frozen=True)
class RealESRGAN:
    """Twice blur, resize, noise and JPEG, then a sinc filter, all drawn (Real-ESRGAN, 2107.10833, section 3).

    The options and their defaults are those of BasicSR's ``train_realesrgan_x4plus.yml`` (a 2 at the end: second
    round); noise counts in grey levels of 255. BasicSR draws from the global generators of Python and NumPy: they are
    seeded from ``generator`` and put back, so that the same seed gives the same result. JPEG is libjpeg's.
    Takes grey, RGB or RGBA, C,H,W or B,C,H,W; ``lq`` is in [0,1], smaller by ``scale``; a fourth channel is only
    reduced. Runs on the CPU. Raises InputError naming the option, or if ``scale`` does not divide the size.

    Attributes:
        scale: size of the image divided by that of the result.
        sharpen: sharpen the image first, as the release does.
        kernel_prob, kernel_prob2: of the six kernels: isotropic, anisotropic, both generalised, both plateau-shaped.
        blur_sigma, blur_sigma2: range of the standard deviations of kernels, in pixels.
        betag_range, betag_range2: range of the exponent of generalised kernels.
        betap_range, betap_range2: range of the exponent of plateau-shaped kernels.
        sinc_prob, sinc_prob2: probability of a sinc kernel instead.
        resize_prob, resize_prob2: of enlarging, reducing and keeping the size.
        resize_range, resize_range2: range of the factor of resizing.
        gaussian_noise_prob, gaussian_noise_prob2: probability of Gaussian noise; Poisson noise otherwise.
        noise_range, noise_range2: range of the standard deviation of Gaussian noise, in grey levels.
        poisson_scale_range, poisson_scale_range2: range of the factor of Poisson noise.
        gray_noise_prob, gray_noise_prob2: probability of the same noise in all channels.
        jpeg_range, jpeg_range2: range of the quality of JPEG.
        second_blur_prob: probability that the second round blurs.
        final_sinc_prob: probability of the sinc filter at the end.

    """

    refuses_data: ClassVar[str] = REFUSAL
    scale: int = 4
    sharpen: bool = False  # the release of Real-ESRGAN degrades a sharpened image
    kernel_prob: tuple[float, float, float, float, float, float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    blur_sigma: Pair = (0.2, 3)
    betag_range: Pair = (0.5, 4)
    betap_range: Pair = (1, 2)
    sinc_prob: float = 0.1
    resize_prob: tuple[float, float, float] = (0.2, 0.7, 0.1)  # up, down, keep
    resize_range: Pair = (0.15, 1.5)
    gaussian_noise_prob: float = 0.5
    noise_range: Pair = (1, 30)
    poisson_scale_range: Pair = (0.05, 3)
    gray_noise_prob: float = 0.4
    jpeg_range: Pair = (30, 95)
    second_blur_prob: float = 0.8
    kernel_prob2: tuple[float, float, float, float, float, float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    blur_sigma2: Pair = (0.2, 1.5)
    betag_range2: Pair = (0.5, 4)
    betap_range2: Pair = (1, 2)
    sinc_prob2: float = 0.1
    resize_prob2: tuple[float, float, float] = (0.3, 0.4, 0.3)
    resize_range2: Pair = (0.3, 1.2)
    gaussian_noise_prob2: float = 0.5
    noise_range2: Pair = (1, 25)
    poisson_scale_range2: Pair = (0.05, 2.5)
    gray_noise_prob2: float = 0.4
    jpeg_range2: Pair = (30, 95)
    final_sinc_prob: float = 0.8

    def __post_init__(self) -> None:
        check_scale(self.scale)
        for option in fields(self):
            value = getattr(self, option.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if "_prob" in option.name and not (value == 0 or (all(0 <= p <= 1 for p in numbers) and sum(numbers) > 0)):
                raise InputError(f"degradation.{option.name} is {value}; give probabilities from 0 to 1, not all 0")
            ranged = "_range" in option.name or option.name.startswith("blur_sigma")
            low, high = (1, 100) if option.name.startswith("jpeg") else (1e-3, 1000)
            if ranged and not low <= numbers[0] < numbers[1] <= high:
                raise InputError(
                    f"degradation.{option.name} is {list(numbers)}; give [smallest, largest] within {low:g} to {high:g}"
                )

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Degrade C,H,W, or every image of B,C,H,W with its own draws."""
        return each_image(self._degrade, image, generator)

    def _degrade(self, image: torch.Tensor, generator: torch.Generator | None) -> Degraded:
        channels, height, width = image.shape
        if channels not in (1, 3, 4) or height % self.scale or width % self.scale:
            raise InputError(
                f"degradation real_esrgan takes grey, RGB or RGBA images whose sides scale {self.scale} "
                f"divides; got {channels} channels, {height}x{width} (height x width): crop the image"
            )
        colour = image[:3].expand(3, -1, -1).permute(1, 2, 0).cpu().numpy().astype(np.float32)
        with _seeded(draw_index(2**32, generator)):
            degraded = torch.from_numpy(self._two_rounds(colour)).permute(2, 0, 1).to(image)
        if channels == 1:
            degraded = degraded.mean(0, keepdim=True)
        if channels == 4:
            degraded = torch.cat([degraded, F.avg_pool2d(image[3:], self.scale)])
        return Degraded(degraded)

    def _two_rounds(self, image: np.ndarray) -> np.ndarray:
        """Degrade H,W,3 in [0,1] with the global generators, in the order of BasicSR's RealESRGANModel."""
        from basicsr.utils.img_process_util import usm_sharp

        size = (image.shape[1] // self.scale, image.shape[0] // self.scale)
        kernels = [self._kernel(""), self._kernel("2")]
        sinc = self._final_sinc()
        image = _filtered(usm_sharp(image) if self.sharpen else image, kernels[0])
        factor = self._factor("")
        image = _resized(image, (round(image.shape[1] * factor), round(image.shape[0] * factor)))
        image = self._compressed(self._noisy(image, ""), "")
        if np.random.uniform() < self.second_blur_prob:
            image = _filtered(image, kernels[1])
        factor = self._factor("2")
        image = self._noisy(_resized(image, (int(size[0] * factor), int(size[1] * factor))), "2")
        if np.random.uniform() < 0.5:
            image = self._compressed(_filtered(_resized(image, size), sinc), "2")
        else:
            image = _filtered(_resized(self._compressed(image, "2"), size), sinc)
        return np.rint(image.clip(0, 1) * 255) / 255

    def _kernel(self, stage: str) -> np.ndarray:
        from basicsr.data.degradations import circular_lowpass_kernel, random_mixed_kernels

        size = random.choice(KERNEL_SIZES)
        if np.random.uniform() < self._of("sinc_prob", stage):
            cutoff = np.random.uniform(math.pi / 3 if size < 13 else math.pi / 5, math.pi)
            return circular_lowpass_kernel(cutoff, size)
        sigma = self._of("blur_sigma", stage)
        betas = self._of("betag_range", stage), self._of("betap_range", stage)
        return random_mixed_kernels(
            KERNELS, self._of("kernel_prob", stage), size, sigma, sigma, [-math.pi, math.pi], *betas
        )

    def _final_sinc(self) -> np.ndarray:
        from basicsr.data.degradations import circular_lowpass_kernel

        if np.random.uniform() < self.final_sinc_prob:
            size = random.choice(KERNEL_SIZES)
            return circular_lowpass_kernel(np.random.uniform(math.pi / 3, math.pi), size)
        return np.ones((1, 1))

    def _factor(self, stage: str) -> float:
        direction = random.choices(("up", "down", "keep"), self._of("resize_prob", stage))[0]
        low, high = self._of("resize_range", stage)
        return {
            "up": np.random.uniform(1, max(1, high)),
            "down": np.random.uniform(min(1, low), 1),
            "keep": 1,
        }[direction]

    def _noisy(self, image: np.ndarray, stage: str) -> np.ndarray:
        from basicsr.data.degradations import random_add_gaussian_noise, random_add_poisson_noise

        grey = self._of("gray_noise_prob", stage)
        if np.random.uniform() < self._of("gaussian_noise_prob", stage):
            return random_add_gaussian_noise(image, self._of("noise_range", stage), grey)
        return random_add_poisson_noise(image.astype(np.float32), self._of("poisson_scale_range", stage), grey)

    def _compressed(self, image: np.ndarray, stage: str) -> np.ndarray:
        return compress(image, round(np.random.uniform(*self._of("jpeg_range", stage))))

    def _of(self, option: str, stage: str) -> Any:
        return getattr(self, option + stage)


def _filtered(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return cv2.filter2D(image, -1, kernel)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to ``size`` (width, height), at least one pixel, by an interpolation drawn at random."""
    size = (max(1, size[0]), max(1, size[1]))
    return cv2.resize(image, size, interpolation=random.choice(INTERPOLATIONS))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python and NumPy, and put them back afterwards."""
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
