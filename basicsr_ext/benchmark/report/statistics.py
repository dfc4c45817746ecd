"""How sure a mean over images is, and whether one method really differs from another on the same images."""

from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean with its 95 % interval; None where one image tells nothing of the spread."""

    value: float
    low: float | None
    high: float | None


class Paired(NamedTuple):
    """Mean of the differences of pairs, its 95 % interval, and the p-value of Wilcoxon's signed-rank test."""

    difference: float
    low: float | None
    high: float | None
    p: float | None


def bootstrap_mean(values: np.ndarray, resamples: int, seed: int) -> Interval:
    """Mean of n finite ``values`` (one of each image) and the percentile bootstrap's 95 % interval (Efron, 1979).

    A ``seed`` gives the same draws of images for the same n, so that methods are compared on the same resamples.
    """
    mean = float(np.mean(values))
    if (n := len(values)) < 2:
        return Interval(mean, None, None)
    generator, rows = np.random.default_rng(seed), max(1, 2**18 // n)  # at once
    means = [values[generator.integers(0, n, (min(rows, resamples - k), n))].mean(1) for k in range(0, resamples, rows)]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return Interval(mean, float(low), float(high))


def paired(values: np.ndarray, baseline: np.ndarray, resamples: int, seed: int) -> Paired:
    """Compare two methods on the same images: ``values`` - ``baseline``, both n finite numbers.

    The p-value is two-sided, and exact for few images: with n of them it cannot fall below 2 / 2^n. It is None for
    one image, and 1 where no pair differs.
    """
    difference = values - baseline
    p = None
    if len(difference) > 1:
        p = 1.0 if not difference.any() else float(stats.wilcoxon(difference).pvalue)
    return Paired(*bootstrap_mean(difference, resamples, seed), p)
