"""Conditional diffusion as a BasicSR model, `model_type: ConditionalDiffusionModel`: what I2SB is compared with."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from i2sb_plugin import samplers
from i2sb_plugin.bridge import standard_normal
from i2sb_plugin.diffusion import Diffusion
from i2sb_plugin.models.bridge_options import BridgeTrainOptions, BridgeValOptions, SamplerOptions
from i2sb_plugin.models.i2sb_model import I2SBModel
from i2sb_plugin.preconditioning import Preconditioning

__all__ = ["ConditionalDiffusionModel", "DiffusionOptions", "DiffusionSamplerOptions"]


@dataclass(frozen=True)
class DiffusionOptions:
    """Keys of ``diffusion:``.

    Attributes:
        steps: nodes of the grid that training draws from.
        predicts: what the network learns: ``v``, ``eps`` or ``x0``; v stays sound where there is little but noise.
            ``preconditioned`` is the residual x0 - x1 scaled to unit variance, as the bridge's option of this name.
        residual_variance: as the bridge's.
        lift: how a smaller low-quality image is brought to full size before the network sees it.
        hole: what the condition holds in the hole of an inpainting mask: N(0, 1) ``noise``, as in Palette, or what the
            degraded image has there (``keep``).

    """

    steps: int = 1000
    predicts: Literal["v", "eps", "x0", "preconditioned"] = "v"
    residual_variance: Literal["auto"] | float = "auto"
    lift: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    hole: Literal["noise", "keep"] = "noise"

    cond_x1: ClassVar[bool] = True  # the network sees the degraded image; in the start it has no part
    add_x1_noise: ClassVar[bool] = False
    dial: ClassVar[bool] = False

    def __post_init__(self) -> None:
        diffusion = self.build()
        if self.residual_variance != "auto":
            if self.predicts != "preconditioned":
                raise ValueError(f"residual_variance is {self.residual_variance}, but predicts is {self.predicts}; it "
                                 "belongs to predicts: preconditioned, leave it out")  # fmt: skip
            self.precondition(diffusion, self.residual_variance)

    def build(self) -> Diffusion:
        """Make the diffusion; ValueError on values that it does not allow."""
        predicts = "x0" if self.predicts == "preconditioned" else self.predicts
        return Diffusion.variance_preserving(self.steps, predicts)

    def precondition(self, diffusion: Diffusion, residual_variance: float) -> Preconditioning:
        """The scales of the network; ValueError on values that they do not allow."""
        return Preconditioning.of_diffusion(diffusion, residual_variance)


@dataclass(frozen=True)
class DiffusionSamplerOptions(SamplerOptions):
    """Keys of ``val.sampler:``; those of the bridge, with one walk: order 1 is DDIM, 2 and 3 a multistep solver.

    Attributes:
        type: ``dbim``, the family that DDIM belongs to.
        eta: 0 for DDIM, 1 for the noise of DDPM.
        order: 1 to 3; above 1 at eta 0.

    """

    type: str = "dbim"
    eta: float | None = None
    order: int | None = None

    def __post_init__(self) -> None:
        if self.type != "dbim":
            raise ValueError(f"type is {self.type!r}; a diffusion has one walk, dbim: choose by eta, order and spacing")
        super().__post_init__()


@MODEL_REGISTRY.register()
class ConditionalDiffusionModel(I2SBModel):
    """Starts at noise and sees the degraded image beside xt (Palette, arXiv 2111.05826; SR3, arXiv 2104.07636).

    ``network_g.cond_channels`` must count the channels of the degraded image, and those of ``cond`` images. All else
    is as in :class:`~i2sb_plugin.models.i2sb_model.I2SBModel`.
    """

    option_blocks: ClassVar[dict[str, type]] = {
        "diffusion": DiffusionOptions,
        "val.sampler": DiffusionSamplerOptions,
        "train": BridgeTrainOptions,
        "val": BridgeValOptions,
    }
    restore_flags: ClassVar[dict[str, tuple[type, str, str]]] = {
        name: flag for name, flag in I2SBModel.restore_flags.items() if name != "sampler"
    }
    one_draw: ClassVar[str] = "--eta 0"
    path_block: ClassVar[str] = "diffusion"

    def _sample(self, predict_x0: samplers.PredictX0, x1: Tensor, mask: Tensor | None, keywords: dict) -> Tensor:
        """Walk from noise; outside the hole of a mask each prediction is what is known."""

        def known(xt: Tensor, step: int) -> Tensor:
            x0 = predict_x0(xt, step)
            return x0 if mask is None else torch.where(mask.bool(), x0, x1)

        noise = standard_normal(x1, keywords["generator"])
        return samplers.dbim(known, self.bridge, torch.zeros_like(x1), self.steps, start=noise, **keywords)
