"""Put a pickle that runs code in every place where a file is loaded, and see that nothing runs.

python -m studies.reliability.inputs.pickles
"""

import contextlib
import io
import json
import os
import pickle
import platform
import sys
import tempfile
import zipfile
from argparse import Namespace
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError


class Attack:
    """Makes the folder ``mark`` when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.mark),)


def torch_file(content: Any, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def array_file(attack: Attack) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([attack], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def npz_file(attack: Attack) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, masks=np.array([attack], dtype=object))
    return buffer.getvalue()


def _weights(path: Path) -> None:
    from basicsr_ext.checkpoints.storage import load_weights

    load_weights(path)


def _state(path: Path) -> None:
    from basicsr_ext.checkpoints.storage import load_state

    load_state(path)


def _released(path: Path) -> None:
    from i2sb_plugin.weights.released import read_released

    read_released(path)


def _namespace(path: Path) -> None:
    from i2sb_plugin.weights.pickles import load_namespace

    load_namespace(path)


def _masks(path: Path) -> None:
    from i2sb_plugin.degradations import build_degradation

    build_degradation({"type": "inpaint_masks", "masks": str(path)})


def _kernel(path: Path) -> None:
    from i2sb_plugin.degradations import build_degradation

    build_degradation({"type": "blur_kernel", "path": str(path)})


def _metric(path: Path) -> None:
    from basicsr_ext.metrics.learned.weights import WeightsFile

    WeightsFile(path.name, "https://example.org", "none").load(str(path))


def _options(path: Path) -> None:
    from basicsr_ext.options.file import load_yaml

    load_yaml(path)


def _network(options: dict[str, Any]) -> None:
    """Build a network that loads a file itself, which torch refuses, and have it checked before a run."""
    from basicsr.archs import build_network

    from basicsr_ext.preflight.networks import network_faults

    with contextlib.suppress(Exception):
        build_network(options)
    raise InputError("; ".join(network_faults({"network_g": options, "path": {}, "is_train": False})))


def _spynet(path: Path) -> None:
    _network({"type": "SpyNet", "load_path": str(path)})


def _dictionary(path: Path) -> None:
    _network({"type": "DFDNet", "num_feat": 64, "dict_path": str(path)})


def _image(path: Path) -> None:
    from basicsr_ext.images.decode import decode_image

    decode_image(path.read_bytes(), str(path))


def _image_of_basicsr(path: Path) -> None:
    from basicsr.utils.img_util import imfrombytes

    imfrombytes(path.read_bytes())


def _meta_info(path: Path) -> None:
    from i2sb_plugin.data.image_source import ImageSource

    ImageSource(str(path.parent), "dataroot_gt", {"type": "disk"}, str(path))


def _lmdb_meta(path: Path) -> None:
    from i2sb_plugin.data.image_source import ImageSource

    ImageSource(str(path.parent), "dataroot_gt", {"type": "lmdb"})


def _lmdb_sizes(path: Path) -> None:
    from basicsr_ext.images.inventory import listed_sizes

    if not listed_sizes(path.parent):
        raise InputError("no sizes")


def _lmdb_value(path: Path) -> None:
    import lmdb

    from i2sb_plugin.data.image_source import ImageSource

    content = path.read_bytes()
    with lmdb.open(str(path.parent), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"0", content)
    (path.parent / "meta_info.txt").write_text("0.png (8,8,3) 1\n")
    ImageSource(str(path.parent), "dataroot_gt", {"type": "lmdb"}).load("0")


# place -> file name, its bytes, what loads it
PLACES: dict[str, tuple[str, Callable[[Attack], bytes], Callable[[Path], None]]] = {
    "checkpoint .pth": ("net_g.pth", lambda a: torch_file({"params": a}), _weights),
    "checkpoint .pth of old torch": ("net_g.pth", lambda a: torch_file({"params": a}, False), _weights),
    "checkpoint .pth that is a bare pickle": ("net_g.pth", pickle.dumps, _weights),
    "checkpoint .safetensors that is a pickle": ("net_g.safetensors", lambda a: torch_file({"params": a}), _weights),
    "training state": ("8.state", lambda a: torch_file({"epoch": 1, "iter": 8, "optimizers": [a]}), _state),
    "latest.pt of the release": ("latest.pt", lambda a: torch_file({"net": {}, "ema": a}), _released),
    "options.pkl that is a pickle": ("options.pkl", pickle.dumps, _namespace),
    "options.pkl of a Namespace": ("options.pkl", lambda a: pickle.dumps(Namespace(name="x", extra=a)), _namespace),
    "masks .npz": ("masks.npz", npz_file, _masks),
    "masks .npz that is a pickle": ("masks.npz", pickle.dumps, _masks),
    "kernel .npy": ("kernel.npy", array_file, _kernel),
    "kernel .npy that is a pickle": ("kernel.npy", pickle.dumps, _kernel),
    "network file that a class loads, SpyNet": ("flow.pth", lambda a: torch_file({"params": a}), _spynet),
    "network file that a class loads, DFDNet": ("parts.pth", lambda a: torch_file({"left_eye": a}), _dictionary),
    "weights of a metric": ("alex.pth", lambda a: torch_file({"features": a}), _metric),
    "weights of a metric as a pickle of arrays": ("alexnet.ckpt", pickle.dumps, _metric),
    "option file": (
        "run.yml",
        lambda a: f"name: !!python/object/apply:os.mkdir ['{a.mark}']\n".encode(),
        _options,
    ),
    "image": ("photo.png", pickle.dumps, _image),
    "image of BasicSR": ("photo.png", pickle.dumps, _image_of_basicsr),
    "meta_info_file": ("meta.txt", pickle.dumps, _meta_info),
    "LMDB meta_info.txt": ("meta_info.txt", pickle.dumps, _lmdb_meta),
    "LMDB meta_info.txt before a run": ("meta_info.txt", pickle.dumps, _lmdb_sizes),
    "LMDB value": ("value.bin", pickle.dumps, _lmdb_value),
}


def attack(place: str, folder: Path) -> str:
    """Load the file of one place; returns the message it is refused with. AssertionError if anything ran."""
    name, write, load = PLACES[place]
    repairs.apply()
    folder.mkdir(parents=True, exist_ok=True)
    mark, path = folder / "it-ran", folder / name
    (folder / "data.mdb").touch()
    path.write_bytes(write(Attack(mark)))
    if place == "LMDB value":
        (folder / "data.mdb").unlink()
    try:
        load(path)
    except InputError as error:
        said = str(error)
    else:
        raise AssertionError(f"{place}: the file was taken")
    if mark.exists():
        raise AssertionError(f"{place}: code of the file ran")
    return said


def runs_unprotected(place: str, folder: Path) -> bool:
    """Tell whether the file of a place runs its code where it is loaded without care: that the attack is a real one."""
    import yaml

    name, write, _ = PLACES[place]
    folder.mkdir(parents=True, exist_ok=True)
    mark, path = folder / "it-ran", folder / name.replace(".safetensors", ".pth")
    content = write(Attack(mark))
    path.write_bytes(content)
    if name.endswith(".yml"):
        yaml.load(content, Loader=yaml.UnsafeLoader)
    elif name.endswith((".npz", ".npy")) and (zipfile.is_zipfile(path) or content[:6] == b"\x93NUMPY"):
        loaded = np.load(path, allow_pickle=True)
        dict(loaded) if name.endswith(".npz") else loaded
    elif zipfile.is_zipfile(path) or b"pickle_module" in content[:64] or content[2:12] == b"\x8a\nl\xfc\x9cF\xf9 j\xa8":
        torch.load(path, weights_only=False)
    else:
        pickle.loads(content)
    return mark.exists()


def main() -> int:
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, place in enumerate(PLACES):
            real = runs_unprotected(place, Path(folder) / f"{number}-unprotected")
            said = attack(place, Path(folder) / f"{number}").replace(folder, "FOLDER")
            results[place] = {"runs_if_loaded_without_care": real, "ran": False, "message": said[:300]}
            print(f"{place}: {'a real attack' if real else 'NO ATTACK'}, refused", flush=True)
    out = Path(__file__).parents[1] / "results" / "pickles.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    versions = {name: metadata.version(name) for name in ("torch", "numpy", "pyyaml", "basicsr")}
    out.write_text(
        json.dumps({"python": platform.python_version(), "versions": versions, "places": results}, indent=1) + "\n"
    )
    return 0 if all(result["runs_if_loaded_without_care"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
