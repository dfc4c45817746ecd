"""NaN and infinite losses and gradients: found without waiting for the device, named, stopped or skipped.

A loss that is no number makes the gradient NaN (:func:`poisoned`). The ranks add up their gradients anyway, so the
norm of the gradient tells every rank the same, of its own batch and of the others'.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from basicsr.utils.logger import get_root_logger
from torch import Tensor, nn

from basicsr_ext.checkpoints.storage import newest_checkpoint
from basicsr_ext.common.contracts import restorer_of
from basicsr_ext.common.errors import NonFiniteLoss
from basicsr_ext.common.text import listed
from basicsr_ext.processes import collectives
from basicsr_ext.training import loop_state

_CLIP_ROUNDING = 1e-6  # that torch adds to the norm before it divides by it
LAG = 2  # steps that a GPU may be behind when the norm of one is read: the host waits for what is long done


def poisoned(loss: Tensor) -> Tensor:
    """The loss, a scalar; if it is NaN or infinite, one whose gradient is NaN for every parameter."""
    return loss * torch.where(torch.isfinite(loss.detach()), 1.0, math.nan)


def _named_parameters(networks: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """By names such as ``net_g.body.0.weight``."""
    return {f"{label}.{name}": p for label, net in networks.items() for name, p in net.named_parameters()}


@torch.no_grad()
def gradient_norm(parameters: Iterable[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """L2 norm of the gradient of each parameter, N, and of all of them, a scalar; on their device, if there are any."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(0), torch.zeros(())
    norms = torch.stack(torch._foreach_norm(gradients))
    return norms, torch.linalg.vector_norm(norms)


