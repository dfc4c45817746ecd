"""Where the network of a checkpoint is described: an option file, the checkpoint itself, or the run that wrote it."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr_ext.checkpoints.run_record import RECORD, read_options
from basicsr_ext.checkpoints.storage import AnyPath, read_configuration
from basicsr_ext.common import plugins, registries
from basicsr_ext.common.contracts import restorer_class_of
from basicsr_ext.common.errors import InputError, did_you_mean
from basicsr_ext.common.option_blocks import convert, parse_block
from basicsr_ext.common.text import listed
from basicsr_ext.models.register import register
from basicsr_ext.options.check import inspect_options, model_class
from basicsr_ext.options.file import apply_overrides, load_yaml
from basicsr_ext.options.parts import registry_of
from basicsr_ext.options.resolve import raise_faults

# What resolving adds for one start of a run, and no option file holds
_OF_ONE_START = {"auto_resume", "dist", "is_train", "manual_seed_drawn", "notes", "rank", "start", "world_size"}


def find_options(
    checkpoint: AnyPath | None, option_file: AnyPath | None = None, option: str = "--checkpoint"
) -> tuple[dict[str, Any], str]:
    """Find the options that a checkpoint's network was trained with; None for one without weights, of ``option_file``.

    The first of these is taken: ``option_file``; the configuration inside the checkpoint, a JSON text with
    ``network_g`` among a safetensors file's metadata or at a .pth's root; the record of the run that wrote it,
    ``experiments/<name>/options.json`` for ``experiments/<name>/models/net_g_latest.pth``; its option file.
    ``option`` is what named the checkpoint, for messages.

    Returns the options that matter for restoring, checked, and the place that they come from. Raises InputError if
    there are none, several option files compete, or the options are wrong.
    """
    register()  # the toolkit's own classes, without which no configuration is known
    if option_file is not None:
        opt, source = dict(load_yaml(Path(option_file))), str(option_file)
    else:
        checkpoint = Path(checkpoint or "").expanduser()
        if not checkpoint.is_file():
            raise InputError(f"{option} {checkpoint}: no such file; give a network's file such as net_g_latest.pth")
        inside = read_configuration(checkpoint, option)
        opt, source = (inside, str(checkpoint)) if inside else _of_run(checkpoint, option)
        if inside and not opt.get("model_type"):
            opt["model_type"] = _class_with(opt)
    if isinstance(opt.get("plugins"), list):
        plugins.load_listed(opt["plugins"], Path(source).expanduser().parent)
    return _relevant(opt, source), source


def options_of(configuration: Mapping[str, Any], source: str) -> dict[str, Any]:
    """What matters for restoring of the configuration inside a checkpoint, checked; ``source`` is for messages."""
    register()
    opt = dict(configuration)
    if not opt.get("model_type"):
        opt["model_type"] = _class_with(opt)
    return _relevant(opt, source)


def _class_with(configuration: Mapping[str, Any]) -> str:
    """Name of the registered model that declares most of the configuration's blocks; the plain one otherwise.

    Of several the one that declares the fewest others.
    """
    models = registry_of("MODEL")

    def likeness(name: str) -> tuple[int, int]:
        blocks = {block for block in restorer_class_of(registries.find(models, name)).option_blocks if "." not in block}
        shared = len(blocks & set(configuration))
        return shared, shared and shared - len(blocks)

    return max(["RestorationModel", *registries.names(models)], key=likeness)


def _of_run(checkpoint: Path, option: str) -> tuple[dict[str, Any], str]:
    """The options of the run that a checkpoint belongs to: its record, else its option file."""
    folder = checkpoint.parent.parent if checkpoint.parent.name == "models" else checkpoint.parent
    recorded = read_options(folder)
    if recorded is not None:
        return recorded, str(folder / RECORD)
    found = sorted(path for ext in ("*.yml", "*.yaml") for path in folder.resolve().glob(ext))
    named = [path for path in found if path.stem in (checkpoint.stem, folder.resolve().name)]
    for only in (named, found):
        if len(only) == 1:
            opt = load_yaml(only[0])
            apply_overrides(opt, recorded_overrides(only[0]), lambda keys: ())
            return opt, str(only[0])
    held = f"{len(found)} option files ({listed(path.name for path in found)})" if found else "no option file"
    said = f"it holds no configuration and {folder} holds {held}"
    cure = "say with -opt FILE what the network was trained with"
    if option != "--checkpoint":
        cure = f"write them into it: basicsr export {checkpoint} -opt FILE -o NEW.safetensors"
    raise InputError(f"{option} {checkpoint}: {said}; {cure}")


def recorded_overrides(path: str | Path) -> list[str]:
    """The ``--force_yml`` entries of the command that BasicSR wrote into the head of a run's option file.

    The way of runs without a record, made by earlier versions: the command is joined by spaces, so this is a guess.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()[:3]
    if len(lines) < 3 or not lines[0].startswith("# GENERATE TIME") or " --force_yml " not in lines[2]:
        return []
    given = re.split(r"(?:^| )-", lines[2].split(" --force_yml ", 1)[1])[0]  # up to the next flag
    start = r"\+?\w+(?::\w+)*="  # of an entry; its value may have spaces, whose quotes the command line took away
    entries = [text for text in re.split(f" (?={start})", given) if re.match(start, text)]
    return [entry if entry.startswith("+") else f"+{entry}" for entry in entries]


