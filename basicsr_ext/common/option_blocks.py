"""Check plain YAML values against Python types: frozen dataclasses and the signatures of registered classes."""

import contextlib
import dataclasses
import difflib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from basicsr_ext.common.errors import InputError, did_you_mean

T = TypeVar("T")
_SEQUENCES = (list, tuple, set, frozenset, Sequence, Collection)


def parse_block(cls: type[T], mapping: Mapping[str, Any] | None, where: str) -> tuple[T | None, list[str]]:
    """Make an instance of the dataclass ``cls`` from one block of the option file.

    ``where`` is the dotted name of the block ("val.sampler"), used in the messages. Unknown keys, missing keys, wrong
    types and whatever ``__post_init__`` refuses (ValueError, TypeError, KeyError) become faults; the instance is None
    if there is any. Lists become tuples where the field says tuple, whole floats (5e3) become int where it says int.
    """
    mapping = {} if mapping is None else mapping
    if not isinstance(mapping, Mapping):
        return None, [f"{where} is {shown(mapping)}, but it must be a block of `key: value` lines"]
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    faults = [f"{where}.{k} is not an option; {did_you_mean(k, fields)}" for k in mapping if k not in fields]
    values = {k: convert(v, hints[k], f"{where}.{k}", faults) for k, v in mapping.items() if k in fields}
    for name, field in fields.items():
        if name not in mapping and field.default is field.default_factory is dataclasses.MISSING:
            faults.append(f"{where}.{name} is missing; give a {type_name(hints[name])}")
    if faults:
        return None, faults
    try:
        return cls(**values), []
    except (ValueError, TypeError, KeyError) as error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        return None, [text if text.startswith(where) else f"{where}: {text}"]


def read_block(cls: type[T], mapping: Mapping[str, Any] | None, where: str) -> T:
    """Make an instance as :func:`parse_block` does; InputError with all faults, each with its dotted option."""
    built, faults = parse_block(cls, mapping, where)
    if built is None:
        raise InputError("; ".join(faults))
    return built


def convert(value: Any, kind: Any, where: str, faults: list[str]) -> Any:
    """Return ``value`` as the annotation ``kind`` wants it; add a fault if it does not fit.

    Annotations that say nothing about plain values (a Tensor, a TypeVar) accept everything.
    """
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        instance, found = parse_block(kind, value, where)
        faults.extend(found)
        return instance
    fitted, fits = _fit(value, kind)
    if not fits:
        faults.append(f"{where} is {shown(value)}, but it must be {_article(type_name(kind))}")
    return fitted


def _fit(value: Any, kind: Any) -> tuple[Any, bool]:
    """Return the value in the form that ``kind`` asks for, and whether it fits."""
    if kind is None or kind is type(None):
        return value, value is None
    if kind in (bool, int, float, str):
        return _fit_scalar(value, kind)
    origin = get_origin(kind)
    if origin is Literal:
        return value, any(value == allowed and type(value) is type(allowed) for allowed in get_args(kind))
    if origin is Union or isinstance(kind, types.UnionType):
        return _fit_union(value, get_args(kind))
    base = origin or kind
    if base in _SEQUENCES:
        return _fit_sequence(value, base, get_args(kind))
    return value, not (isinstance(base, type) and issubclass(base, Mapping)) or isinstance(value, Mapping)


def _fit_scalar(value: Any, kind: type) -> tuple[Any, bool]:
    if kind not in (int, float):
        return value, isinstance(value, kind)
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and _is_finite(value)
    fits = fits and (kind is float or value % 1 == 0)
    return (kind(value) if fits else value), fits


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _fit_union(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, bool]:
    if type(value) in kinds and _is_finite(value):  # the exact type first, so that 1 stays an int in `float | int`
        return value, True
    for kind in kinds:
        if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, Mapping):
            fitted, found = parse_block(kind, value, "")
            fits = not found
        elif _is_foreign(kind) and not isinstance(value, kind):
            continue  # a Tensor beside a float: a plain value is meant to be the float
        else:
            fitted, fits = _fit(value, kind)
        if fits:
            return fitted, True
    plain = [kind for kind in kinds if kind is not type(None) and not _is_foreign(kind)]
    return value, not plain and value is not None


def _is_foreign(kind: Any) -> bool:
    """Tell whether no plain value of an option file is an instance of ``kind``."""
    return isinstance(kind, type) and kind.__module__ not in ("builtins", "typing", "collections.abc")


