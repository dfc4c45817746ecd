"""Files of network weights that metrics read: found on this machine, never downloaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from basicsr_ext.errors import InputError
from basicsr_ext.records import digest

__all__ = ["FOLDER_VARIABLE", "WeightsFile", "weights_folders"]

FOLDER_VARIABLE = "BASICSR_WEIGHTS"


def weights_folders(chosen: str | None = None) -> list[Path]:
    """Where files of weights are looked for, in this order.

    ``chosen`` (an option), the environment variable BASICSR_WEIGHTS, each with its ``hub/checkpoints``, and torch's
    own cache, which TORCH_HOME moves.
    """
    roots = [Path(root).expanduser() for root in (chosen, os.environ.get(FOLDER_VARIABLE)) if root]
    folders = [folder for root in roots for folder in (root, root / "hub" / "checkpoints")]
    return [*folders, Path(torch.hub.get_dir()) / "checkpoints"]


@dataclass(frozen=True)
class WeightsFile:
    """One published file: its ``name``, where it is from (``url``) and its ``licence``."""

    name: str
    url: str
    licence: str

    def find(self, chosen: str | None = None) -> Path:
        """The file on this machine; ``chosen`` is the option ``weights``: the file itself or a folder that has it.

        Raises:
            InputError: it is nowhere; names the file, its source, its licence and where to put it.

        """
        if chosen and Path(chosen).expanduser().is_file():
            return Path(chosen).expanduser()
        folders = weights_folders(chosen)
        for folder in folders:
            if (folder / self.name).is_file():
                return folder / self.name
        raise InputError(
            f"the file of weights {self.name} is missing; nothing is downloaded: get it from {self.url} "
            f"(licence: {self.licence}) and put it into {folders[0]}, or set {FOLDER_VARIABLE} to the folder that has "
            f"it; looked in {', '.join(str(folder) for folder in folders)}"
        )

    def load(self, chosen: str | None = None) -> dict[str, torch.Tensor]:
        """Read the tensors of the file, without running anything that it holds.

        Raises:
            InputError: the file is missing or is not a file of weights.

        """
        path = self.find(chosen)
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # zip, pickle and torch each complain in their own way
            raise InputError(f"{path} can not be read as weights ({type(error).__name__}); {self._get_it()}") from None
        if not isinstance(found, dict) or not all(torch.is_tensor(value) for value in found.values()):
            raise InputError(f"{path} holds no tensors by name; {self._get_it()}")
        return found

    def _get_it(self) -> str:
        return f"get {self.name} from {self.url}"

    def identity(self, chosen: str | None = None) -> dict[str, Any]:
        """Name, source and SHA-256 of the file that was found."""
        path = self.find(chosen)
        return {"file": path.name, "sha256": _digest(path, path.stat().st_mtime_ns), "source": self.url}


@lru_cache(maxsize=32)
def _digest(path: Path, changed: int) -> str:
    return digest(path)
