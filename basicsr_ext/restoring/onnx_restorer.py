"""A graph of ONNX that ``basicsr export`` wrote, in the place of a checkpoint."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from basicsr_ext.common.contracts import RestorerContract
from basicsr_ext.common.errors import InputError
from basicsr_ext.restoring.restorer import Draw, Loading, Restorer
from basicsr_ext.restoring.tiling import check_tile, tiled

__all__ = ["FACTS", "INPUTS", "GraphFacts", "OnnxRestorer", "onnx_module"]


FACTS = "basicsr_ext"  # key of the file's metadata under which a GraphFacts lies
INPUTS = ("image", "mask", "cond", "noise")


@dataclass(frozen=True)
class GraphFacts:
    """What a file tells of its graph, beside what is there to be read by people."""

    scale: int
    channels: tuple[int, int]  # taken and given
    inputs: tuple[str, ...]  # of INPUTS, in this order
    multiple: int  # of the given image's pixels: where tiles may start so that the network sees them as in the whole
    flags: Mapping[str, Any]  # of restoring, by name, as they were; None for what nobody set
    noise: int = 0  # channels of the noise
    cond: int = 0  # and of the condition


def onnx_module(name: str) -> Any:
    """``onnx`` or ``onnxruntime``; InputError, with the cure, where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        cure = "run: pip install 'basicsr-i2sb[onnx]' or, where that is there already, pip install onnx onnxruntime"
        raise InputError(f"a graph of ONNX needs the package {name} ({error}); {cure}") from error


class OnnxRestorer(Restorer):
    """Restores by onnxruntime, on the CPU or a GPU of CUDA; the flags of restoring are those of the export.

    A large picture goes through the whole graph tile by tile, by default in tiles of about 512 restored pixels.

    Args:
        graph: the file, or what it holds.
        how: ``tile`` is in pixels of the given image.

    Raises:
        InputError: the file is missing or damaged, not of ``basicsr export``, or onnxruntime is missing or has no such
            device.
    """

    def __init__(self, graph: Path | bytes, how: Loading | None = None) -> None:
        how = how or Loading()
        self.source = "the graph" if isinstance(graph, bytes) else str(graph)
        self._session = _session(graph, how.device)
        self.facts = _facts(self._session.get_modelmeta().custom_metadata_map, self.source)
        self.device = torch.device("cpu")  # of the tensors around the graph
        self.scale, self.channels = self.facts.scale, self.facts.channels
        self.offers, self.values = _offers(self.facts), None
        self._model, self._of_basicsr = None, False
        self._tiles = _Tiles(how, self.facts)
        self.network = self._tiles  # type: ignore[assignment]  # whose progress is told

    def take(self, **flags: Any) -> None:
        """Refuse (InputError) another value of a flag than the graph has."""
        for name, value in flags.items():
            there = self.facts.flags.get(name)
            if value is not None and value != there:
                has = "none" if there is None else there
                cure = f"export it again with --{name} {value}, or restore with the checkpoint itself"
                raise InputError(f"--{name} is {value}, but {self.source} was exported with {has}; {cure}")

    def walk(self, *given: Any, **flags: Any) -> None:
        """None: a graph does not show how it comes to its image."""

    def call(self, *given: Tensor) -> Tensor:
        """The graph on the inputs that it has, in their order."""
        feed = {name: value.contiguous().numpy() for name, value in zip(self.facts.inputs, given)}
        return torch.from_numpy(self._session.run(None, feed)[0])

    def _run(self, batch: dict[str, Any], noise: list[torch.Generator] | Draw) -> Tensor:
        facts, image = self.facts, batch["lq"].float()
        found: dict[str, Tensor] = {"image": image}
        found |= {name: batch[name] for name in ("mask", "cond") if name in batch}
        if missing := set(facts.inputs) - {"noise"} - found.keys():
            raise InputError(f"{self.source} was exported with --{missing.pop()}: it needs one for each picture")
        if "noise" in facts.inputs:
            size = len(image), facts.noise, *(facts.scale * side for side in image.shape[2:])
            found["noise"] = _noise(torch.empty(size), noise)
        large = [k for k, name in enumerate(facts.inputs) if name in ("cond", "noise")]
        given = [found[name] for name in facts.inputs]
        for k in large:  # into the cells of the given image's pixels, so that tiles are cut alike
            given[k] = F.pixel_unshuffle(given[k], facts.scale)

        def call(*parts: Tensor) -> Tensor:
            whole = [F.pixel_shuffle(part, facts.scale) if k in large else part for k, part in enumerate(parts)]
            return self.call(*whole)

        return self._tiles.call(call, given)


