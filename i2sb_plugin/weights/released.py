"""The file layouts of I2SB's release and of ADM, read and written."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from basicsr_ext.checkpoints.networks import check_fit
from basicsr_ext.checkpoints.storage import (
    CONFIGURATION,
    atomic_save,
    load_checkpoint,
    read_configuration,
    save_safetensors,
    weights_in,
)
from basicsr_ext.common.errors import InputError
from i2sb_plugin.archs.adm_unet_arch import ADMUNet
from i2sb_plugin.weights.layout import infer_network, network_shapes

__all__ = [
    "LICENCE",
    "Released",
    "Weights",
    "adm_initialisation",
    "read_released",
    "read_weights",
    "release_layout",
    "write_weights",
]

PREFIX = "diffusion_model."
LICENCE = (
    "The weights that I2SB's authors publish are under CC BY-NC-SA 4.0: attribution, no commercial use, share alike. "
    "They are your files: this package neither ships nor fetches them; what you derive from them keeps that licence."
)
State = dict[str, Tensor]


@dataclass(frozen=True)
class Released:
    """Content of the release's ``latest.pt``, names without prefix: raw weights and their average, in one order."""

    net: State
    ema: State
    decay: float
    updates: int | None


@dataclass(frozen=True)
class Weights:
    """A file of ours: raw weights (the same as ``ema`` where the file has no others), average, configuration."""

    net: State
    ema: State
    configuration: dict[str, Any]


def read_released(path: str | os.PathLike[str]) -> Released:
    """Read ``latest.pt`` of the release; tensors and plain containers are unpickled, nothing else.

    Raises:
        InputError: The file is missing, damaged, of another layout, or its average does not belong to its network.

    """
    loaded = load_checkpoint(path)
    if not isinstance(loaded, Mapping) or not {"net", "ema"} <= set(loaded):
        raise InputError(
            f"{path} is no checkpoint of I2SB's release (net, ema, optimizer, sched): {_what(loaded)}; "
            "give its latest.pt"
        )
    net = {str(key).removeprefix("module."): value for key, value in loaded["net"].items()}
    foreign = [key for key, value in net.items() if not key.startswith(PREFIX) or not torch.is_tensor(value)]
    if foreign or not net:
        raise InputError(f"{path}: net has {foreign[0] if foreign else 'nothing'}; all its names begin with {PREFIX}")
    net = {key.removeprefix(PREFIX): value for key, value in net.items()}
    ema = loaded["ema"]
    shadow = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(shadow, list | tuple):
        raise InputError(
            f"{path}: ema has no list shadow_params; it is no average of torch_ema; give the latest.pt of the release"
        )
    return Released(net, _named(shadow, net, path), float(ema.get("decay", 0.99)), ema.get("num_updates"))


def _what(loaded: Any) -> str:
    if not isinstance(loaded, Mapping):
        return f"it holds a {type(loaded).__name__}"
    if "time_embed.0.weight" in loaded:
        return "it is a bare U-Net of ADM; use `basicsr import-adm`"
    if "params" in loaded or "params_ema" in loaded:
        return "it is a checkpoint of BasicSR, which path.pretrain_network_g takes as it is"
    return f"it holds {', '.join(map(str, list(loaded)[:5])) or 'nothing'}"


def _named(shadow: Sequence[Any], net: State, path: str | os.PathLike[str]) -> State:
    """Give the averaged tensors, which are a list in parameter order, the names of the network's."""
    if len(shadow) != len(net):
        raise InputError(
            f"{path}: the average has {len(shadow)} tensors but the network {len(net)}; they do not match; "
            "fetch the file again"
        )
    for index, (averaged, (name, raw)) in enumerate(zip(shadow, net.items())):
        if not torch.is_tensor(averaged) or averaged.shape != raw.shape:
            found = tuple(averaged.shape) if torch.is_tensor(averaged) else type(averaged).__name__
            raise InputError(
                f"{path}: tensor {index} of the average is {found}, but {PREFIX}{name} is {tuple(raw.shape)}; "
                "the average belongs to another network"
            )
    return dict(zip(net, shadow))


