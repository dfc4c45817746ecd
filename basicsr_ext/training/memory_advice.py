"""What to say when memory runs out: what a training run needs, by an estimate, and which options lower it."""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from basicsr_ext.common.errors import InputError
from basicsr_ext.training import loop_state
from basicsr_ext.training.memory import cause, give_back, is_out_of_memory

__all__ = ["Needs", "explained", "needs_of", "room_on", "saved_bytes"]

_WORKER = (
    "a worker of the data loader was killed by the system, as it does when the machine's memory runs out: lower "
    "datasets.train.num_worker_per_gpu, or end what else fills the memory; then go on with --auto_resume"
)
SPARE = 1.25  # of what is kept for the backward pass: it needs room to work in


class Needs:
    """Bytes that training takes: ``network``, ``gradients``, ``optimiser``, ``average``, and ``image`` for each image
    of a batch (0 if that is not known).
    """

    def __init__(self, network: int, gradients: int, optimiser: int, average: int, image: int) -> None:
        self.network, self.gradients, self.optimiser, self.average = network, gradients, optimiser, average
        self.image = image

    @property
    def fixed(self) -> int:
        """What does not depend on the batch."""
        return self.network + self.gradients + self.optimiser + self.average

    def parts(self, images: int, now: int, room: int) -> int | None:
        """The least ``train.accumulate`` above ``now`` that would fit into ``room`` bytes; None if there is none."""
        for parts in range(now + 1, images + 1):
            size = math.ceil(images / parts)
            if size < math.ceil(images / now) and self.fixed + SPARE * size * self.image <= room:
                return parts
        return None


@contextmanager
def explained(training: bool) -> Iterator[None]:
    """Turn lack of memory into InputError, with an estimate and the options that lower it.

    Raises:
        InputError: Memory ran out inside.

    """
    try:
        yield
        return
    except (RuntimeError, MemoryError) as error:
        if training and "is killed by signal: Killed" in str(error):
            raise InputError(_WORKER) from error
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # the values of the failed call, which fill the memory
        said = cause(error)
    now = loop_state.now
    if now.model is None or not training:
        raise InputError(
            f"out of memory before a batch was trained ({said}): take a smaller network_g, or a larger device"
            if training
            else f"out of memory ({said}): an image is too large for this device; "
            "`basicsr restore --tile` restores large images in tiles"
        )
    raise InputError(_advice(now.model, said))


def needs_of(model: Any) -> Needs:
    """What a BasicSR model needs to be trained, with its last batch as the measure of an image.

    The network is called on one image, so that what it keeps for the backward pass is counted, byte by byte. Gradients
    are dropped: the model is of no further use.
    """
    networks = {k: v for k, v in vars(model).items() if k.startswith("net_") and isinstance(v, nn.Module)}
    for name, net in networks.items():
        setattr(model, name, model.get_bare_model(net))
        net.zero_grad(set_to_none=True)
    give_back()
    sizes = {name: sum(t.nbytes for t in (*n.parameters(), *n.buffers())) for name, n in networks.items()}
    trained = [p for o in model.optimizers for group in o.param_groups for p in group["params"]]
    image = 0
    with suppress(Exception):  # whatever stands in the way of the estimate, the message must come
        image = saved_bytes(lambda: _on_one_image(model), list(networks.values()))
    return Needs(
        sum(size for name, size in sizes.items() if not name.endswith("_ema")),
        sum(p.nbytes for p in trained),
        sum(_optimiser_bytes(optimizer) for optimizer in model.optimizers),
        sum(size for name, size in sizes.items() if name.endswith("_ema")),
        image,
    )


def _on_one_image(model: Any) -> Any:
    if not hasattr(model, "training_loss"):
        return model.net_g(model.lq[:1])
    with model.autocast():
        return model.training_loss({key: value[:1] for key, value in model.batch.items()})


def _optimiser_bytes(optimizer: torch.optim.Optimizer) -> int:
    kept = sum(v.nbytes for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v))
    if kept:
        return kept
    moments = [(2 if "betas" in g else 1 if g.get("momentum") else 0, g["params"]) for g in optimizer.param_groups]
    return sum(count * p.nbytes for count, parameters in moments for p in parameters)


