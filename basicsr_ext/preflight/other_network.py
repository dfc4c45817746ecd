"""Another network for an option file: its block, if it can serve the task."""

import copy
from collections.abc import Mapping
from typing import Any

import torch

from basicsr_ext.checkpoints.networks import INPUTS, OUTPUTS, SCALES, build_empty, network_multiple
from basicsr_ext.common import registries
from basicsr_ext.common.contracts import restorer_class_of
from basicsr_ext.common.errors import InputError, UnknownName, did_you_mean
from basicsr_ext.common.text import listed
from basicsr_ext.options.check import inspect_options, model_class
from basicsr_ext.options.file import parse_value
from basicsr_ext.options.parts import fitting_networks, parameters_of, registry_of
from basicsr_ext.options.resolve import select_datasets
from basicsr_ext.options.templates import templates

_CHANNELS = ("in_channels", "out_channels", "cond_channels")  # what networks with one contract have in common


def other_network(text: str, name: str, source: str) -> dict[str, Any]:
    """The block ``network_g`` for the network ``name`` in an option file's ``text``.

    Raises InputError if it is not registered, or cannot be built or called as the model does.
    """
    opt = parse_value(text, source)
    registry = registry_of("ARCH")
    if registries.find(registry, name) is None:
        known = did_you_mean(name, registries.names(registry))
        raise UnknownName(f"--network is {name}, which is not registered; {known}")
    model, block = restorer_class_of(model_class(opt)), opt["network_g"]
    fitting = fitting_networks(model)
    tried: list[dict[str, Any]] = []  # best first
    if name in fitting:
        tried = [_renamed(block, name, opt)]
        if "preset" in parameters_of("network_g", name) & block.keys():
            tried.insert(0, {**tried[0], "preset": block["preset"]})
    elif adapters := [one for one in fitting if "network" in parameters_of("network_g", one)]:
        kept = {key: block[key] for key in _CHANNELS if key in block}
        tried = [{"type": adapters[0], "network": {"type": name}, **kept, **more} for more in ({}, {"unshuffle": 2})]
    said = f"the model calls its network with ({', '.join(model.network_takes)})"
    for k, one in enumerate(tried):
        if not (faults := _faults(opt | {"network_g": one})):
            return one
        said = said if k else "; ".join(faults)
    there = [task for task, path in templates().items() if f"type: {name}\n" in path.read_text(encoding="utf-8")]
    other = "give another one, or write its block yourself"
    cure = f"start from a task that has it: {listed(there)}" if there else other
    raise InputError(f"--network is {name}, which as it comes cannot serve this task: {said}; {cure}")


def _renamed(block: Mapping[str, Any], name: str, opt: Mapping[str, Any]) -> dict[str, Any]:
    """The block with the arguments that both networks have, and channels and scale by the names of the new one."""
    takes = parameters_of("network_g", name)
    made: dict[str, Any] = {"type": name}
    made |= {key: block[key] for key in _CHANNELS if key in block and key in takes}
    for names, value in ((INPUTS, 3), (OUTPUTS, 3), (SCALES, opt.get("scale", 1))):
        if (key := next((key for key in names if key in takes), None)) and key not in made:
            made[key] = next((block[one] for one in names if one in block), value)
    return made


def _faults(opt: dict[str, Any]) -> list[str]:
    """Why the network of these options cannot serve: its arguments, its building, or the size of its result."""
    opt, is_train = copy.deepcopy(opt), "train" in opt["datasets"]
    select_datasets(opt, is_train)
    found = [fault for fault in inspect_options(opt, is_train).faults if "network_g" in fault]
    if found:
        return found
    try:
        network = build_empty(opt["network_g"])
    except Exception as error:  # a class refuses its arguments in whatever way it likes
        return [str(error)]
    if restorer_class_of(model_class(opt)).network_takes:  # built for its channels; the bridge keeps the size
        return []
    return _trial_faults(network, opt)


def _trial_faults(network: torch.nn.Module, opt: Mapping[str, Any]) -> list[str]:
    side, scale = 4 * max(16, network_multiple(network)), opt.get("scale", 1)
    device = next((one.device for one in network.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            result = network.eval()(torch.zeros(1, 3, side, side, device=device))
    except Exception as error:  # as in building
        return [f"it does not take an image of 3 channels ({str(error).splitlines()[0] if str(error) else error!r})"]
    wanted = (1, 3, scale * side, scale * side)
    got = tuple(result.shape) if torch.is_tensor(result) else type(result).__name__
    return [] if got == wanted else [f"it makes {got} of an image {(1, 3, side, side)}, and the task needs {wanted}"]
