"""Metrics of pyiqa, which this package never installs or uses by itself: its licence is a non-commercial one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import torch
from basicsr.utils import get_root_logger

from basicsr_ext.common.errors import InputError, UnknownName, did_you_mean
from basicsr_ext.images.arrays import to_rgb
from basicsr_ext.metrics.base import METRICS, Metric, Sample
from basicsr_ext.metrics.learned.images import exact, metric_device
from basicsr_ext.metrics.learned.weights import FOLDER_VARIABLE

__all__ = ["IQA", "LICENCE"]

LICENCE = (
    "pyiqa is under the PolyForm Noncommercial License 1.0.0 (and S-Lab's for parts): its figures may be made for "
    "non-commercial purposes only"
)


def _refuse(root: Path) -> Callable[..., None]:
    def download(url: str, *_: Any, **__: Any) -> None:
        raise InputError(
            f"iqa: the file of weights {Path(url).name} is missing; nothing is downloaded: get it from {url} and put "
            f"it into {root / 'hub' / ('checkpoints' if 'pytorch.org' in url else 'pyiqa')}"
        )

    return download


@METRICS.register("iqa")
@dataclass
class IQA(Metric):
    """A metric of pyiqa by its name there, such as musiq, maniqa or clipiqa; non-commercial use only."""

    metric: str  # name in pyiqa
    weights: str | None = None  # folder that has hub/pyiqa with the weights

    packages: ClassVar[tuple[str, ...]] = ("pyiqa",)
    extra: ClassVar[str] = "iqa"

    def check(self) -> None:
        """Look for pyiqa and build the metric, so that a missing file is told before anything is restored."""
        super().check()
        _ = self._model

    @cached_property
    def _model(self) -> Any:
        root = Path(self.weights or os.environ.get(FOLDER_VARIABLE) or Path(torch.hub.get_dir()).parent).expanduser()
        offline = {"TORCH_HOME": str(root), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        with mock.patch.dict(os.environ, offline):
            import pyiqa
            from pyiqa.utils import download_util

            get_root_logger().warning(LICENCE)
            names = pyiqa.list_models()
            if self.metric not in names:
                raise UnknownName(
                    f"iqa.metric is {self.metric!r}, which pyiqa lacks; {did_you_mean(self.metric, names)}"
                )
            refuse = _refuse(root)
            with (
                mock.patch.object(download_util, "download_url_to_file", refuse),
                mock.patch.object(torch.hub, "download_url_to_file", refuse),
            ):
                try:
                    model = pyiqa.create_metric(self.metric, device=metric_device())
                except (RuntimeError, OSError) as error:  # wrong weights, or some that only its hub has
                    reason = str(error).strip().splitlines()[0]
                    raise InputError(f"iqa.metric {self.metric} can not be built: {reason}") from error
        self.higher_is_better = not model.lower_better
        self.needs = frozenset({"gt"} if model.metric_mode == "FR" else ())  # type: ignore[misc]
        return model

    def update(self, sample: Sample) -> float | None:
        """Take an image; the model says what it needs."""
        _ = self._model
        return super().update(sample)

    def measure(self, sample: Sample) -> float:
        """The figure of one image."""
        model = self._model
        images = (sample.restored, sample.gt) if model.metric_mode == "FR" else (sample.restored,)
        with exact():
            return float(model(*(to_rgb(image) / 255 for image in images)))  # type: ignore[arg-type]

    def identity(self) -> dict[str, Any]:
        """With the licence."""
        return super().identity() | {"licence": LICENCE, "colour space": "RGB"}
