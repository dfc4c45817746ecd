"""Find every fault of an option file at once, before anything is built and without touching the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basicsr_ext.common import registries
from basicsr_ext.common.contracts import restorer_class_of
from basicsr_ext.common.errors import did_you_mean
from basicsr_ext.common.option_blocks import parse_block
from basicsr_ext.options import parts
from basicsr_ext.options.basicsr_keys import PHASES, SECTIONS, Findings, check_section, fields_of, known_in, phase_of

_LONGEST_NAME = 160  # bytes; what is added for logs, locks and images fits into the 255 of most file systems


def check(opt: Mapping[str, Any], is_train: bool) -> list[str]:
    """Return the faults of an option file, an empty list if there are none; no file or folder is looked at."""
    return inspect_options(opt, is_train).faults


def inspect_options(opt: Mapping[str, Any], is_train: bool) -> Findings:
    """Check sections, types, unknown keys and registered names of ``opt`` for training or for a test.

    What the blocks of a model may hold, and what no single block can tell, is said by its class, see
    :class:`~basicsr_ext.common.contracts.RestorerContract`.
    """
    found = Findings()
    model = model_class(opt, found)
    _required(opt, is_train, model, found)
    _sections(opt, model, is_train, found)
    for name, dataset in _mapping(opt.get("datasets")).items():
        found.faults.extend(_phase_faults(name, dataset, is_train))
        given = {"phase": phase_of(name) if phase_of(name) in PHASES else "test"}
        given |= {"scale": opt["scale"]} if "scale" in opt else {}
        parts.check_dataset(f"datasets.{name}", dataset, given, found)
    restorer = restorer_class_of(model)
    for name, network in opt.items():
        if str(name).startswith("network_") and isinstance(network, Mapping):
            parts.check_network(name, network, restorer, found)
    train = _mapping(opt.get("train"))
    for name, block in train.items():
        if str(name).startswith("optim_") and isinstance(block, Mapping):
            parts.check_optimizer(f"train.{name}", block, model, is_train, found)
        elif str(name).endswith("_opt") and isinstance(block, Mapping):
            parts.check_loss(f"train.{name}", block, is_train, found)
    if isinstance(train.get("scheduler"), Mapping):
        parts.check_scheduler(train, model, is_train, found)
    for name, metric in _mapping(_mapping(opt.get("val")).get("metrics")).items():
        parts.check_metric(str(name), metric, model, found)
    if not found.faults:
        found.faults.extend(restorer.option_faults(opt))
    return found


def _phase_faults(name: str, block: Any, is_train: bool) -> list[str]:
    """A name that tells no phase; BasicSR's own data sets take any in a test."""
    phase = phase_of(name)
    if phase in PHASES or not (is_train or parts.dataset_options(_mapping(block).get("type"))):
        return []
    return [
        f"datasets.{name} tells no phase; {did_you_mean(phase, PHASES)}, alone or with a name of your own behind it, "
        f"such as val_{name}: rename it"
    ]


def _sections(opt: Mapping[str, Any], model: type | None, is_train: bool, found: Findings) -> None:
    """Check the sections of the file: those that the model class declares strictly, key by key."""
    blocks = restorer_class_of(model).option_blocks
    mentioned = registries.mentioned_keys(model) if model else frozenset()
    for section in (name for name in SECTIONS if name not in blocks and name != "datasets.*"):
        block = _mapping(opt.get(section)) if section else opt
        check_section(section, block, mentioned, _inner(section, blocks), found)
    for name, cls in blocks.items():
        block = _block(opt, name.split("."))
        if name == "train" and (not is_train or block is None):
            continue
        if isinstance(block, Mapping):
            inner = _inner(name, blocks) - fields_of(cls)
            block = {key: value for key, value in block.items() if key not in inner}
        found.faults.extend(parse_block(cls, block, name)[1])


def _inner(section: str, blocks: Mapping[str, type]) -> set[str]:
    """The keys of a section that are, or lead to, declared blocks."""
    prefix = f"{section}." if section else ""
    return {name[len(prefix) :].partition(".")[0] for name in blocks if name.startswith(prefix)}


def _block(opt: Mapping[str, Any], keys: list[str]) -> Any:
    block: Any = opt
    for key in keys:
        block = _mapping(block).get(key)
    return block


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


def known_names(opt: Mapping[str, Any], keys: list[str]) -> set[str]:
    """The option names that may stand in the block ``keys`` leads to; an empty set if nothing is known of it."""
    section, blocks = ".".join(keys), restorer_class_of(model_class(opt)).option_blocks
    known = fields_of(blocks[section]) if section in blocks else set(known_in(keys))
    known |= _inner(section, blocks)
    name = _mapping(_block(opt, keys)).get("type")
    if len(keys) == 2 and keys[0] == "datasets":
        options = parts.dataset_options(name)
        return known | (fields_of(options) if options else set())
    return known | (parts.parameters_of(keys[-1], name) if keys else set())
