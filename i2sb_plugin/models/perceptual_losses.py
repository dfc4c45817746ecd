"""LPIPS and DISTS as losses of training: ``LPIPSLoss`` and ``DISTSLoss``, registered beside BasicSR's own."""

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from basicsr_ext.common.errors import InputError
from basicsr_ext.metrics.learned.dists import dists_network
from basicsr_ext.metrics.learned.lpips import lpips_network
from i2sb_plugin.space import match_channels

__all__ = ["DISTSLoss", "LPIPSLoss", "PerImageLoss"]


class PerImageLoss(nn.Module):
    """A loss that gives a number for each image, so that images may have weights of their own."""

    loss_weight: float
    smallest: int = 1  # pixels of the shorter side that it can look at

    def distances(self, found: Tensor, wanted: Tensor) -> Tensor:
        """(B,) of B,3,H,W RGB in [0, 1]."""
        raise NotImplementedError

    def per_image(self, found: Tensor, wanted: Tensor) -> Tensor:
        """The weighted loss of each image, (B,), of B,C,H,W in [0, 1].

        Grey images are looked at as RGB, of more than three channels the first three are.

        Raises:
            InputError: two channels, or images that are smaller than the network can see.
        """
        height, width = found.shape[-2:]
        if min(height, width) < self.smallest:
            got = f"{type(self).__name__} got crops of {width} x {height} pixels"
            cure = "set datasets.train.gt_size to that or leave the loss out"
            raise InputError(f"{got}, its network sees {self.smallest} or more; {cure}")
        if found.shape[1] == 2:
            raise InputError(f"{type(self).__name__} got images of 2 channels; it looks at 1, 3 or more: leave it out")
        with torch.autocast(found.device.type, enabled=False):
            values = self.distances(*(match_channels(image.float(), 3) for image in (found, wanted)))
        return self.loss_weight * values

    def forward(self, found: Tensor, wanted: Tensor) -> Tensor:
        """The mean over the batch, a scalar."""
        return self.per_image(found, wanted).mean()


@LOSS_REGISTRY.register()
class LPIPSLoss(PerImageLoss):
    """Learned perceptual distance, version 0.1, of RGB images in [0, 1].

    Args:
        loss_weight: factor of the result.
        net: the trunk, 'alex', which papers on restoration report, 'vgg' or 'squeeze'.
        weights: file of the trunk, or folder that has it; None for the places where metrics look.

    Raises:
        InputError: the weights are missing, which says where they are to be had.

    Source: Zhang et al., CVPR 2018 (1801.03924).
    """

    def __init__(self, loss_weight: float = 1.0, net: str = "alex", weights: str | None = None) -> None:
        super().__init__()
        self.loss_weight, self.smallest = loss_weight, {"alex": 31, "vgg": 16, "squeeze": 17}.get(net, 1)
        self.network = lpips_network(net, weights)

    def distances(self, found: Tensor, wanted: Tensor) -> Tensor:
        """(B,) of B,3,H,W RGB in [0, 1]."""
        return self.network(found * 2 - 1, wanted * 2 - 1).flatten()


@LOSS_REGISTRY.register()
class DISTSLoss(PerImageLoss):
    """Distance of structure and texture, of RGB images in [0, 1].

    Args:
        loss_weight: factor of the result.
        weights: file of VGG16, or folder that has it; None for the places where metrics look.

    Raises:
        InputError: the weights are missing, which says where they are to be had.

    Source: Ding et al., TPAMI 2020 (2004.07728).
    """

    smallest = 16

    def __init__(self, loss_weight: float = 1.0, weights: str | None = None) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.network = dists_network(weights)

    def distances(self, found: Tensor, wanted: Tensor) -> Tensor:
        """(B,) of B,3,H,W RGB in [0, 1]."""
        return self.network(found, wanted, require_grad=True).reshape(-1)
