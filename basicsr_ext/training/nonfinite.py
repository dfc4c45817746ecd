"""NaN and infinite losses and gradients: found without waiting for the device, described in a file, stopped or skipped.

A loss that is no number makes the gradient NaN (:func:`poisoned`). The ranks add up their gradients anyway, so the
norm of the gradient tells every rank the same, of its own batch and of the others'.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from basicsr.utils.logger import get_root_logger
from torch import Tensor, nn

from basicsr_ext.checkpoints.storage import newest_checkpoint
from basicsr_ext.common.errors import NonFiniteLoss
from basicsr_ext.common.files import SaveError, atomic_write_text
from basicsr_ext.processes import collectives
from basicsr_ext.training import loop_state

__all__ = ["Guard", "Step", "check_reduced", "describe", "poisoned", "raise_nonfinite", "trained_norm"]

LAG = 2  # steps that a GPU may be behind when the norm of one is read: the host waits for what is long done
MOST_REPORTS = 20  # files of one run
FEW = 10  # names that a report lists


def poisoned(loss: Tensor) -> Tensor:
    """The loss, a scalar; if it is NaN or infinite, one whose gradient is NaN for every parameter."""
    return loss * torch.where(torch.isfinite(loss.detach()), 1.0, math.nan)


def _named_parameters(networks: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """By names such as ``net_g.body.0.weight``."""
    return {f"{label}.{name}": p for label, net in networks.items() for name, p in net.named_parameters()}


@torch.no_grad()
def gradient_norm(parameters: Sequence[nn.Parameter], device: torch.device) -> tuple[Tensor, Tensor]:
    """L2 norm of the gradient of each parameter, N, and of all of them, a scalar; both on the device."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(0, device=device), torch.zeros((), device=device)
    norms = torch.stack(torch._foreach_norm(gradients))
    return norms, torch.linalg.vector_norm(norms)


class Step:
    """What one training step was made of, kept until its gradient norm is known on the host.

    Attributes:
        norm: L2 norm of the gradient, a scalar on the device.

    """

    def __init__(
        self,
        iteration: int,
        batch: Mapping[str, Any],
        losses: Mapping[str, Tensor],
        parameters: Mapping[str, nn.Parameter],
        device: torch.device,
    ) -> None:
        self.iteration, self.batch, self.losses = iteration, batch, losses
        self.parameters = {name: p for name, p in parameters.items() if p.grad is not None}
        self._norms, self.norm = gradient_norm(list(self.parameters.values()), device)
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
        """Scale the gradient down to this norm if it is longer."""
        gradients = [p.grad for p in self.parameters.values()]
        torch._foreach_mul_(gradients, (largest / (self.norm + 1e-6)).clamp(max=1.0))

    def told(self) -> tuple[dict[str, float], dict[str, Any]]:
        """The losses, and the gradient: its norm, how many parameters have a bad one, and the first of their names."""
        bad = [name for name, good in zip(self.parameters, torch.isfinite(self._norms).tolist()) if not good]
        losses = {name: float(value) for name, value in self.losses.items()}
        return losses, _gradient(float(self.norm), bad, len(self.parameters))


def _gradient(norm: float, bad: list[str], count: int) -> dict[str, Any]:
    return {"norm": norm, "parameters": count, "parameters with a bad one": len(bad), "the first of them": bad[:FEW]}


