"""Blocks that name a class by ``type``: it must be known, take the options beside it and accept their values."""

import inspect
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from basicsr_ext.common import registries
from basicsr_ext.common.contracts import DatasetContract, RestorerContract
from basicsr_ext.common.errors import InputError, did_you_mean
from basicsr_ext.common.option_blocks import call_faults, convert, parse_block, shown
from basicsr_ext.options.basicsr_keys import Findings, check_section, own_options


def registry_of(kind: str) -> Any:
    """BasicSR's registry of a kind: ARCH, DATASET, LOSS, METRIC or MODEL."""
    from basicsr.utils import registry

    return vars(registry)[f"{kind}_REGISTRY"]


def dataset_options(name: object) -> type | None:
    """The dataclass of options that the data set class ``name`` declares; None if it declares none."""
    cls = registries.find(registry_of("DATASET"), name)
    return cls.Options if isinstance(cls, type) and issubclass(cls, DatasetContract) else None


def parameters_of(key: str, name: object) -> set[str]:
    """The options of a block ``network_*`` or ``*_opt`` whose ``type`` is ``name``; none if it is not known."""
    kind = "ARCH" if key.startswith("network_") else "LOSS" if key.endswith("_opt") else None
    cls = registries.find(registry_of(kind), name) if kind else None
    return set(inspect.signature(cls).parameters) if cls else set()


def check_dataset(where: str, block: Any, given: Mapping[str, Any], found: Findings) -> None:
    """Check the block of a data set together with ``given``, the phase and the scale that are filled in."""
    if not isinstance(block, Mapping):
        found.faults.append(f"{where} is {shown(block)}, but it must be a block of `key: value` lines")
        return
    cls = _named(registry_of("DATASET"), where, block, found)
    block, options = {**block, **given}, dataset_options(block.get("type"))
    if options is None:
        check_section(where, block, registries.mentioned_keys(cls) if cls else (), set(), found)
        return
    own = own_options(options, block)
    check_section(where, {key: value for key, value in block.items() if key not in own}, (), set(), found)
    found.faults.extend(parse_block(options, own, where)[1])


def check_network(where: str, block: Mapping[str, Any], model: type[RestorerContract], found: Findings) -> None:
    """Check the block of a network; ``network_g`` must take what ``model`` calls it with."""
    cls = _named(registry_of("ARCH"), where, block, found)
    if cls is None:
        return
    found.faults.extend(call_faults(cls, _without(block, "type"), where))
    takes = model.network_takes if where == "network_g" else ()
    if not _forward_takes(cls, takes):
        fitting = fitting_networks(model)
        said = f"{block['type']}, which {model.__name__} cannot use: it calls its network with ({', '.join(takes)})"
        adapters = [name for name in fitting if "network" in parameters_of(where, name)]
        inside = "".join(f"; or give it to an adapter: {{type: {one}, network: {{...}}}}" for one in adapters)
        found.faults.append(f"{where}.type is {said}; networks that take these: {', '.join(fitting)}{inside}")


def fitting_networks(model: type[RestorerContract]) -> list[str]:
    """The registered networks that take what ``model`` calls its ``network_g`` with."""
    registry = registry_of("ARCH")
    names = registries.names(registry)
    return [name for name in names if _forward_takes(registries.find(registry, name), model.network_takes)]


def _forward_takes(cls: Any, names: Sequence[str]) -> bool:
    """Tell whether a network is called with as many tensors as ``names``; True where it cannot be told."""
    from torch import nn

    if not names or not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        return True
    try:
        return bool(inspect.signature(cls.forward).bind(None, *names))
    except TypeError:
        return False


def check_loss(where: str, block: Mapping[str, Any], tried: bool, found: Findings) -> None:
    """Check the block of a loss; ``tried`` builds BasicSR's own, all but PerceptualLoss, which loads a network."""
    cls, arguments = _named(registry_of("LOSS"), where, block, found), _without(block, "type")
    if cls is not None:
        tried = tried and cls.__module__.startswith("basicsr.") and cls.__name__ != "PerceptualLoss"
        found.faults.extend(call_faults(cls, arguments, where) or _refusal(where, lambda: cls(**arguments), tried))


def check_optimizer(where: str, block: Mapping[str, Any], model: type | None, tried: bool, found: Findings) -> None:
    """Check the block of an optimiser of torch; ``tried`` builds it for the parameters of a convolution."""
    import torch

    name, known = str(block.get("type")), registries.known_optimizers()
    if name not in known:
        if not _brings_own(model, "get_optimizer"):
            said = f"{block.get('type')!r}, which is not an optimiser for any network"
            found.faults.append(f"{where}.type is {said}; {did_you_mean(name, known)}")
        return
    faults = call_faults(known[name], _without(block, "type"), where, ("params",))
    if "lr" not in block:
        faults.append(f"{where}.lr is missing; give the learning rate, such as 1e-4")
    tensors = torch.nn.Conv2d(2, 2, 3).parameters()
    arguments = _without(block, "type", "fused", "foreach", "capturable")  # which a CPU may refuse
    found.faults.extend(faults or _refusal(where, lambda: known[name](tensors, **arguments), tried))


