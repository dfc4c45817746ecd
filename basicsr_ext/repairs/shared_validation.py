"""Share the validation of BasicSR's own models out over the ranks, image by image."""

import contextlib
from collections.abc import Iterator
from typing import Any

from basicsr.models.sr_model import SRModel
from torch.utils.data import default_collate

from basicsr_ext.common.errors import Interrupted
from basicsr_ext.processes import collectives
from basicsr_ext.repairs.repair import source_says
from basicsr_ext.training import loop_state


def can_share(model: Any) -> bool:
    """True for SRModel and for models that leave validation to it: others (HiFaceGAN, video) go their own ways."""
    if not isinstance(model, SRModel) or type(model).dist_validation is not SRModel.dist_validation:
        return False
    alone = type(model).nondist_validation
    return alone is SRModel.nondist_validation or source_says(alone, ").nondist_validation(")


class FollowedImages:
    """A validation loader of single images, those of ``indices`` alone if given; the run knows which is under way."""

    def __init__(self, loader: Any, indices: list[int] | None = None) -> None:
        self.loader, self.dataset, self.indices = loader, loader.dataset, indices

    def __iter__(self) -> Iterator[Any]:
        chosen = self.indices
        items = self.loader if chosen is None else (default_collate([self.dataset[index]]) for index in chosen)
        results = loop_state.current().results
        yield from items if results is None else results.follow(items)

    def __len__(self) -> int:
        return len(self.loader if self.indices is None else self.indices)

    def __getattr__(self, name: str) -> Any:
        if name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)


def validate_shared(model: Any, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
    """Validate a model by its own ``nondist_validation``, every rank its share of the images.

    The figures of all images are added up in the order of the data set, as one process does: the means are the same bit
    by bit. When a signal stops the run, the validation is dropped on every process.
    """
    dataset, val = dataloader.dataset, model.opt["val"]
    name, metrics = dataset.opt["name"], val.get("metrics") or {}
    records: list[tuple[int, dict]] = []
    stopped = False
    try:
        with _no_summary(model):
            for index in collectives.shard_indices(len(dataset)):
                with loop_state.current().abandonable():
                    model.nondist_validation(FollowedImages(dataloader, [index]), current_iter, None, save_img)
                records.append((index, {metric: model.metric_results[metric] for metric in metrics}))
    except Interrupted:
        stopped = True
    gathered = collectives.gather_objects(None if stopped else records)
    if None in gathered:
        loop_state.current().validation_abandoned(name, everywhere=True)
        return
    if not metrics:
        return
    figures = [found for _, found in sorted(sum(gathered, []), key=lambda record: record[0])]
    model.metric_results = {metric: sum(found[metric] for found in figures) / len(figures) for metric in metrics}
    model._initialize_best_metric_results(name)
    for metric, value in model.metric_results.items():
        model._update_best_metric_result(name, metric, value, current_iter)
    model._log_validation_metric_values(current_iter, name, tb_logger if collectives.is_main() else None)


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
