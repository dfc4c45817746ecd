"""I2SB as a BasicSR model: `model_type: I2SBModel`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

import basicsr_ext  # noqa: F401  (makes basicsr importable)
from basicsr.losses import build_loss
from basicsr.utils.registry import MODEL_REGISTRY
from basicsr_ext.errors import InputError, did_you_mean
from basicsr_ext.restoration_model import RestorationModel, TrainOptions, ValOptions
from i2sb_plugin import samplers, space
from i2sb_plugin.bridge import Bridge

__all__ = ["BridgeOptions", "I2SBModel", "SamplerOptions"]


@dataclass(frozen=True)
class BridgeOptions:
    """Keys of ``bridge:``.

    Attributes:
        schedule: ``one_clock``, exact at both ends; ``released``, the authors' grid, for weights trained on it.
        steps: nodes of the grid that training draws from.
        beta_max: how much noise the bridge carries (total variance 0.141 for 0.3, 0.247 for 1.0).
        ot_ode: train and walk the noise-free bridge.
        lift: how a smaller low-quality image is brought to full size; the release uses ``nearest``.
        cond_x1: feed x1 to the network beside xt; ``network_g.cond_channels`` must then be its channels.
    """

    schedule: Literal["one_clock", "released"] = "one_clock"
    steps: int = 1000
    beta_max: float = 0.3
    ot_ode: bool = False
    lift: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    cond_x1: bool = False

    def __post_init__(self) -> None:
        self.build()

    def build(self) -> Bridge:
        """Make the bridge; ValueError on values that it does not allow."""
        return getattr(Bridge, self.schedule)(self.steps, self.beta_max, self.ot_ode)


@dataclass(frozen=True)
class SamplerOptions:
    """Keys of ``val.sampler:``; ``nfe`` network evaluations, predictions of x0 clamped to [-1, 1] with ``clip``."""

    type: str = "ancestral"
    nfe: int = 10
    clip: bool = True

    def __post_init__(self) -> None:
        if self.type not in samplers.SAMPLERS:
            raise ValueError(f"type is {self.type!r}; {did_you_mean(self.type, samplers.SAMPLERS)}")
        if self.nfe < 1:
            raise ValueError(f"nfe is {self.nfe}; it must be a whole number from 1 to bridge.steps")


@dataclass(frozen=True)
class BridgeTrainOptions(TrainOptions):
    """Keys of ``train:`` with ``bridge_opt``, the block of the loss."""

    bridge_opt: dict | None = None


@dataclass(frozen=True)
class BridgeValOptions(ValOptions):
    """Keys of ``val:`` with ``sampler``."""

    sampler: dict | None = None


@MODEL_REGISTRY.register()
class I2SBModel(RestorationModel):
    """Image-to-Image Schroedinger Bridge (arXiv 2302.05872): algorithm 1 trains, algorithm 2 restores."""

    option_blocks: ClassVar[dict[str, type]] = {
        "bridge": BridgeOptions,
        "val.sampler": SamplerOptions,
        "train": BridgeTrainOptions,
        "val": BridgeValOptions,
    }

    def __init__(self, opt: dict) -> None:
        self.bridge_options = BridgeOptions(**opt.get("bridge") or {})
        self.bridge = self.bridge_options.build()
        self.sampler_options = SamplerOptions(**(opt.get("val") or {}).get("sampler") or {})
        self.steps = _grid(self.bridge, self.sampler_options)
        self.scale = opt.get("scale", 1)
        super().__init__(opt)

    def init_losses(self) -> None:
        """Build ``train.bridge_opt``, BridgeLoss where it is left out."""
        self.cri_bridge = build_loss(self.opt["train"].get("bridge_opt") or {"type": "BridgeLoss"}).to(self.device)

    def training_loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Regress the target of eq. 12 at a random node of the bridge (algorithm 1)."""
        x0, x1 = space.encode(batch["gt"]), self._x1(batch)
        if x0.shape != x1.shape:
            raise InputError(
                f"gt is {tuple(x0.shape[1:])} but lq at scale {self.scale} is {tuple(x1.shape[1:])} "
                f"(channels, height, width) for {batch['lq_path'][0]}; the bridge needs them equal"
            )
        step = self.bridge.sample_step(len(x0))
        xt = self.bridge.sample_xt(x0, x1, step)
        prediction = self.net_g(xt, self.bridge.time(step).to(xt.device), self._cond(x1))
        return {"l_bridge": self.cri_bridge(prediction.float(), self.bridge.target(xt, x0, step), batch.get("mask"))}

    def restore(self, batch: dict[str, Any], net: nn.Module, generators: Any, callback: Any = None) -> Tensor:
        """Walk from x1 to x0 by ``val.sampler`` (algorithm 2): B,C,H,W in [0, 1]."""
        x1 = self._x1(batch)
        options = self.sampler_options
        walk = samplers.SAMPLERS[options.type]
        x0 = walk(
            self.predictor(net, self._cond(x1)),
            self.bridge,
            x1,
            self.steps,
            generator=generators,
            clip=options.clip,
            callback=callback,
        )
        return space.decode(x0)

    def predictor(self, net: nn.Module, cond: Tensor | None) -> samplers.PredictX0:
        """Turn a network into the ``predict_x0`` that samplers call."""

        def predict_x0(xt: Tensor, step: int) -> Tensor:
            steps = torch.full((len(xt),), step)
            with self.autocast():
                prediction = net(xt, self.bridge.time(steps).to(xt.device), cond)
            return self.bridge.x0_from(xt, prediction.float(), steps)

        return predict_x0

    def progress_strip(self, batch: dict[str, Any], net: nn.Module) -> Tensor:
        """The walk of one image side by side: x1, up to six points of it with the last, and the ground truth."""
        points = [space.decode(self._x1(batch))[0]]
        wanted = {self.steps[k] for k in samplers.space_indices(len(self.steps), min(len(self.steps), 7))[1:]}
        self.restore(batch, net, [torch.Generator().manual_seed(0)], _keep(points, wanted))
        if "gt" in batch:
            points.append(batch["gt"][0])
        return torch.cat([point[:3].cpu() for point in points], dim=-1)

    def _x1(self, batch: dict[str, Any]) -> Tensor:
        return space.encode(batch["lq"], self.scale, self.bridge_options.lift)

    def _cond(self, x1: Tensor) -> Tensor | None:
        return x1 if self.bridge_options.cond_x1 else None


def _keep(points: list[Tensor], wanted: set[int]) -> samplers.Callback:
    def callback(step: int, xt: Tensor, _: Tensor) -> None:
        if step in wanted:
            points.append(space.decode(xt)[0])

    return callback


def _grid(bridge: Bridge, options: SamplerOptions) -> list[int]:
    try:
        return samplers.step_grid(bridge, options.nfe)
    except ValueError as error:
        raise InputError(f"val.sampler.{error}") from None
