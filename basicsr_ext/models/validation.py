"""Restore a data set, shared out over the ranks, save the images and measure them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset, default_collate
from tqdm import tqdm

from basicsr_ext.common.batching import in_groups, shapes_of
from basicsr_ext.common.errors import InputError, Interrupted, NonFiniteLoss
from basicsr_ext.common.plain_json import json_text
from basicsr_ext.images.arrays import to_image
from basicsr_ext.metrics import Cost, Metric, build_metrics, collect
from basicsr_ext.metrics.cost import Seconds
from basicsr_ext.metrics.samples import sample_of
from basicsr_ext.models import tensorboard
from basicsr_ext.processes import collectives
from basicsr_ext.training import memory, signals

__all__ = ["validate"]


def validate(model: Any, dataset: Any, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
    """Validate a :class:`~basicsr_ext.models.restoration_model.RestorationModel` on one data set.

    Every image gets a random generator of its own, made from ``manual_seed`` and its index, and the mean is taken in
    the order of the data set: the figures do not depend on batch size or number of processes. In a test run
    the figures of every image go to ``metrics.json`` beside the images. Where memory does not suffice, fewer images
    are restored at once. When a signal stops the run, the validation is dropped, on every process.

    Raises:
        InputError: an image is wanted by a metric but the data set has no ground truth, or memory does not suffice for
            one image.
        NonFiniteLoss: the network gave NaN or infinite values.

    """
    val, name = model.opt["val"], dataset.opt["name"]
    metrics = build_metrics(val.get("metrics"))
    mine = collectives.shard_indices(len(dataset))
    bar = tqdm(total=len(mine), unit="image", desc=name, disable=not (val.get("pbar", False) and collectives.is_main()))
    records: list[dict] | None = []
    try:
        with torch.no_grad(), model.evaluating() as net, bar:
            for indices, batch in _batches(dataset, mine, val.get("batch_size", 8)):
                for taken, restored, seconds in _restored(model, net, name, indices, batch):
                    warm_up = not records
                    if tb_logger is not None and taken[0] == 0:
                        _log_strip(model, net, name, tb_logger, current_iter)
                    if tb_logger is not None:
                        tensorboard.log_comparisons(tb_logger, name, taken, model.batch, restored, current_iter)
                    for k, index in enumerate(taken):
                        image = to_image(restored[k])
                        path = _image_path(model.opt, name, Path(model.batch["lq_path"][k]).stem, current_iter)
                        record = {"index": index, "image": Path(model.batch["lq_path"][k]).stem, "seconds": seconds}
                        record |= {"warm_up": warm_up} | (_save(path, image, model.extras, k) if save_img else {})
                        records.append(record | _measure(metrics, image, model, dataset, k, index, seconds))
                    bar.update(len(taken))
    except Interrupted:
        records = None
    if (records := _gathered(records)) is None:
        signals.validation_abandoned(name, everywhere=True)
        return
    _publish(model, name, metrics, records, current_iter, tb_logger)
    if model.is_train and metrics:
        with contextlib.suppress(Interrupted):
            tensorboard.log_curve(model, name, lambda: _means_of_some(model, dataset), tb_logger, current_iter)


def _seconds(records: list[dict]) -> float:
    """Mean seconds per image, without the first batch of each process where there are others: it warms up."""
    timed = [record["seconds"] for record in records if not record["warm_up"]]
    timed = timed or [record["seconds"] for record in records]
    return sum(timed) / len(timed)


def _gathered(records: list[dict] | None) -> list[dict] | None:
    """The records of all processes in order of the data set; None if a signal stopped one of them."""
    gathered = collectives.gather_objects(records)
    return None if None in gathered else sorted(sum(gathered, []), key=lambda record: record["index"])


def _means_of_some(model: Any, dataset: Any) -> dict[str, float]:
    """Means over the first ``val.curve_images`` images, of the metrics that single images have.

    Raises:
        Interrupted: a signal stopped one of the processes; raised on all of them.

    """
    val = model.opt["val"]
    metrics = {name: metric for name, metric in build_metrics(val["metrics"]).items() if metric.per_image}
    mine = collectives.shard_indices(min(len(dataset), val.get("curve_images", 8)))
    records: list[dict] | None = []
    try:
        with torch.no_grad(), model.evaluating() as net:
            for indices, batch in _batches(dataset, mine, val.get("batch_size", 8)):
                for taken, restored, seconds in _restored(model, net, dataset.opt["name"], indices, batch):
                    for k, index in enumerate(taken):
                        measured = _measure(metrics, to_image(restored[k]), model, dataset, k, index, seconds)
                        records.append({"index": index} | measured)
    except Interrupted:
        records = None
    if (records := _gathered(records)) is None:
        raise Interrupted
    return {name: sum(record[name] for record in records) / len(records) for name in metrics}


def _restored(
    model: Any, net: Any, name: str, indices: list[int], batch: dict
) -> Iterator[tuple[list[int], Tensor, float]]:
    """The indices of some images that were restored together, their restorations, and the seconds of each."""

    def restore(part: slice) -> tuple[Tensor, float]:
        with signals.abandonable():
            return _timed_restore(model, net, indices[part])

    for part, (restored, seconds) in memory.in_fitting_parts(model, name, batch, restore):
        yield indices[part], restored, seconds / len(restored)


def _save(path: Path, image: np.ndarray, extras: dict[str, Tensor], k: int) -> dict[str, str]:
    """Write a restored image, and beside it what the model left with it; the file for its record."""
    _write(path, image)
    for extra, pictures in extras.items():
        _write(path.with_name(f"{path.stem}_{extra}.png"), to_image(pictures[k]))
    return {"file": str(path)}


def _batches(dataset: Any, indices: list[int], size: int) -> Iterator[tuple[list[int], dict]]:
    """Group images of one size into batches of at most ``size``."""
    loaded = zip(indices, DataLoader(Subset(dataset, indices), batch_size=None))
    for group in in_groups(loaded, lambda pair: shapes_of(pair[1]), size):
        yield [index for index, _ in group], default_collate([item for _, item in group])


def _timed_restore(model: Any, net: Any, indices: list[int]) -> tuple[Tensor, float]:
    """Restore the batch last fed; also the seconds it took, with the device's queue emptied."""
    seed = model.opt.get("manual_seed") or 0
    generators = [torch.Generator().manual_seed(seed * 1_000_003 + index) for index in indices]
    _synchronize(model.device)
    start = time.perf_counter()
    restored = model.restore(model.batch, net, generators)
    _synchronize(model.device)
    if not torch.isfinite(restored).all():
        raise NonFiniteLoss(
            f"the network gave NaN or infinite values for {model.batch['lq_path']}; its weights are no good, or its "
            "options ask for more than numbers hold: take an earlier checkpoint, or train with a lower learning rate"
        )
    return restored, time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _measure(
    metrics: dict[str, Metric], image: np.ndarray, model: Any, dataset: Any, k: int, index: int, seconds: float
) -> dict[str, float]:
    """Let every metric take an image; the figures of those that have one for each image."""
    if not metrics:
        return {}
    parameters = sum(parameter.numel() for parameter in model.eval_net.parameters())
    cost = Cost(seconds, parameters=parameters, network_calls=model.network_calls)
    sample = sample_of(dataset, model.batch, k, index, image, cost)
    if sample.gt is not None and sample.gt.shape != image.shape:
        raise InputError(
            f"datasets.{dataset.opt['name']}: {model.batch['lq_path'][k]} is restored to {image.shape[:2]} but its "
            f"ground truth measures {sample.gt.shape[:2]} (height, width); their sizes must differ by `scale` exactly"
        )
    figures = {name: metric.update(sample) for name, metric in metrics.items()}
    return {name: figure for name, figure in figures.items() if figure is not None}