class Guard:
    """Judges every step of a model by ``train.nonfinite`` and ``train.max_skipped``.

    Args:
        model: A :class:`~basicsr_ext.models.restoration_model.RestorationModel`.

    Attributes:
        skipped: Steps left out so far.

    """

    def __init__(self, model: Any) -> None:
        self.model = model
        train = model.opt.get("train") or {}
        self.skips, self.most = train.get("nonfinite", "stop") == "skip", train.get("max_skipped", 10)
        self.lag = LAG if model.device.type == "cuda" and not self.skips else 0
        self.skipped = self._in_a_row = 0
        self._parameters: dict[str, nn.Parameter] = {}
        self._steps: deque[Step] = deque()
        self._failure: NonFiniteLoss | None = None

    def step(self, iteration: int, batch: Mapping[str, Any], losses: Mapping[str, Tensor]) -> Step:
        """The step whose gradient ``net_g`` holds, of the batch and its losses."""
        if not self._parameters:
            self._parameters = _named_parameters({"net_g": self.model.get_bare_model(self.model.net_g)})
        return Step(iteration, batch, losses, self._parameters, self.model.device)

    def refuses(self, step: Step) -> bool:
        """True if the step has to be left out, which must be asked before the optimiser takes it.

        Raises:
            NonFiniteLoss: The run must stop; on a GPU up to ``LAG`` steps later.

        """
        self._steps.append(step)
        return self._judge(self.lag)

    def settle(self) -> None:
        """Judge every step so far, before anything is saved, logged or validated.

        Raises:
            NonFiniteLoss: One of them was bad.

        """
        if self._failure:
            raise self._failure
        self._judge(0)

    def _judge(self, left: int) -> bool:
        refused = False
        while len(self._steps) > left:
            step = self._steps.popleft()
            refused = step.is_bad() and not self._left_to_scaler(step)
            if refused:
                self._refuse(step)
            self._in_a_row = self._in_a_row + 1 if refused else 0
        return refused

    def _left_to_scaler(self, step: Step) -> bool:
        """In fp16 a gradient may overflow: the scaler of the loss leaves the step out, and scales less from then on."""
        scaler = getattr(self.model, "scaler", None)
        return bool(scaler and scaler.is_enabled()) and all(bool(torch.isfinite(v)) for v in step.losses.values())

    def _refuse(self, step: Step) -> None:
        losses, gradient = step.told()
        if self.skips and self._in_a_row + 1 < self.most:
            self.skipped += 1
            report = _report(self.model, step.iteration, losses, gradient, step.batch, self.skipped)
            get_root_logger().warning(
                f"Step {step.iteration} is skipped: {_what(losses, gradient)}. {report}Skipped so far: {self.skipped}; "
                f"train.max_skipped: {self.most} in a row stop the run."
            )
            return
        try:
            raise_nonfinite(self.model, losses, step.iteration, gradient, step.batch, self._in_a_row)
        except NonFiniteLoss as failure:
            self._failure = failure
            raise


# ---- BasicSR's own models


def _networks(model: Any) -> dict[str, nn.Module]:
    nets = {name: value for name, value in vars(model).items() if name.startswith("net_")}
    return {name: model.get_bare_model(net) for name, net in nets.items() if isinstance(net, nn.Module)}


def trained_norm(model: Any) -> Tensor:
    """L2 norm of all gradients of a BasicSR model, a scalar on its device."""
    parameters = [p for o in getattr(model, "optimizers", ()) for group in o.param_groups for p in group["params"]]
    return gradient_norm(parameters, model.device)[1].float().to(model.device)


def check_reduced(model: Any, losses: Mapping[str, float], norm: float) -> None:
    """Stop the run of a BasicSR model whose losses, or whose gradient's norm, are no numbers on any process.

    Raises:
        NonFiniteLoss: They are not.

    """
    if math.isfinite(norm) and all(math.isfinite(value) for value in losses.values()):
        return
    named = {name: p.grad for name, p in _named_parameters(_networks(model)).items() if p.grad is not None}
    bad = [name for name, gradient in named.items() if not bool(torch.isfinite(gradient).all())]
    batch = loop_state.now.batch if loop_state.now.model is model else None
    raise_nonfinite(model, losses, getattr(model, "current_iter", 0), _gradient(norm, bad, len(named)), batch)


# ---- what is said


def raise_nonfinite(
    model: Any,
    losses: Mapping[str, float],
    iteration: int,
    gradient: Mapping[str, Any] | None = None,
    batch: Mapping[str, Any] | None = None,
    skipped: int = 0,
) -> NoReturn:
    """Describe a step whose loss or gradient is no number in a file of the run's folder, and stop the run.

    Args:
        model: A BasicSR model; its learning rate and its folders enter the message.
        losses: Losses by name; those that are NaN or infinite are listed.
        iteration: The iteration of the step.
        gradient: As :meth:`Step.told` gives it.
        batch: What the step was made of.
        skipped: Steps in a row that were skipped before this one.

    Raises:
        NonFiniteLoss: Always.

    """
    newest = newest_checkpoint(model.opt)
    rates = ", ".join(f"{rate:.3e}" for rate in _learning_rates(model))
    raise NonFiniteLoss(
        f"training stopped at iteration {iteration}, learning rate {rates or 'unknown'}"
        + (f", after {skipped} skipped steps in a row" if skipped else "")
        + f": {_what(losses, gradient or {})}. "
        + _report(model, iteration, losses, gradient, batch or {}, 0)
        + (f"The newest checkpoint is {newest}. " if newest else "There is no checkpoint yet. ")
        + "Nothing was saved since; lower the learning rate or look for bad images"
        + ("" if skipped or not hasattr(model, "guard") else ", or set train.nonfinite: skip to leave such steps out")
        + f"; then start again{' with --auto_resume' if newest else ''}"
    )


