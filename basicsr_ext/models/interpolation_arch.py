"""Plain enlargement, the baseline of every comparison."""

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

MODES = ("bicubic", "bilinear", "nearest-exact")


@ARCH_REGISTRY.register()
class Interpolation(nn.Module):
    """Enlarge B,C,h,w by ``scale``; it has no parameters.

    The bicubic kernel is Keys' with a = -0.5, as MATLAB's and PIL's.

    Args:
        scale: size of the result divided by that of the image.
        mode: a name in :data:`basicsr_ext.models.interpolation_arch.MODES`.

    Raises:
        ValueError: ``mode`` is unknown.
    """

    def __init__(self, scale: int = 4, mode: str = "bicubic") -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"network_g.mode is {mode!r}; it must be one of {', '.join(MODES)}")
        self.scale, self.mode = scale, mode

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge ``image``: B,C,h,w to B,C,scale*h,scale*w."""
        smooth = {} if self.mode == "nearest-exact" else {"align_corners": False, "antialias": True}
        return F.interpolate(image, scale_factor=self.scale, mode=self.mode, **smooth)