def saved_bytes(call: Callable[[], Any], networks: list[nn.Module]) -> int:
    """Bytes that a call keeps for its backward pass, the weights of the networks left out."""
    weights = {t.untyped_storage().data_ptr() for net in networks for t in (*net.parameters(), *net.buffers())}
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()  # noqa: F841  (it keeps alive what is counted, so that no place is counted twice)
    return sum(found.values())


def room_on(device: torch.device, fixed: int) -> tuple[int | None, str]:
    """Bytes that this run may take on a device, None if unknown, and the device in words.

    On a CPU that is what the system could give now and ``fixed``, which the run holds already.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        others = total - free - torch.cuda.memory_reserved(device)
        held = f", of which others hold {_gib(others)}" if others > 2**28 else ""
        return total - others, f"{torch.cuda.get_device_name(device)} with {_gib(total)}{held}"
    with suppress(OSError, ValueError, StopIteration), open("/proc/meminfo", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("MemAvailable"))
        room = int(line.split()[1]) * 1024 + fixed
        return room, f"CPU with room for {_gib(room)}"
    return None, device.type


# ---- words


def _gib(size: float) -> str:
    unit, name = next((u, n) for u, n in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")) if size >= u or n == "KiB")
    return f"{size / unit:.1f} {name}"


def _advice(model: Any, said: str) -> str:
    needs = needs_of(model)
    room, device = room_on(model.device, needs.fixed)
    data, images = model.opt["datasets"]["train"], len(model.lq) if hasattr(model, "lq") else 0
    parts = getattr(model, "accumulate", 1)
    lines = [
        f"out of memory in iteration {loop_state.now.iteration} on {device} ({said})",
        f"  estimate: network {_gib(needs.network)}, gradients {_gib(needs.gradients)}, optimiser "
        f"{_gib(needs.optimiser)}, average {_gib(needs.average)}: {_gib(needs.fixed)} for any batch",
    ]
    if needs.image and images:
        size = math.ceil(images / parts)
        lines.append(
            f"  each image{_pixels(model)} takes {_gib(needs.image)} or more, the {size} that are trained at once "
            f"{_gib(SPARE * size * needs.image)}"
        )
    lines.append("what lowers it:")
    lines += [f"  - {line}" for line in _cures(model, data, needs, images, parts, room)]
    lines.append("then start again; with --auto_resume from the newest save, if there is one")
    return "\n".join(lines)


def _pixels(model: Any) -> str:
    gt = getattr(model, "gt", None)
    return f" of {gt.shape[-1]} x {gt.shape[-2]} pixels" if torch.is_tensor(gt) and gt.dim() == 4 else ""


def _cures(
    model: Any, data: Mapping[str, Any], needs: Needs, images: int, parts: int, room: int | None
) -> Iterator[str]:
    if hasattr(model, "accumulate") and math.ceil(images / parts) > 1:
        fitting = needs.parts(images, parts, room) if needs.image and room else None
        if fitting:
            yield f"train.accumulate: {fitting} (now {parts}) would fit; the gradient is the same, a step takes longer"
        elif needs.image and room:
            yield f"train.accumulate (now {parts}) does not suffice: not even one image at a time would fit"
        else:
            yield f"train.accumulate (now {parts}) trains a batch in parts; the gradient is the same"
    if images > 1:
        yield f"datasets.train.batch_size_per_gpu (now {data['batch_size_per_gpu']})"
    if data.get("gt_size"):
        yield f"datasets.train.gt_size (now {data['gt_size']}); memory goes with its square"
    if model.device.type == "cuda" and hasattr(model, "acceleration") and model.acceleration.precision == "fp32":
        yield "train.precision: bf16 (now fp32) halves what an image takes"
    network = model.opt.get("network_g") or {}
    arguments = inspect.signature(type(model.net_g).__init__).parameters
    for name in ("checkpoint", "use_checkpoint"):
        if name in arguments and not network.get(name):
            yield f"network_g.{name}: true recomputes in the backward pass what it would keep"
    yield f"a smaller network_g.preset (now {network['preset']})" if network.get("preset") else "a smaller network_g"
