"""Metrics of pyiqa, which this package never installs or uses by itself: its licence is a non-commercial one."""

import contextlib
import os
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from basicsr.utils import get_root_logger

from basicsr_ext.common.errors import InputError, UnknownName, did_you_mean
from basicsr_ext.images.arrays import to_rgb
from basicsr_ext.metrics.base import METRICS, Metric, Sample
from basicsr_ext.metrics.learned.networks import exact, metric_device
from basicsr_ext.metrics.learned.weights import FOLDER_VARIABLE

LICENCE = (
    "pyiqa is under the PolyForm Noncommercial License 1.0.0 (and S-Lab's for parts): its figures may be made for "
    "non-commercial purposes only"
)


class _NoDownloads(urllib.request.BaseHandler):
    """Stands before the handlers that would open a connection."""

    handler_order = 0

    def __init__(self, root: Path) -> None:
        self._hub = root / "hub"

    def https_open(self, request: urllib.request.Request) -> None:
        """Say which file is missing instead."""
        url = request.full_url
        raise InputError(
            f"iqa: the file of weights {Path(url).name} is missing; nothing is downloaded: get it from {url} and put "
            f"it into {self._hub / ('checkpoints' if 'pytorch.org' in url else 'pyiqa')}"
        )

    http_open = https_open


@contextlib.contextmanager
def _offline(root: Path) -> Iterator[None]:
    """Let torch and the hubs look for files in ``root`` alone."""
    given = {"TORCH_HOME": str(root), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    urllib.request.install_opener(urllib.request.build_opener(_NoDownloads(root)))
    try:
        yield
    finally:
        urllib.request.install_opener(urllib.request.build_opener())
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@METRICS.register("iqa")
@dataclass
class IQA(Metric):
    """A metric of pyiqa by its name there, such as musiq, maniqa or clipiqa; non-commercial use only."""

    metric: str  # name in pyiqa
    weights: str | None = None  # folder that has hub/pyiqa with the weights

    packages = ("pyiqa",)
    extra = "iqa"
    about = {"licence": LICENCE, "colour space": "RGB"}

    def check(self) -> None:
        """Look for pyiqa and build the metric, so that a missing file is told before anything is restored."""
        super().check()
        _ = self._model

    @cached_property
    def _model(self) -> Any:
        root = Path(self.weights or os.environ.get(FOLDER_VARIABLE) or Path(torch.hub.get_dir()).parent).expanduser()
        with _offline(root):
            import pyiqa

            get_root_logger().warning(LICENCE)
            names = pyiqa.list_models()
            if self.metric not in names:
                hint = did_you_mean(self.metric, names)
                raise UnknownName(f"iqa.metric is {self.metric!r}, which pyiqa does not have; {hint}")
            try:
                model = pyiqa.create_metric(self.metric, device=metric_device())
            except (RuntimeError, OSError) as error:  # wrong weights, or some that only its hub has
                reason = str(error).strip().splitlines()[0]
                raise InputError(f"iqa.metric {self.metric} cannot be built: {reason}") from error
        self.higher_is_better = not model.lower_better
        self.needs = frozenset({"gt"} if model.metric_mode == "FR" else ())
        return model

    def update(self, sample: Sample) -> float | None:
        """Take an image; the model says what it needs."""
        _ = self._model
        return super().update(sample)

    def measure(self, sample: Sample) -> float:
        """The figure of one image."""
        images = self.pair(sample) if self._model.metric_mode == "FR" else (sample.restored,)
        with exact():
            return float(self._model(*(to_rgb(image) / 255 for image in images)))
