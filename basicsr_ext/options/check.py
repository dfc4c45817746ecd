"""Find every fault of an option file at once, before anything is built and without touching the data."""

from collections.abc import Mapping
from typing import Any

from basicsr_ext.common import registries
from basicsr_ext.common.contracts import restorer_class_of
from basicsr_ext.common.errors import did_you_mean
from basicsr_ext.common.option_blocks import parse_block
from basicsr_ext.common.seeds import MOST_SEED
from basicsr_ext.images.values import Values
from basicsr_ext.options import parts
from basicsr_ext.options.basicsr_keys import PHASES, SECTIONS, Findings, check_section, fields_of, known_in, phase_of
from basicsr_ext.options.parts import dataset_options


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
    values = _values(opt.get("data"), model, found)
    owners: dict[str, str] = {}
    for name, dataset in _mapping(opt.get("datasets")).items():
        phase = phase_of(name)
        if phase != "train":
            title = str(_mapping(dataset).get("name", name))
            found.faults += parts.name_faults(f"datasets.{name}", title)
            if (owner := owners.setdefault(title, str(name))) != str(name):
                found.faults.append(f"datasets.{name}.name is {title}, as of datasets.{owner}; rename one of them")
        # BasicSR's own data sets take any name in a test
        if phase not in PHASES and (is_train or dataset_options(_mapping(dataset).get("type"))):
            cure = f"alone or with a name of your own behind it, such as val_{name}: rename it"
            found.faults.append(f"datasets.{name} tells no phase; {did_you_mean(phase, PHASES)}, {cure}")
        given = {"phase": phase if phase in PHASES else "test"} | {key: opt[key] for key in ("scale",) if key in opt}
        given |= _data_for(f"datasets.{name}", dataset, opt.get("data"), values, found)
        parts.check_dataset(f"datasets.{name}", dataset, given, found)
    restorer, train = restorer_class_of(model), _mapping(opt.get("train"))
    for name, block in _blocks(opt):
        if name.startswith("network_"):
            parts.check_network(name, block, restorer, found)
    for name, block in _blocks(train):
        if name.startswith("optim_"):
            parts.check_optimizer(f"train.{name}", block, model, is_train, found)
        elif name.endswith("_opt"):
            parts.check_loss(f"train.{name}", block, is_train, found)
        elif name == "scheduler":
            parts.check_scheduler(train, model, is_train, found)
    if suffix := _mapping(opt.get("val")).get("suffix"):
        found.faults += parts.name_faults("val.suffix", str(suffix))
    for name, metric in _mapping(_mapping(opt.get("val")).get("metrics")).items():
        parts.check_metric(str(name), metric, model, found)
    return found if found.faults else Findings(restorer.option_faults(opt), found.notes)


def _values(block: Any, model: type | None, found: Findings) -> Values | None:
    """The block ``data``, if there is one that is right and that the model knows."""
    if not block:
        return None
    if model is not None and not restorer_class_of(model).takes_data:
        said = f"data is given, but {model.__name__} restores pictures alone"
        found.faults.append(f"{said}; take RestorationModel or a model that is made from it, such as I2SBModel")
    values, faults = parse_block(Values, block, "data")
    found.faults.extend(faults)
    return values


def _data_for(
    where: str, dataset: Any, block: Any, values: Values | None, found: Findings
) -> dict[str, Mapping[str, Any]]:
    """What a data set's options get of the block ``data``: the block, if it is right and the data set reads data."""
    options = dataset_options(_mapping(dataset).get("type"))
    if "data" in _mapping(dataset):
        found.faults.append(f"{where}.data: what the numbers mean holds for the whole file; write data: at its top")
    elif block and _mapping(dataset).get("type") and (options is None or "data" not in fields_of(options)):
        said = f"{where}.type is {dataset['type']}, which reads pictures alone, but data is given"
        found.faults.append(f"{said}; take PairedFolderDataset or PairedDegradationDataset")
    elif values is not None:
        return {"data": block}
    return {}


