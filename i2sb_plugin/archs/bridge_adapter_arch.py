"""An adapter by which any network from image to image becomes the bridge's network."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from basicsr_ext.common.contracts import NetworkContract
from i2sb_plugin.archs.bridge_network import BridgeNetwork, Unshuffle
from i2sb_plugin.archs.inner_network import build_inner, fit_network

__all__ = ["BridgeAdapter"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@ARCH_REGISTRY.register()
class BridgeAdapter(BridgeNetwork):
    """Any network from image to image as the bridge's network: it sees the time as one more channel.

    xt, the condition and a map of the constant t / 1000 are its input; what it gives, a convolution of 1x1 maps to the
    prediction. That convolution starts at zero: an untrained network predicts 0. How many channels the inner network
    is built for, and at which scale, is found by trial.

    Args:
        network: the inner network: its ``type``, registered in BasicSR, or ``spandrel.NAME`` for one of the package
            spandrel (extra ``foreign``), and its arguments without channels and scale, which the adapter sets. A
            scale that is given must divide ``unshuffle``.
        in_channels: channels of xt.
        out_channels: channels of the prediction.
        cond_channels: channels of the condition; 0 for none.
        unshuffle: 2 or 4: the inner network works on an image of a half or a quarter of the height and width, whose
            channels hold its pixels, at about a quarter or a sixteenth of the cost; 1 for full size. A network that
            enlarges and cannot be built at scale 1 undoes it itself.
        full_size: channels of a last convolution at full size, after an unshuffled network, such as 16; 0 for none.

    Raises:
        ValueError: an option that cannot be built, or a network that cannot serve; the message names it and says why.

    Source: a map of what conditions the network as a further channel: FFDNet (1710.04026) section 3.
    """

    def __init__(
        self,
        network: Mapping[str, Any],
        in_channels: int = 3,
        out_channels: int = 3,
        cond_channels: int = 0,
        unshuffle: Unshuffle = 1,
        full_size: int = 0,
    ) -> None:
        super().__init__(in_channels, out_channels, cond_channels, unshuffle, full_size)
        fit = fit_network(network, self.layer_inputs + 1, out_channels, unshuffle)
        self.shuffle = unshuffle // fit.scale
        self.multiple, self.smallest = unshuffle * fit.multiple, unshuffle * fit.smallest
        self.network_type = network["type"]
        self.network = build_inner(fit.cls, fit.arguments)
        self.last = self.last_layer(nn.Conv2d(fit.outputs, (full_size or out_channels) * self.shuffle**2, 1))

    def predict(self, h: Tensor, t: Tensor) -> Tensor:
        """Call the inner network with the map of the time."""
        time = (t / 1000).to(h.dtype)[:, None, None, None].expand(h.shape[0], 1, *h.shape[2:])
        return self.last(self.network(torch.cat([h, time], dim=1)))

    def padding(self, height: int, width: int) -> tuple[int, int]:
        """Up to ``multiple``, and to the least that the inner network takes."""
        padding, missing = super().padding(height, width), (self.smallest - height, self.smallest - width)
        down, right = (given + (least - given) * (least > given) for given, least in zip(padding, missing))
        return down, right

    def training_faults(self, images: int) -> list[str]:
        """BatchNorm learns nothing from one image at a time."""
        if images > 1 or not any(isinstance(part, _BATCH_NORMS) for part in self.network.modules()):
            return []
        return [
            f"network_g.network.type is {self.network_type}, which normalises over the batch (BatchNorm), but it is "
            "trained on 1 image at a time; set datasets.train.batch_size_per_gpu to 2 or more for each part of "
            "train.accumulate"
        ]

    def compiled_parts(self) -> Iterable[nn.Module]:
        """Those that the inner network names."""
        return self.network.compiled_parts() if isinstance(self.network, NetworkContract) else ()
