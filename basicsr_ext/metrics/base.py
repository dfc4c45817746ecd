"""The contract of a metric, and their registry."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from basicsr.utils.registry import METRIC_REGISTRY, Registry

from basicsr_ext.common import registries
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.option_blocks import read_block
from basicsr_ext.common.text import listed
from basicsr_ext.common.versions import module_version
from basicsr_ext.metrics.learned.weights import WeightsFile

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """What restoring an image took; None where it was not measured."""

    seconds: float | None = None  # wall-clock time of the restoration alone
    peak_memory: int | None = None  # bytes of a GPU, the most that torch held at a time
    parameters: int | None = None  # of all networks
    flops: float | None = None  # floating-point operations of the whole restoration: all network calls
    network_calls: int | None = None  # the NFE of a sampler


@dataclass(frozen=True)
class Sample:
    """One restored image and what belongs to it. Images are H,W,C uint8 in OpenCV's order (grey, BGR or BGRA).

    Those of data are float64 in the order of the data, any C, and 0 to 255 is the interval of their values.
    """

    index: int  # number of the image in its data set; every image of the set has its own
    name: str  # for messages
    restored: np.ndarray  # the image to judge
    gt: np.ndarray | None = None  # ground truth, of the size of `restored`
    lq: np.ndarray | None = None  # the input of the restoration
    # A of lq = A(gt): maps a float image 1,C,H,W in [0, 1] (RGB) to 1,C,h,w, without noise
    operator: Callable[[torch.Tensor], torch.Tensor] | None = None
    hole: np.ndarray | None = None  # where nothing of `lq` is known: h,w, True in the hole of an inpainting
    draws: tuple[np.ndarray, ...] | None = None  # the image restored with several seeds
    cost: Cost | None = None  # what the restoration took
    is_data: bool = False  # whether they are data, no pictures


class Metric:
    """A dataclass whose fields are its options. What is kept of each image lies in ``records``, by its index.

    A metric of single images implements :meth:`measure`; one of a set implements :meth:`measure`, which returns what
    is to be kept of an image (a number, or a dict of arrays and text), and :meth:`reduce`. Nothing depends on the order
    in which images come or on the process that has them, so shards merged give the whole, to the last bit.
    """

    higher_is_better: bool = False  # which of two figures is the better one
    unit: str = ""  # of the figure, empty for a plain number
    digits: int = 4  # behind the point, for tables
    needs: frozenset[str] = frozenset({"gt"})  # what a sample must have beside `restored`: names of its fields
    per_image: bool = True  # whether an image has a figure of its own
    least: int = 1  # fewest images that give a figure
    least_sides: tuple[int, int] = (1, 1)  # in pixels within `crop_border`: shorter and longer side that it measures
    packages: tuple[str, ...] = ()  # modules that must be installed
    extra: str = ""  # of this package, which installs them
    files: tuple[WeightsFile, ...] = ()  # of network weights that it reads
    takes_data: bool = False  # whether it measures data that are no pictures
    about: Mapping[str, Any] = {}  # what else another needs to get the same figure, such as crop and colour space

    # Options that a metric has by making them fields of its own: pixels left out at every edge; where weights are
    crop_border: int = 0
    weights: str | None = None

    @cached_property
    def records(self) -> dict[int, Any]:
        """What is kept of each image, by its index; picklable."""
        return {}

    @cached_property
    def unmeasured(self) -> dict[int, tuple[float, str]]:
        """By their index, the images that do not count in the figure of the set: NaN or infinity, and why."""
        return {}

    def measure(self, sample: Sample) -> Any:
        """The figure of one image, or what is kept of it."""
        raise NotImplementedError

    def reduce(self, records: list[Any]) -> float:
        """The figure of the set from the records in the order of the images; the mean unless overridden."""
        return math.fsum(records) / len(records)

    def update(self, sample: Sample) -> float | None:
        """Take an image, or raises InputError if a part is missing or sizes differ; returns its figure, if any."""
        if sample.is_data and not self.takes_data:
            raise InputError(self.data_refusal(sample.name))
        for need in sorted(self.needs):
            if vars(sample)[need] is None:
                raise InputError(self.refusal(need, sample.name))
        if "gt" in self.needs and sample.gt is not None and sample.gt.shape != sample.restored.shape:
            raise InputError(
                f"{sample.name} is restored to {sample.restored.shape} but its ground truth has the shape "
                f"{sample.gt.shape} (height, width, channels); {self.title} compares equal sizes"
            )
        record = self.measure(sample)
        self.records[sample.index] = float(record) if self.per_image else record
        return self.records[sample.index] if self.per_image else None

    def refusal(self, need: str, where: str) -> str:
        """What to tell of a field of a sample that it needs, and ``where``, an image or a data set, does not have."""
        what, cure = _NEEDS[need]
        return f"{self.title} needs {what}, which {where} does not have; {cure}"

    def data_refusal(self, where: str) -> str:
        """What to tell where the images of ``where`` are data and it looks at pictures."""
        return f"{self.title} looks at pictures, but {where} holds data; {_OF_DATA}"

    def take(self, sample: Sample) -> float | None:
        """:meth:`update`, but an image that fails, in whatever way, or has no finite figure is left out and noted."""
        try:
            figure = self.update(sample)
            said = f"{sample.name}: {odd(figure)}"
        except Exception as error:  # functions of libraries fail as they like
            figure, said = math.nan, cause_of(error)
            said = said if isinstance(error, InputError) and sample.name in said else f"{sample.name}: {said}"
        if figure is None or math.isfinite(figure):
            return figure
        self.records.pop(sample.index, None)
        self.unmeasured[sample.index] = figure, said
        return figure

    def compute(self) -> float:
        """The figure of all images taken so far, or raises InputError if they are fewer than it needs."""
        if len(self.records) < self.least:
            raise InputError(
                f"{self.title} needs at least {self.least} image(s) but was given {len(self.records)}; "
                "add images or take it off the list of metrics"
            )
        return float(self.reduce([self.records[index] for index in sorted(self.records)]))

    def pair(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """The restored image and its ground truth, which it must have, as :meth:`cropped` leaves them."""
        assert sample.gt is not None
        return self.cropped(sample.restored, sample), self.cropped(sample.gt, sample)

    def cropped(self, image: np.ndarray, sample: Sample) -> np.ndarray:
        """``image`` without the option ``crop_border`` at every edge, or raises InputError if nothing is left."""
        border = self.crop_border
        if not 0 <= border < (min(image.shape[:2]) + 1) // 2:
            raise InputError(
                f"{self.title}.crop_border is {border}, but {sample.name} measures {image.shape[:2]} (height, width); "
                "set 0 or a smaller border"
            )
        return image[border : image.shape[0] - border, border : image.shape[1] - border]

    def notes(self) -> list[str]:
        """What a reader of the figure must know, such as too few images; after the images were taken."""
        return []

    def all_notes(self) -> list[str]:
        """:meth:`notes`, and of how many images the figure is where some have none."""
        reasons = [self.unmeasured[index][1] for index in sorted(self.unmeasured)]
        return [*self.notes(), *gaps(len(self.records), reasons)]

    @property
    def title(self) -> str:
        """Its registered name."""
        return next((name for name, cls in METRICS if cls is type(self)), type(self).__name__)

    def check(self) -> None:
        """Look for packages and files before anything is restored, or raises InputError that says how to get them."""
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                raise InputError(
                    f"{self.title} needs the package {package}, which is not installed: "
                    f"pip install 'basicsr-i2sb[{self.extra}]'"
                )
        for file in self.files:
            file.find(self.weights)

    def identity(self) -> dict[str, Any]:
        """What makes two metrics the same, whatever images they took: type, options, libraries, files of weights."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "weights"]  # type: ignore[arg-type]
        found = {"type": self.title, **{name: vars(self)[name] for name in names}, "better": self.better}
        parts = {
            "unit": self.unit,
            "library": [module_version(package) for package in self.packages],
            "weights": [file.identity(self.weights) for file in self.files],
        }
        return {**found, **{name: part for name, part in parts.items() if part}, **self.about}

    def provenance(self) -> dict[str, Any]:
        """Everything that another needs to get the same figure: :meth:`identity`, the images taken, and notes."""
        found = self.identity() | {"images": len(self.records)}
        return found | ({"notes": self.all_notes()} if self.all_notes() else {})

    @property
    def better(self) -> str:
        """Which figures are the better ones, ``higher`` or ``lower``, as BasicSR's option says it."""
        return "higher" if self.higher_is_better else "lower"


