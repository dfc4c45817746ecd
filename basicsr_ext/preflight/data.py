"""Everything about the data that can be known before training: folders, names, sizes, damaged files."""

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from basicsr.utils.registry import DATASET_REGISTRY

from basicsr_ext.common import registries
from basicsr_ext.common.contracts import DatasetContract
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import listed
from basicsr_ext.images.headers import image_header
from basicsr_ext.images.inventory import Paths, listed_sizes
from basicsr_ext.images.results import name_clashes
from basicsr_ext.images.values import values_of

SCANNED = 2000  # images looked at in one data set; more than these: an even sample
_SHOWN = 5
_LONGEST_EPOCH = 1 << 27  # images; their order takes 1 GiB
_PAIRED = ("PairedImageDataset", "RealESRGANPairedDataset")  # BasicSR's, which crop LQ and GT alike
_TAKE_ALL = (*_PAIRED, "SingleImageDataset", "RealESRGANDataset")  # BasicSR's, which look at no list beside an LMDB
_REFUSALS = (ValueError, AssertionError, LookupError, TypeError, OSError, AttributeError, UnboundLocalError)

Files = dict[str, str]  # of one item, by side: lq, gt
Sizes = dict[tuple[str, str], tuple[int, int]]  # height and width by side and path


def missing_data(where: str, block: Mapping[str, Any]) -> list[str]:
    """Faults of the folders and list files that the options of one data set name."""
    faults, backend = [], block.get("io_backend")
    ignored = block.get("type") in _TAKE_ALL and isinstance(backend, Mapping) and backend.get("type") == "lmdb"
    for key, value in block.items():
        if not str(key).startswith(("dataroot", "meta_info")):
            continue
        if ignored and value and not key.startswith("dataroot"):
            cure = "leave it out, and list the keys that are meant in the LMDB's own meta_info.txt"
            faults.append(f"{where}.{key} is {value}, but {block['type']} takes every key of an LMDB; {cure}")
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str) or ":" in name[2:]:  # sample:train and the like belong to the data set
                continue
            path = Path(os.path.expanduser(name))
            try:
                if not path.exists():
                    what = "folder" if key.startswith("dataroot") else "file"
                    faults.append(f"{where}.{key} is {name}, but there is no such {what}; correct the path")
                elif path.is_dir() and not any(path.iterdir()):
                    faults.append(f"{where}.{key} is {name}, an empty folder; put images there or correct the path")
            except OSError as error:
                faults.append(
                    f"{where}.{key} is {name}, which cannot be read ({error.strerror}); check who may read it"
                )
    return faults


def result_faults(where: str, block: Mapping[str, Any], dataset: Any, folder: Path) -> list[str]:
    """Why the results of a data set, which go to ``folder``, would overwrite each other or be taken for its images."""
    clashes, place = name_clashes(dataset), folder.resolve()
    faults = [f"{where}: {listed(clashes)}"] if clashes else []
    for key, value in block.items():
        for root in (value if isinstance(value, list) else [value]) if key.startswith("dataroot") else ():
            if isinstance(root, str) and Path(root).resolve() in (place, *place.parents):
                said = f"{where}.{key} is {root}, but the results go to {folder}, and would be images of it"
                faults.append(f"{said}; give another folder, or set path.results_root or path.experiments_root")
    return faults


def check_dataset(where: str, block: Mapping[str, Any], faults: list[str], notes: list[str]) -> tuple[Any, Any]:
    """Build a data set, look at its files and read its first image; returns both, or None where that failed.

    Adds to ``faults`` what a run would stumble over, and to ``notes`` what is worth saying in the log.
    """
    cls = registries.find(DATASET_REGISTRY, block["type"])
    try:
        dataset = cls(deepcopy(dict(block)))  # type: ignore[misc]
        count = len(dataset)
    except _REFUSALS as error:
        faults.append(_said(where, error))
        return None, None
    if count == 0:
        roots = ", ".join(str(v) for k, v in block.items() if k.startswith("dataroot") and v)
        faults.append(f"{where} has no images: {roots} holds none; correct the path")
        return dataset, None
    if wrong := _scan(where, block, dataset, notes):
        faults.extend(wrong)
        return dataset, None
    try:
        return dataset, dataset[0]
    except _REFUSALS as error:
        faults.append(_said(where, error))
        return dataset, None
    finally:  # so that LMDBs of BasicSR's file client close unless another data set reads on by them
        if "file_client" in vars(dataset):
            dataset.file_client = None


def _said(where: str, error: Exception) -> str:
    text = " ".join(str(arg) for arg in error.args) if isinstance(error, KeyError) else str(error)
    if isinstance(error, InputError):
        return text if text.startswith("datasets.") else f"{where}: {text}"
    if isinstance(error, KeyError) and not isinstance(error, ValueError):
        return f"{where}.{text} is missing: the data set needs it; give it"
    return f"{where} cannot be read: {text or type(error).__name__}"


def files_of(dataset: Any) -> list[Files]:
    """The files of each item of a data set as {"lq": path, "gt": path}; none where it does not tell its paths."""
    entries = []
    for item in dataset.paths if isinstance(dataset, DatasetContract) else vars(dataset).get("paths") or ():
        pair = {"gt": item} if isinstance(item, (str, Path)) else item
        if not isinstance(pair, Mapping):
            return []
        entries.append({k.removesuffix("_path"): str(v) for k, v in pair.items() if isinstance(v, (str, Path))})
    return entries


def left_out(dataset: Any) -> Sequence[str]:
    """What the folders of a data set hold that is not read, and why: a line for each folder."""
    if isinstance(dataset, DatasetContract):
        return dataset.left_out
    paths = vars(dataset).get("paths")
    return paths.left_out if isinstance(paths, Paths) else ()


