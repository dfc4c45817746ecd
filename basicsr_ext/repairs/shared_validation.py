"""Validate BasicSR's own models image by image, shared out over the ranks."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import basicsr.metrics
from basicsr.models.sr_model import SRModel
from basicsr.utils.logger import get_root_logger
from torch.utils.data import default_collate
from tqdm import tqdm

from basicsr_ext.common.errors import Interrupted
from basicsr_ext.metrics.base import cause_of, gaps, odd
from basicsr_ext.processes import collectives
from basicsr_ext.repairs.repair import Repairs, source_says, unrepaired
from basicsr_ext.training import loop_state

REPAIRS = Repairs()

_failures: list[str | None] | None = None  # of the metrics of the image at hand, in their order


@REPAIRS.replaces(basicsr.metrics, "calculate_metric", "metric-failures",
                  "One image that a metric cannot measure (NIQE of one colour, say) ends a training.",
                  "except", absent=True)  # fmt: skip
def _calculate_metric(data: Mapping[str, Any], opt: Mapping[str, Any]) -> float:
    """The figure of an image; NaN, and the reason in the log, if it cannot be measured."""
    reason, figure = None, math.nan
    try:
        figure = float(unrepaired(_calculate_metric)(data, opt))
    except Exception as error:  # functions of libraries fail as they like
        reason = cause_of(error)
    if _failures is not None:
        _failures.append(reason)
    elif reason:
        get_root_logger().warning(f"{opt['type']}: {reason}")
    return figure


def can_share(model: Any) -> bool:
    """True for SRModel and for models that leave validation to it: others (HiFaceGAN, video) go their own ways."""
    if not isinstance(model, SRModel) or type(model).dist_validation is not SRModel.dist_validation:
        return False
    alone = type(model).nondist_validation
    return alone is SRModel.nondist_validation or source_says(alone, ").nondist_validation(")


class FollowedImages:
    """A validation loader of single images, those of ``indices`` alone if given; the run knows which is under way."""

    def __init__(self, loader: Any, indices: list[int] | None = None) -> None:
        self.loader, self.dataset, self.indices, self.name = loader, loader.dataset, indices, ""

    def __iter__(self) -> Iterator[Any]:
        chosen = self.indices
        items = self.loader if chosen is None else (default_collate([self._item(index)]) for index in chosen)
        results = loop_state.current().results
        yield from items if results is None else results.follow(items)

    def _item(self, index: int) -> Any:
        item = self.dataset[index]
        self.name = Path(item.get("lq_path") or item.get("gt_path") or str(index)).stem
        return item

    def __len__(self) -> int:
        return len(self.loader if self.indices is None else self.indices)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def validate_shared(model: Any, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
    """Validate a model by its own ``nondist_validation``, every rank its share of the images.

    The figures of all images are added up in the order of the data set, as one process does: the means are the same bit
    by bit. What has no finite figure is logged and left out of the mean. When a signal stops the run, the validation
    is dropped on every process.
    """
    global _failures
    dataset, val = dataloader.dataset, model.opt["val"]
    name, metrics = dataset.opt["name"], val.get("metrics") or {}
    records: list[tuple[int, dict]] = []
    stopped = False
    mine = collectives.shard_indices(len(dataset))
    silent = not (val.get("pbar") and collectives.is_main())
    try:
        with _no_summary(model):
            for index in tqdm(mine, unit="image", desc=name, disable=silent):
                image, _failures = FollowedImages(dataloader, [index]), []
                with loop_state.current().abandonable():
                    model.nondist_validation(image, current_iter, None, save_img)
                figures = {metric: model.metric_results[metric] for metric in metrics}
                reasons = [reason or odd(figures[m]) for m, reason in zip(metrics, _failures)]
                records.append((index, {m: (figures[m], f"{image.name}: {r}") for m, r in zip(metrics, reasons)}))
    except Interrupted:
        stopped = True
    finally:
        _failures = None
    gathered = collectives.gather_objects(None if stopped else records)
    if None in gathered:
        loop_state.current().validation_abandoned(name, everywhere=True)
        return
    if not metrics:
        return
    found = [figures for _, figures in sorted(sum(gathered, []), key=lambda record: record[0])]
    model.metric_results = {metric: _mean(metric, [figures[metric] for figures in found]) for metric in metrics}
    model._initialize_best_metric_results(name)
    for metric, value in model.metric_results.items():
        model._update_best_metric_result(name, metric, value, current_iter)
    model._log_validation_metric_values(current_iter, name, tb_logger if collectives.is_main() else None)


def _mean(metric: str, found: list[tuple[float, str]]) -> float:
    """Mean of the finite figures; infinity or NaN where there is none. Says in the log what it leaves out."""
    figures = [figure for figure, _ in found if math.isfinite(figure)]
    for line in gaps(len(figures), [reason for figure, reason in found if not math.isfinite(figure)]):
        get_root_logger().warning(f"{metric}: {line}")
    loop_state.current().unmeasured |= any(math.isnan(figure) for figure, _ in found)
    return sum(figures) / len(figures) if figures else sum(figure for figure, _ in found)


@contextlib.contextmanager
def _no_summary(model: Any) -> Iterator[None]:
    """Keep a model from taking the figures of an image for those of the data set."""
    options, silenced = model.opt, ("_update_best_metric_result", "_log_validation_metric_values")
    model.opt = {**options, "val": {**options["val"], "pbar": False}}
    for method in silenced:
        setattr(model, method, lambda *_: None)
    try:
        yield
    finally:
        model.opt = options
        for method in silenced:
            delattr(model, method)