def gaps(measured: int, reasons: Sequence[str]) -> list[str]:
    """A line on how many images a figure is the mean of, and why not of the others; none where it is that of all."""
    if not reasons:
        return []
    return [f"the figure is that of {measured} of {measured + len(reasons)} image(s); without {listed(reasons)}"]


def odd(figure: float | None) -> str:
    """What to tell of a figure that is no number that counts."""
    return f"{figure}, as for equal images" if figure in (math.inf, -math.inf) else f"{figure}"


def cause_of(error: Exception) -> str:
    """The first line of an error's message; with its kind, where it is not ours."""
    line = next(iter(str(error).splitlines()), "")
    return line if isinstance(error, InputError) else f"{line} ({type(error).__name__})".lstrip()


_OF_DATA = "measure data by calculate_psnr, calculate_ssim and what a restoration costs"
_NEEDS = {  # field of a sample -> what it is, and what to do where there is none
    "gt": ("the ground truth", "give the data set `dataroot_gt` or take the metric off the list"),
    "lq": ("the input image", "measure where the inputs are at hand"),
    "operator": (
        "a degradation whose operator is known",
        "use a data set that degrades with a fixed, known operator or take the metric off the list",
    ),
    "draws": ("several draws of one image", "let `basicsr benchmark` restore with several seeds"),
    "cost": ("the cost of the restoration", "measure where the restoration itself runs"),
}


