"""Restore a data set, shared out over the ranks, save the images and measure them."""

import contextlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, default_collate
from tqdm import tqdm

from basicsr_ext.common.batching import in_groups, shapes_of
from basicsr_ext.common.errors import InputError, Interrupted, NonFiniteLoss
from basicsr_ext.common.files import SaveError, write_whole
from basicsr_ext.common.plain_json import json_text
from basicsr_ext.images.arrays import displayed, to_image
from basicsr_ext.images.pictures import data_picture, write_picture
from basicsr_ext.images.results import result_names, result_path, write_pixels
from basicsr_ext.metrics import Cost, Metric, build_metrics, collect
from basicsr_ext.metrics.cost import Seconds
from basicsr_ext.metrics.samples import sample_of
from basicsr_ext.models import tensorboard
from basicsr_ext.models.acceleration import synchronize
from basicsr_ext.processes import collectives
from basicsr_ext.training import loop_state, memory


def validate(model: Any, dataset: Any, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
    """Validate a :class:`~basicsr_ext.models.restoration_model.RestorationModel` on one data set.

    Every image gets a random generator of its own, made from ``manual_seed`` and its index, and the mean is taken in
    the order of the data set: the figures do not depend on batch size or number of processes. In a test run
    the figures of every image go to ``metrics.json`` beside the images. Where memory does not suffice, fewer images
    are restored at once. When a signal stops the run, the validation is dropped, on every process.

    What a metric cannot measure is logged and left out of its mean. Raises InputError if memory does not suffice for
    one image, and NonFiniteLoss if the network gave NaN or infinite values.
    """
    val, name = model.opt["val"], dataset.opt["name"]
    metrics = build_metrics(val.get("metrics"))
    records = _records(model, dataset, len(dataset), metrics, current_iter, tb_logger, save_img, val.get("pbar", False))
    if records is None:
        loop_state.current().validation_abandoned(name, everywhere=True)
        return
    _publish(model, name, metrics, records, current_iter, tb_logger)
    if model.is_train and metrics:
        with contextlib.suppress(Interrupted):
            tensorboard.log_curve(model, name, lambda: _means_of_some(model, dataset), tb_logger, current_iter)


def _means_of_some(model: Any, dataset: Any) -> dict[str, float]:
    """Means over the first ``val.curve_images`` images, of the metrics that single images have."""
    val = model.opt["val"]
    metrics = {name: metric for name, metric in build_metrics(val["metrics"]).items() if metric.per_image}
    records = _records(model, dataset, min(len(dataset), val.get("curve_images", 8)), metrics)
    if records is None:
        raise Interrupted
    found = {name: [record[name] for record in records if math.isfinite(record[name])] for name in metrics}
    return {name: sum(figures) / len(figures) if figures else math.nan for name, figures in found.items()}


def _records(
    model: Any,
    dataset: Any,
    count: int,
    metrics: dict[str, Metric],
    current_iter: int | str = "",
    tb_logger: Any = None,
    save_img: bool = False,
    pbar: bool = False,
) -> list[dict] | None:
    """Restore and measure the first ``count`` images: a record of each, in order; None if a signal stopped a rank."""
    name, mine = dataset.opt["name"], collectives.shard_indices(count)
    names = result_names(dataset)
    records: list[dict] = []
    stopped = False
    bar = tqdm(total=len(mine), unit="image", desc=name, disable=not (pbar and collectives.is_main()))
    try:
        with torch.no_grad(), model.evaluating() as net, bar:
            for taken, restored, seconds in _restored(model, net, dataset, mine):
                about = {"seconds": seconds, "warm_up": not records}
                if tb_logger is not None:
                    first = {key: value[:1] for key, value in model.batch.items()}
                    if taken[0] == 0 and (strip := model.progress_strip(first, net)) is not None:
                        tb_logger.add_image(f"walk/{name}", strip, current_iter)
                    shown = {key: displayed(model.batch[key], model.values) for key in {"lq", "gt"} & {*model.batch}}
                    result = displayed(restored, model.values)
                    tensorboard.log_comparisons(tb_logger, name, taken, shown, result, current_iter)
                for k, index in enumerate(taken):
                    image = to_image(restored[k]) if model.values is None else model.values.from_unit(restored[k])
                    place = names[index] if names else Path(model.batch["lq_path"][k]).stem
                    record = {"index": index, "image": place} | about
                    if save_img:
                        record |= _save(model, result_path(model.opt, name, place, current_iter), image, k)
                    records.append(record | _measure(metrics, image, model, dataset, k, index, seconds))
                bar.update(len(taken))
    except Interrupted:
        stopped = True
    gathered = collectives.gather_objects(None if stopped else records)
    return None if None in gathered else sorted(sum(gathered, []), key=lambda record: record["index"])


def _restored(model: Any, net: nn.Module, dataset: Any, mine: list[int]) -> Iterator[tuple[list[int], Tensor, float]]:
    """The indices of some images that were restored together, their restorations, and the seconds of each."""
    loaded = zip(mine, DataLoader(Subset(dataset, mine), batch_size=None))
    for group in in_groups(loaded, lambda pair: shapes_of(pair[1]), model.opt["val"].get("batch_size", 8)):
        indices, batch = [index for index, _ in group], default_collate([item for _, item in group])

        def restore(part: slice, indices: list[int] = indices) -> tuple[Tensor, float]:
            with loop_state.current().abandonable():
                return _timed_restore(model, net, indices[part])

        for part, (restored, seconds) in memory.in_fitting_parts(model, dataset.opt["name"], batch, restore):
            yield indices[part], restored, seconds / len(restored)


def _save(model: Any, path: Path, image: np.ndarray, k: int) -> dict[str, str]:
    """Write a restored image, and beside it what the model left with it; the file for its record, if it is there.

    Data go into a .npy beside the picture, which shows their first channel from end to end of its interval.
    """
    values, files = model.values, {"file": str(path)}
    extras = {name: displayed(extra[k], values) for name, extra in model.extras.items()}
    pictures = {path.with_name(f"{path.stem}_{name}.png"): to_image(extra) for name, extra in extras.items()}
    try:
        if values is not None:
            files["data"] = str(path.with_suffix(".npy"))
            write_picture(files["data"], data_picture(image, values))
            image = to_image(displayed(values.to_unit(image), values))
        for place, picture in (pictures | {path: image}).items():
            write_pixels(place, picture)
    except InputError as error:
        loop_state.current().not_saved(error, model.is_train)
        return {}
    return files


def _timed_restore(model: Any, net: nn.Module, indices: list[int]) -> tuple[Tensor, float]:
    """Restore the batch last fed; also the seconds it took, with the device's queue emptied."""
    seed = model.opt.get("manual_seed") or 0
    generators = [torch.Generator().manual_seed(seed * 1_000_003 + index) for index in indices]
    synchronize(model.device)
    start = time.perf_counter()
    restored = model.restore(model.batch, net, generators)
    synchronize(model.device)
    if not torch.isfinite(restored).all():
        raise NonFiniteLoss(
            f"the network gave NaN or infinite values for {model.batch['lq_path']}; its weights are no good, or its "
            "options ask for more than numbers hold: take an earlier checkpoint, or train with a lower learning rate"
        )
    return restored, time.perf_counter() - start


def _measure(
    metrics: dict[str, Metric], image: np.ndarray, model: Any, dataset: Any, k: int, index: int, seconds: float
) -> dict[str, float]:
    """Let every metric take an image; the figures of those that have one for each image."""
    if not metrics:
        return {}
    parameters = sum(parameter.numel() for parameter in model.eval_net.parameters())
    cost = Cost(seconds, parameters=parameters, network_calls=model.network_calls)
    sample = sample_of(dataset, model.batch, k, index, image, cost, model.values)
    figures = {name: metric.take(sample) for name, metric in metrics.items()}
    return {name: figure for name, figure in figures.items() if figure is not None}


def mean_seconds(records: list[dict]) -> float:
    """Mean seconds per image, without the first batch of each process where there are others: it warms up."""
    timed = [record for record in records if not record["warm_up"]] or records
    return sum(record["seconds"] for record in timed) / len(timed)


def _publish(model: Any, name: str, metrics: dict[str, Metric], records: list[dict], iteration: Any, tb: Any) -> None:
    """Keep the best figures, log those of the set, and in a test run write ``metrics.json``."""
    seconds, means = mean_seconds(records), collect(metrics)
    loop_state.current().unmeasured |= any(math.isnan(f) for m in metrics.values() for f, _ in m.unmeasured.values())
    loop_state.current().unmeasured |= any(map(math.isnan, means.values()))
    means |= {metric: seconds for metric, measured in metrics.items() if isinstance(measured, Seconds)}
    if metrics:
        model._initialize_best_metric_results(name)
        for metric, value in means.items():
            model._update_best_metric_result(name, metric, value, iteration)
        model.metric_results = means
        model._log_validation_metric_values(iteration, name, tb if collectives.is_main() else None)
    if not model.is_train and collectives.is_main():
        path = Path(model.opt["path"]["results_root"]) / "metrics.json"
        stored = {"name": model.opt["name"], "datasets": {}}
        stored |= json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        about = {metric: measured.provenance() for metric, measured in metrics.items()}
        stored["datasets"][name] = {"mean": means | {"seconds": seconds}, "metrics": about, "images": records}
        try:
            write_whole(path, json_text(stored))
        except SaveError as error:
            loop_state.current().not_saved(error, is_train=False)