class _Tiles:
    """The tiles of a graph; ``progress`` is told, during a call, which share of them is done."""

    def __init__(self, how: Loading, facts: GraphFacts) -> None:
        self.multiple, self.batch, self.progress = facts.multiple, how.tile_batch, None
        usual = -(-max(512 // facts.scale, 128) // self.multiple) * self.multiple
        self.tile = usual if how.tile is None else how.tile
        self.overlap = self.tile // 8 if how.overlap is None else how.overlap
        if self.tile:
            check_tile(self.tile, self.overlap, self.multiple)

    def call(self, function: Any, given: list[Tensor]) -> Tensor:
        tile = self.tile or -(-max(given[0].shape[2:]) // self.multiple) * self.multiple
        overlap = min(self.overlap, tile // 2)
        options: dict[str, Any] = {"multiple": self.multiple, "batch": self.batch, "progress": self.progress}
        return tiled(function, given[0], tile, overlap, *given[1:], **options)


def _session(graph: Path | bytes, device: str) -> Any:
    runtime = onnx_module("onnxruntime")
    kinds = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
    there = [kind for kind, name in kinds.items() if name in runtime.get_available_providers()]
    kind, _, number = (there[0] if device == "auto" else device).partition(":")
    if kind not in there:
        cure = "" if kind != "cuda" else " (CUDA comes with the package onnxruntime-gpu)"
        raise InputError(f"device is {device}, but this onnxruntime computes on {' and '.join(there)} alone{cure}")
    if isinstance(graph, Path) and not graph.is_file():
        raise InputError(f"--checkpoint {graph}: no such file; give one of `basicsr export ... -o NAME.onnx`")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # which burns the time of other processes
    options.log_severity_level = 3
    chosen = (kinds[kind], {"device_id": number} if number else {})
    providers = [chosen] if kind == "cpu" else [chosen, kinds["cpu"]]
    try:
        return runtime.InferenceSession(graph if isinstance(graph, bytes) else str(graph), options, providers=providers)
    except Exception as error:  # whose classes are the runtime's own
        said = str(error).splitlines()[0]
        raise InputError(
            f"--checkpoint {graph!s:.200}: onnxruntime cannot load it ({said}); export it again"
        ) from error


def _facts(metadata: dict[str, str], source: str) -> GraphFacts:
    try:
        found = json.loads(metadata[FACTS])
        tuples = {name: tuple(found[name]) for name in ("channels", "inputs")}
        return GraphFacts(**{**found, **tuples})
    except (KeyError, TypeError, ValueError):
        said = "is no graph of `basicsr export`, so that it is not known what it takes and gives"
        raise InputError(f"--checkpoint {source} {said}; export it from its checkpoint") from None


def _offers(facts: GraphFacts) -> RestorerContract:
    """What the graph has of what its model offered: the inputs, and the flags' values, of the types that they have."""
    kinds = {name: str if value is None else type(value) for name, value in facts.flags.items()}
    flags = {name: (kind, f"val.{name}", "as it was exported") for name, kind in kinds.items()}
    takes = {"takes_mask": "mask" in facts.inputs, "takes_cond": "cond" in facts.inputs, "restore_flags": flags}
    return type("OnnxOffers", (RestorerContract,), takes)()


def _noise(empty: Tensor, noise: list[torch.Generator] | Draw) -> Tensor:
    if callable(noise):
        return noise(empty)
    for image, generator in zip(empty, noise, strict=True):
        image.normal_(generator=generator)
    return empty
