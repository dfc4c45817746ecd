"""Removal of colour, for colourisation."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from basicsr_ext.common.errors import InputError, did_you_mean
from i2sb_plugin.degradations.base import DEGRADATIONS, Degraded, check_image

__all__ = ["Decolor"]

WEIGHTS = {"luma": (0.299, 0.587, 0.114), "mean": (1 / 3, 1 / 3, 1 / 3)}


@DEGRADATIONS.register("decolor")
@dataclass(frozen=True)
class Decolor:
    """Grey value of RGB, repeated to ``channels`` 3 or left as 1; ``weights`` luma (ITU-R BT.601) or mean.

    A fourth channel is kept, a grey image stays as it is. Add ``bridge.add_x1_noise`` for the draws of colourisation:
    without it one grey image has one answer. Raises InputError for images of other channel counts.

    Attributes:
        weights: ``luma`` (ITU-R BT.601) or the ``mean`` of the channels.
        channels: 3 repeats the grey value, 1 leaves one channel.

    """

    weights: Literal["luma", "mean"] = "luma"
    channels: Literal[1, 3] = 3
    refuses_data: ClassVar[str] = "their channels are no colours; take a blur, a reduction, noise or a hole"
    scale: ClassVar[int] = 1
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise InputError(f"degradation.weights is {self.weights!r}; {did_you_mean(self.weights, WEIGHTS)}")
        if self.channels not in (1, 3):
            raise InputError(f"degradation.channels is {self.channels}; set 1 or 3")

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Remove the colour of C,H,W or B,C,H,W; nothing is drawn."""
        check_image(image)
        return Degraded(self.forward(image))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Apply A."""
        return x.clone() if x.shape[-3] == 1 else self._mix(self._matrix(x), x)

    def adjoint(
        self, y: torch.Tensor, size: tuple[int, int] | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Apply the transpose of A for RGB images: the grey value times the weights."""
        return self._mix(self._matrix(y).T, y)

    def pseudo_inverse(
        self, y: torch.Tensor, size: tuple[int, int] | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Apply the pseudo-inverse of A for RGB images: the smallest colours of that grey value."""
        return self._mix(torch.linalg.pinv(self._matrix(y).double()).to(y), y)

    def _matrix(self, like: torch.Tensor) -> torch.Tensor:
        return torch.tensor(WEIGHTS[self.weights], dtype=like.dtype, device=like.device).expand(self.channels, 3)

    @staticmethod
    def _mix(matrix: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Multiply the colour channels by ``matrix`` (out x in); a channel behind them is kept."""
        colours, total = matrix.shape[1], image.shape[-3]
        if total not in (colours, colours + 1):
            raise InputError(f"degradation decolor takes grey, RGB or RGBA images; got {total} channels")
        mixed = (matrix @ image.narrow(-3, 0, colours).flatten(-2)).unflatten(-1, image.shape[-2:])
        return mixed if total == colours else torch.cat([mixed, image.narrow(-3, colours, 1)], -3)
