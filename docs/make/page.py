"""Write the reference of every option block, ``options.md``, and the JSON schema for editors, ``options.schema.json``.

python -m docs.make.page docs
"""

import argparse
import dataclasses
import json
import re
import sys
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from basicsr_ext.common import registries
from basicsr_ext.common.contracts import restorer_class_of
from basicsr_ext.common.option_blocks import type_name
from basicsr_ext.images.values import Values
from basicsr_ext.options.basicsr_keys import LOADER_KEYS, SECTIONS
from basicsr_ext.options.parts import dataset_options
from docs.make.describe import Key, describe_arguments, describe_dataclass, describe_opt, describe_section, introduction
from docs.make.json_schema import by_type, is_open, json_object, json_value
from docs.make.meanings import SECTION_INTROS

Schema = dict[str, Any]
_HEAD = """# Options

Made from the code by `python -m docs.make.page docs`; do not edit it by hand.

`basicsr check -opt FILE` refuses what this page does not allow, all faults at once and with the nearest names. An
option can be changed from the command line with `--force_yml block:option=value`; one that is neither in the file nor
on this page needs a `+` in front. No option makes the program run code, except `plugins:`, which imports what it lists.

Editors with the YAML language server complete and check a file that has this line, with the path from the file to the
schema:

    # yaml-language-server: $schema=../docs/options.schema.json

A block with `type:` holds the options of the class that it names, listed under that name here.
"""
_CHAPTERS = {
    "section": "The file",
    "model": "Blocks of models",
    "dataset": "Data sets",
    "arch": "Networks",
    "loss": "Losses",
    "scheduler": "Schedules",
    "metric": "Metrics",
    "benchmark": "Benchmarks",
}
_DATA = ("img", "img1", "img2", "self")


@dataclasses.dataclass(frozen=True)
class Block:
    """One block: where it belongs (``chapter``), its ``title``, what it is (``intro``) and its options.

    ``strict`` blocks take no other keys; ``own`` tells the blocks of these packages from BasicSR's.
    """

    chapter: str
    title: str
    intro: str
    keys: tuple[Key, ...]
    strict: bool = True
    own: bool = True

    @property
    def reference(self) -> str:
        """Where the schema has it."""
        return f"#/definitions/{self.chapter}.{self.title}"


def blocks() -> list[Block]:
    """Every block that an option file may hold, the file's own sections first; plugins must be loaded."""
    found = [
        Block("section", name or "top", SECTION_INTROS[name], tuple(describe_section(name)), False) for name in SECTIONS
    ]
    found.append(Block("section", "data", introduction(Values), tuple(describe_dataclass(Values))))
    found += _model_blocks()
    found += _dataset_blocks()
    found += [block for registry in _registries_below(found) for block in registry]
    from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY

    for chapter, registry, given in (("arch", ARCH_REGISTRY, ()), ("loss", LOSS_REGISTRY, ())):
        found += [
            _callable(chapter, name, registries.find(registry, name), given) for name in registries.names(registry)
        ]
    theirs = {name: cls for name, cls in registries.known_schedulers().items() if cls.__module__.startswith("basicsr")}
    found += [_callable("scheduler", name, cls, ("optimizer", "last_epoch")) for name, cls in sorted(theirs.items())]
    better = Key("better", typing.Literal["higher", "lower"], "higher", "Which figures are the better ones.")
    from basicsr_ext.metrics import METRICS

    for name, cls in sorted(METRICS):
        found.append(Block("metric", name, introduction(cls), tuple(describe_dataclass(cls)), True, _is_own(cls)))
    for name in registries.names(METRIC_REGISTRY):
        if name not in METRICS:
            block = _callable("metric", name, registries.find(METRIC_REGISTRY, name), _DATA)
            found.append(dataclasses.replace(block, keys=(*block.keys, better)))
    return [*found, *_benchmark_blocks()]


def _benchmark_blocks() -> list[Block]:
    """The file of `basicsr benchmark`, which is of its own kind and has no part in the schema."""
    from basicsr_ext.benchmark.run.methods import MethodOptions
    from basicsr_ext.benchmark.run.settings import BenchmarkOptions

    classes = {"benchmark file": BenchmarkOptions, "methods.*": MethodOptions}
    return [
        Block("benchmark", title, introduction(cls), tuple(describe_dataclass(cls))) for title, cls in classes.items()
    ]


def _is_own(thing: Any) -> bool:
    return not thing.__module__.startswith("basicsr.")


def _callable(chapter: str, name: str, thing: Any, given: Iterable[str]) -> Block:
    keys = tuple(describe_arguments(thing, tuple(given)))
    return Block(chapter, name, introduction(thing), keys, not is_open(thing), _is_own(thing))