class Step:
    """What one training step was made of, kept until ``norm``, the L2 norm of its gradient, is known on the host."""

    def __init__(
        self, iteration: int, batch: dict[str, Any], losses: dict[str, Tensor], parameters: dict[str, nn.Parameter]
    ) -> None:
        self.iteration, self.batch, self.losses = iteration, batch, losses
        self.parameters = {name: p for name, p in parameters.items() if p.grad is not None}
        self._norms, self.norm = gradient_norm(self.parameters.values())
        self._event = None
        if self.norm.device.type == "cuda":
            self._host = torch.empty((), dtype=self.norm.dtype, pin_memory=True)
            self._host.copy_(self.norm, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def is_bad(self) -> bool:
        """Wait for the step on the device; True if its gradient is NaN or infinite."""
        if self._event is None:
            return not math.isfinite(float(self.norm))
        self._event.synchronize()
        return not math.isfinite(float(self._host))

    def clip(self, largest: float) -> None:
        """Scale the gradient down to this norm if it is longer; on a GPU, whose norm is not known yet, by 1 if not."""
        if self._event is None and float(self.norm) + _CLIP_ROUNDING <= largest:
            return
        nn.utils.clip_grads_with_norm_(self.parameters.values(), largest, self.norm, foreach=True)

    def described(self) -> BadStep:
        """What there is to say of it; waits for the device."""
        bad = [name for name, good in zip(self.parameters, torch.isfinite(self._norms).tolist()) if not good]
        losses = {name: float(value) for name, value in self.losses.items()}
        return BadStep(self.iteration, losses, float(self.norm), len(self.parameters), bad, self.batch)


class Guard:
    """Judges each step of a RestorationModel by ``train.nonfinite`` and ``train.max_skipped``; counts ``skipped`` ones.

    If the loss is ``scaled``, as in fp16, a gradient may overflow: the scaler leaves the step out and then scales less.
    """

    def __init__(self, model: Any, scaled: bool = False) -> None:
        self.model, self.scaled = model, scaled
        train = model.opt.get("train") or {}
        self.skips, self.most = train.get("nonfinite", "stop") == "skip", train.get("max_skipped", 10)
        self.lag = LAG if model.device.type == "cuda" and not self.skips else 0
        self.skipped = self._in_a_row = 0
        self._parameters: dict[str, nn.Parameter] = {}
        self._steps: deque[Step] = deque()
        self._failure: NonFiniteLoss | None = None

    def step(self, iteration: int, batch: dict[str, Any], losses: dict[str, Tensor]) -> Step:
        """The step whose gradient ``net_g`` holds, of the batch and its losses."""
        if not self._parameters:
            self._parameters = _named_parameters({"net_g": self.model.get_bare_model(self.model.net_g)})
        return Step(iteration, batch, losses, self._parameters)

    def refuses(self, step: Step) -> bool:
        """True if the step has to be left out, which must be asked before the optimiser takes it.

        Raises NonFiniteLoss if the run must stop; on a GPU up to ``LAG`` steps later.
        """
        self._steps.append(step)
        return self._judge(self.lag)

    def settle(self) -> None:
        """Judge every step so far, before anything is saved, logged or validated; NonFiniteLoss if one was bad."""
        if self._failure:
            raise self._failure
        self._judge(0)

    def _judge(self, left: int) -> bool:
        refused = False
        while len(self._steps) > left:
            step = self._steps.popleft()
            refused = step.is_bad() and not (self.scaled and all(map(math.isfinite, step.losses.values())))
            if refused:
                self._refuse(step)
            self._in_a_row = self._in_a_row + 1 if refused else 0
        return refused

    def _refuse(self, step: Step) -> None:
        bad = step.described()
        if self.skips and self._in_a_row + 1 < self.most:
            self.skipped += 1
            get_root_logger().warning(
                f"Step {step.iteration} is skipped: {bad.cause()}. {bad.images()}Skipped so far: {self.skipped}; "
                f"train.max_skipped: {self.most} in a row stop the run."
            )
            return
        self._failure = bad.failure(self.model, self._in_a_row)
        raise self._failure


# ---- BasicSR's own models


def trained_norm(model: Any) -> Tensor:
    """L2 norm of all gradients of a BasicSR model, a scalar on its device; 0 before it has optimisers."""
    optimizers = vars(model).get("optimizers", ())
    parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    return gradient_norm(parameters)[1].float().to(model.device)


def check_reduced(model: Any, losses: Mapping[str, float], norm: float) -> None:
    """Raise NonFiniteLoss if the losses of a BasicSR model, or its gradient's norm, are no numbers on any process."""
    if math.isfinite(norm) and all(math.isfinite(value) for value in losses.values()):
        return
    nets = {name: net for name, net in vars(model).items() if name.startswith("net_") and isinstance(net, nn.Module)}
    named = _named_parameters({name: model.get_bare_model(net) for name, net in nets.items()})
    gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
    bad = [name for name, gradient in gradients.items() if not bool(torch.isfinite(gradient).all())]
    run = loop_state.current()
    iteration, batch = (run.iteration, run.batch or {}) if run.model is model else (0, {})
    raise BadStep(iteration, losses, norm, len(gradients), bad, batch).failure(model)


# ---- what is said


@dataclass(frozen=True)
class BadStep:
    """A step whose loss or gradient is NaN or infinite, on the host."""

    iteration: int
    losses: Mapping[str, float]
    norm: float = math.nan
    parameters: int = 0  # number of those that have a gradient
    bad: Sequence[str] = ()  # names of those whose gradient is NaN or infinite
    batch: Mapping[str, Any] = field(default_factory=dict)

    def failure(self, model: Any, skipped: int = 0) -> NonFiniteLoss:
        """What stops the run of a BasicSR model, with ``skipped`` bad steps in a row before."""
        newest = newest_checkpoint(model.opt)
        rates = ", ".join(f"{group['lr']:.3e}" for optimizer in model.optimizers for group in optimizer.param_groups)
        skip = ", or set train.nonfinite: skip to leave such steps out"
        return NonFiniteLoss(
            f"training stopped at iteration {self.iteration}, learning rate {rates or 'unknown'}"
            + (f", after {skipped} skipped steps in a row" if skipped else "")
            + f": {self.cause()}. {self.images()}"
            + (f"The newest checkpoint is {newest}. " if newest else "There is no checkpoint yet. ")
            + "Nothing was saved since; lower the learning rate or look for bad images"
            + (skip if restorer_of(model).skips_bad_steps and not skipped else "")
            + f"; then start again{' with --auto_resume' if newest else ''}"
        )

    def cause(self) -> str:
        """The losses that are no numbers, or else what is wrong with the gradient."""
        if bad := [f"{name} is {value}" for name, value in self.losses.items() if not math.isfinite(value)]:
            return ", ".join(bad)
        first = f", first that of {self.bad[0]}" if self.bad else ""
        many = collectives.world_size() > 1
        whose, which = ("of this process ", ", which all processes share,") if many else ("", "")
        return (
            f"the losses {whose}are finite, but the gradient's norm{which} is {self.norm} "
            f"(of {self.parameters} parameters {len(self.bad)} have a bad one{first})"
        )

    def images(self) -> str:
        """A sentence with the images that have a value which is no number, else with those of the batch, if known."""
        bad = []
        for key, value in self.batch.items():
            paths = self.batch.get(f"{key}_path", self.batch.get("lq_path"))
            if torch.is_tensor(value) and value.dim() and value.is_floating_point() and _is_texts(paths):
                good = torch.isfinite(value.detach()).reshape(len(value), -1).all(1)
                bad += [path for path, is_good in zip(paths, good.tolist()) if not is_good]
        if bad:
            return f"NaN or infinite values came in with {listed(dict.fromkeys(bad))}. "
        paths = self.batch.get("lq_path", ())
        return f"The batch was {listed(paths)}. " if _is_texts(paths) else ""


def _is_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(text, str) for text in value)