def _blocks(opt: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(str(name), block) for name, block in opt.items() if isinstance(block, Mapping)]


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
    add, name = found.faults.append, opt["name"] if isinstance(opt.get("name"), str) else ""
    for key, what in (("name", "a text, the name of the run"), ("model_type", "the class of the model")):
        if opt.get(key, "") == "":
            add(f"{key} is missing; give {what}")
    if any(sign in name for sign in "/\\") or name in (".", "..") or not all(map(str.isprintable, name)):
        add(f"name is {name!r}; it names a folder, so write it without slashes and control characters")
    elif len(name.encode("utf-8", "surrogatepass")) > 160:  # logs, locks and images add to it; file systems take 255
        add(f"name has {len(name)} characters; it names files and folders, so shorten it to 160 bytes")
    if isinstance(seed := opt.get("manual_seed"), int) and seed > MOST_SEED:
        add(f"manual_seed is {seed}; it must be a whole number from 0 to {MOST_SEED}")
    if not opt.get("datasets"):
        add("datasets is missing; give at least one data set")
    needed = registries.needed_keys(model) if model else {"": {"network_g"}, "train": set()}
    networks = {key for key in needed[""] if key.startswith("network_") and (is_train or key == "network_g")}
    for key in sorted(networks - opt.keys()):  # a discriminator serves training alone
        add(f"{key} is missing; give a block with `type:` and the arguments of the network")
    if not is_train:
        return
    if train := _mapping(opt.get("train")):
        if train.get("total_iter") is None:
            add("train.total_iter is missing; give the number of iterations")
        blocks = {key for key in needed["train"] if key.startswith("optim_") or key == "scheduler"}
        blocks |= needed["train"] & {"gan_opt"}  # without which the step of those that know it fails
        for key in sorted(key for key in blocks if train.get(key) is None):
            add(f"train.{key} is missing; give a block with `type:` and its arguments")
        losses = {"pixel_opt", "perceptual_opt"}
        if losses <= needed["train"] and "gan_opt" not in blocks and not any(map(train.get, losses)):
            add("train has neither pixel_opt nor perceptual_opt; give one of them, the block of a loss")
    else:
        add("train is missing; give total_iter, optim_g, scheduler and a loss, or use `basicsr test`")
    train_set = _mapping(opt.get("datasets")).get("train")
    if opt.get("datasets") and train_set is None:
        add("datasets.train is missing; give a block with type, dataroot_gt and batch_size_per_gpu")
    elif isinstance(train_set, Mapping) and train_set.get("batch_size_per_gpu") is None:
        add("datasets.train.batch_size_per_gpu is missing; give a whole number from 1")


def model_class(opt: Mapping[str, Any], found: Findings | None = None) -> type | None:
    """The registered class that ``model_type`` names; a fault and None if there is none."""
    name = opt.get("model_type")
    cls = registries.find(parts.registry_of("MODEL"), name)
    if cls is None and name not in (None, "") and found is not None:
        known = did_you_mean(name, registries.names(parts.registry_of("MODEL")))
        found.faults.append(f"model_type is {name!r}, which is not registered; {known}")
    return cls


def known_names(opt: Mapping[str, Any], keys: list[str]) -> set[str]:
    """The option names that may stand in the block ``keys`` leads to; an empty set if nothing is known of it."""
    if keys == ["data"]:
        return fields_of(Values)
    section, blocks = ".".join(keys), restorer_class_of(model_class(opt)).option_blocks
    known = fields_of(blocks[section]) if section in blocks else set(known_in(keys))
    known |= _inner(section, blocks)
    name = _mapping(_block(opt, keys)).get("type")
    if len(keys) == 2 and keys[0] == "datasets" and (options := dataset_options(name)):
        return known | fields_of(options)
    return known | (parts.parameters_of(keys[-1], name) if keys else set())