class MetricRegistry(Registry):
    """Metrics by name: ``@METRICS.register("name")`` above ``@dataclass``."""

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Give a class its ``name``, as :func:`.registries.claim`; raises TypeError if it is no Metric."""

        def add(cls: type[T]) -> type[T]:
            if not issubclass(cls, Metric):
                raise TypeError(f"metric '{name}': {cls.__name__} must be a Metric; derive it from Metric")
            registries.claim(self._obj_map, name, cls, "metric")
            if cls.per_image and cls.needs <= {"gt"}:
                METRIC_REGISTRY._obj_map.setdefault(name, _as_function(name, cls))
            return cls

        return add


def _as_function(name: str, cls: type) -> Callable[..., float]:
    """The metric of single images as BasicSR's registry holds them, for BasicSR's own models."""
    built: dict[str, Metric] = {}

    def calculate(img: np.ndarray, img2: np.ndarray | None = None, better: str | None = None, **options: Any) -> float:
        key = repr(sorted(options.items()))
        if key not in built:
            built[key] = read_block(cls, options, name)
        figure = built[key].update(Sample(0, "the image", img, gt=img2))
        assert figure is not None  # metrics of sets are not registered there
        return figure

    calculate.__module__, calculate.__name__, calculate.__doc__ = cls.__module__, name, cls.__doc__
    return calculate


METRICS = MetricRegistry("restoration_metric")


def metric_names() -> list[str]:
    """Every ``type`` that a metric may have: ours and those that BasicSR's registry holds."""
    return sorted({*METRICS.keys(), *registries.names(METRIC_REGISTRY)})
