"""I2SB as a BasicSR model: `model_type: I2SBModel`."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from basicsr.losses import build_loss
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from basicsr_ext.errors import InputError, did_you_mean
from basicsr_ext.restoration_model import RestorationModel, TrainOptions, ValOptions
from i2sb_plugin import samplers, space
from i2sb_plugin.bridge import Bridge, standard_normal

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
        cond_x1: feed x1 to the network beside xt; ``network_g.cond_channels`` must then count its channels, and those
            of the data set's ``cond`` images.
        predicts: what the network learns: ``eps``, eq. 12, or ``x0``.
        hole: what x1 holds in the hole of an inpainting mask: N(0, 1) ``noise``, as in the release, or what the
            degraded image has there (``keep``).
        add_x1_noise: add N(0, 1) noise to x1, not to the condition (the release's setting for colourisation).

    """

    schedule: Literal["one_clock", "released"] = "one_clock"
    steps: int = 1000
    beta_max: float = 0.3
    ot_ode: bool = False
    lift: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    cond_x1: bool = False
    predicts: Literal["eps", "x0"] = "eps"
    hole: Literal["noise", "keep"] = "noise"
    add_x1_noise: bool = False

    def __post_init__(self) -> None:
        self.build()

    def build(self) -> Bridge:
        """Make the bridge; ValueError on values that it does not allow."""
        return getattr(Bridge, self.schedule)(self.steps, self.beta_max, self.ot_ode, self.predicts)


