"""A restoration as one graph of ONNX: from image to image, of any height and width, with everything between them."""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from basicsr_ext.checkpoints.networks import network_multiple
from basicsr_ext.common.contracts import NetworkContract
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.versions import versions_of
from basicsr_ext.restoring.onnx_restorer import FACTS, INPUTS, GraphFacts, OnnxRestorer, onnx_module
from basicsr_ext.restoring.restorer import Loading, Restorer

__all__ = ["by_onnx", "make_graph"]

_OPSET = 17  # the first with LayerNormalization
_TRACED = (37, 53)  # height and width that no network takes without padding, if it takes multiples
_TRIED = (
    (1, 24, 40),
    (1, 35, 19),
    (2, 41, 23),
)  # images, height and width on which a graph is held against the network
_TOLERANCE = 1e-4  # of values in [0, 1]; rounding stays below 1e-5
_MOST_BYTES = 2**31 - 2**22  # of one protobuf


def make_graph(
    restorer: Restorer, notes: Mapping[str, str], masked: bool = False, half: bool = False
) -> tuple[bytes, float]:
    """The restoration of ``restorer``, with the flags that it has taken, as a file of ONNX.

    Inputs are ``image``, N,C,h,w in [0, 1], and where there are some ``mask``, N,1,h,w, 1 in the hole; ``cond``,
    N,Cc,H,W in [0, 1]; ``noise``, N,C,H,W of N(0, 1). The output ``restored`` is N,C,H,W in [0, 1]. All in float32.

    Args:
        restorer: on the CPU; its network is laid out anew and serves for nothing else any more.
        notes: texts by name for the file's metadata.
        masked: whether there is a mask.
        half: keep the weights in 16 bits, which they must fit into; they are computed with in 32.

    Returns the file and the largest difference from the network that was found on small images.

    Raises:
        InputError: a package is missing, the network restores data that are no pictures, the restoration draws more
            noise than once or leaves further pictures, the network cannot be traced, or what it does depends on the
            size of the image.
    """
    if restorer.values is not None:
        kind = restorer.values.dtype
        raise InputError(
            f"a graph restores pictures, but this network was trained on {kind} data; export it as NAME.safetensors"
        )
    onnx, _ = onnx_module("onnx"), onnx_module("onnxruntime")
    module = _Module(restorer, masked)
    size = sum(value.nbytes for value in module.state_dict().values())
    if size > _MOST_BYTES:
        raise InputError(f"the weights have {size:,} bytes, but a file of ONNX holds 2 GiB; this network is too large")
    graph = onnx.load_from_string(_traced(module))
    if half:
        _halve(onnx, graph)
    _describe(onnx, graph, module, notes)
    content = graph.SerializeToString()
    return content, _check(module, content)


def by_onnx(restorer: Restorer, how: Loading, masked: bool = False) -> OnnxRestorer:
    """The same restoration by onnxruntime, without a file; raises what :func:`make_graph` raises."""
    return OnnxRestorer(make_graph(restorer, {}, masked)[0], how)


class _Module(nn.Module):
    """A restoration in operations alone, which are traced."""

    def __init__(self, restorer: Restorer, masked: bool) -> None:
        super().__init__()
        net = restorer.network.net.to(memory_format=torch.contiguous_format)  # whose operators are the plain ones
        self.net = _Padded(net).eval()
        self._restorer = restorer.with_network(self.net)
        inputs, _ = restorer.channels
        if inputs is None:
            raise InputError("the network does not tell how many channels it takes, which a graph needs")
        if masked and not restorer.offers.takes_mask:
            raise InputError("--mask is given, but this model does not look at masks; leave it out")
        cond = restorer.offers.cond_channels if restorer.offers.takes_cond else 0
        if cond is None:
            raise InputError("the network needs condition images, but does not tell of how many channels")
        self.facts = GraphFacts(restorer.scale, (inputs, inputs), (), 1, {}, 0, cond)
        outputs, drawn = self._tried(masked)
        there = {"image": True, "mask": masked, "cond": bool(cond), "noise": bool(drawn)}
        multiple = network_multiple(net) // math.gcd(network_multiple(net), restorer.scale)
        names = tuple(name for name in INPUTS if there[name])
        self.facts = GraphFacts(
            restorer.scale, (inputs, outputs), names, multiple, restorer.offers.flag_values(), drawn, cond
        )

    def _tried(self, masked: bool) -> tuple[int, int]:
        """Channels of the restored image and of the noise that it draws; InputError if it draws several times."""
        draws: list[Tensor] = []

        def draw(like: Tensor) -> Tensor:
            draws.append(like)
            return torch.zeros_like(like)

        height, width = _TRACED
        given = _random(
            self.facts, 1, height, width, ("image", *(["mask"] * masked), *(["cond"] * bool(self.facts.cond)))
        )
        with torch.no_grad():
            found = self._restorer.pass_through(given["image"], given.get("mask"), given.get("cond"), draw)
        offers = self._restorer.offers
        if offers.extras:
            left = ", ".join(offers.extras)
            raise InputError(f"the restoration leaves {left} beside its image, but a graph gives one; give --samples 1")
        if len(draws) > 1:
            cure = f"; what a graph can do: {offers.one_draw}" if offers.one_draw else ""
            raise InputError(
                f"this restoration is random: it draws noise {len(draws)} times, a graph once or not{cure}"
            )
        if draws and draws[0].shape[2:] != (self.facts.scale * height, self.facts.scale * width):
            raise InputError(f"this restoration draws noise of another size than its image, {tuple(draws[0].shape)}")
        return found.shape[1], draws[0].shape[1] if draws else 0

    def forward(self, *given: Tensor) -> Tensor:
        """From the inputs that there are, in their order, to the restored image."""
        by_name = dict(zip(self.facts.inputs, given))

        def draw(like: Tensor) -> Tensor:
            return by_name["noise"]

        return self._restorer.pass_through(by_name["image"], by_name.get("mask"), by_name.get("cond"), draw)