def _fit_sequence(value: Any, base: Any, parts: tuple[Any, ...]) -> tuple[Any, bool]:
    if not isinstance(value, (list, tuple)):
        return value, False
    fixed = base is tuple and parts and parts[-1] is not Ellipsis
    kinds = parts if fixed else (parts[0] if parts else Any,) * len(value)
    if len(kinds) != len(value):
        return value, False
    fitted = [_fit(item, kind) for item, kind in zip(value, kinds)]
    items = (item for item, _ in fitted)
    return (tuple if base is tuple else list)(items), all(fits for _, fits in fitted)


def type_name(kind: Any) -> str:
    """Say an annotation in a user's words: ``int | None`` is "whole number or ~"."""
    words = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "~"}
    if kind in words:
        return words[kind]
    if get_origin(kind) is Literal:
        allowed = [str(value) for value in get_args(kind)]
        return f"one of {', '.join(allowed)}" if len(allowed) > 1 else allowed[0]
    if get_origin(kind) is Union or isinstance(kind, types.UnionType):
        return " or ".join(type_name(part) for part in get_args(kind))
    base = get_origin(kind) or kind
    if base in _SEQUENCES:
        parts = [part for part in get_args(kind) if part is not Ellipsis]
        count = f"{len(parts)} values, " if base is tuple and Ellipsis not in get_args(kind) and parts else ""
        return "list" + (f" ({count}each a {type_name(parts[0])})" if parts else "")
    if dataclasses.is_dataclass(kind) or (isinstance(base, type) and issubclass(base, Mapping)):
        return "block of `key: value` lines"
    return _name(kind)


def _name(thing: Any) -> str:
    return thing.__name__ if isinstance(thing, (type, types.FunctionType)) else str(thing)


def _article(words: str) -> str:
    return re.sub(r"(^|(?<= or ))(?=whole|number|text|list|block)", "a ", words)


def shown(value: Any) -> str:
    """Say a value and its type in a message: ``'x' (str)``; a block by its keys, and what is long in part."""
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return f"a block with {', '.join(map(str, value))[:60]}" if value else "an empty block"
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"


def is_near(name: object, known: Collection[str], cutoff: float = 0.7) -> bool:
    """Tell whether ``name`` looks like a misspelling of a known name."""
    return bool(difflib.get_close_matches(str(name), list(known), n=1, cutoff=cutoff))


def call_faults(
    function: Callable[..., Any], mapping: Mapping[str, Any], where: str, given: Collection[str] = ()
) -> list[str]:
    """Check the keys (and, where annotated, the values) of a block against the signature of a class or function.

    ``given`` are the parameters that the toolkit passes itself. A ``**kwargs`` in the signature lets strange keys
    pass, unless they look like a misspelling of a parameter that is not set.
    """
    try:
        parameters = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    settable = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = {name: p for name, p in parameters.items() if name not in given and p.kind in settable}
    hints = documented_kinds(function, named)
    with contextlib.suppress(NameError, TypeError, AttributeError):
        hints |= typing.get_type_hints(function.__init__ if isinstance(function, type) else function)  # type: ignore[misc]
    faults: list[str] = []
    for key, value in mapping.items():
        if key in named:
            _check_argument(value, named[key], hints.get(key), f"{where}.{key}", faults)
        elif not open_ended or is_near(key, [name for name in named if name not in mapping], cutoff=0.85):
            faults.append(f"{where}.{key} is not an option of {_name(function)}; {did_you_mean(key, named)}")
    needed = [name for name, p in named.items() if p.default is p.empty and name not in mapping]
    return faults + [f"{where}.{name} is missing: {_name(function)} needs it; give it" for name in needed]


def documented_kinds(function: Callable[..., Any], named: Collection[str]) -> dict[str, Any]:
    """The kinds of parameters that have no annotation, from lines of the docstring such as ``scale (int): ...``.

    Whatever may be a number is taken as one, since docstrings are not exact; other words tell nothing.
    """
    text = f"{inspect.getdoc(function)}\n{inspect.getdoc(function.__init__)}"
    kinds = {"int": float, "float": float, "int | float": float, "float | int": float, "str": str}
    found = re.findall(r"^\s*(\w+) \(([\w| ]+?)(?:, optional)?\):", text, re.MULTILINE)
    return {name: kinds[words] | None for name, words in found if name in named and words in kinds}


def _check_argument(value: Any, parameter: inspect.Parameter, hint: Any, where: str, faults: list[str]) -> None:
    if hint is not None:
        if value is not None or parameter.default is not None:
            convert(value, hint, where, faults)
    elif isinstance(value, str) and isinstance(parameter.default, (int, float)):
        faults.append(f"{where} is the text {value!r}, but it must be a number or true or false; remove the quotes")
