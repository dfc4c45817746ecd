"""Recorded outputs of the authors' release that the tests compare with.

A file is looked for first in the folder named by the environment variable ``I2SB_GOLDEN`` (the full set), then in
``tests/assets/golden`` (the part that travels with the repository).
"""

import functools
import json
import os
from pathlib import Path

import numpy as np

ASSETS = Path(__file__).parent.parent / "assets" / "golden"


def folders() -> list[Path]:
    """Folders that are searched, first match wins."""
    extra = os.environ.get("I2SB_GOLDEN")
    return ([Path(extra)] if extra else []) + [ASSETS]


def find(name: str) -> Path:
    """Path of the file called ``name`` (with its ending)."""
    for folder in folders():
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"golden file {name} is in none of {[str(f) for f in folders()]}")


def names(pattern: str) -> list[str]:
    """File names that match ``pattern`` in any of the folders, sorted: use it to parametrise over what exists."""
    return sorted({path.name for folder in folders() for path in folder.glob(pattern)})


def golden(name: str) -> dict[str, np.ndarray]:
    """All arrays of ``name`` (``.npz`` may be left out)."""
    path = find(name if name.endswith(".npz") else f"{name}.npz")
    with np.load(path, allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


def golden_json(name: str) -> dict:
    """Content of the JSON file ``name`` (``.json`` may be left out)."""
    return json.loads(find(name if name.endswith(".json") else f"{name}.json").read_text())


@functools.cache
def _manifest() -> dict:
    merged: dict = {}
    for folder in reversed(folders()):
        path = folder / "manifest.json"
        if path.is_file():
            merged.update(json.loads(path.read_text())["files"])
    return merged


def params(name: str) -> dict:
    """Parameters under which the file ``name`` was recorded, from ``manifest.json``."""
    name = name if name.endswith(".npz") else f"{name}.npz"
    if name not in _manifest():
        raise KeyError(f"manifest.json of {[str(f) for f in folders()]} does not describe {name}")
    return _manifest()[name]["params"]


def unet_options(create_model: dict) -> dict:
    """Options of ``ADMUNet`` for the recorded arguments of guided-diffusion's ``create_model``."""
    size = create_model["image_size"]
    by_size = {64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4)}
    mult = create_model["channel_mult"]
    same = ("num_res_blocks", "num_heads", "num_head_channels", "num_heads_upsample", "use_scale_shift_norm")
    same += ("resblock_updown", "use_new_attention_order", "dropout")
    return {name: create_model[name] for name in same} | {
        "preset": "adm256",
        "model_channels": create_model["num_channels"],
        "channel_mult": tuple(int(m) for m in mult.split(",")) if mult else by_size[size],
        "attention_ds": tuple(size // int(r) for r in create_model["attention_resolutions"].split(",")),
        "cond_channels": create_model.get("in_channels", 3) - 3,
    }
