"""Plain regression as a BasicSR model, `model_type: RegressionModel`: the twin of I2SB that takes one evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from basicsr.utils.registry import MODEL_REGISTRY

from basicsr_ext.models.options import ValOptions
from i2sb_plugin.models.bridge_options import BridgeTrainOptions, SamplerOptions
from i2sb_plugin.models.i2sb_model import I2SBModel
from i2sb_plugin.regression import Regression

__all__ = ["RegressionModel", "RegressionOptions"]

ONE_STEP = SamplerOptions(type="one_step", nfe=1)


@dataclass(frozen=True)
class RegressionOptions:
    """Keys of ``regression:``.

    Attributes:
        lift: how a smaller low-quality image is brought to full size before the network sees it.
        cond_x1: feed x1 to the network a second time, as the bridge's option of this name does;
            ``network_g.cond_channels`` must then count its channels, and those of the data set's ``cond`` images.
        hole: what x1 holds in the hole of an inpainting mask: N(0, 1) ``noise``, as in the bridge, or what the
            degraded image has there (``keep``).

    """

    lift: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    cond_x1: bool = False
    hole: Literal["noise", "keep"] = "noise"

    add_x1_noise: ClassVar[bool] = False
    dial: ClassVar[bool] = False
    predicts: ClassVar[str] = "residual"
    residual_variance: ClassVar[None] = None

    def build(self) -> Regression:
        """Make what is walked: one step."""
        return Regression()


@MODEL_REGISTRY.register()
class RegressionModel(I2SBModel):
    """Learns x0 = x1 + network(x1, 1000) by ``train.bridge_opt``, mean squares (``norm: l2``) or magnitudes (``l1``).

    Network, batches, masks and condition are those of :class:`~i2sb_plugin.models.i2sb_model.I2SBModel`, whose
    restoration in one step has the same form; there is no sampler to choose.
    """

    option_blocks: ClassVar[dict[str, type]] = {
        "regression": RegressionOptions,
        "train": BridgeTrainOptions,
        "val": ValOptions,
    }
    restore_flags: ClassVar[dict[str, tuple[type, str, str]]] = {}
    path_block: ClassVar[str] = "regression"

    @classmethod
    def _read(cls, opt: Mapping[str, Any], dotted: str) -> Any:
        return ONE_STEP if dotted == "val.sampler" else super()._read(opt, dotted)

    @classmethod
    def option_faults(cls, opt: Mapping[str, Any]) -> list[str]:
        """A loss that is weighted by the bridge's sigma, since there is none."""
        weighting = ((opt.get("train") or {}).get("bridge_opt") or {}).get("weighting", "uniform")
        if weighting == "uniform":
            return []
        return [f"train.bridge_opt.weighting is {weighting!r}; a regression has one step and no sigma: leave it out"]
