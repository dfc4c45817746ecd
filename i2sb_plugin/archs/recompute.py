"""Activations that are computed again in the backward pass instead of being kept: selective checkpointing."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["Recompute", "kept_bytes"]

GIB = 2**30
Stage = Callable[[Tensor, Tensor], Tensor]


def kept_bytes(stage: Stage, h: Tensor, emb: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass of one stage, its input and weights aside; draws nothing."""
    seen: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        if not (tensor.is_leaf and tensor.requires_grad) and not _made_of_a_weight(tensor):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    devices = [h.device] if h.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.autograd.graph.saved_tensors_hooks(count, lambda kept: kept):
        stage(h.detach().requires_grad_(), emb.detach().requires_grad_())
    return sum(seen.values())


def _made_of_a_weight(tensor: Tensor) -> bool:
    """Whether it is a parameter in another shape or precision, as autocast makes once for all stages to share."""
    node = tensor.grad_fn
    while node is not None and len(node.next_functions) == 1:
        node = node.next_functions[0][0]
    return isinstance(getattr(node, "variable", None), nn.Parameter)


class Recompute:
    """Runs the stages of a network, some of them once more in the backward pass.

    Args:
        budget: False: none. True: all. A number: as many as it takes for the others to keep at most so many GiB; those
            that keep the most recompute first. How much a stage keeps is measured at the first batch of each shape.

    """

    def __init__(self, budget: bool | float) -> None:
        self.budget = budget
        self.plans: dict[tuple, set[int]] = {}

    def plan(self, stages: list[Stage], x: Tensor) -> Callable[[int, Tensor, Tensor], Tensor]:
        """A function that runs stage number k on (h, emb), for a batch like ``x``."""
        if self.budget is False or not torch.is_grad_enabled():
            return lambda k, h, emb: stages[k](h, emb)
        if self.budget is True:
            return lambda k, h, emb: checkpoint(stages[k], h, emb, use_reentrant=False)
        key = (x.shape, x.dtype, torch.is_autocast_enabled(x.device.type), torch.get_autocast_dtype(x.device.type))
        if key not in self.plans:
            return self._measuring(stages, key)
        again = self.plans[key]
        return lambda k, h, emb: checkpoint(stages[k], h, emb, use_reentrant=False) if k in again else stages[k](h, emb)

    def _measuring(self, stages: list[Stage], key: tuple) -> Callable[[int, Tensor, Tensor], Tensor]:
        """The first batch of a shape: every stage recomputes, and what it would keep is counted."""
        kept: dict[int, int] = {}

        def run(k: int, h: Tensor, emb: Tensor) -> Tensor:
            kept[k] = kept_bytes(stages[k], h, emb)
            if len(kept) == len(stages):
                self.plans[key] = self._choose(kept)
            return checkpoint(stages[k], h, emb, use_reentrant=False)

        return run

    def _choose(self, kept: dict[int, int]) -> set[int]:
        left, again = sum(kept.values()), set()
        for k in sorted(kept, key=kept.__getitem__, reverse=True):
            if left <= self.budget * GIB:
                break
            again.add(k)
            left -= kept[k]
        return again