def _image_path(opt: dict, dataset: str, image: str, current_iter: int | str) -> Path:
    """Where BasicSR's own models save a restored image."""
    folder = Path(opt["path"]["visualization"])
    if opt["is_train"]:
        return folder / image / f"{image}_{current_iter}.png"
    return folder / dataset / f"{image}_{opt['val'].get('suffix') or opt['name']}.png"


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f"{path} could not be written; is there space on the device?")


def _log_strip(model: Any, net: Any, name: str, tb_logger: Any, current_iter: int | str) -> None:
    strip = model.progress_strip({k: v[:1] for k, v in model.batch.items()}, net)
    if strip is not None:
        tb_logger.add_image(f"walk/{name}", strip, current_iter)


def _publish(
    model: Any, name: str, metrics: dict[str, Metric], records: list[dict], current_iter: int | str, tb: Any
) -> None:
    """Keep the best figures, log those of the set, and in a test run write ``metrics.json``."""
    means = collect(metrics)
    means |= {metric: _seconds(records) for metric, measured in metrics.items() if isinstance(measured, Seconds)}
    if metrics:
        model._initialize_best_metric_results(name)
        for metric, value in means.items():
            model._update_best_metric_result(name, metric, value, current_iter)
        model.metric_results = means
        model._log_validation_metric_values(current_iter, name, tb if collectives.is_main() else None)
    if not model.is_train and collectives.is_main():
        path = Path(model.opt["path"]["results_root"]) / "metrics.json"
        stored = {"name": model.opt["name"], "datasets": {}}
        stored |= json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        means["seconds"] = _seconds(records)
        about = {metric: measured.provenance() for metric, measured in metrics.items()}
        stored["datasets"][name] = {"mean": means, "metrics": about, "images": records}
        path.write_text(json_text(stored), encoding="utf-8")
