"""Find every fault of an option file at once, before anything is built and without touching the data."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from basicsr_ext.common import registries
from basicsr_ext.common.errors import InputError, did_you_mean
from basicsr_ext.common.option_blocks import call_faults, convert, is_near, parse_block, shown
from basicsr_ext.options.basicsr_keys import LOADER_KEYS, SECTIONS, is_known, section_keys, section_types
from basicsr_ext.options.trial import trial_faults

__all__ = ["Findings", "check", "inspect_options", "known_names", "model_class"]

_LONGEST_NAME = 160  # bytes; what is added for logs, locks and images fits into the 255 of most file systems


@dataclasses.dataclass
class Findings:
    """What is wrong (``faults``) and what is merely odd (``notes``)."""

    faults: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def check(opt: Mapping[str, Any], is_train: bool) -> list[str]:
    """Return the faults of an option file, an empty list if there are none; no file or folder is looked at."""
    return inspect_options(opt, is_train).faults


def inspect_options(opt: Mapping[str, Any], is_train: bool) -> Findings:
    """Check sections, types, unknown keys and registered names of ``opt`` for training or for a test.

    A model class declares its blocks in ``option_blocks`` (dotted section -> frozen dataclass). What no single block
    can tell it says in a class method ``option_faults(opt) -> list[str]``, asked once the blocks are right.
    """
    found = Findings()
    model = model_class(opt, found)
    _required(opt, is_train, model, found)
    blocks = getattr(model, "option_blocks", {}) if model else {}
    mentioned = registries.mentioned_keys(model) if model else frozenset()
    _section("", opt, mentioned, {name.partition(".")[0] for name in blocks}, found)
    for section in ("path", "train", "val", "logger", "dist_params"):
        if section not in blocks and isinstance(opt.get(section), Mapping):
            inner = {name.split(".")[1] for name in blocks if name.startswith(section + ".")}
            _section(section, opt[section], mentioned, inner, found)
    _owned_blocks(opt, blocks, is_train, found)
    for name, dataset in _mapping(opt.get("datasets")).items():
        given = {"phase": str(name).split("_")[0]} | ({"scale": opt["scale"]} if "scale" in opt else {})
        _dataset(f"datasets.{name}", {**dataset, **given} if isinstance(dataset, Mapping) else dataset, found)
    for name, network in opt.items():
        if str(name).startswith("network_") and isinstance(network, Mapping):
            _registered("ARCH", network, name, found)
    _training(_mapping(opt.get("train")), model, found)
    for name, metric in _mapping(_mapping(opt.get("val")).get("metrics")).items():
        _metric(str(name), metric, model, found)
    if not found.faults:
        found.faults.extend(trial_faults(opt, is_train))
    if not found.faults and hasattr(model, "option_faults"):
        found.faults.extend(model.option_faults(opt))  # type: ignore[union-attr]
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _required(opt: Mapping[str, Any], is_train: bool, model: type | None, found: Findings) -> None:
    for key, what in (("name", "a text, the name of the run"), ("model_type", "the class of the model")):
        if opt.get(key, "") == "":
            found.faults.append(f"{key} is missing; give {what}")
    found.faults.extend(_name_faults(opt.get("name")))
    if not opt.get("datasets"):
        found.faults.append("datasets is missing; give at least one data set")
    needed = registries.needed_keys(model) if model else {"": {"network_g"}, "train": set()}
    networks = {key for key in needed[""] if key.startswith("network_") and (is_train or key == "network_g")}
    for name in sorted(networks - opt.keys()):  # a discriminator serves training alone
        found.faults.append(f"{name} is missing; give a block with `type:` and the arguments of the network")
    if not is_train:
        return
    if not _mapping(opt.get("train")):
        found.faults.append("train is missing; give total_iter, optim_g, scheduler and a loss, or use `basicsr test`")
    elif opt["train"].get("total_iter") is None:
        found.faults.append("train.total_iter is missing; give the number of iterations")
    blocks = {key for key in needed["train"] if key.startswith("optim_") or key == "scheduler"}
    for name in sorted(blocks - _mapping(opt.get("train")).keys()) if _mapping(opt.get("train")) else ():
        found.faults.append(f"train.{name} is missing; give a block with `type:` and its arguments")
    train_set = _mapping(opt.get("datasets")).get("train")
    if opt.get("datasets") and train_set is None:
        found.faults.append("datasets.train is missing; give a block with type, dataroot_gt and batch_size_per_gpu")
    elif isinstance(train_set, Mapping) and train_set.get("batch_size_per_gpu") is None:
        found.faults.append("datasets.train.batch_size_per_gpu is missing; give a whole number from 1")


def _name_faults(name: Any) -> list[str]:
    if not isinstance(name, str):
        return []
    if any(sign in name for sign in "/\\\0") or name in (".", ".."):
        return [f"name is {name!r}; it names a folder, so write it without slashes"]
    if len(name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME:
        return [f"name has {len(name)} characters; it names files and folders, so shorten it to {_LONGEST_NAME} bytes"]
    return []


def model_class(opt: Mapping[str, Any], found: Findings | None = None) -> type | None:
    """The registered class that ``model_type`` names; a fault and None if there is none."""
    from basicsr.utils.registry import MODEL_REGISTRY

    name = opt.get("model_type")
    cls = registries.find(MODEL_REGISTRY, name)
    if cls is None and name not in (None, "") and found is not None:
        known = did_you_mean(name, registries.names(MODEL_REGISTRY))
        found.faults.append(f"model_type is {name!r}, which is not registered; {known}")
    return cls


def _section(
    section: str, block: Mapping[str, Any], mentioned: frozenset[str], declared: set[str], found: Findings
) -> None:
    """Check a section of BasicSR's own: types of known keys; strange keys are faults only if near to a known one.

    ``mentioned`` are words that the class in charge may read, ``declared`` keys that it does read.
    """
    generic = "datasets.*" if section.startswith("datasets.") else section
    types = section_types(generic)
    for key, value in block.items():
        where = f"{section}.{key}" if section else str(key)
        if key in types:
            kind, least = types[key]
            _value(value, kind, least, where, found)
        elif not section_keys(generic, key) and key not in mentioned and key not in declared:
            known = {*types, *declared}
            if is_near(key, known):
                found.faults.append(f"{where} is not an option; {did_you_mean(key, known)}")
            else:
                found.notes.append(f"{where} is not an option that the toolkit knows; it may have no effect")


def _value(value: Any, kind: Any, least: float | None, where: str, found: Findings) -> None:
    before = len(found.faults)
    fitted = convert(value, kind, where, found.faults)
    if len(found.faults) == before and least is not None and isinstance(fitted, (int, float)) and fitted < least:
        found.faults.append(f"{where} is {value!r}, but it must be at least {least:g}")


def _owned_blocks(opt: Mapping[str, Any], blocks: Mapping[str, type], is_train: bool, found: Findings) -> None:
    """Check the blocks that the model class declares: strictly, key by key."""
    for name, cls in blocks.items():
        block: Any = opt
        for key in name.split("."):
            block = _mapping(block).get(key)
        if name == "train" and (not is_train or block is None):
            continue
        if isinstance(block, Mapping):
            inner = {n[len(name) + 1 :].partition(".")[0] for n in blocks if n.startswith(name + ".")}
            block = {key: value for key, value in block.items() if key not in inner or key in _fields(cls)}
        found.faults.extend(parse_block(cls, block, name)[1])


def _fields(cls: type) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]


def _dataset(where: str, block: Any, found: Findings) -> None:
    from basicsr.utils.registry import DATASET_REGISTRY

    if not isinstance(block, Mapping):
        found.faults.append(f"{where} is {shown(block)}, but it must be a block of `key: value` lines")
        return
    name = block.get("type")
    cls = registries.find(DATASET_REGISTRY, name)
    known = did_you_mean(name or "", registries.names(DATASET_REGISTRY))
    if name is None:
        found.faults.append(f"{where}.type is missing; give a kind of data set; {known}")
    elif cls is None:
        found.faults.append(f"{where}.type is {name!r}, which is not registered; {known}")
    options = getattr(cls, "Options", None)
    if options is not None and dataclasses.is_dataclass(options):
        own = _fields(options)
        common = {key: value for key, value in block.items() if key in LOADER_KEYS and key not in own}
        _section(where, common, frozenset(), set(), found)
        rest = {key: value for key, value in block.items() if key not in common}
        found.faults.extend(parse_block(options, rest, where)[1])
    else:
        _section(where, block, registries.mentioned_keys(cls) if cls else frozenset(), set(), found)


def _registered(
    registry: str,
    block: Any,
    where: str,
    found: Findings,
    own: tuple[str, ...] = ("type",),
    given: tuple[str, ...] = (),
) -> None:
    """Check ``type`` against a registry and the other keys against the signature of what it names."""
    from basicsr.utils import registry as home

    known = getattr(home, f"{registry}_REGISTRY")
    if not isinstance(block, Mapping) or block.get("type") is None:
        listing = did_you_mean("", registries.names(known))
        found.faults.append(f"{where}.type is missing; give the name of a registered class; {listing}")
        return
    cls = registries.find(known, block["type"])
    if cls is None:
        listing = did_you_mean(block["type"], registries.names(known))
        found.faults.append(f"{where}.type is {block['type']!r}, which is not registered; {listing}")
        return
    arguments = {key: value for key, value in block.items() if key not in own}
    found.faults.extend(call_faults(cls, arguments, where, given))


def _metric(name: str, block: Any, model: type | None, found: Findings) -> None:
    """Check a metric, the package and the weights it needs, and that the model's validation can take it."""
    from basicsr.utils.registry import METRIC_REGISTRY

    from basicsr_ext.metrics import build_metrics

    try:
        build_metrics({name: block})
    except InputError as error:
        found.faults.append(str(error))
        return
    if block["type"] not in METRIC_REGISTRY and model is not None and not hasattr(model, "evaluating"):
        found.faults.append(
            f"val.metrics.{name}.type is {block['type']}, which {model.__name__} can not measure, as BasicSR validates "
            "image by image; measure it with `basicsr benchmark`"
        )