def _learning_rates(model: Any) -> list[float]:
    return [group["lr"] for optimizer in model.optimizers for group in optimizer.param_groups]


def _what(losses: Mapping[str, float], gradient: Mapping[str, Any]) -> str:
    bad = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    if not bad and gradient:
        names = gradient["the first of them"]
        first = f", first that of {names[0]}" if names else ""
        many = collectives.world_size() > 1
        whose, which = ("of this process ", ", which all processes share,") if many else ("", "")
        bad = [
            f"the losses {whose}are finite, but the gradient's norm{which} is {gradient['norm']} "
            f"(of {gradient['parameters']} parameters {gradient['parameters with a bad one']} have a bad one{first})"
        ]
    return ", ".join(bad) or "a loss is NaN or infinite"


def _report(
    model: Any,
    iteration: int,
    losses: Mapping[str, float],
    gradient: Mapping[str, Any] | None,
    batch: Mapping[str, Any],
    count: int,
) -> str:
    """Write the file, and say where it is and which images are bad; nothing where there is no folder for it."""
    bad = _bad_images(batch)
    said = f"NaN or infinite values came in with {', '.join(bad[:3])}. " if bad else ""
    folder = model.opt["path"].get("experiments_root")
    if not folder or not Path(folder).is_dir() or count > MOST_REPORTS:
        return said
    rank = f"_rank{collectives.rank()}" if collectives.world_size() > 1 else ""
    path = Path(folder) / f"nonfinite_{iteration}{rank}.json"
    report = {
        "iteration": iteration,
        "rank": collectives.rank(),
        "learning rates": _learning_rates(model),
        "precision": model.acceleration.precision if hasattr(model, "acceleration") else "fp32",
        "losses": dict(losses),
        "gradient": gradient,
        "images with NaN or infinite values": bad,
        "paths": {key: value for key, value in batch.items() if _is_texts(value)},
        "batch": {key: describe(value) for key, value in batch.items() if torch.is_tensor(value)},
    }
    try:
        atomic_write_text(json.dumps(_strict(report), indent=1, allow_nan=False) + "\n", path)
    except SaveError as error:
        return f"{said}({error}.) "
    return f"{said}Its batch, losses and gradient are described in {path}. "


def describe(tensor: Tensor) -> dict[str, Any]:
    """Shape, type, share of NaN or infinite values, and least, largest and mean value of the others."""
    values = tensor.detach().double().flatten().cpu()
    finite = values[torch.isfinite(values)]
    few = {"min": finite.min().item(), "max": finite.max().item(), "mean": finite.mean().item()} if len(finite) else {}
    share = 1 - len(finite) / max(len(values), 1)
    return {"shape": list(tensor.shape), "type": str(tensor.dtype).removeprefix("torch."), "nonfinite": share} | few


def _bad_images(batch: Mapping[str, Any]) -> list[str]:
    """Files of the images that have a value which is no number, by the tensor that has it."""
    found = []
    for key, value in batch.items():
        paths = batch.get(f"{key}_path", batch.get("lq_path"))
        if torch.is_tensor(value) and value.dim() and value.is_floating_point() and _is_texts(paths):
            bad = ~torch.isfinite(value.detach()).flatten(1).all(1) if value.dim() > 1 else ~torch.isfinite(value)
            found += [path for path, is_bad in zip(paths, bad.tolist()) if is_bad]
    return list(dict.fromkeys(found))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(text, str) for text in value)


def _strict(thing: Any) -> Any:
    """JSON has no NaN: it becomes text."""
    if isinstance(thing, Mapping):
        return {key: _strict(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [_strict(value) for value in thing]
    return str(thing) if isinstance(thing, float) and not math.isfinite(thing) else thing
