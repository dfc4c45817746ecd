"""Read option files safely, and change single options from the command line."""

import os
import re
import stat
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, MutableMapping
from pathlib import Path
from typing import Any

import yaml

from basicsr_ext.common.errors import InputError, did_you_mean
from basicsr_ext.common.option_blocks import shown
from basicsr_ext.options.basicsr_keys import known_in

Known = Callable[[list[str]], Collection[str]]  # the names that may stand in the block that keys lead to

# YAML 1.1 reads `2e-4` as text since it has no dot; every reader means the number
_FLOAT = re.compile(
    r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9_]+)([eE][-+]?[0-9]+)?$|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    """Plain values only, ordered mappings, scientific numbers without a dot, no key twice."""


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> OrderedDict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, "expected a block of `key: value` lines", node.start_mark)
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        key, kind, problem = key_node.value, key_node.tag.removeprefix("tag:yaml.org,2002:"), None
        if not isinstance(key_node, yaml.ScalarNode):
            problem = "the key is a list or a block, not text; put text that begins with [ or { in quotes"
        elif kind not in ("str", "value", "merge"):
            problem = f"the key {key} is not text; put it in quotes"
        elif key in seen and kind != "merge":
            problem = f"{key!r} stands here and in line {seen[key]}; keep one of them"
        if problem:
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        seen[key] = key_node.start_mark.line + 1
    loader.flatten_mapping(node)
    return OrderedDict(loader.construct_pairs(node, deep=True))


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag != "tag:yaml.org,2002:float"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def load_yaml(path: str | Path) -> OrderedDict[str, Any]:
    """Read an option file.

    Raises InputError, with file and line, if the file is missing, is not YAML, holds a key twice or a tag that would
    run code (``!!python/...``), or is not made of `key: value` lines.
    """
    try:
        if stat.S_ISFIFO(os.stat(os.path.expanduser(path)).st_mode) and not str(path).startswith("/dev/"):
            raise OSError("it is a named pipe, which may have no writer")
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"-opt {path}: {error.strerror or error}; give the path of an option file") from error
    except UnicodeDecodeError as error:
        what = f"not a text file in UTF-8 ({error.reason} at byte {error.start})"
        raise InputError(f"-opt {path}: {what}; save it as UTF-8, or give another file") from error
    opt = _load(text, str(path))
    if not isinstance(opt, dict):
        what = "is empty" if opt is None else f"holds {type(opt).__name__}"
        raise InputError(f"-opt {path}: {what}, but an option file is made of `key: value` lines; give another file")
    if set(opt) == {"format", "starts"}:
        cure = "give the option file beside it; restore finds both by its --checkpoint"
        raise InputError(f"-opt {path}: is the record of a run's starts, no option file; {cure}")
    return opt  # type: ignore[return-value]


def _load(text: str, source: str) -> Any:
    try:
        loaded = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        place, problem = _problem(error, text)
        raise InputError(f"{source}{place}: {problem}") from error
    except RecursionError as error:
        raise InputError(f"{source}: lists or blocks lie too deep in each other; look for stray [ and {{") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # `!!float abc`, an impossible date
        raise InputError(f"{source}: a value is not what it should be: {error}; correct it, or quote it") from error
    if (count := _values(loaded, {})) > 100_000:  # a few lines of aliases of aliases could fill the memory
        raise InputError(f"{source}: its aliases (*name) stand for {count:,} values; write fewer of them")
    return _apart(loaded)


def _apart(tree: Any) -> Any:
    """A copy in which no block is another one's alias: BasicSR takes the `type` out of the blocks that it builds."""
    if isinstance(tree, dict):
        return type(tree)((key, _apart(value)) for key, value in tree.items())
    return [_apart(value) for value in tree] if isinstance(tree, list) else tree


def _values(tree: Any, known: dict[int, int]) -> int:
    """Count the values of a tree, those that aliases repeat each time; ``known`` are the counts of its parts."""
    if not isinstance(tree, (dict, list)):
        return 1
    if id(tree) not in known:
        known[id(tree)] = 1 + sum(_values(part, known) for part in (tree.values() if isinstance(tree, dict) else tree))
    return known[id(tree)]


def _problem(error: yaml.YAMLError, text: str) -> tuple[str, str]:
    """The line, as ``:3``, and what is wrong there."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        if 0xDC80 <= int(error.character) <= 0xDCFF:  # a byte of the command line
            return f":{line}", "it holds bytes that are no letters in this locale; set PYTHONUTF8=1 for UTF-8"
        return f":{line}", f"the character U+{int(error.character):04X} is not allowed in YAML; remove it"
    if not isinstance(error, yaml.MarkedYAMLError):
        return "", str(error)
    place = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
    problem = error.problem or str(error)
    if "could not determine a constructor" in problem:
        tag = problem.rsplit(" ", 1)[-1].strip("'").replace("tag:yaml.org,2002:", "!!")
        return place, f"the tag {tag} is refused: option files hold plain values only; remove the tag"
    if not isinstance(error, yaml.constructor.ConstructorError):
        cure = "look at the colons, quotes, brackets and indentation there and just before"
        problem = f"not valid YAML, {problem}; {cure}"
    return place, problem


def parse_value(text: str, source: str = "value") -> Any:
    """Read one value as in an option file: ``1e-4``, ``-1``, ``[1, 2]``, ``true``, ``~``; ``none`` is ``~`` too."""
    if text in ("", "-"):
        return text
    if text.lower() == "none":
        return None
    value = _load(text, source)
    folded = isinstance(value, str) and "\n" in text and text[0] not in "'\"|>"
    return text if folded else value  # YAML would make one line of text without quotes


def apply_overrides(opt: MutableMapping[str, Any], overrides: Iterable[str] | None, known: Known = known_in) -> None:
    """Set options in place from ``a:b=value`` entries (``--force_yml``).

    ``known`` tells which names may stand in a block besides those in the file. Any other name raises InputError with
    the nearest names; ``+a:b=value`` creates it. Values may contain ``=``.
    """
    for entry in overrides or ():
        name, equals, text = entry.partition("=")
        keys = [key.strip() for key in name.strip().removeprefix("+").split(":")]
        if not equals or not all(keys):
            raise InputError(f"--force_yml {entry}: not of the form a:b=value, such as train:ema_decay=0.999")
        value = parse_value(text.strip(), f"--force_yml {entry}")
        *parents, last = keys
        block: Any = opt
        for depth, key in enumerate(parents):
            _check_key(block, keys[: depth + 1], entry, known)
            if block.get(key) is None:
                block[key] = OrderedDict()
            block = block[key]
        _check_key(block, keys, entry, known)
        block[last] = value


def _check_key(block: Any, keys: list[str], entry: str, known: Known) -> None:
    """Refuse to set the last of ``keys`` in ``block`` where that is not a block or has no such option."""
    *parents, key = keys
    if not isinstance(block, MutableMapping):
        where = ".".join(parents)
        what = f"{where} is {shown(block)}, not a block, so it has no option {key}"
        raise InputError(f"--force_yml {entry}: {what}; correct the name, or set {where} to a block first")
    if key not in block and not entry.lstrip().startswith("+") and key not in (names := known(parents)):
        what = f"there is no option {'.'.join(keys)}; {did_you_mean(key, [*map(str, block), *names])}"
        raise InputError(f"--force_yml {entry}: {what}; write +{entry} to create it")