def _training(train: Mapping[str, Any], model: type | None, found: Findings) -> None:
    for name, block in train.items():
        if not isinstance(block, Mapping):
            continue
        if str(name).startswith("optim_"):
            _optimizer(block, f"train.{name}", model, found)
        elif str(name).endswith("_opt"):
            _registered("LOSS", block, f"train.{name}", found)
    if isinstance(train.get("scheduler"), Mapping):
        _scheduler(train["scheduler"], train.get("total_iter"), model, found)


def _overrides(model: type | None, method: str) -> bool:
    """Tell whether the model brings its own way of making optimisers or schedulers."""
    return model is not None and not getattr(model, method, None).__module__.startswith(("basicsr.", "basicsr_ext."))


def _optimizer(block: Mapping[str, Any], where: str, model: type | None, found: Findings) -> None:
    import torch

    known = {n: c for n, c in vars(torch.optim).items() if inspect.isclass(c) and issubclass(c, torch.optim.Optimizer)}
    known.pop("Optimizer", None)
    name = block.get("type")
    if not isinstance(name, str) or name not in known:
        if not _overrides(model, "get_optimizer"):
            listing = did_you_mean(name, known)
            found.faults.append(f"{where}.type is {name!r}, which is no optimiser of torch; {listing}")
        return
    arguments = {key: value for key, value in block.items() if key != "type"}
    found.faults.extend(call_faults(known[name], arguments, where, ("params",)))
    if "lr" not in block:
        found.faults.append(f"{where}.lr is missing; give the learning rate, such as 1e-4")