def _scan(where: str, block: Mapping[str, Any], dataset: Any, notes: list[str]) -> list[str]:
    """Faults of the files, as far as their headers tell; adds notes."""
    entries = files_of(dataset)
    looked_at = list(range(len(entries)))
    if len(entries) > SCANNED:
        notes.append(f"{where}: {SCANNED} of {len(entries)} images were looked at before the start")
        looked_at = [k * len(entries) // SCANNED for k in range(SCANNED)]
    entries = [entries[k] for k in looked_at]
    sizes, unreadable = read_sizes(block, entries)
    allowed = (block.get("skip_bad") or 0) * len(entries) if block.get("phase") == "train" else 0
    files = f"{len(unreadable)} unreadable file(s)"
    if len(unreadable) > allowed:
        more = f", more than skip_bad {block['skip_bad']:g} of them" if allowed else ""
        return [f"{where}: {files}{more}: {listed(unreadable, _SHOWN)}"]
    if unreadable:
        notes.append(f"{where}: others stand in for {files}: {listed(unreadable, _SHOWN)}")
    ours, faults = isinstance(dataset, DatasetContract), []
    notes.extend(f"{where}.{line}" for line in left_out(dataset))
    if ours and not allowed:  # what a data set of ours refuses, such as other channels
        refused = [fault for k in looked_at for fault in dataset.header_faults(k)]
        faults += [f"{where}: {listed(refused, _SHOWN)}"] if refused else []
    if ours or block["type"] in _PAIRED:
        faults += _small_faults(where, block, entries, sizes) + _size_faults(where, block, entries, sizes)
    return faults


def read_sizes(block: Mapping[str, Any], entries: list[Files]) -> tuple[Sizes, list[str]]:
    """The sizes of files as their headers tell them, and what cannot be read."""
    sizes: Sizes = {}
    if (block.get("io_backend") or {}).get("type") == "lmdb":
        for side in ("lq", "gt"):
            root = block.get(f"dataroot_{side}")
            if isinstance(root, str) and os.path.isfile(os.path.join(root, "meta_info.txt")):
                sizes |= {(side, key): size for key, size in listed_sizes(root).items()}
        return sizes, []
    unreadable, values = [], values_of(block)
    for side, path in dict.fromkeys(file for entry in entries for file in entry.items()):
        twin = sizes.get(("lq", path)) or sizes.get(("gt", path))
        try:
            sizes[side, path] = twin or image_header(path, values)[:2]
        except InputError as error:
            unreadable.append(str(error))
    return sizes, list(dict.fromkeys(unreadable))


def _small_faults(where: str, block: Mapping[str, Any], entries: list[Files], sizes: Sizes) -> list[str]:
    crop = block.get("gt_size")
    if block.get("phase") != "train" or not crop or block.get("resize"):
        return []
    paths = dict.fromkeys(entry["gt"] for entry in entries if "gt" in entry)
    known = [(path, sizes["gt", path]) for path in paths if ("gt", path) in sizes]
    small = [f"{path} ({height}x{width})" for path, (height, width) in known if min(height, width) < crop]
    said = f"image(s) are smaller (height x width): {listed(small, _SHOWN)}; lower gt_size or remove them"
    return [f"{where}.gt_size is {crop}, but {len(small)} {said}"] if small else []


def _size_faults(where: str, block: Mapping[str, Any], entries: list[Files], sizes: Sizes) -> list[str]:
    """GT must be LQ times scale; BasicSR's own data set cuts off a rest below `scale` outside training."""
    if not block.get("dataroot_lq"):  # made from GT while training
        return []
    scale = block.get("scale") or 1
    rest = scale - 1 if block["type"] in _PAIRED and block.get("phase") != "train" else 0
    wrong = []
    for entry in entries:
        lq, gt = (sizes.get((side, entry.get(side, ""))) for side in ("lq", "gt"))
        if lq and gt and not all(0 <= g - scale * small <= rest for small, g in zip(lq, gt)):
            wrong.append(f"{entry['gt']} ({gt[0]}x{gt[1]}) with {entry['lq']} ({lq[0]}x{lq[1]})")
    said = f"GT image(s) are not scale = {scale} times their LQ (height x width): {listed(wrong, _SHOWN)}"
    return [f"{where}: {len(wrong)} {said}"] if wrong else []


def training_size_faults(opt: Mapping[str, Any], count: int, world_size: int) -> list[str]:
    """Refuse a training set of ``count`` images that does not fill one batch: it could never reach total_iter."""
    block = opt["datasets"]["train"]
    ratio, batch = block.get("dataset_enlarge_ratio", 1), block["batch_size_per_gpu"]
    batch_here = batch if opt["dist"] else batch * max(1, opt["num_gpu"])
    per_rank = -(-count * ratio // world_size)
    if not count * ratio <= _LONGEST_EPOCH:  # not a number either
        return [
            f"datasets.train.dataset_enlarge_ratio is {ratio:g}, which makes an epoch of {count * ratio:.3g} images, "
            f"whose order alone fills the memory; set it to {max(1, _LONGEST_EPOCH // count)} or less"
        ]
    if per_rank // batch_here >= 1:
        return []
    needed = -(-batch_here * world_size // count)
    return [
        f"datasets.train.batch_size_per_gpu is {batch} ({batch_here * world_size:g} images for {world_size} process(es)"
        f"), but the data set gives {count} images x dataset_enlarge_ratio {ratio:g}: not one full batch, so "
        f"train.total_iter = {opt['train']['total_iter']} cannot be reached; set dataset_enlarge_ratio to {needed} or "
        f"more, or batch_size_per_gpu to {max(1, int(per_rank // max(1, batch_here // batch)))} or less"
    ]
