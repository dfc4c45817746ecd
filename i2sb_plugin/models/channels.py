"""How the channels of the data and of the network go together."""

import inspect
from collections.abc import Mapping
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY

from basicsr_ext.checkpoints.networks import network_channels

__all__ = ["channel_faults", "input_channels"]


def channel_faults(opt: Mapping[str, Any], item: Mapping[str, Any], cond_x1: bool, maps: int = 0) -> list[str]:
    """Say which channels of the images ``item`` do not fit ``network_g``; nothing where its options do not tell.

    xt has the channels of gt. lq may have others: one channel is repeated, of more the first are taken, see
    :func:`i2sb_plugin.space.match_channels`. The condition is lq as it is, with ``cond_x1``, then ``cond``,
    then ``maps`` further channels, such as the map of a dial.
    """
    network, where = opt["network_g"], item.get("lq_path", "the first image")
    takes, gives = network_channels(network)
    given = item["lq"].shape[-3]
    wanted = item["gt"].shape[-3] if "gt" in item else takes
    faults = [
        f"network_g.{option} is {count}, but the clean image of {where} has {wanted} channel(s); "
        f"set network_g.{option}: {wanted} or change the data"
        for option, count in (("in_channels", takes), ("out_channels", gives))
        if None not in (count, wanted) and count != wanted
    ]
    if wanted is not None and 1 < given < wanted:
        faults.append(f"{where} has {given} channels, its clean image {wanted}; give it 1, {wanted} or more")
    return faults + _condition_faults(opt, item, cond_x1, maps)


def _condition_faults(opt: Mapping[str, Any], item: Mapping[str, Any], cond_x1: bool, maps: int) -> list[str]:
    network = opt["network_g"]
    if "cond_channels" not in inspect.signature(ARCH_REGISTRY.get(network["type"])).parameters:
        return []
    seen = item["lq"].shape[-3] if cond_x1 else 0
    seen += (item["cond"].shape[-3] if "cond" in item else 0) + maps
    stated = network.get("cond_channels", 0)
    if seen == stated:
        return []
    return [
        f"network_g.cond_channels is {stated}, but beside xt the network sees {seen} channel(s) (lq with "
        f"cond_x1 or in a diffusion, dataroot_cond, one for a dial, a student's noise), such as of "
        f"{item.get('lq_path', 'the first image')}; set network_g.cond_channels: {seen}"
    ]


def input_channels(opt: Mapping[str, Any], channels: int | None, cond_x1: bool, maps: int) -> tuple[int | None, bool]:
    """Channels of lq, and whether further condition images are needed, as far as the options tell."""
    cond = (opt["network_g"].get("cond_channels") or 0) - maps
    sets = (opt.get("datasets") or {}).values()
    if any(block.get("dataroot_cond") for block in sets) or (cond and not cond_x1):
        return channels, True
    return (cond if cond_x1 and cond else channels), False