def _model_blocks() -> list[Block]:
    from basicsr.utils.registry import MODEL_REGISTRY

    found = []
    for name in registries.names(MODEL_REGISTRY):
        for section, cls in restorer_class_of(registries.find(MODEL_REGISTRY, name)).option_blocks.items():
            found.append(
                Block("model", f"{name}.{section}", introduction(cls), tuple(describe_dataclass(cls, section)))
            )
            found += _inner(f"{name}.{section}", cls)
    return found


def _inner(where: str, cls: type) -> list[Block]:
    """The blocks of the fields of an option class that are option classes themselves."""
    found = []
    for name, kind in typing.get_type_hints(cls).items():
        for part in (kind, *typing.get_args(kind)):
            if dataclasses.is_dataclass(part):
                block = Block("model", f"{where}.{name}", introduction(part), tuple(describe_dataclass(part)))
                found += [block, *_inner(f"{where}.{name}", part)]
    return found


def _dataset_blocks() -> list[Block]:
    from basicsr.utils.registry import DATASET_REGISTRY

    found = []
    for name in registries.names(DATASET_REGISTRY):
        cls = registries.find(DATASET_REGISTRY, name)
        options = dataset_options(name)
        if options is not None:
            keys = tuple(describe_dataclass(options, "datasets.*"))
            found.append(Block("dataset", name, introduction(cls), keys, True, _is_own(cls)))
        else:
            found.append(Block("dataset", name, introduction(cls), tuple(describe_opt(cls)), False, _is_own(cls)))
    return found


def _registries_below(found: list[Block]) -> list[list[Block]]:
    """The blocks of every registry that an option names, and of those that these name, each once."""
    seen: dict[int, list[Block]] = {}
    waiting = list(found)
    while waiting:
        for key in waiting.pop().keys:
            if key.blocks is None or id(key.blocks) in seen:
                continue
            entries = {name: key.blocks.get(name) for name in sorted(key.blocks.keys())}
            made = [
                Block(key.name, name, introduction(cls), tuple(describe_dataclass(cls)), True, _is_own(cls))
                for name, cls in entries.items()
            ]
            seen[id(key.blocks)] = made
            waiting += made
    return list(seen.values())


# ---- the page


def markdown(found: list[Block]) -> str:
    """The page: one chapter for each kind of block, ours before BasicSR's."""
    chapters = list(dict.fromkeys(block.chapter for block in found))
    order = [name for name in _CHAPTERS if name in chapters]
    order[3:3] = [name for name in chapters if name not in _CHAPTERS]  # behind the data sets, which name them
    lines = [_HEAD]
    for chapter in order:
        title = _CHAPTERS.get(chapter, f"`{chapter}:`")
        lines.append(f"## {title}\n")
        for block in sorted((b for b in found if b.chapter == chapter), key=lambda b: not b.own):
            lines.append(_page(block))
    return "\n".join(lines).rstrip() + "\n"


def _page(block: Block) -> str:
    heading = block.title.replace("datasets.*", "datasets") + ("" if block.own else " (BasicSR)")
    lines = [f"### {heading}\n"]
    if block.intro:
        lines.append(f"{block.intro}\n")
    if block.keys:
        lines += ["| option | value | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{key.name}` | {_cell(_values(key))} | {_cell(key.default)} | {_cell(_sentence(key.meaning))} |"
            for key in block.keys
        ]
        lines.append("")
    if not block.strict and block.chapter != "section":
        lines.append("Other keys are allowed.\n")
    return "\n".join(lines)


def _sentence(text: str) -> str:
    """Begin with a capital, unless code or a name begins it, and end with a full stop."""
    if re.match(r"[a-z]+\b(?![_.])", text):
        text = text[0].upper() + text[1:]
    return text if not text or text.endswith((".", ":", "!")) else f"{text}."


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")


def _values(key: Key) -> str:
    if key.names:
        return "one of " + ", ".join(map(str, key.names))
    if key.blocks is not None:
        return "a block with `type`"
    words = "anything" if key.kind is Any else type_name(key.kind)
    return words if key.least is None else f"{words}, from {key.least:g}"


# ---- the schema


def schema(found: list[Block]) -> Schema:
    """The JSON schema (draft 7) of an option file."""
    found = [block for block in found if block.chapter != "benchmark"]
    references: dict[str, dict[str, str]] = {}
    for block in found:
        references.setdefault(block.chapter, {})[block.title] = block.reference
    kinds = {chapter: by_type(names) for chapter, names in references.items() if chapter not in ("section", "model")}
    kinds["scheduler"] = by_type(references["scheduler"], any_type=True)
    kinds["optimizer"] = by_type({}, any_type=True)
    definitions = {f"any.{chapter}": kind for chapter, kind in kinds.items()}
    for block in found:
        definitions[block.reference.rpartition("/")[2]] = _definition(block, found)
    return {"$schema": "http://json-schema.org/draft-07/schema#", **_file(found), "definitions": definitions}