def _scheduler(block: Mapping[str, Any], total_iter: Any, model: type | None, found: Findings) -> None:
    where, name, known = "train.scheduler", block.get("type"), registries.known_schedulers()
    if not isinstance(name, str) or name not in known:
        if not _overrides(model, "setup_schedulers"):
            found.faults.append(f"{where}.type is {name!r}, which is no scheduler; {did_you_mean(name, known)}")
        return
    arguments = {key: value for key, value in block.items() if key != "type"}
    faults = call_faults(known[name], arguments, where, ("optimizer", "last_epoch"))
    lists: dict[str, list[Any]] = {}
    for key in ("milestones", "periods", "restarts", "restart_weights"):
        if key in block:
            lists[key] = convert(block[key], list[float], f"{where}.{key}", faults)
    found.faults.extend(faults)
    if not faults:
        found.faults.extend(_schedule_faults(where, name, lists, total_iter))


def _schedule_faults(where: str, name: str, lists: dict[str, list[Any]], total_iter: Any) -> list[str]:
    faults = []
    first = "periods" if name == "CosineAnnealingRestartLR" else "restarts"
    counts = [len(lists.get(key, [0])) for key in (first, "restart_weights")]
    if counts[0] != counts[1]:
        faults.append(
            f"{where}: {first} has {counts[0]} value(s) but restart_weights has {counts[1]}; give one weight for each"
        )
    if first == "periods" and isinstance(total_iter, (int, float)) and sum(lists["periods"]) < total_iter:
        faults.append(
            f"{where}.periods is {lists['periods']}, {sum(lists['periods']):g} iterations in all, but train.total_iter "
            f"is {total_iter:g}; lengthen the periods or shorten the run"
        )
    return faults


def known_names(opt: Mapping[str, Any], keys: list[str]) -> set[str]:
    """The option names that may stand in the block ``keys`` leads to; an empty set if nothing is known of it."""
    section = ".".join(keys)
    generic = "datasets.*" if len(keys) == 2 and keys[0] == "datasets" else section
    known = {key for key in SECTIONS.get(generic, {}) if is_known([*keys, key])}
    blocks = getattr(model_class(opt), "option_blocks", {})
    if section in blocks:
        known = _fields(blocks[section])
    prefix = f"{section}." if section else ""
    known |= {name[len(prefix) :].partition(".")[0] for name in blocks if name.startswith(prefix)}
    block: Any = opt
    for key in keys:
        block = _mapping(block).get(key)
    return known | _declared(keys, _mapping(block).get("type"))


def _declared(keys: list[str], name: Any) -> set[str]:
    """Names from the class that ``type`` in the block names: fields of its Options, else its parameters."""
    from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY

    if len(keys) == 2 and keys[0] == "datasets":
        options = getattr(registries.find(DATASET_REGISTRY, name), "Options", None)
        return _fields(options) if options else set()
    if not keys or not (keys[-1].startswith("network_") or keys[-1].endswith("_opt")):
        return set()
    cls = registries.find(ARCH_REGISTRY if keys[-1].startswith("network_") else LOSS_REGISTRY, name)
    return set(inspect.signature(cls).parameters) if cls else set()