def _relevant(opt: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Check what restoring needs and leave out the rest: data, training, logs, paths."""
    opt = {"name": "restore"} | {key: value for key, value in opt.items() if key not in _OF_ONE_START}
    found = inspect_options(opt, is_train=False)
    found.faults = [fault for fault in found.faults if not fault.startswith(("datasets", "val.metrics", "path."))]
    raise_faults(found, source)
    single_image_model(opt)
    elsewhere = ("datasets", "logger", "path", "dist_params", "network_d")
    kept = {key: value for key, value in opt.items() if key not in elsewhere}
    kept["train"] = {key: value for key, value in (opt.get("train") or {}).items() if key == "precision"}
    kept["val"] = {key: value for key, value in (opt.get("val") or {}).items() if key != "metrics"}
    return copy.deepcopy(kept) | {"path": {}, "is_train": False}


def single_image_model(opt: Mapping[str, Any]) -> type:
    """The class that ``model_type`` names; InputError if it is no model that makes one image from one image."""
    from basicsr.models.sr_model import SRModel
    from basicsr.models.video_base_model import VideoBaseModel

    def is_able(cls: type | None) -> bool:
        return cls is not None and issubclass(cls, SRModel) and not issubclass(cls, VideoBaseModel)

    cls = model_class(opt)
    if cls is None or not is_able(cls):
        models = registry_of("MODEL")
        able = [name for name in registries.names(models) if is_able(registries.find(models, name))]
        said = f"{opt.get('model_type')!r}, which does not restore single images"
        raise InputError(f"model_type is {said}; {did_you_mean('', able)}")
    return cls


def with_flags(opt: Mapping[str, Any], model: type, flags: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the options with values of the model's ``restore_flags``; InputError for what it does not allow."""
    restorer = restorer_class_of(model)
    known = restorer.restore_flags
    changed = copy.deepcopy(dict(opt))
    faults: list[str] = []
    blocks: dict[str, dict[str, Any]] = {}  # those that were changed, by dotted name
    for name, value in flags.items():
        if name not in known:
            listing = did_you_mean(name, known) if known else "it has none of its own"
            raise InputError(f"{name} is not an option of restoring with {model.__name__}; {listing}")
        kind, dotted, _ = known[name]
        *sections, key = dotted.split(".")
        block = changed
        for section in sections:
            block[section] = {} if block.get(section) is None else block[section]
            block = block[section]
        block[key] = convert(value, kind, name, faults)
        blocks[".".join(sections)] = block
    for place, block in () if faults else sorted(blocks.items()):
        if place in restorer.option_blocks:
            faults += parse_block(restorer.option_blocks[place], block, place)[1]
    if faults:
        raise InputError("; ".join(faults))
    return changed