class _Padded(nn.Module):
    """A network for images of any size: padded to its multiple and cropped, without a branch on the size."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.multiple = net, network_multiple(net)
        if isinstance(net, NetworkContract) and net.takes_any_size:
            self.multiple = 1

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        """Call the network on x, B,C,H,W, and what goes with it."""
        if self.multiple == 1:
            return self.net(x, *rest)
        height, width = x.shape[-2:]
        border = (0, -width % self.multiple, 0, -height % self.multiple)
        x, *others = (
            F.pad(v, border, mode="replicate") if torch.is_tensor(v) and v.dim() == 4 else v for v in (x, *rest)
        )
        result = self.net(x, *others)
        scale = int(result.shape[-2]) // int(x.shape[-2])
        return result[..., : scale * height, : scale * width]


def _random(facts: GraphFacts, count: int, height: int, width: int, names: Sequence[str]) -> dict[str, Tensor]:
    """Inputs of a graph, drawn by a seed."""
    generator = torch.Generator().manual_seed(0)
    large = (facts.scale * height, facts.scale * width)
    made = {"image": torch.rand(count, facts.channels[0], height, width, generator=generator)}
    if "mask" in names:
        made["mask"] = (torch.rand(count, 1, height, width, generator=generator) < 0.5).float()
    if "cond" in names:
        made["cond"] = torch.rand(count, facts.cond, *large, generator=generator)
    if "noise" in names:
        made["noise"] = torch.randn(count, facts.noise, *large, generator=generator)
    return made


def _traced(module: _Module) -> bytes:
    """The graph as torch's exporter by tracing writes it.

    The other one, by ``torch.export``, guards on sizes and on the coefficients of a walk, and needs a further package.
    """
    facts = module.facts
    given = _random(facts, 1, *_TRACED, facts.inputs)
    small, large = ({0: "batch", 2: f"{size}height", 3: f"{size}width"} for size in ("", "restored_"))
    large = large if facts.scale > 1 else small
    axes = {name: small if name in ("image", "mask") else large for name in facts.inputs} | {"restored": large}
    names: dict[str, Any] = {"input_names": list(given), "output_names": ["restored"], "dynamic_axes": axes}
    with tempfile.TemporaryDirectory() as folder, _silence(), torch.no_grad():
        path = Path(folder) / "graph.onnx"
        try:
            torch.onnx.export(module, tuple(given.values()), path, dynamo=False, opset_version=_OPSET, **names)
        except Exception as error:  # of the exporter, or of the network under it: they are of any kind
            cause = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"the network cannot be written as a graph of ONNX: {cause}") from error
        return path.read_bytes()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the exporter's warnings, of what is checked afterwards, and its print of a graph that fails."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _halve(onnx: Any, model: Any) -> None:
    """Store the weights in 16 bits, and turn them to 32 where the graph begins."""
    graph, casts = model.graph, []
    for weight in graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            name, values = weight.name, onnx.numpy_helper.to_array(weight)
            weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [weight.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _describe(onnx: Any, model: Any, module: _Module, notes: Mapping[str, str]) -> None:
    """Write names and metadata: what people read, and for this package its facts as JSON."""
    facts = module.facts
    small, large = ("N x {} x H x W", f"N x {{}} x {facts.scale}H x {facts.scale}W")
    texts = {
        "image": f"{small.format(facts.channels[0])}, float32 in [0, 1], colours in the order RGB",
        "mask": f"{small.format(1)}, float32: 1 in the hole, 0 elsewhere",
        "cond": f"{large.format(facts.cond)}, float32 in [0, 1]",
        "noise": f"{large.format(facts.noise)}, float32, drawn from N(0, 1)",
        "restored": f"{large.format(facts.channels[1])}, float32 in [0, 1], colours in the order RGB",
    }
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = texts[value.name]
    versions = versions_of(("torch", "basicsr-i2sb"))
    model.producer_name, model.producer_version = "basicsr export", versions.get("basicsr-i2sb", "")
    model.graph.name = notes.get("name", "restoration")
    model.doc_string = notes.get("about", "")
    said = {name: texts[name] for name in (*facts.inputs, "restored")}
    found = {"scale": facts.scale, **notes, **{k: v for k, v in facts.flags.items() if v is not None}, **said}
    kept = {name: str(value) for name, value in found.items()} | {FACTS: json.dumps(vars(facts))}
    onnx.helper.set_model_props(model, kept)
    onnx.checker.check_model(model)


def _check(module: _Module, content: bytes) -> float:
    """The largest difference between graph and network on small images; InputError if it is no rounding."""
    facts, worst = module.facts, 0.0
    try:
        graph = OnnxRestorer(content, Loading("cpu"))
        for count, height, width in _TRIED:
            given = _random(facts, count, height, width, facts.inputs)
            with torch.no_grad():
                wanted = module(*given.values())
            difference = float((graph.call(*given.values()) - wanted).abs().max())
            worst = max(worst, difference)
            if not difference <= _TOLERANCE:
                raise ValueError(f"on {count} of {height} x {width} pixels it differs by {difference:.2g}")
    except Exception as error:  # of the runtime, whose classes are its own
        cause = str(error).splitlines()[0]
        said = "what the network does depends on the size of the image in a way that a graph of any size cannot hold"
        raise InputError(f"{said} ({cause}); restore with the checkpoint itself") from error
    return worst