def shapes_of(state: State) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a state dict."""
    return {name: tuple(value.shape) for name, value in state.items()}


def write_weights(
    path: str | os.PathLike[str], net: State | None, ema: State, configuration: Mapping[str, Any], licence: str
) -> None:
    """Write weights with their configuration inside.

    Args:
        path: ``.safetensors`` holds ``ema`` alone, ``.pth`` (BasicSR's layout) both, as params and params_ema.
        net: raw weights; None for those of ``ema``.
        ema: averaged weights, by name.
        configuration: ``network_g``, and what else an option file would say of them.
        licence: a sentence that travels with them.

    Raises:
        InputError: The file name has another ending.
        SaveError: The file could not be written.

    """
    text = json.dumps(configuration)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if Path(path).suffix == ".safetensors":
        save_safetensors(ema, path, {CONFIGURATION: text, "license": licence})
    elif Path(path).suffix == ".pth":
        raw = ema if net is None else net
        atomic_save({"params": raw, "params_ema": ema, CONFIGURATION: text, "license": licence}, path)
    else:
        raise InputError(f"-o {path}: give a name that ends in .safetensors, or in .pth for BasicSR's layout")


def read_weights(path: str | os.PathLike[str], num_head_channels: int = 64) -> Weights:
    """Read weights of ours: a safetensors file, or a checkpoint of BasicSR's layout (``net_g_*.pth``).

    The configuration's ``network_g`` is inferred from the shapes where the file does not carry it.

    Raises:
        InputError: The file is missing, damaged or no ``ADMUNet`` at full size.

    """
    loaded = load_checkpoint(path)
    configuration = read_configuration(path)
    states = [weights_in(loaded, str(path), key) for key in ("params", "params_ema")]
    if not all(torch.is_tensor(value) for state in states for value in state.values()):
        raise InputError(
            f"{path} holds {', '.join(map(str, list(loaded)[:5]))}; give params and params_ema, or weights alone"
        )
    shapes = shapes_of(states[1])
    network = configuration.get("network_g") or infer_network(shapes, str(path), num_head_channels)
    _refuse_foreign(network, str(path))
    order = network_shapes(network)
    for state in states:
        check_fit(state, order, f"{path}: its weights do not fit the network that it describes", "export it again")
    net, ema = ({name: state[name] for name in order} for state in states)
    return Weights(net, ema, {**configuration, "network_g": network})


def _refuse_foreign(network: Mapping[str, Any], source: str) -> None:
    """InputError for a network that the release does not know: another type, or one with ``unshuffle``."""
    if network["type"] != "ADMUNet":
        raise InputError(f"{source} is a {network['type']}; the release has ADMUNet alone")
    with torch.device("meta"):
        unshuffle = ADMUNet(**{key: value for key, value in network.items() if key != "type"}).unshuffle
    if unshuffle == 1:  # shapes alone show pixels that were unshuffled as channels
        unshuffle = {12: 2, 48: 4}.get(network.get("in_channels", 3), 1)
    if unshuffle > 1:
        raise InputError(
            f"{source}: network_g.unshuffle is {unshuffle}; the release has networks at full size (1) alone"
        )


def release_layout(weights: Weights) -> dict[str, Any]:
    """What ``latest.pt`` of the release holds: raw weights, average as a list, fresh optimiser, no schedule."""
    average = weights.configuration.get("released", {})
    parameters = [torch.nn.Parameter(torch.empty_like(value, device="meta")) for value in weights.net.values()]
    return {
        "net": {f"{PREFIX}{name}": value for name, value in weights.net.items()},
        "ema": {
            "decay": average.get("ema_decay", 0.99),
            "num_updates": average.get("ema_updates"),
            "shadow_params": list(weights.ema.values()),
            "collected_params": None,
        },
        "optimizer": torch.optim.AdamW(parameters, lr=5e-5, weight_decay=0.0).state_dict(),
        "sched": None,
    }


def adm_initialisation(
    path: str | os.PathLike[str], cond_channels: int = 0, seed: int = 0, num_head_channels: int = 64
) -> tuple[State, dict[str, Any]]:
    """Make the weights that training starts from, out of ADM's unconditional network.

    ADM predicts mean and variance: the last convolution is cut to the channels of the image. For a network that sees
    a condition the first convolution gets ``cond_channels`` more inputs, after those of the image, with the random
    weights of an untrained layer (uniform in +-1 / sqrt(fan in)).

    Returns:
        the weights by name, and the options of their ``network_g``.

    Raises:
        InputError: The file is missing, damaged or no unconditional U-Net of ADM, or ``cond_channels`` is negative.

    """
    if cond_channels < 0:
        raise InputError(f"--cond-channels is {cond_channels}; give 0, or the channels of the condition, such as 3")
    loaded = load_checkpoint(path)
    if not isinstance(loaded, Mapping) or not all(torch.is_tensor(value) for value in loaded.values()):
        raise InputError(f"{path} is no bare state dict, as 256x256_diffusion_uncond.pt of ADM is")
    state = dict(loaded)
    infer_network(shapes_of(state), str(path), num_head_channels)  # refuses what is no ADM
    channels = state["input_blocks.0.0.weight"].shape[1]
    state["out.2.weight"], state["out.2.bias"] = state["out.2.weight"][:channels], state["out.2.bias"][:channels]
    if cond_channels:
        state["input_blocks.0.0.weight"] = _widened(state["input_blocks.0.0.weight"], cond_channels, seed)
    network = infer_network(shapes_of(state), str(path), num_head_channels)
    return {name: state[name] for name in network_shapes(network)}, network


def _widened(weight: Tensor, more: int, seed: int) -> Tensor:
    outputs, inputs, *kernel = weight.shape
    bound = 1 / math.sqrt((inputs + more) * math.prod(kernel))
    drawn = torch.rand((outputs, more, *kernel), generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return torch.cat([weight, drawn.mul_(2 * bound).sub_(bound).to(weight.dtype)], dim=1)
