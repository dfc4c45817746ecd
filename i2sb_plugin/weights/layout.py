"""From the names and shapes of an ADM U-Net's weights to the options that :class:`ADMUNet` builds it with."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch

from basicsr_ext.checkpoints.networks import check_fit
from basicsr_ext.common.errors import InputError
from i2sb_plugin.archs.adm_unet_arch import PRESETS, ADMUNet, UNetLayout

__all__ = ["Shapes", "infer_network", "network_shapes"]

Shapes = Mapping[str, tuple[int, ...]]
ADM_HEAD_CHANNELS = 64  # of ADM's 256x256 network; not to be seen in the shapes


def network_shapes(options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of ``ADMUNet(**options)``, in order; no memory is taken."""
    arguments = {key: value for key, value in options.items() if key != "type"}
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in ADMUNet(**arguments).named_parameters()}


def infer_network(
    shapes: Shapes, source: str, num_head_channels: int = ADM_HEAD_CHANNELS, new_attention_order: bool = False
) -> dict[str, Any]:
    """Options of ``network_g`` for weights of these names and shapes.

    Args:
        shapes: name -> shape, without any prefix.
        source: the file, for messages.
        num_head_channels: channels of an attention head; the weights do not tell it.
        new_attention_order: order of q, k, v and heads; the weights do not tell it either.

    Returns:
        ``type``, ``preset``, channels, and what differs from the preset; ``ADMUNet`` of it has exactly these shapes.

    Raises:
        InputError: The weights are of another network; says what does not fit.

    """
    if "label_emb.weight" in shapes:
        raise InputError(
            f"{source} is a class-conditional network (label_emb.weight); bridges start from the unconditional one"
        )
    try:
        layout = _layout(shapes, num_head_channels, new_attention_order)
        inputs, outputs = shapes["input_blocks.0.0.weight"][1], shapes["out.2.weight"][0]
    except (KeyError, IndexError, ZeroDivisionError, StopIteration) as error:
        raise InputError(
            f"{source} holds no U-Net of ADM: {error} is missing; weights of other networks cannot be imported"
        ) from error
    except InputError as error:
        raise InputError(_heads_cure(str(error), source)) from error
    channels = outputs if inputs >= outputs else inputs
    options = {"type": "ADMUNet", "preset": "adm256", "in_channels": channels, "out_channels": outputs}
    options |= {"cond_channels": inputs - channels} if inputs > channels else {}
    preset = dataclasses.asdict(PRESETS["adm256"])
    for name, value in dataclasses.asdict(layout).items():
        if value != preset[name]:
            options[name] = list(value) if isinstance(value, tuple) else value
    lead = f"{source} does not fit ADM's U-Net as its first layers describe it"
    check_fit(shapes, network_shapes(options), lead, "weights of other networks cannot be imported")
    return options


def _heads_cure(message: str, source: str) -> str:
    if "num_head_channels" not in message:
        return f"{source}: {message}"
    return (
        f"{source}: the weights do not tell the channels of an attention head; {message}; "
        "give the number that the network was trained with as --num-head-channels N"
    )


def _layout(shapes: Shapes, num_head_channels: int, new_attention_order: bool) -> UNetLayout:
    model_channels = shapes["time_embed.0.weight"][1]
    ups = _parts(shapes, r"output_blocks\.(\d+)\.[12]\.(in_layers|conv)\.")
    kinds = {kind for _, kind in ups}
    numbered = {int(index) for index, _ in _parts(shapes, r"input_blocks\.(\d+)()\.")}
    gaps = set(range(_count(shapes, "input_blocks"))) - numbered  # means of 2x2 have no weights
    levels = 1 + (len({index for index, _ in ups}) if ups else len(gaps))
    num_res_blocks = _count(shapes, "output_blocks") // levels - 1
    firsts = [1 + level * (num_res_blocks + 1) for level in range(levels)]
    widths = [shapes[f"input_blocks.{first}.0.out_layers.0.weight"][0] for first in firsts]
    attending = [2**level for level, first in enumerate(firsts) if f"input_blocks.{first}.1.qkv.weight" in shapes]
    first = f"input_blocks.{firsts[0]}.0"
    doubled = shapes[f"{first}.emb_layers.1.weight"][0] == 2 * widths[0]
    return UNetLayout(
        model_channels=model_channels,
        num_res_blocks=num_res_blocks,
        channel_mult=tuple(_whole(width / model_channels) for width in widths),
        attention_ds=tuple(sorted(attending)),
        middle_attention="middle_block.1.qkv.weight" in shapes,
        num_head_channels=num_head_channels,
        use_scale_shift_norm=doubled,
        resblock_updown="conv" not in kinds and not gaps,
        conv_resample=not gaps,
        use_new_attention_order=new_attention_order,
    )


def _parts(shapes: Shapes, pattern: str) -> set[tuple[Any, ...]]:
    return {match.groups() for match in map(re.compile(pattern).match, shapes) if match}


def _count(shapes: Shapes, blocks: str) -> int:
    return 1 + max((int(index) for index, _ in _parts(shapes, rf"{blocks}\.(\d+)()\.")), default=-1)


def _whole(number: float) -> int | float:
    return int(number) if number == int(number) else number
