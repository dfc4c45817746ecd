"""The block ``data``: measured by percentiles where it is to be, and the same as that of the checkpoint."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from basicsr.utils.registry import DATASET_REGISTRY

from basicsr_ext.checkpoints.resumable import resumable_iterations
from basicsr_ext.checkpoints.storage import read_configuration
from basicsr_ext.common import registries
from basicsr_ext.common.contracts import DatasetContract
from basicsr_ext.common.errors import InputError
from basicsr_ext.images.values import Values, difference, values_of
from basicsr_ext.processes import launch

MOST_IMAGES = 256  # of the training set that are looked at, evenly spread
MOST_NUMBERS = 1 << 22  # of each channel, all images together, evenly spread


def settle(opt: dict[str, Any], is_train: bool) -> list[str]:
    """Complete ``data`` of resolved options in place, that of the data sets too; notes for the log.

    Percentiles are those of the save that a run goes on from, of the network that it begins with or tests, else they
    are measured on the training set, by every process alike. Raises InputError if the checkpoint of a test has other
    values, or none, or a channel is constant.
    """
    values, network = values_of(opt), _network(opt, is_train)
    held = _held(network) if network is not None else None
    if not is_train and network is not None and held is not None and (wrong := difference(values, values_of(held))):
        raise InputError(f"path.pretrain_network_g is {network}, which was trained on {wrong}")
    if values is None or values.measured:
        return []
    known = values_of(held) if held and held.get("data") else None
    if known is not None and known.percentiles == values.percentiles and known.measured:
        found, note = known, f"data: low and high are those of {network}"
    elif is_train:
        found, note = _measured(opt, values)
    else:
        where = f"{network} does not hold what its training found" if network else "there is no checkpoint"
        raise InputError(f"data.percentiles are measured by a training, but {where}; give data.low and data.high")
    block = {**opt["data"], "low": _plain(found.low), "high": _plain(found.high)}
    opt["data"] = block
    for dataset in opt["datasets"].values():
        dataset["data"] = block
    return [note]


def _plain(numbers: Any) -> list[float]:
    return [float(number) for number in np.atleast_1d(numbers)]


def _network(opt: Mapping[str, Any], is_train: bool) -> Path | None:
    """The file of the network that the run begins with or tests; None for none."""
    path = opt["path"]
    if is_train and (opt.get("auto_resume") or launch.is_restart()):
        for iteration in resumable_iterations(opt):
            if (file := Path(path["models"]) / f"net_g_{iteration}.pth").is_file():
                return file
    if is_train and path.get("resume_state"):
        state = Path(path["resume_state"]).resolve()
        return state.parent.parent / "models" / f"net_g_{state.stem}.pth"
    file = path.get("pretrain_network_g") or path.get("teacher")
    return Path(file) if file else None


def _held(network: Path) -> dict[str, Any] | None:
    """The options that a checkpoint carries; None if it carries none, or cannot be read, which is said elsewhere."""
    try:
        return read_configuration(network) or None
    except InputError:
        return None


def _measured(opt: Mapping[str, Any], values: Values) -> tuple[Values, str]:
    """The percentiles of each channel over the clean images of the training set, whole, without crops."""
    block = opt["datasets"]["train"]
    dataset: Any = registries.find(DATASET_REGISTRY, block["type"])(dict(block))  # type: ignore[misc]
    total = len(dataset)
    if not isinstance(dataset, DatasetContract):
        cure = "give range, or mean and std"
        raise InputError(f"data.percentiles: {block['type']} does not tell its clean images; {cure}")
    count = min(total, MOST_IMAGES)
    most = max(1, MOST_NUMBERS // count)
    samples, images = [], 0
    for k in range(count):
        try:
            numbers = dataset.clean(k * total // count)
        except InputError:
            if not block.get("skip_bad"):
                raise
            continue
        flat = numbers.reshape(-1, numbers.shape[2])
        samples.append(flat[:: -(-len(flat) // most)].copy())  # a view would keep the whole image
        images += 1
    if not samples:
        raise InputError("data.percentiles: no image of datasets.train can be read; see `basicsr check --data`")
    assert values.percentiles is not None
    low, high = np.percentile(np.concatenate(samples).astype(np.float64), values.percentiles, axis=0)
    if constant := [str(channel) for channel in np.flatnonzero(low >= high)]:
        said = f"channel(s) {', '.join(constant)} have one value there, {low[int(constant[0])]:g}"
        cure = "take the channel out, or give percentiles further apart, range, or mean and std"
        raise InputError(f"data.percentiles is {list(values.percentiles)}, but in datasets.train {said}; {cure}")
    shown = ", ".join(f"{one:.6g} to {other:.6g}" for one, other in zip(low, high))
    found = dataclasses.replace(values, low=tuple(low.tolist()), high=tuple(high.tolist()))
    return found, f"data: each channel's interval was measured on {images} images of datasets.train: {shown}"