def _any(chapter: str, optional: bool = False) -> Schema:
    reference = {"$ref": f"#/definitions/any.{chapter}"}
    return {"anyOf": [reference, {"type": "null"}]} if optional else reference


def _definition(block: Block, found: list[Block]) -> Schema:
    keys = list(block.keys)
    nested = {key.name: _nested(key, found) for key in keys if key.blocks is not None}
    inner = {b.title.rpartition(".")[2]: b for b in found if b.title.rpartition(".")[0] == block.title}
    nested |= {name: {"anyOf": [{"$ref": b.reference}, {"type": "null"}]} for name, b in inner.items()}
    more: Schema = {}
    section = block.title.partition(".")[2] if block.chapter == "model" else block.title
    if block.chapter in ("section", "model") and section in ("train", "val"):
        nested |= {key.name: _of_train(key) for key in keys if _of_train(key)}
        if block.chapter == "section" and section == "train":
            more["patternProperties"] = {"_opt$": _any("loss", True), "^optim_": _any("optimizer")}
    if block.chapter == "dataset" and block.strict:
        common = {key.name: key for key in describe_section("datasets.*") if key.name in LOADER_KEYS}
        own = {key.name for key in keys}
        keys += [dataclasses.replace(key, default="left out") for name, key in common.items() if name not in own]
    elif block.chapter not in ("section", "model"):
        keys.append(Key("type", str, "required", "The name of this class."))
    if block.chapter == "section":
        keys = [dataclasses.replace(key, default="left out") if key.required else key for key in keys]
    return json_object(keys, block.strict, nested, **more)


def _nested(key: Key, found: list[Block]) -> Schema:
    """The schema of a block whose type is an entry of a registry, or of a list of such blocks."""
    names = set(key.blocks.keys())
    chapter = next(block.chapter for block in found if block.title in names and block.chapter not in _CHAPTERS)
    several = json_value(key.kind).get("type") == "array"
    return {"type": "array", "items": _any(chapter)} if several else _any(chapter)


def _of_train(key: Key) -> Schema | None:
    if key.name.endswith("_opt"):
        return _any("loss", True)
    if key.name.startswith("optim_"):
        return _any("optimizer")
    if key.name == "metrics":
        return {"type": ["object", "null"], "additionalProperties": _any("metric")}
    return _any("scheduler") if key.name == "scheduler" else None


def _file(found: list[Block]) -> Schema:
    """The top of the file; the model decides which schema its blocks have."""
    from basicsr.utils.registry import MODEL_REGISTRY

    sections = {name: {"$ref": f"#/definitions/section.{name}"} for name in ("path", "logger", "dist_params", "data")}
    nested: dict[str, Schema] = {name: {"anyOf": [ref, {"type": "null"}]} for name, ref in sections.items()}
    nested["datasets"] = {"type": "object", "additionalProperties": _any("dataset")}
    nested |= {"network_g": _any("arch"), "network_d": _any("arch")}
    nested["model_type"] = {"enum": registries.names(MODEL_REGISTRY)}
    models: dict[str, dict[str, Schema]] = {}
    for block in found:
        name, _, section = block.title.partition(".")
        if block.chapter == "model" and "." not in section:
            models.setdefault(name, {})[section] = {"anyOf": [{"$ref": block.reference}, {"type": "null"}]}
    plain = {
        name: {"anyOf": [{"$ref": f"#/definitions/section.{name}"}, {"type": "null"}]} for name in ("train", "val")
    }
    choices = [_choice({"const": name}, properties) for name, properties in models.items()]
    choices.append(_choice({"not": {"enum": sorted(models)}}, plain))
    top = next(block for block in found if (block.chapter, block.title) == ("section", "top"))
    keys = [key if key.name != "train" else dataclasses.replace(key, default="left out") for key in top.keys]
    return json_object(keys, False, nested, allOf=choices, patternProperties={"^network_": _any("arch")})


def _choice(model: Schema, properties: Mapping[str, Schema]) -> Schema:
    condition = {"properties": {"model_type": model}, "required": ["model_type"]}
    return {"if": condition, "then": {"properties": dict(properties)}}


def main(argv: list[str] | None = None) -> int:
    """Write both files into the folder that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write options.md and options.schema.json")
    folder = parser.parse_args(argv).folder
    from basicsr_ext import repairs
    from basicsr_ext.common import plugins

    repairs.apply()
    plugins.load_entry_points()
    found = blocks()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.md").write_text(markdown(found), encoding="utf-8")
    (folder / "options.schema.json").write_text(json.dumps(schema(found), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
