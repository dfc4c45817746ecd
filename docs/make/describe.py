"""What can be said of options by reading the classes that take them: names, kinds, defaults and meanings."""

import contextlib
import dataclasses
import importlib
import inspect
import io
import re
import tokenize
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from basicsr_ext.common.option_blocks import documented_kinds
from basicsr_ext.options.basicsr_keys import SECTIONS
from docs.make.meanings import MEANINGS

_ENTRY = re.compile(r"(?P<names>[\w, ]+?)(?: \([^)]*\))?: (?P<text>.+)")
_ROLE = re.compile(r":(?P<role>\w+):`~?(?P<name>[\w.]+)`")
_SECTIONS = ("Args", "Attributes", "Raises", "Returns", "Source", "Example", "Examples", "Reference", "Ref")


@dataclasses.dataclass(frozen=True)
class Key:
    """One option.

    Attributes:
        name: what stands before the colon.
        kind: annotation of its value; ``Any`` where nothing is known.
        default: in YAML, or "required".
        meaning: sentences for a reader; may be empty.
        least: least value, if there is one.
        blocks: registry of what a block under this key may name as ``type``.
        names: values that are allowed, where a table of the code lists them.

    """

    name: str
    kind: Any
    default: str
    meaning: str = ""
    least: float | None = None
    blocks: Any = None
    names: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        """Whether a block without it is refused."""
        return self.default == "required"


def yaml_text(value: Any) -> str:
    """Write a default as an option file would."""
    if value is None:
        return "~"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(yaml_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {yaml_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (int, float, str)):
        return str(value) if value != "" else "''"
    return value.__name__ if isinstance(value, type) else type(value).__name__


def describe_section(section: str) -> list[Key]:
    """The options that BasicSR reads in a section, as :mod:`basicsr_ext.options.basicsr_keys` lists them."""
    kinds = SECTIONS[section]
    return [Key(name, kinds[name][0], *said, kinds[name][1]) for name, said in MEANINGS[section].items()]


def describe_dataclass(cls: type, section: str | None = None) -> list[Key]:
    """The fields of an option class; what it does not explain is looked up among BasicSR's own of ``section``."""
    hints = typing.get_type_hints(cls)
    meanings = _entries(cls, "Attributes") | _entries(cls, "Args")
    comments, common = _comments(cls), MEANINGS.get(section or "-", {})
    keys = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        text = meanings.get(field.name) or comments.get(field.name) or common.get(field.name, ("", ""))[1]
        text, names = _resolve(text or _sentence(cls, field.name))
        blocks = field.metadata.get("blocks")
        keys.append(Key(field.name, hints[field.name], _field_default(field), text, None, blocks, names))
    return keys


def _field_default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return yaml_text(field.default)
    return yaml_text(field.default_factory()) if field.default_factory is not dataclasses.MISSING else "required"


def describe_arguments(function: Callable[..., Any], given: Collection[str] = ()) -> list[Key]:
    """The parameters of a registered class or function, without those that the toolkit passes itself (``given``)."""
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in given and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    target = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    hints = documented_kinds(function, parameters)
    with contextlib.suppress(NameError, TypeError, AttributeError):
        hints |= typing.get_type_hints(target)
    meanings = _entries(function, "Args") | _entries(target, "Args")
    keys = []
    for name, parameter in parameters.items():
        default = "required" if parameter.default is parameter.empty else yaml_text(parameter.default)
        text, names = _resolve(meanings.get(name) or _sentence(function, name))
        keys.append(Key(name, hints.get(name, _kind_of(parameter.default)), default, text, None, None, names))
    return keys


def _kind_of(default: Any) -> Any:
    """The kind that a default suggests, where nothing is annotated."""
    if isinstance(default, (bool, str)):
        return type(default)
    return float if isinstance(default, (int, float)) else Any


def introduction(thing: Any) -> str:
    """The docstring of a class or function up to its first section, as paragraphs; empty if it has none of its own."""
    text = inspect.getdoc(thing) or ""
    if dataclasses.is_dataclass(thing) and text.startswith(f"{thing.__name__}("):  # type: ignore[union-attr]
        return ""
    text = re.split(rf"^(?:{'|'.join(_SECTIONS)}):", text, maxsplit=1, flags=re.MULTILINE)[0]
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip())]
    return _resolve("\n\n".join(paragraphs))[0]


def _entries(thing: Any, section: str) -> dict[str, str]:
    """Name -> text of a section such as ``Args:`` in the docstrings of a class and its bases, or of a function."""
    found: dict[str, str] = {}
    for part in reversed(inspect.getmro(thing)) if isinstance(thing, type) else (thing,):
        lines = inspect.cleandoc(part.__doc__ or "").splitlines()
        if f"{section}:" in lines:
            found |= _parse_entries(lines[lines.index(f"{section}:") + 1 :])
    return found


def _parse_entries(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    names: list[str] = []
    margin = next((len(line) - len(line.lstrip()) for line in lines if line.strip()), 0)
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if line.strip() and depth < max(margin, 1):
            break
        match = _ENTRY.fullmatch(line.strip()) if depth == margin else None
        if match:
            names = [name.strip() for name in match["names"].split(",")]
            found |= dict.fromkeys(names, match["text"])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _comments(cls: type) -> dict[str, str]:
    """Field -> the comment at the end of its line, in a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(inspect.getmro(cls)):
        try:
            source = inspect.getsource(base)
        except (OSError, TypeError):
            continue
        name = ""
        for token in tokenize.generate_tokens(io.StringIO(inspect.cleandoc(source)).readline):
            start = re.match(r"    (\w+):", token.line)
            name = start[1] if start else name
            if token.type == tokenize.COMMENT and name and not token.string.startswith(("# noqa", "# fmt", "# type")):
                found.setdefault(name, token.string.lstrip("# "))
            if token.type == tokenize.NAME and token.string == "def":
                break
    return found


def _sentence(thing: Any, name: str) -> str:
    """The first sentence of a docstring that has ``name`` in double quotes of code."""
    text = " ".join(introduction(thing).split())
    sentences = re.split(r"(?<=\.) ", text)
    return next((sentence for sentence in sentences if f"`{name}`" in sentence), "")


def _resolve(text: str) -> tuple[str, tuple[str, ...]]:
    """Write out the roles of a docstring; a table that ``:data:`` names gives the allowed values."""
    names: tuple[str, ...] = ()
    for match in _ROLE.finditer(text):
        if match["role"] == "data":
            module, _, table = match["name"].rpartition(".")
            names = tuple(vars(importlib.import_module(module))[table])
    text = _ROLE.sub(lambda match: f"`{match['name'].rpartition('.')[2]}`", text)
    return re.sub(r"``(.+?)``", r"`\1`", text), names


def describe_opt(cls: type) -> list[Key]:
    """The keys that the docstring of a data set of BasicSR lists below its argument ``opt``; all may be left out."""
    lines = inspect.cleandoc(cls.__doc__ or "").splitlines()
    starts = [number for number, line in enumerate(lines) if re.match(r"\s*opt \(dict\)", line)]
    if not starts:
        return []
    below = lines[starts[0] + 1 :]
    kinds = {m[1]: m[2] for m in re.finditer(r"^\s*(\w+) \((\w+)\):", "\n".join(below), re.MULTILINE)}
    words = {"str": str, "bool": bool, "int": int, "float": float, "dict": dict, "list": list}
    found = _parse_entries([line for line in below if line.strip()])
    own = [name for name in found if name not in ("scale", "phase")]
    return [Key(name, words.get(kinds.get(name, ""), Any), "left out", _resolve(found[name])[0]) for name in own]