def check_scheduler(train: Mapping[str, Any], model: type | None, tried: bool, found: Findings) -> None:
    """Check ``train.scheduler``; ``tried`` builds the schedule."""
    import torch

    where, block, known = "train.scheduler", train["scheduler"], registries.known_schedulers()
    name, arguments = str(block.get("type")), _without(block, "type")
    if name not in known:
        if not _brings_own(model, "setup_schedulers"):
            said = f"{block.get('type')!r}, which is not a schedule"
            found.faults.append(f"{where}.type is {said}; {did_you_mean(name, known)}")
        return
    faults = call_faults(known[name], arguments, where, ("optimizer", "last_epoch"))
    named = [key for key in ("milestones", "periods", "restarts", "restart_weights") if key in block]
    lists = {key: convert(block[key], list[float], f"{where}.{key}", faults) for key in named}
    faults = faults or _schedule_faults(where, block, lists, train.get("total_iter"))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1, momentum=0.9)
    found.faults.extend(faults or _refusal(where, lambda: known[name](optimizer, **arguments), tried))


def _schedule_faults(
    where: str, block: Mapping[str, Any], lists: Mapping[str, list[float]], total_iter: Any
) -> list[str]:
    faults = []
    first = "periods" if block["type"] == "CosineAnnealingRestartLR" else "restarts"
    count, weights = (len(lists.get(key, [0])) for key in (first, "restart_weights"))
    if count != weights:
        said = f"{first} has {count} value(s) but restart_weights has {weights}"
        faults.append(f"{where}: {said}; give one weight for each")
    key, reach = "periods", sum(lists.get("periods", [math.inf]))
    if block["type"] == "OneCycleLR":
        key, steps = "total_steps", (block.get("epochs") or 0) * (block.get("steps_per_epoch") or 0)
        reach = block.get("total_steps") or steps or math.inf  # without any, the class refuses
    if isinstance(total_iter, (int, float)) and reach < total_iter:
        said = f"{lists.get(key, reach)}, {reach:g} iterations in all, but train.total_iter is {total_iter:g}"
        faults.append(f"{where}.{key} is {said}; lengthen the {key} or shorten the run")
    return faults


def check_metric(name: str, block: Any, model: type | None, found: Findings) -> None:
    """Check a metric, what it needs, and that the model can take it; one of BasicSR's is tried on an image."""
    import numpy as np

    from basicsr_ext.metrics import build_metrics

    where = f"val.metrics.{name}"
    try:
        build_metrics({name: block})
    except InputError as error:
        found.faults.append(str(error))
        return
    metric = registries.find(registry_of("METRIC"), block["type"])
    if metric is None and model is not None and not issubclass(model, RestorerContract):
        said = f"{block['type']}, which {model.__name__} cannot measure, as BasicSR validates image by image"
        found.faults.append(f"{where}.type is {said}; measure it with `basicsr benchmark`")
    elif str(block["type"]).endswith("_pt"):  # of BasicSR, for losses
        whole = block["type"].removesuffix("_pt")
        found.faults.append(
            f"{where}.type is {block['type']}, which measures tensors; take {whole}, which measures images"
        )
    elif metric is not None and metric.__module__.startswith("basicsr."):
        image = np.random.default_rng(0).integers(0, 256, (192, 192, 3), dtype=np.uint8)  # NIQE needs two blocks of 96
        images = {key: image for key in ("img", "img2") if key in inspect.signature(metric).parameters}
        found.faults.extend(_refusal(where, lambda: metric(**images, **_without(block, "type", "better"))))


def _named(registry: Any, where: str, block: Mapping[str, Any], found: Findings) -> Any | None:
    """What ``type`` names in a registry; a fault and None if it names nothing."""
    name = block.get("type")
    cls = registries.find(registry, name)
    if cls is None:
        said = "missing; give one" if name is None else f"{name!r}, which is not registered"
        found.faults.append(f"{where}.type is {said}; {did_you_mean(name or '', registries.names(registry))}")
    return cls


def _without(block: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key not in names}


def _brings_own(model: type | None, method: str) -> bool:
    """Tell whether a class that is neither BasicSR's nor ours makes the model's optimisers or schedules."""
    bases = inspect.getmro(model) if model else ()
    return any(method in vars(cls) and not cls.__module__.startswith(("basicsr.", "basicsr_ext.")) for cls in bases)


def _refusal(where: str, attempt: Callable[[], Any], tried: bool = True) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            attempt() if tried else None
        except Exception as error:  # the class refuses its arguments in whatever way it likes
            return [f"{where}: {str(error) or type(error).__name__}"]
    return []


def name_faults(where: str, name: str) -> list[str]:
    """Why files and folders cannot bear the name that a data set, a method or a benchmark has."""
    if not name or name.startswith(".") or any(sign in name for sign in "/\\\0") or len(os.fsencode(name)) > 100:
        return [f"{where}: the name {name!r} names a folder; write 1 to 100 bytes, without slashes and dots in front"]
    return []
