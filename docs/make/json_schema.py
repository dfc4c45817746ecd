"""The options as a JSON schema, by which editors complete and check an option file while it is written."""

import dataclasses
import inspect
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from docs.make.describe import Key

Schema = dict[str, Any]
_SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


def json_value(kind: Any) -> Schema:
    """The schema of a value with the annotation ``kind``; what says nothing about plain values allows all."""
    origin = get_origin(kind)
    if kind is None or kind in _SCALARS:
        return {"type": _SCALARS[type(None) if kind is None else kind]}
    if origin is Literal:
        return {"enum": list(get_args(kind))}
    if origin is Union or isinstance(kind, types.UnionType):
        return _union([json_value(part) for part in get_args(kind)])
    if dataclasses.is_dataclass(kind):
        return {"type": "object"}
    base = origin or kind
    if isinstance(base, type) and issubclass(base, Mapping):
        return {"type": "object"}
    if isinstance(base, type) and (issubclass(base, (list, tuple, set)) or base.__module__ == "collections.abc"):
        parts = [part for part in get_args(kind) if part is not Ellipsis]
        schema: Schema = {"type": "array"}
        if parts:
            schema["items"] = json_value(parts[0])
        if base is tuple and parts and Ellipsis not in get_args(kind):
            schema |= {"minItems": len(parts), "maxItems": len(parts)}
        return schema
    return {}


def _union(parts: list[Schema]) -> Schema:
    if {} in parts:
        return {}
    if all(set(part) == {"type"} for part in parts):
        names = list(dict.fromkeys(part["type"] for part in parts))
        return {"type": names if len(names) > 1 else names[0]}
    return {"anyOf": parts}


def json_object(keys: list[Key], strict: bool, nested: Mapping[str, Schema] | None = None, **more: Any) -> Schema:
    """The schema of a block.

    Args:
        keys: its options.
        strict: whether other keys are refused.
        nested: schemas of options that are blocks themselves, by name.
        more: further words of the schema language.

    """
    properties = {}
    for key in keys:
        schema = (nested or {}).get(key.name) or _key_schema(key)
        text = f"{key.meaning} (default: {key.default})" if not key.required else key.meaning
        properties[key.name] = {"description": text.strip(), **schema}
    result: Schema = {"type": "object", "properties": properties}
    required = [key.name for key in keys if key.required]
    if required:
        result["required"] = required
    if strict:
        result["additionalProperties"] = False
    return result | more


def _key_schema(key: Key) -> Schema:
    schema = {"enum": list(key.names)} if key.names and key.kind is str else json_value(key.kind)
    if key.least is not None:
        schema = schema | {"minimum": key.least}
    return schema


def by_type(names: Mapping[str, str], any_type: bool = False) -> Schema:
    """The schema of a block whose ``type`` decides what else it holds.

    Args:
        names: allowed ``type`` -> reference to the schema of the rest.
        any_type: whether other types are allowed, about which nothing is known.

    """
    kinds: Schema = {"type": "string"} if any_type else {"enum": sorted(names)}
    choices = [
        {"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": {"$ref": reference}}
        for name, reference in sorted(names.items())
    ]
    schema = {"type": "object", "required": ["type"], "properties": {"type": kinds}}
    return schema | ({"allOf": choices} if choices else {})


def is_open(function: Any) -> bool:
    """Tell whether a class takes arguments that its signature does not name."""
    parameters = inspect.signature(function).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
