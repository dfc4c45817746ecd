"""The options of the bridge: what stands in ``bridge:``, ``val.sampler:`` and our part of ``train:`` and ``val:``."""

import inspect
from dataclasses import dataclass, field, replace
from typing import Literal

from basicsr_ext.common.errors import did_you_mean
from basicsr_ext.common.option_blocks import read_block
from basicsr_ext.models.options import TrainOptions, ValOptions
from i2sb_plugin import samplers
from i2sb_plugin.bridge import RELEASED_BETA_MIN, RELEASED_TIMES, Bridge
from i2sb_plugin.degradations import DEGRADATIONS, build_degradation
from i2sb_plugin.degradations.base import Operator, known_operator
from i2sb_plugin.preconditioning import Preconditioning

__all__ = [
    "BridgeOptions",
    "BridgeTrainOptions",
    "BridgeValOptions",
    "ConsistencyOptions",
    "SamplerOptions",
    "read_block",
]


@dataclass(frozen=True)
class BridgeOptions:
    """Keys of ``bridge:``.

    Attributes:
        schedule: ``one_clock``, exact at both ends; ``released``, the authors' grid, for weights trained on it.
        steps: nodes of the grid that training draws from.
        beta_max: how much noise the bridge carries in its middle, a rate (see docs/maths.md).
        beta_min: the same at both ends; 0.1 and 0.3 give the release's total variance, 0.141, 0.02 and 0.02 give 0.02.
        ot_ode: train and walk the noise-free bridge.
        lift: how a smaller low-quality image is brought to full size; the release uses ``nearest``.
        cond_x1: feed x1 to the network beside xt; ``network_g.cond_channels`` must then count its channels, and those
            of the data set's ``cond`` images.
        predicts: what the network learns: ``eps``, eq. 12; ``x0``; or, for a network that sees x1 (``cond_x1``), the
            residual x0 - x1 scaled to unit variance (``preconditioned``, see docs/maths.md).
        residual_variance: with ``preconditioned``, the mean square of x0 - x1 over the training set, both in [-1, 1];
            ``auto`` measures it at the start of training, and every save holds it.
        hole: what x1 holds in the hole of an inpainting mask: N(0, 1) ``noise``, as in the release, or what the
            degraded image has there (``keep``).
        add_x1_noise: add N(0, 1) noise to x1, not to the condition (the release's setting for colourisation), or noise
            of the standard deviation that is given.
        x1_share: share of the training samples that are put to x1 itself, where one evaluation starts, 0 to 1.
        dial: show the network a number from 0 (realism) to 1 (fidelity) as a last channel of the condition, which
            ``network_g.cond_channels`` counts. Training draws it for each sample, whose ``train.x0_losses`` weigh
            (1 - dial)^2 as much (loss-conditional training, Dosovitskiy and Djolonga, ICLR 2020); restoring sets it by
            ``val.sampler.dial``.
        nodes: train at the nodes alone that a walk of so many evaluations visits, evenly spread; None: at all of them.
        t0: with ``released``, what the network is fed at the first node, divided by ``steps``.
        T: the same at the last node.

    """

    schedule: Literal["one_clock", "released"] = "one_clock"
    steps: int = 1000
    beta_max: float = 0.3
    ot_ode: bool = False
    lift: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    cond_x1: bool = False
    predicts: Literal["eps", "x0", "preconditioned"] = "eps"
    residual_variance: Literal["auto"] | float = "auto"
    beta_min: float = RELEASED_BETA_MIN
    hole: Literal["noise", "keep"] = "noise"
    add_x1_noise: bool | float = False
    x1_share: float = 0.0
    dial: bool = False
    nodes: int | None = None
    t0: float = RELEASED_TIMES[0]
    T: float = RELEASED_TIMES[1]

    def __post_init__(self) -> None:
        if self.schedule != "released" and (self.t0, self.T) != RELEASED_TIMES:
            raise ValueError(f"t0 is {self.t0} and T {self.T}; they belong to schedule: released, leave them out")
        if not 0 <= self.x1_share <= 1:
            raise ValueError(f"x1_share is {self.x1_share}; it must be a share from 0 to 1")
        if float(self.add_x1_noise) < 0:
            raise ValueError(f"add_x1_noise is {self.add_x1_noise}; it must be true, false or a number from 0")
        self._check_preconditioning(self.build())

    def _check_preconditioning(self, bridge: Bridge) -> None:
        if self.predicts == "preconditioned":
            if self.schedule == "released" or not self.cond_x1:
                raise ValueError(f"predicts is preconditioned, but schedule is {self.schedule} and cond_x1 "
                                 f"{self.cond_x1}; it needs one_clock and cond_x1: true")  # fmt: skip
            self.precondition(bridge, 1.0 if self.residual_variance == "auto" else self.residual_variance)
        elif self.residual_variance != "auto":
            raise ValueError(f"residual_variance is {self.residual_variance}, but predicts is {self.predicts}; it "
                             "belongs to predicts: preconditioned, leave it out")  # fmt: skip

    def build(self) -> Bridge:
        """Make the bridge; ValueError on values that it does not allow."""
        make = getattr(Bridge, self.schedule)
        times = (self.t0, self.T) if self.schedule == "released" else ()
        predicts = "x0" if self.predicts == "preconditioned" else self.predicts
        bridge = make(self.steps, self.beta_max, self.ot_ode, predicts, self.beta_min, *times)
        visited = samplers.step_grid(bridge, self.nodes)[:-1] if self.nodes is not None else ()
        return replace(bridge, x1_share=self.x1_share, trained_steps=tuple(visited))

    def precondition(self, bridge: Bridge, residual_variance: float) -> Preconditioning:
        """The scales of the network; ValueError on values that they do not allow."""
        return Preconditioning.of_bridge(bridge, residual_variance, float(self.add_x1_noise))


