"""The stored figures of a study, and how sure a difference between two of its methods is."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from basicsr_ext.benchmark.report.statistics import bootstrap_mean
from basicsr_ext.common.errors import InputError

__all__ = ["RESAMPLES", "Difference", "Outcome", "Outcomes", "difference", "interval", "mean"]

RESAMPLES = 4000


@dataclass(frozen=True)
class Outcome:
    """One file of ``studies/quality/results``: a comparison for one task and seed."""

    comparison: str
    task: str
    seed: int
    content: Mapping[str, Any]

    @cached_property
    def methods(self) -> dict[str, Mapping[str, Any]]:
        """Those that worked, by name."""
        return {method["name"]: method for method in self.content["methods"] if method["status"] == "done"}

    @cached_property
    def datasets(self) -> list[str]:
        """Names of the data sets."""
        return list(dict.fromkeys(result["dataset"] for result in self.content["results"]))

    @cached_property
    def metrics(self) -> dict[str, bool]:
        """Names of the metrics, and whether higher is better."""
        return {metric["name"]: metric["higher_is_better"] for metric in self.content["metrics"]}

    @cached_property
    def groups(self) -> list[str]:
        """Methods, those that differ in NFE alone once."""
        return list(dict.fromkeys(method["group"] or name for name, method in self.methods.items()))

    def curve(self, group: str) -> dict[int | None, str]:
        """NFE -> name of the method, for a group or a method that stands alone."""
        found = {m["nfe"]: name for name, m in self.methods.items() if group == (m["group"] or name)}
        return dict(sorted(found.items(), key=lambda pair: pair[0] or 0))

    @cached_property
    def _results(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        return {(result["method"], result["dataset"]): result for result in self.content["results"]}

    def value(self, metric: str, method: str, dataset: str) -> float | None:
        """The figure of a method on a data set; None where there is none."""
        result = self._results.get((method, dataset))
        return result["summary"].get(metric, {}).get("value") if result else None

    def images(self, metric: str, method: str, dataset: str) -> np.ndarray | None:
        """The figure of each image, NaN where it has none; None for a metric of sets."""
        result = self._results.get((method, dataset))
        values = result["images"].get(metric) if result else None
        return None if values is None else np.array([np.nan if v is None else v for v in values], float)


class Outcomes:
    """Every file of a folder; ``tasks`` in their order.

    Raises:
        InputError: a file is not one of a study.

    """

    def __init__(self, folder: str | Path, tasks: Iterable[str] = ()) -> None:
        self.all: list[Outcome] = []
        for path in sorted(Path(folder).glob("*-*-*.json")):
            try:
                content = json.loads(path.read_text())
                comparison, task, seed = content["unit"].split("-")
                self.all.append(Outcome(comparison, task, int(seed), content))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path} is no result of `python -m studies.quality.study`: {error}; remove it"
                ) from None

        order = {task: place for place, task in enumerate(tasks)}
        self.all.sort(key=lambda one: order.get(one.task, len(order)))

    def of(self, comparison: str, task: str | None = None) -> list[Outcome]:
        """Those of a comparison, and of a task if it is given, by seed."""
        found = [one for one in self.all if one.comparison == comparison and task in (None, one.task)]
        return sorted(found, key=lambda one: one.seed)


class Difference(NamedTuple):
    """Mean of a - b and its 95 % interval; without ``decided`` the interval is the spread over seeds, or None."""

    value: float
    low: float | None
    high: float | None
    intervals: bool

    @property
    def decided(self) -> int:
        """1 or -1: the sign, where the interval is off zero; 0 otherwise."""
        if not self.intervals or self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def mean(outcomes: Sequence[Outcome], metric: str, group: str, nfe: int | None, dataset: str) -> float | None:
    """Mean over seeds of a figure; None where no seed has it."""
    values = [one.value(metric, one.curve(group).get(nfe, ""), dataset) for one in outcomes]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def difference(
    outcomes: Sequence[Outcome], metric: str, dataset: str, a: tuple[str, int | None], b: tuple[str, int | None]
) -> Difference | None:
    """Compare two methods, each a group and an NFE, on the same images and seeds: a - b.

    The interval is over photographs, and over seeds where there are two or more (:func:`interval`). A metric of sets
    has no figure of an image; there it is the least and the most over the seeds.

    Returns:
        None where either has no figures.

    """
    pairs = [(one, one.curve(a[0]).get(a[1], ""), one.curve(b[0]).get(b[1], "")) for one in outcomes]
    rows = [(one.images(metric, x, dataset), one.images(metric, y, dataset)) for one, x, y in pairs]
    matrix = np.array([x - y for x, y in rows if x is not None and y is not None and x.shape == y.shape])
    if len(matrix):
        matrix = _by_photograph(matrix, _pieces(outcomes, dataset))
        return Difference(*interval(matrix), True) if matrix.size else None
    ends = [(one.value(metric, x, dataset), one.value(metric, y, dataset)) for one, x, y in pairs]
    values = [x - y for x, y in ends if x is not None and y is not None]
    if not values:
        return None
    low, high = (min(values), max(values)) if len(values) > 1 else (None, None)
    return Difference(float(np.mean(values)), low, high, False)


def _pieces(outcomes: Sequence[Outcome], dataset: str) -> int:
    """Images of a data set that are cut from one photograph, and follow each other."""
    return outcomes[0].content.get("crops of a photograph", 1) if dataset == "crops" else 1


def _by_photograph(values: np.ndarray, pieces: int) -> np.ndarray:
    """Means (seeds, photographs) of values (seeds, images); a photograph with a figure that is not finite is left out.

    Crops of one photograph are alike, so photographs are what an interval is over.
    """
    means = values.reshape(len(values), -1, pieces).mean(axis=2)
    return means[:, np.isfinite(means).all(axis=0)]


def interval(values: np.ndarray) -> tuple[float, float | None, float | None]:
    """Mean of ``values`` (seeds, photographs) and its 95 % interval.

    One seed: the percentile bootstrap over photographs, as in :mod:`basicsr_ext.benchmark.report.statistics`.
    Several: seeds and photographs both vary, and every network restored the same photographs, so the mean's variance is
    (M_s + M_p - M_r) / n, from the mean squares of a two-way layout (seeds, photographs, the rest), and the interval is
    Student's t with Satterthwaite's degrees of freedom (Biometrics 2, 1946): three seeds tell little of how seeds vary,
    and a bootstrap over them would be too sure.
    """
    if len(values) == 1 or values.shape[1] == 1:
        return tuple(bootstrap_mean(values.mean(axis=0), RESAMPLES, 0))
    whole, seeds, images = values.mean(), values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    parts = (seeds - whole, images - whole, values - seeds - images + whole)
    freedom = np.array([len(values) - 1, values.shape[1] - 1, (len(values) - 1) * (values.shape[1] - 1)])
    squares = np.array([(np.broadcast_to(part, values.shape) ** 2).sum() for part in parts]) / freedom
    variance = max(squares[0] + squares[1] - squares[2], squares[0], squares[1])
    if variance == 0:
        return float(whole), float(whole), float(whole)
    degrees = max(variance**2 / (squares**2 / freedom).sum(), freedom.min())
    half = stats.t.ppf(0.975, degrees) * (variance / values.size) ** 0.5
    return float(whole), float(whole - half), float(whole + half)