@dataclass(frozen=True)
class SamplerOptions:
    """Keys of ``val.sampler:``.

    Attributes:
        type: a name in :data:`i2sb_plugin.samplers.SAMPLERS`.
        nfe: network evaluations of one draw.
        clip: clamp predictions of x0 to [-1, 1].
        spacing, first: see :func:`i2sb_plugin.samplers.step_grid`.
        eta, order: of the sampler ``dbim``.
        draws: restorations that are averaged; their standard deviation is saved beside the result.

    """

    type: str = "ancestral"
    nfe: int = 10
    clip: bool = True
    spacing: str = "uniform"
    first: float | None = None
    eta: float | None = None
    order: int | None = None
    draws: int = 1

    def __post_init__(self) -> None:
        if self.type not in samplers.SAMPLERS:
            raise ValueError(f"type is {self.type!r}; {did_you_mean(self.type, samplers.SAMPLERS)}")
        if self.spacing not in samplers.SPACINGS:
            raise ValueError(f"spacing is {self.spacing!r}; {did_you_mean(self.spacing, samplers.SPACINGS)}")
        if self.nfe < 1 or self.draws < 1:
            raise ValueError(f"nfe is {self.nfe} and draws {self.draws}; both must be whole numbers from 1")
        unused = set(self.own) - set(inspect.signature(samplers.SAMPLERS[self.type]).parameters)
        if unused:
            raise ValueError(f"{', '.join(sorted(unused))} is set, but type {self.type} has no such option; use dbim")

    @property
    def own(self) -> dict[str, float]:
        """The options that go to the sampler itself."""
        return {k: v for k, v in {"eta": self.eta, "order": self.order}.items() if v is not None}


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
    restore_flags: ClassVar[dict[str, tuple[type, str, str]]] = {
        "sampler": (str, "val.sampler.type", "how to walk from the image to its restoration"),
        "nfe": (int, "val.sampler.nfe", "network evaluations: 1 gives the mean, more draw one sharp image"),
    }
    takes_mask: ClassVar[bool] = True

    def __init__(self, opt: dict) -> None:
        self.bridge_options = BridgeOptions(**opt.get("bridge") or {})
        self.bridge = self.bridge_options.build()
        self.take_options(opt)
        self.scale = opt.get("scale", 1)
        self.channels = opt["network_g"].get("out_channels")
        super().__init__(opt)

    def take_options(self, opt: dict) -> None:
        """Take ``val.sampler``; InputError if it asks for more steps than the bridge has."""
        super().take_options(opt)
        self.sampler_options = SamplerOptions(**(opt.get("val") or {}).get("sampler") or {})
        self.steps = _grid(self.bridge, self.sampler_options)

    @property
    def network_calls(self) -> int:
        """One for each step of the walk."""
        return len(self.steps) - 1

    @classmethod
    def option_faults(cls, opt: dict[str, Any]) -> list[str]:
        """Faults that no single block can tell, found before anything is built."""
        bridge = BridgeOptions(**opt.get("bridge") or {}).build()
        try:
            _grid(bridge, SamplerOptions(**(opt.get("val") or {}).get("sampler") or {}))
        except InputError as error:
            return [str(error)]
        return []

    def init_losses(self) -> None:
        """Build ``train.bridge_opt``, BridgeLoss where it is left out."""
        self.cri_bridge = build_loss(self.opt["train"].get("bridge_opt") or {"type": "BridgeLoss"}).to(self.device)

    def training_loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Regress the target of eq. 12 at a random node of the bridge (algorithm 1)."""
        x0 = space.encode(batch["gt"])
        x1, cond = self.start(batch)
        if x0.shape != x1.shape:
            raise InputError(
                f"gt is {tuple(x0.shape[1:])} but lq at scale {self.scale} is {tuple(x1.shape[1:])} "
                f"(channels, height, width) for {batch['lq_path'][0]}; the bridge needs them equal"
            )
        step = self.bridge.sample_step(len(x0))
        xt = self.bridge.sample_xt(x0, x1, step)
        prediction = self.net_g(xt, self.bridge.time(step).to(xt.device), cond)
        target, sigma = self.bridge.target(xt, x0, step), self.bridge.sigma[step]
        return {"l_bridge": self.cri_bridge(prediction.float(), target, batch.get("mask"), sigma)}

    def restore(self, batch: dict[str, Any], net: nn.Module, generators: Any, callback: Any = None) -> Tensor:
        """Walk from x1 to x0 by ``val.sampler`` (algorithm 2): B,C,H,W in [0, 1], the mean of ``draws`` walks."""
        mean: Tensor | None = None
        for draw in range(1, self.sampler_options.draws + 1):
            image = self._walk(batch, net, generators, callback if draw == 1 else None)
            if mean is None:
                mean, squares = image, torch.zeros_like(image)
                continue
            change = image - mean
            mean = mean + change / draw
            squares += change * (image - mean)
        draws = self.sampler_options.draws
        self.extras = {"std": (squares / (draws - 1)).sqrt()} if draws > 1 else {}
        return mean

    def _walk(self, batch: dict[str, Any], net: nn.Module, generators: Any, callback: Any) -> Tensor:
        x1, cond = self.start(batch, generators)
        options = self.sampler_options
        x0 = samplers.SAMPLERS[options.type](
            self.predictor(net, cond),
            self.bridge,
            x1,
            self.steps,
            generator=generators,
            clip=options.clip,
            mask=batch.get("mask"),
            callback=callback,
            **options.own,
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
        points = [space.decode(self.start(batch, [torch.Generator().manual_seed(0)])[0])[0]]
        wanted = {self.steps[k] for k in samplers.space_indices(len(self.steps), min(len(self.steps), 7))[1:]}
        self.restore(batch, net, [torch.Generator().manual_seed(0)], _keep(points, wanted))
        if "gt" in batch:
            points.append(batch["gt"][0])
        return torch.cat([point[:3].cpu() for point in points], dim=-1)

    def start(self, batch: dict[str, Any], generators: Any = None) -> tuple[Tensor, Tensor | None]:
        """The end of the bridge and the condition for a batch: x1, B,C,H,W, and cond, B,Cc,H,W in [-1, 1], or None.

        The hole of a mask is filled first, then the condition is taken, then noise is added, as in the release.
        """
        lifted = space.encode(batch["lq"], self.scale, self.bridge_options.lift)
        if "mask" in batch and self.bridge_options.hole == "noise":
            lifted = torch.where(batch["mask"].bool(), standard_normal(lifted, generators), lifted)
        seen = ([lifted] if self.bridge_options.cond_x1 else []) + ([batch["cond"] * 2 - 1] if "cond" in batch else [])
        x1 = space.match_channels(lifted, self.channels) if self.channels else lifted
        if self.bridge_options.add_x1_noise:
            x1 = x1 + standard_normal(x1, generators)
        return x1, torch.cat(seen, 1) if seen else None


def _keep(points: list[Tensor], wanted: set[int]) -> samplers.Callback:
    def callback(step: int, xt: Tensor, _: Tensor) -> None:
        if step in wanted:
            points.append(space.decode(xt)[0])

    return callback


def _grid(bridge: Bridge, options: SamplerOptions) -> list[int]:
    try:
        return samplers.step_grid(bridge, options.nfe, options.spacing, options.first)
    except ValueError as error:
        raise InputError(f"val.sampler.{error}") from None