@dataclass(frozen=True)
class ConsistencyOptions:
    """Keys of ``val.sampler.consistency:``: make each prediction agree with the image it is restored from.

    Attributes:
        degradation: the operator, a degradation block such as ``{type: sr4x_bicubic, scale: 4}``.
        strength: share of the correction, 1 for all of it.

    """

    degradation: dict = field(metadata={"blocks": DEGRADATIONS})
    strength: float = 1.0

    def __post_init__(self) -> None:
        self.build()
        if self.strength <= 0:
            raise ValueError(f"strength is {self.strength}; it must be above 0")

    def build(self) -> Operator:
        """Build the operator; InputError if the degradation is unknown, or its operator is."""
        return known_operator(build_degradation(self.degradation))


@dataclass(frozen=True)
class SamplerOptions:
    """Keys of ``val.sampler:``.

    Attributes:
        type: a name in :data:`i2sb_plugin.samplers.SAMPLERS`.
        nfe: network evaluations of one draw.
        clip: clamp predictions of x0 to [-1, 1].
        spacing: how the visited steps lie on the grid, a name in :data:`i2sb_plugin.samplers.SPACINGS`.
        first: time in (0, 1) of the first node after x1, such as 0.999 for a short stochastic first step; None leaves
            it to ``spacing``.
        eta: randomness of the sampler ``dbim``, from 0 (none) to 1.
        order: of the sampler ``dbim``, 1 to 3.
        dial: of a bridge with ``bridge.dial``, from 0 (realism) to 1 (fidelity); 0.5 where it is left out.
        draws: restorations that are averaged; their standard deviation is saved beside the result.
        consistency: correct each prediction of x0 by the known operator, see :class:`ConsistencyOptions`.
        low_frequencies: where the operator is not known, take brightness and colours of the result from the degraded
            image: what a Gaussian blur of so many pixels of the result leaves; None leaves them alone.

    """

    type: str = "ancestral"
    nfe: int = 10
    clip: bool = True
    spacing: str = "uniform"
    first: float | None = None
    eta: float | None = None
    order: int | None = None
    dial: float | None = None
    draws: int = 1
    consistency: ConsistencyOptions | None = None
    low_frequencies: float | None = None

    def __post_init__(self) -> None:
        if self.type not in samplers.SAMPLERS:
            raise ValueError(f"type is {self.type!r}; {did_you_mean(self.type, samplers.SAMPLERS)}")
        if self.spacing not in samplers.SPACINGS:
            raise ValueError(f"spacing is {self.spacing!r}; {did_you_mean(self.spacing, samplers.SPACINGS)}")
        if self.nfe < 1 or self.draws < 1:
            raise ValueError(f"nfe is {self.nfe} and draws {self.draws}; both must be whole numbers from 1")
        if self.low_frequencies is not None and not self.low_frequencies > 0:
            raise ValueError(f"low_frequencies is {self.low_frequencies}; it must be a number of pixels above 0")
        if self.dial is not None and not 0 <= self.dial <= 1:
            raise ValueError(f"dial is {self.dial}; it must be a number from 0 (realism) to 1 (fidelity)")
        unused = set(self.own) - set(inspect.signature(samplers.SAMPLERS[self.type]).parameters)
        if unused:
            raise ValueError(f"{', '.join(sorted(unused))} is set, but type {self.type} has no such option; use dbim")

    @property
    def own(self) -> dict[str, float]:
        """The options that go to the sampler itself."""
        return {k: v for k, v in {"eta": self.eta, "order": self.order}.items() if v is not None}


@dataclass(frozen=True)
class BridgeTrainOptions(TrainOptions):
    """Keys of ``train:``.

    Attributes:
        bridge_opt: the loss of the prediction, such as ``{type: BridgeLoss}``, which is also what is left out.
        pixel_opt: refused, since the loss of these models is ``bridge_opt``.
        x0_losses: further losses of the predicted x0, each a block by the name under which it is logged, such as
            ``lpips: {type: LPIPSLoss, loss_weight: 2, at: x1}``: the loss and its options, and the samples that it
            looks at, those at ``x1``, ``all``, or all of them with the time as weight (``rising``).

    """

    bridge_opt: dict | None = None
    x0_losses: dict[str, dict] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pixel_opt is not None:
            raise ValueError("train.pixel_opt is given, but the loss of this model is train.bridge_opt; use that one")


@dataclass(frozen=True)
class BridgeValOptions(ValOptions):
    """Keys of ``val:``.

    Attributes:
        sampler: how restorations walk the bridge, see :class:`SamplerOptions`.
        nfe_curve: numbers of network evaluations that are compared while training, such as ``[1, 5, 20]``.
        nfe_curve_freq: iterations between two comparisons, a multiple of ``val_freq``; None: every validation.

    """

    sampler: dict | None = None
    nfe_curve: list[int] | None = None
    nfe_curve_freq: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nfe_curve is not None and (not self.nfe_curve or min(self.nfe_curve) < 1):
            raise ValueError(f"nfe_curve is {self.nfe_curve}; it must list whole numbers from 1, such as [1, 5, 20]")
        if self.nfe_curve_freq is not None and self.nfe_curve_freq < 1:
            raise ValueError(f"nfe_curve_freq is {self.nfe_curve_freq}; it must be a number of iterations from 1")
