"""Losses of the predicted clean image, beside the regression of the bridge's target."""

from collections.abc import Mapping
from typing import Any

import torch
from basicsr.losses import build_loss
from torch import Tensor, nn

from basicsr_ext.common.errors import InputError, did_you_mean
from basicsr_ext.common.option_blocks import shown
from basicsr_ext.options.basicsr_keys import Findings
from basicsr_ext.options.parts import check_loss
from i2sb_plugin.models.perceptual_losses import PerImageLoss

__all__ = ["PLACES", "X0Losses"]

_STRIDE = 4  # pixels from one place of AlexNet's first layer to the next
PLACES = ("x1", "all", "rising")  # samples that a loss looks at: those at x1, all, all with the time as weight


class X0Losses(nn.ModuleDict):
    """Losses by name, each on some of the samples of a batch; the mean is over the batch, weights included.

    Args:
        blocks: for each name a registered loss and its options, ``{type: LPIPSLoss, loss_weight: 2, at: x1}``.

    Raises:
        InputError: a loss cannot be built; see :func:`loss_faults` for what is checked before.
    """

    def __init__(self, blocks: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__({name: build_loss(_options(block)) for name, block in blocks.items()})
        self.places = {name: block.get("at", "all") for name, block in blocks.items()}

    def forward(
        self,
        x0: Tensor,
        gt: Tensor,
        at_x1: Tensor,
        time: Tensor,
        weight: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Each loss as a scalar, by the name ``l_<name>``.

        Args:
            x0: predictions of the clean images, B,C,H,W, about [-1, 1].
            gt: the clean images, same shape.
            at_x1: (B,) bool on the CPU, whether a sample lies at x1.
            time: (B,) in [0, 1].
            weight: (B,), of each sample in every loss; None for 1.
            shift: (B, 2) in [0, 1), where in each image a perceptual loss begins to look, see :func:`_shifted`.
        """
        found = {}
        for name, loss in self.items():
            place = self.places[name]
            chosen = at_x1.nonzero().flatten() if place == "x1" else torch.arange(len(x0))
            if not len(chosen):
                found[f"l_{name}"] = x0.new_zeros(())
                continue
            pick = chosen.to(x0.device)
            seen = x0[pick].add(1).div(2), gt[pick].add(1).div(2)
            if shift is not None and isinstance(loss, PerImageLoss):
                seen = _shifted(*seen, shift[chosen], loss.smallest)
            values = _per_image(loss, *seen)
            weights = time[pick].to(values) if place == "rising" else torch.ones_like(values)
            if weight is not None:
                weights = weights * weight[pick].to(values)
            found[f"l_{name}"] = (values * weights).sum() / len(x0)
        return found


def _shifted(found: Tensor, wanted: Tensor, shift: Tensor, smallest: int) -> tuple[Tensor, Tensor]:
    """The images, B,C,H,W, without three rows and columns, at places by ``shift``, (B, 2) in [0, 1); B,C,H-3,W-3.

    They stay as they are if fewer than ``smallest`` pixels would be left.

    AlexNet's first layer looks at every fourth pixel. At places that never change it cannot see a grid of two or four
    pixels from a shift of colour, and a network of unshuffled pixels learns to draw one.
    """
    height, width = (side - _STRIDE + 1 for side in found.shape[-2:])
    if min(height, width) < smallest:
        return found, wanted
    starts = (shift * _STRIDE).long().tolist()
    places = [(..., slice(top, top + height), slice(left, left + width)) for top, left in starts]
    first, second = (torch.stack([image[k][place] for k, place in enumerate(places)]) for image in (found, wanted))
    return first, second


def _per_image(loss: nn.Module, found: Tensor, wanted: Tensor) -> Tensor:
    """The loss of each image, (B,); BasicSR's give a number for a batch, PerceptualLoss two, one of them maybe None.

    Image by image, since a weight for each image is no argument that all of BasicSR's have: GANLoss and PerceptualLoss
    take none, and those of pixels divide by the sum of theirs. A whole batch would spare L1Loss milliseconds.
    """
    if isinstance(loss, PerImageLoss):
        return loss.per_image(found, wanted)
    values = [loss(found[k : k + 1], wanted[k : k + 1]) for k in range(len(found))]
    parts = [value if isinstance(value, tuple) else (value,) for value in values]
    return torch.stack([sum(part for part in some if part is not None) for some in parts])


def loss_faults(blocks: Mapping[str, Any]) -> list[str]:
    """What is wrong with the blocks of ``train.x0_losses``, as far as it can be told before anything is built."""
    found = Findings()
    for name, block in blocks.items():
        where = f"train.x0_losses.{name}"
        if not isinstance(block, Mapping):
            found.faults.append(f"{where} is {shown(block)}, but it must be a block such as {{type: LPIPSLoss}}")
            continue
        if block.get("at", "all") not in PLACES:
            found.faults.append(f"{where}.at is {block['at']!r}; {did_you_mean(block['at'], PLACES)}")
        check_loss(where, _options(block), False, found)
    return found.faults


def trial_faults(blocks: Mapping[str, Any], channels: int, size: int) -> list[str]:
    """What keeps the losses from being built, or from looking at crops of so many channels and pixels."""
    faults, crop = [], torch.full((1, channels, size, size), 0.5)
    for name, block in blocks.items():
        try:
            X0Losses({name: block})(crop, crop, torch.ones(1, dtype=torch.bool), torch.ones(1))
        except (InputError, RuntimeError) as error:  # of a loss of BasicSR's, say
            faults.append(f"train.x0_losses.{name}: {error}")
    return faults


def _options(block: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key != "at"}
