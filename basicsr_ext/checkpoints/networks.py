"""Networks and their weights: what a network takes and gives, and whether a state dict fits it."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from basicsr_ext.checkpoints.storage import load_checkpoint
from basicsr_ext.common.contracts import NetworkContract
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import listed

# What networks call their channels and their scale
INPUTS = (
    "in_channels",
    "num_in_ch",
    "in_chans",
    "in_nc",
    "in_ch",
    "inp_channels",
    "img_channel",
    "img_channels",
    "n_colors",
)
OUTPUTS = ("out_channels", "num_out_ch", "out_chans", "out_nc", "out_ch", "img_channel", "img_channels", "n_colors")
_ESRGAN = (  # names of RRDBNet's parts in two earlier layouts -> ours
    (r"(?:RRDB_trunk|model\.1\.sub)\.(\d+)\.RDB(\d)\.conv(\d)(?:\.0)?", r"body.\1.rdb\2.conv\3"),
    (r"model\.1\.sub\.\d+|trunk_conv", "conv_body"),
    (r"upconv(\d)", r"conv_up\1"),
    *((rf"model\.{place}", name) for place, name in ((0, "conv_first"), (3, "conv_up1"), (6, "conv_up2"))),
    (r"model\.8|HRconv", "conv_hr"),
    (r"model\.10", "conv_last"),
)
SCALES = ("upscale", "scale", "up_scale", "upscale_factor", "upscaling_factor")


def check_fit(
    weights: Mapping[str, Any], network: nn.Module | Mapping[str, Any], lead: str, cure: str, strict: bool = True
) -> Mapping[str, Any]:
    """Compare ``weights``, tensors or shapes by name, with a network or what its ``state_dict()`` would hold.

    Returns them under the network's own names, see :func:`_renamed`. If not ``strict``, it is enough that one tensor
    fits. Raises InputError, which begins with ``lead`` (which file does
    not fit which network), counts and names what is missing, unknown and of another shape, and ends with ``cure``.
    """
    own = network.state_dict() if isinstance(network, nn.Module) else network
    weights = _renamed(weights, own, lead)
    wanted, found = _shapes(own), _shapes(weights)
    whole = [k for k in own if k in weights and _is_float(own[k]) and torch.is_tensor(weights[k])]
    found |= {k: f"of {weights[k].dtype}" for k in whole if not _is_float(weights[k])}
    shapes = [f"{k} {found[k]} instead of {wanted[k]}" for k in wanted if k in found and found[k] != wanted[k]]
    missing, unknown = [k for k in wanted if k not in found], [k for k in found if k not in wanted]
    faults = {"missing": missing, "unknown": unknown, "of another shape": shapes}
    said = "; ".join(f"{len(names)} {what}: {listed(names)}" for what, names in faults.items() if names)
    fitting = any(found.get(k) == shape for k, shape in wanted.items())
    if said and (strict or not fitting):
        raise InputError(f"{lead}{'' if fitting else ', not in a single tensor'}: {said}; {cure}")
    return weights


def _is_float(value: Any) -> bool:
    return torch.is_tensor(value) and value.is_floating_point()


def _renamed(weights: Mapping[str, Any], wanted: Mapping[str, Any], lead: str) -> Mapping[str, Any]:
    """Weights under the names of ``wanted``, if all of these are there behind a prefix or in an earlier layout.

    The prefix is that of a program in which the network was a part, such as ``generator.``; what has other names is
    left out, and an average comes before what it averages. The layouts are those of ESRGAN's RRDBNet.
    """
    first = next(iter(wanted), None)
    if first is None or all(name in weights for name in wanted):
        return weights
    prefixes = [name.removesuffix(first) for name in map(str, weights) if name.endswith(f".{first}")]
    whole = [prefix for prefix in prefixes if all(prefix + name in weights for name in wanted)]
    chosen = whole if len(whole) == 1 else [prefix for prefix in whole if "ema" in prefix]
    if len(whole) > 1 and len(chosen) != 1:
        names = listed(prefix.rstrip(".") for prefix in whole)
        raise InputError(f"{lead}: it holds {len(whole)} networks that do: {names}; save the one that is meant alone")
    if chosen:
        return {name: weights[chosen[0] + name] for name in wanted}
    renamed = {_of_basicsr(str(name)): value for name, value in weights.items()}
    return renamed if renamed.keys() == wanted.keys() else weights


def _of_basicsr(name: str) -> str:
    part, _, kind = name.rpartition(".")
    return next((f"{re.sub(old, new, part)}.{kind}" for old, new in _ESRGAN if re.fullmatch(old, part)), name)


def _shapes(weights: Mapping[str, Any]) -> dict[str, tuple[int, ...] | str | None]:
    """Shapes by name; None for what is no tensor."""
    shapes = {name: value.shape if torch.is_tensor(value) else value for name, value in weights.items()}
    return {name: tuple(shape) if isinstance(shape, tuple) else None for name, shape in shapes.items()}


def build_empty(options: Mapping[str, Any]) -> nn.Module:
    """Build a network without memory for its weights, where the class can be built so."""
    from basicsr.utils.registry import ARCH_REGISTRY

    cls = ARCH_REGISTRY.get(options["type"])
    arguments = {key: value for key, value in options.items() if key != "type"}
    try:
        with torch.device("meta"):
            return cls(**arguments)
    except Exception:  # values computed while building have no meta form; build it really, errors included
        return cls(**arguments)


def has_weights(opt: Mapping[str, Any]) -> bool:
    """Tell whether ``network_g`` has anything to load; False if it cannot be built."""
    try:
        return bool(build_empty(opt["network_g"]).state_dict())
    except Exception:  # as in `network_faults`, which says why
        return False


def best_key(path: str) -> str | None:
    """The key to test a checkpoint with: the averaged weights if it holds them."""
    loaded = load_checkpoint(path, "path.pretrain_network_g", mmap=True)
    return next((key for key in ("params_ema", "params") if isinstance(loaded, Mapping) and key in loaded), None)


def channel_option(options: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str | None, Any]:
    """The first of ``names`` that the class of ``network_g`` takes, and its value or default."""
    from basicsr.utils.registry import ARCH_REGISTRY

    parameters = inspect.signature(ARCH_REGISTRY.get(options["type"])).parameters
    for name in names:
        if name in parameters:
            value = options.get(name, parameters[name].default)
            return (name, value) if isinstance(value, int) else (None, None)
    return None, None


def network_channels(options: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Channels that the network of a block ``network_g`` takes and gives; None where its arguments do not tell."""
    return channel_option(options, INPUTS)[1], channel_option(options, OUTPUTS)[1]


def network_multiple(net: nn.Module) -> int:
    """What height and width must be multiples of: the network's ``multiple``, else its largest ``window_size``, else 1.

    BasicSR's RRDBNet, which folds pixels at scales 1 and 2, is known too.
    """
    if isinstance(net, NetworkContract):
        return net.multiple
    attributes = [vars(part) for part in net.modules()]
    if type(net).__name__ == "RRDBNet":
        return {1: 4, 2: 2}.get(attributes[0]["scale"], 1)
    windows = [known.get("window_size") for known in attributes]
    return max((size for size in windows if isinstance(size, int)), default=1)
