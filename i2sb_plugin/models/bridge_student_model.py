"""The one-evaluation student of a trained bridge as a BasicSR model: `model_type: BridgeStudentModel`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from basicsr_ext.checkpoints.networks import network_channels
from basicsr_ext.common.errors import InputError, did_you_mean
from i2sb_plugin import samplers, space
from i2sb_plugin.bridge import sent, standard_normal
from i2sb_plugin.models.bridge_options import BridgeOptions, BridgeTrainOptions, BridgeValOptions, SamplerOptions
from i2sb_plugin.models.i2sb_model import I2SBModel, drawn
from i2sb_plugin.models.teachers import load_network, read_teacher, widened
from i2sb_plugin.student import StudentWalk

__all__ = ["BridgeStudentModel", "StudentOptions", "StudentSamplerOptions"]


@dataclass(frozen=True)
class StudentOptions:
    """Keys of ``student:``, beside ``path.teacher``, the checkpoint of the bridge that is learnt from.

    Attributes:
        nodes: evaluations of the teacher's walk that is learnt; 10 to 30 are usual.
        spacing: how its nodes are spread, a name in :data:`i2sb_plugin.samplers.SPACINGS`.
        anchor: share of the training samples that learn the teacher's own prediction at x1, 0 to 1.
        x0_share: share of the training samples that are put to the end of the walk, 0 to 1; ``train.x0_losses`` look
            at samples there alone.
        early_bias: how strongly the first iterations gather near x1, from where errors travel down; it falls evenly to
            0 at the last iteration. 0 for not at all.

    """

    nodes: int = 15
    spacing: str = "uniform"
    anchor: float = 0.1
    x0_share: float = 0.0
    early_bias: float = 1.0

    def __post_init__(self) -> None:
        if self.nodes < 2:
            raise ValueError(f"nodes is {self.nodes}; it must be a whole number from 2")
        if self.spacing not in samplers.SPACINGS:
            raise ValueError(f"spacing is {self.spacing!r}; {did_you_mean(self.spacing, samplers.SPACINGS)}")
        if not (self.anchor >= 0 and self.x0_share >= 0 and self.anchor + self.x0_share <= 1):
            said = f"anchor is {self.anchor} and x0_share {self.x0_share}"
            raise ValueError(f"{said}; they are shares from 0 to 1, and so is their sum")
        if not 0 <= self.early_bias < float("inf"):
            raise ValueError(f"early_bias is {self.early_bias}; it must be a number from 0")


@dataclass(frozen=True)
class StudentSamplerOptions(SamplerOptions):
    """Keys of ``val.sampler:``; those of the bridge without its walks.

    Attributes:
        type: ``one_step``, the only one.
        nfe: 1, the only number.
        dial: the place on the walk, from 0 (its end: realism) to 1 (its start: fidelity); 0.5 where it is left out.

    """

    type: str = "one_step"
    nfe: int = 1
    dial: float | None = None

    def __post_init__(self) -> None:
        if self.nfe != 1:
            raise ValueError(f"nfe is {self.nfe}; a student takes 1 evaluation: choose by dial")
        walks = {"type": "one_step", "spacing": "uniform", "first": None, "eta": None, "order": None}
        for name, only in walks.items():
            if getattr(self, name) != only:
                raise ValueError(f"{name} is {getattr(self, name)!r}, but a student does not walk: leave it out")
        super().__post_init__()


@MODEL_REGISTRY.register()
class BridgeStudentModel(I2SBModel):
    """Learns the deterministic walk of a trained bridge, and restores by one evaluation anywhere on it.

    The teacher is ``path.teacher``. ``bridge`` and ``network_g`` are its own, with as many more ``cond_channels`` as
    images have: there the network sees the noise of the walk's first step. The weights begin as the teacher's. A
    teacher with a dial of its own stands at 1, fidelity. Batches, masks and conditions are those of
    :class:`~i2sb_plugin.models.i2sb_model.I2SBModel`.

    Source: OFTSR (arXiv 2412.09465), see :mod:`i2sb_plugin.student`.
    """

    option_blocks: ClassVar[dict[str, type]] = {
        "bridge": BridgeOptions,
        "student": StudentOptions,
        "val.sampler": StudentSamplerOptions,
        "train": BridgeTrainOptions,
        "val": BridgeValOptions,
    }
    restore_flags: ClassVar[dict[str, tuple[type, str, str]]] = {
        "dial": (float, "val.sampler.dial", "from 0, realism, to 1, fidelity"),
        "nfe": (int, "val.sampler.nfe", "network evaluations: 1"),
        **{name: I2SBModel.restore_flags[name] for name in ("samples", "low_frequencies")},
    }
    one_draw: ClassVar[str] = ""
    plain_loss: ClassVar[Mapping[str, Any]] = {"type": "BridgeLoss", "norm": "l1"}
    progress: float = 0.0  # share of the training that is done

    def __init__(self, opt: dict) -> None:
        self.student = self._read(opt, "student")
        self.walk = self._walk_of(opt)
        super().__init__(opt)

    @classmethod
    def _walk_of(cls, opt: Mapping[str, Any]) -> StudentWalk:
        """The walk that is learnt; InputError if the bridge does not have it."""
        options = cls._read(opt, "student")
        try:
            return StudentWalk.of_bridge(cls._read(opt, "bridge").build(), options.nodes, options.spacing)
        except ValueError as error:
            raise InputError(f"student.{error}") from None

    @classmethod
    def maps(cls, opt: Mapping[str, Any]) -> int:
        """Channels of the condition that are no images: those of the noise, and the one of a teacher's dial."""
        return super().maps(opt) + (network_channels(opt["network_g"])[0] or 0)

    @classmethod
    def option_faults(cls, opt: Mapping[str, Any]) -> list[str]:
        """A walk that the bridge does not have, and in a training no teacher or losses in the wrong places."""
        faults = []
        try:
            cls._walk_of(opt)
        except InputError as error:
            faults.append(str(error))
        if not cls._read(opt, "bridge").cond_x1:
            faults.append("bridge.cond_x1 is false, but a student and its teacher see x1; set it to true")
        train = opt.get("train") or {}
        if "optim_g" in train and not (opt.get("path") or {}).get("teacher"):
            faults.append("path.teacher is missing; give the checkpoint of a trained bridge that sees x1")
        for name, block in (train.get("x0_losses") or {}).items():
            if isinstance(block, Mapping) and "at" in block:
                said = f"train.x0_losses.{name}.at is {block['at']!r}"
                faults.append(f"{said}, but the losses of a student look at the end of its walk: leave it out")
        weighting = (train.get("bridge_opt") or {}).get("weighting", "uniform")
        if weighting != "uniform":
            faults.append(f"train.bridge_opt.weighting is {weighting!r}; a student learns x0 itself: leave it out")
        return faults or super().option_faults(opt)

    @property
    def _has_dial(self) -> bool:
        return True

    @classmethod
    def _dial_faults(cls, opt: Mapping[str, Any], losses: Mapping[str, Any]) -> list[str]:
        return []  # the dial is the place on the walk, and always there

    @classmethod
    def data_faults(cls, opt: Mapping[str, Any], item: Mapping[str, Any]) -> list[str]:
        """Faults of the channels as in any bridge, and in a training those of the teacher."""
        if opt.get("is_train"):
            try:
                read_teacher(opt)
            except InputError as error:
                return [str(error)]
        return super().data_faults(opt, item)

    # ---- training

    def init_training_settings(self) -> None:
        """Load the teacher; the network begins with its weights where no checkpoint gives other ones."""
        teacher = read_teacher(self.opt)
        network = load_network(teacher)
        self._precondition(self.opt, teacher.bridge.residual_variance)
        if not self.opt["path"].get("pretrain_network_g"):
            net = self.get_bare_model(self.net_g)
            net.load_state_dict(widened(network, net))
        self.teacher = self.acceleration.prepare(network.to(self.device))
        super().init_training_settings()

    def optimize_parameters(self, current_iter: int) -> None:
        """One step of the optimiser on the batch last fed."""
        self.progress = min(current_iter / self.opt["train"]["total_iter"], 1.0)
        super().optimize_parameters(current_iter)

    def training_loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Regress what one step of the teacher makes of the student's own image a place before, see ``student.py``."""
        generators = batch.get("generators")
        x0 = space.encode(batch["gt"])
        x1, cond = self.ends(batch, generators)
        self._check_sizes(x0, x1, batch)
        start, mask = self._with_noise(x1, generators), batch.get("mask")
        place = self._sample_place(len(x0), generators)
        # before the target: autocast keeps its casts of the weights, and those made without gradients have none
        found = self._found(self.net_g, start, x1, cond, place)
        with torch.no_grad():
            target = self._target(start, x1, cond, (place - 1).clamp(min=0), mask)
        loss = self.cri_bridge(found, target, mask)
        error = (found.detach() - target).square().flatten(1).mean(1)
        time = torch.tensor(self.walk.nodes)[place] / self.bridge.last_step
        self.loss_by_time.add(sent(time, error.device), error)
        return {"l_student": loss} | self._end_losses(_kept(found, x0, mask), x0, place, generators)

    def _target(self, start: Tensor, x1: Tensor, cond: Tensor, place: Tensor, mask: Tensor | None) -> Tensor:
        """What the place behind ``place`` learns; at x1, whose step keeps nothing, also what x1 itself does."""
        noise = cond[:, -start.shape[1] :]
        found = _kept(self._found(self.get_bare_model(self.net_g), start, x1, cond, place), x1, mask)
        point, step = self.walk.point(start, found, noise, place), torch.tensor(self.walk.nodes)[place]
        prediction = self._call(self.teacher, point, x1, step, cond[:, : -start.shape[1]]).float()
        taught = _kept(self.parametrization.x0_from(point, prediction, x1, step), x1, mask)
        return self.walk.target(found, taught, place)

    def _found(self, net: nn.Module, start: Tensor, x1: Tensor, cond: Tensor | None, position: Tensor) -> Tensor:
        """G(x1, z, s) at a position for each image: the network at x1, told the time of s.

        ``start`` is x1 with the noise of ``add_x1_noise``, if any; z is a part of ``cond``.
        """
        at_x1 = torch.full((len(start),), self.bridge.last_step)
        fed = self.parametrization.network_input(start, x1, at_x1)
        prediction = net(fed, sent(self.walk.time(position), start.device), cond).float()
        return self.parametrization.x0_from(start, prediction, x1, at_x1)

    def _sample_place(self, count: int, generators: list[torch.Generator] | None) -> Tensor:
        options, found = self.student, drawn("place", 2, count, generators)
        bias = options.early_bias * (1 - self.progress)
        return self.walk.trained_place(found, options.anchor, options.x0_share, bias)

    def _end_losses(
        self, found: Tensor, x0: Tensor, place: Tensor, generators: list[torch.Generator] | None
    ) -> dict[str, Tensor]:
        """``train.x0_losses`` of the samples at the end of the walk; the others count as zero in the mean."""
        chosen = (place == self.walk.last_place).nonzero().flatten()
        if not self.x0_losses or not len(chosen):
            return {f"l_{name}": found.new_zeros(()) for name in self.x0_losses}
        pick, everyone = sent(chosen, found.device), torch.ones(len(chosen))
        shift = drawn("shift", 2, len(found), generators)[chosen]
        losses = self.x0_losses(found[pick], x0[pick], everyone.bool(), everyone, None, shift)
        return {name: loss * (len(chosen) / len(found)) for name, loss in losses.items()}

    # ---- restoring

    def ends(self, batch: dict[str, Any], generators: Any = None, dial: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The end of the bridge and the condition: x1, and the teacher's condition with the noise z behind it.

        ``dial`` plays no part here: the teacher's own stands at 1.
        """
        fidelity = torch.ones(len(batch["lq"])) if self.bridge_options.dial else None
        x1, cond = super().ends(batch, generators, fidelity)
        noise = standard_normal(x1, generators)
        return x1, noise if cond is None else torch.cat([cond, noise], 1)

    def predictor(self, net: nn.Module, x1: Tensor, cond: Tensor | None) -> samplers.PredictX0:
        """Turn a network into the one prediction of ``one_step``, at the place that ``val.sampler.dial`` says."""
        dial = self._dial

        def predict_x0(xt: Tensor, step: int) -> Tensor:
            position = self.walk.position_of(torch.full((len(xt),), float(dial)))
            with self.autocast():
                return self._found(net, xt, x1, cond, position)

        return predict_x0


def _kept(x0: Tensor, known: Tensor, mask: Tensor | None) -> Tensor:
    """x0 in the hole of a mask, what is known outside of it; x0 itself without one."""
    return x0 if mask is None else torch.where(mask.bool(), x0, known)
