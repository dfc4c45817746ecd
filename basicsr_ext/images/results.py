"""Where the results of a data set go: one file for each image, sub-folders kept, whoever restores them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from basicsr_ext.common.contracts import ListsPaths
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import write_whole


def result_names(dataset: Any, side: str = "lq") -> list[str]:
    """A name for the result of each image: its path below the folder that all share, without extension.

    The ``side``, lq or gt, names an image where it has files of both. Empty if the data set does not tell its files.
    """
    paths = _paths(dataset, side)
    folder = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    return [os.path.splitext(os.path.relpath(path, folder))[0].replace(os.sep, "/") for path in paths]


def _paths(dataset: Any, side: str, absolute: bool = True) -> list[str]:
    paths = dataset.paths if isinstance(dataset, ListsPaths) else ()
    found = [path.get(f"{side}_path") if isinstance(path, Mapping) else path for path in paths]
    known = [path for path in found if isinstance(path, str)]
    if len(known) < len(found):
        return []
    return [os.path.abspath(path) for path in known] if absolute else known


def name_clashes(dataset: Any, side: str = "lq") -> list[str]:
    """Say which images of a data set would be written to one file."""
    first, said = dict[str, str](), []
    for path, name in zip(_paths(dataset, side), result_names(dataset, side)):
        other = first.setdefault(os.path.normcase(name), path)
        if other is not path:
            what = "is listed twice" if other == path else f"and {path} would both become {name}"
            said.append(f"{other} {what}; rename one of them, or take it out")
    return said


def results_folder(opt: Mapping[str, Any], dataset: str) -> Path:
    """The folder of a data set's results: its own in a test, and in a training that validates on several."""
    several = sum(block.get("phase") != "train" for block in opt.get("datasets", {}).values()) > 1
    folder = Path(opt.get("path", {}).get("visualization") or "")
    return folder / dataset if several or not opt["is_train"] else folder


def result_path(opt: Mapping[str, Any], dataset: str, name: str, iteration: int | str) -> Path:
    """The file of a restored image, as BasicSR's own models call it, below the sub-folder that ``name`` brings."""
    place = results_folder(opt, dataset) / name
    if opt["is_train"]:
        return place / f"{place.name}_{iteration}.png"
    return place.with_name(f"{place.name}_{opt['val'].get('suffix') or opt['name']}.png")


@dataclass
class Results:
    """The results of one validation: where they go, and those that could not be saved.

    ``asked`` is the folder below which BasicSR's own models put an image without its sub-folder, ``folder`` where it
    belongs, ``names`` are those of :func:`result_names` by path, ``name`` is that of the image under way.
    """

    asked: Path
    folder: Path
    is_train: bool
    names: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None

    def follow(self, items: Iterable[Any]) -> Iterator[Any]:
        """Pass on items of a loader, single images with their ``lq_path``, and know which is under way."""
        for item in items:
            path = item.get("lq_path") if isinstance(item, Mapping) else None
            self.name = self.names.get(path[0]) if path else None
            yield item

    @classmethod
    def of(cls, opt: Mapping[str, Any], dataset: Any, name: str) -> Results:
        """The results of a data set, which may be None, called ``name``."""
        visualization = Path(opt.get("path", {}).get("visualization") or "")
        names = dict(zip(_paths(dataset, "lq", absolute=False), result_names(dataset)))
        asked = visualization if opt["is_train"] else visualization / name
        return cls(asked, results_folder(opt, name), opt["is_train"], names)

    def place(self, path: str) -> str:
        """Where a file belongs that a model of BasicSR's wants to write to ``path``."""
        below = os.path.relpath(path, self.asked)
        if self.name is None or below.startswith(os.pardir):
            return path
        return os.path.join(self.folder, os.path.dirname(self.name), below)


def write_pixels(path: str | os.PathLike[str], pixels: np.ndarray, params: Sequence[int] | None = None) -> None:
    """Write H,W or H,W,C in OpenCV's order in the format of the extension, whole or not at all.

    Raises InputError, SaveError among them, that names the file and why it cannot be written.
    """
    try:
        done, data = cv2.imencode(Path(path).suffix, pixels, list(params or []))
    except cv2.error as error:
        raise InputError(f"cannot save {path}: {' '.join(str(error).split())}; choose another format") from error
    if not done:
        size = " x ".join(map(str, pixels.shape))
        raise InputError(f"cannot save {path}: its format holds no image of {size} {pixels.dtype}; choose another one")
    write_whole(path, data.tobytes())
