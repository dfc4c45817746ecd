"""What a benchmark keeps on disk, so that nothing is computed twice.

``inputs/<data set>/gt|lq/<image>.png``, ``restored/<method>/<data set>/<image>.png``, and beside each restored image a
note ``<image>.json``: the key of everything that it was made from, its own digest, and what was measured of it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import digest, write_whole
from basicsr_ext.common.plain_json import json_text
from basicsr_ext.images.decode import read_pixels
from basicsr_ext.images.pictures import Picture, with_planes, write_picture

GIVEN = ("lq", "mask", "cond")  # what a restoration sees of an item of a data set


def hash_of(thing: Any) -> str:
    """SHA-256 of what JSON can hold; other values count by their ``str``."""
    return hashlib.sha256(json.dumps(thing, sort_keys=True, default=str).encode()).hexdigest()


def tensor_digest(tensors: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """SHA-256 of the tensors that stand under some of ``keys``, with their shapes and kinds."""
    found = hashlib.sha256()
    for key in keys:
        value = tensors.get(key)
        if torch.is_tensor(value):
            found.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
            found.update(value.contiguous().cpu().numpy().tobytes())
    return found.hexdigest()


def save_picture(path: Path, image: Tensor) -> None:
    """Write C,H,W in [0, 1] with 1 to 4 channels as an 8-bit PNG, or raises InputError if the disk refuses the file."""
    write_picture(path, with_planes(Picture(image), image))


def read_stored(path: Path) -> np.ndarray:
    """Pixels H,W,C of a picture in the folder of a benchmark, in OpenCV's order; InputError if it cannot be read."""
    try:
        return read_pixels(path)
    except InputError as error:
        raise InputError(f"{error}, or remove it and run the benchmark again") from None


class Store:
    """The folder of one benchmark."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def input(self, dataset: str, image: str, kind: str) -> Path:
        """Where the ``gt`` or the ``lq`` of an image lies."""
        return self.root / "inputs" / dataset / kind / f"{image}.png"

    def restored(self, method: str, dataset: str, image: str) -> Path:
        """Where a restored image lies."""
        return self.root / "restored" / method / dataset / f"{image}.png"

    def extra(self, method: str, dataset: str, image: str, name: str) -> Path:
        """Where a further picture of a restoration lies."""
        return self.root / "extras" / method / dataset / f"{image}_{name}.png"

    def facts(self, method: str) -> Path:
        """Where parameters, FLOPs and the like of a method lie."""
        return self.root / "restored" / method / "method.json"

    def read_note(self, path: Path) -> dict[str, Any]:
        """The note of a file, with the file's own name for ``path``; empty if there is none that can be read."""
        try:
            note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def whole(self, path: Path, key: str) -> bool:
        """Whether a restored image was made from ``key``, and neither it nor its extras were changed."""
        note = self.read_note(path)
        if note.get("key") != key or not path.is_file() or digest(path) != note.get("sha256"):
            return False
        return all((self.root / extra).is_file() for extra in note.get("extras", {}).values())

    def write_note(self, path: Path, note: Mapping[str, Any]) -> None:
        """Write the note of a file; raises SaveError, an InputError, where the disk refuses it."""
        write_whole(path.with_suffix(".json"), json_text(note))

    def relative(self, path: Path) -> str:
        """A path as records.json holds it."""
        return path.relative_to(self.root).as_posix()
