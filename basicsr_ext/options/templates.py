"""The option files that installed packages bring for ``basicsr init``; changes of their text that keep the comments."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from basicsr_ext.common import plugins
from basicsr_ext.common.errors import UnknownName, did_you_mean
from basicsr_ext.options.file import load_yaml

_PREFIX = "i2sb_"  # of most file names; a task goes by its name with and without


def templates() -> dict[str, Path]:
    """Option files by the task that they are for: their path below their folder, without ``i2sb_`` and ``.yml``.

    Files without a model, those of benchmarks, are left out.
    """
    found: dict[str, Path] = {}
    for folder in plugins.template_folders():
        for path in sorted(folder.rglob("*.yml")):
            if re.search(r"^model_type:", path.read_text(encoding="utf-8"), re.MULTILINE):
                found.setdefault(path.relative_to(folder).with_suffix("").as_posix().removeprefix(_PREFIX), path)
    return found


def template_of(task: str) -> Path:
    """The option file of a task; UnknownName, nearest names first, if there is none."""
    known = templates()
    path = known.get(task.removesuffix(".yml").removeprefix(_PREFIX))
    if path is None:
        raise UnknownName(f"there is no task {task}; {did_you_mean(task.removeprefix(_PREFIX), known)}")
    return path


def summary(path: Path) -> str:
    """What the first line of an option file says."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def changed(text: str, values: Mapping[str, Any]) -> str:
    """The text of an option file with the values of some dotted options replaced: its comments stay.

    Raises KeyError if an option is not in it.
    """
    for dotted, value in values.items():
        node = _found(text, dotted.split("."))
        start, end = node.start_mark.index, _end(node)
        if isinstance(node, yaml.MappingNode) and not node.flow_style:  # to be written in braces, behind its key
            start = text.rindex(":", 0, start) + 1
            text = f"{text[:start]} {_written(value)}{text[end:]}"
        else:
            text = f"{text[:start]}{_written(value)}{text[end:]}"
    return text


def _found(text: str, keys: Sequence[str]) -> yaml.Node:
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for key in keys:
        pairs = {name.value: value for name, value in node.value} if isinstance(node, yaml.MappingNode) else {}
        node = pairs[key]
    return node


def _end(node: yaml.Node) -> int:
    """Where the text of a node ends: a block's mark stands behind the comments that follow it."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return _end(node.value[-1][1])
    return node.end_mark.index


def _written(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def data_blocks(path: Path) -> dict[str, Mapping[str, Any]]:
    """The data sets of an option file by name, that of training first."""
    blocks = load_yaml(path)["datasets"]
    return dict(sorted(blocks.items(), key=lambda block: block[0] != "train"))
