"""CUDA graphs of network calls: a walk of many evaluations launches each of them as a whole, not kernel by kernel.

Not yet measured: no GPU has run this so far, so nothing takes it by itself (``val.cuda_graph``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from basicsr_ext.common.errors import InputError

__all__ = ["CudaRecorder", "GraphedNetwork", "Recorder"]

_MOST_SHAPES = 4  # each keeps the memory of its images; further shapes are called as ever
_WARM_UP = 2  # calls on the stream that records: libraries set themselves up there


class Recorder(Protocol):
    """What records calls; a stand-in needs no GPU."""

    def allows(self, tensors: Sequence[Tensor]) -> bool:
        """Whether a call with these tensors can be recorded here and now."""
        ...

    def record(self, call: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], object], Tensor]:
        """Record a call; returns what repeats it, and the tensor that holds the result each time."""
        ...


class CudaRecorder:
    """Records by ``torch.cuda.CUDAGraph``; all its graphs share one pool of memory, since none runs beside another."""

    def __init__(self) -> None:
        self._pool: Any = None

    def allows(self, tensors: Sequence[Tensor]) -> bool:
        """Tensors on one GPU, and no other recording under way."""
        places = {tensor.device for tensor in tensors}
        return len(places) == 1 and tensors[0].is_cuda and not torch.cuda.is_current_stream_capturing()

    def record(self, call: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], object], Tensor]:
        """Warm up on a stream of its own, then record there."""
        with torch.cuda.device(device):
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):
                    call()
            here.wait_stream(aside)
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # thread_local: a thread that page-locks batches meanwhile spoils nothing
            with torch.cuda.graph(graph, self._pool, aside, capture_error_mode="thread_local"):
                result = call()

        def replay() -> None:
            with torch.cuda.device(device):
                graph.replay()

        return replay, result


class _Recorded(NamedTuple):
    inputs: list[Tensor | None]  # that the recording reads
    replay: Callable[[], object]
    result: Tensor


class GraphedNetwork(nn.Module):
    """A network in evaluation mode whose calls are recorded and replayed where shapes come again.

    The first call of a shape is a plain one. At the second it is recorded, for up to ``most`` shapes; from then on
    inputs are copied into the recording, and a copy of its result is returned. The network is called plainly while it
    trains, while gradients are wanted, with arguments that are neither tensors nor None, where ``recorder`` does not
    allow it, and for further shapes. Weights that change in place, as averages do, are seen by the recordings; when
    they move in memory, all recordings are dropped.

    Args:
        net: ``net(*tensors)`` returns one tensor and decides nothing by the values of its inputs.
        recorder: what records; None for CUDA graphs.
        most: shapes that are recorded.

    Raises:
        InputError: in a call, if the network can not be recorded.

    """

    def __init__(self, net: nn.Module, recorder: Recorder | None = None, most: int = _MOST_SHAPES) -> None:
        super().__init__()
        self.net, self._recorder, self._most = net, recorder or CudaRecorder(), most
        self._recorded: dict[Hashable, _Recorded] = {}
        self._seen: Counter[Hashable] = Counter()
        self._places: list[int] = []
        self.replayed = 0  # calls so far

    def forward(self, *inputs: Any) -> Tensor:
        """Call the network, or replay a call of these shapes."""
        if not self._allowed(inputs):
            return self.net(*inputs)
        self._drop_if_moved()
        key = _key(inputs)
        found = self._recorded.get(key)
        if found is None:
            self._seen[key] += 1
            if self._seen[key] == 1 or len(self._recorded) >= self._most:
                return self.net(*inputs)
            found = self._recorded[key] = self._record(inputs)
        for place, given in zip(found.inputs, inputs):
            if place is not None:
                place.copy_(given)
        found.replay()
        self.replayed += 1
        return found.result.clone()

    def _allowed(self, inputs: tuple[Any, ...]) -> bool:
        tensors = [thing for thing in inputs if torch.is_tensor(thing)]
        known = tensors and all(thing is None or torch.is_tensor(thing) for thing in inputs)
        return bool(known) and not (self.net.training or torch.is_grad_enabled()) and self._recorder.allows(tensors)

    def _drop_if_moved(self) -> None:
        places = [tensor.data_ptr() for tensor in chain(self.net.parameters(), self.net.buffers())]
        if places != self._places:
            self._recorded.clear()
            self._seen.clear()
            self._places = places

    def _record(self, inputs: tuple[Tensor | None, ...]) -> _Recorded:
        places = [None if given is None else given.clone() for given in inputs]
        device = next(place.device for place in places if place is not None)
        kind, enabled = device.type, torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(kind)

        def call() -> Tensor:
            # Weights that autocast has rounded and kept would be gone when the recording is replayed
            with torch.autocast(kind, dtype, enabled, cache_enabled=False):
                return self.net(*places)

        try:
            replay, result = self._recorder.record(call, device)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"val.cuda_graph is true, but {type(self.net).__name__} can not be recorded ({reason}); set it to false"
            ) from error
        return _Recorded(places, replay, result)


def _key(inputs: tuple[Tensor | None, ...]) -> Hashable:
    """All that a recording is bound to but the weights: shapes, memory layouts, types, places, precision."""
    shapes = tuple(None if t is None else (t.shape, t.stride(), t.dtype, t.device) for t in inputs)
    kind = next(t.device.type for t in inputs if t is not None)
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
    return shapes, autocast, torch.is_inference_mode_enabled()
