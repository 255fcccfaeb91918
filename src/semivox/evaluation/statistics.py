"""Means with confidence intervals over cases, and paired comparisons of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

if TYPE_CHECKING:
    Column = pd.Series[Any] | Mapping[str, float]

_CHUNK = 4_000_000  # resampled values in memory at a time


class Interval(NamedTuple):
    """A mean of `n` finite values and its confidence interval; NaN where there are too few values."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap_mean(values: ArrayLike, confidence: float = 0.95, n: int = 10_000, seed: int = 0) -> Interval:
    """Compute the mean of the finite `values` with a bootstrap interval, bias-corrected, accelerated (BCa).

    One value has a mean without interval, none has neither.
    Efron, Better Bootstrap Confidence Intervals, JASA 1987.

    Args:
        values: one value a case; NaN is left out.
        confidence: coverage of the interval.
        n: resamples.
        seed: the same seed gives the same interval.
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    return _intervals(array[np.isfinite(array)][:, None], confidence, n, seed)[0]


def bootstrap_means(
    table: pd.DataFrame, confidence: float = 0.95, n: int = 10_000, seed: int = 0
) -> dict[str, Interval]:
    """Compute `bootstrap_mean` of each column of a table with one row a case.

    Columns that are finite in the same cases share resamples.
    """
    values, result = table.to_numpy(dtype=np.float64), dict[int, Interval]()
    finite = np.isfinite(values)
    for pattern in np.unique(finite, axis=1).T:
        columns = np.flatnonzero((finite == pattern[:, None]).all(axis=0)).tolist()
        found = _intervals(values[np.ix_(pattern, columns)], confidence, n, seed)
        result |= dict(zip(columns, found, strict=True))
    return {str(name): result[column] for column, name in enumerate(table.columns)}


def paired_difference(a: Column, b: Column) -> Interval:
    """Compute `bootstrap_mean` of `a - b`, values by case, over the cases that are finite in both."""
    return bootstrap_mean(_differences(a, b))


def wilcoxon_p(a: Column, b: Column) -> float:
    """Compute the two-sided p of the Wilcoxon signed-rank test on common cases; 1 if all are equal."""
    from scipy.stats import wilcoxon

    differences = _differences(a, b)
    if not differences.size:
        return float("nan")
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def holm(pvalues: Sequence[float]) -> list[float]:
    """Correct p values step by step, in the given order; NaN stays NaN and does not count as a comparison.

    Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Statist. 1979.
    """
    p = np.asarray(pvalues, dtype=np.float64)
    corrected = np.full(p.shape, np.nan)
    order = np.argsort(p)[: np.count_nonzero(np.isfinite(p))]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return [float(value) for value in corrected]


def _differences(a: Column, b: Column) -> NDArray[np.float64]:
    first, second = (pd.Series(dict(column), dtype=np.float64) for column in (a, b))
    return np.asarray((first - second).dropna(), dtype=np.float64)


def _intervals(values: NDArray[np.float64], confidence: float, n: int, seed: int) -> list[Interval]:
    """BCa intervals of the mean of each column of finite `values` (cases, columns)."""
    cases, columns = values.shape
    if cases < 2:
        means = values[0] if cases else np.full(columns, np.nan)
        return [Interval(float(mean), float("nan"), float("nan"), cases) for mean in means]
    resampled = _resampled_means(values, n, seed)
    return [
        Interval(float(column.mean()), *_bca(column, resampled[:, index], confidence), cases)
        for index, column in enumerate(values.T)
    ]


def _resampled_means(values: NDArray[np.float64], n: int, seed: int) -> NDArray[np.float64]:
    """Means (n, columns) of cases drawn with replacement."""
    cases = len(values)
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // cases)
    means = []
    for start in range(0, n, step):
        rows = min(step, n - start)
        drawn = rng.integers(0, cases, size=(rows, cases)) + cases * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * cases).reshape(rows, cases)
        means.append(weights @ values / cases)
    return np.concatenate(means)


def _bca(
    values: NDArray[np.float64], resampled: NDArray[np.float64], confidence: float
) -> tuple[float, float]:
    mean, deviations = values.mean(), values.mean() - values
    spread = np.sqrt((deviations**2).sum())
    rounding = 1e-12 * (abs(mean) + spread)
    if spread <= rounding:
        return float(mean), float(mean)
    below = (np.mean(resampled < mean - rounding) + np.mean(resampled <= mean + rounding)) / 2
    bias = ndtri(np.clip(below, 1 / (len(resampled) + 1), 1 - 1 / (len(resampled) + 1)))
    acceleration = -(deviations**3).sum() / (6 * spread**3)
    tails = bias + ndtri([(1 - confidence) / 2, (1 + confidence) / 2])
    levels = ndtr(bias + tails / (1 - acceleration * tails))
    low, high = np.quantile(resampled, levels)
    return float(low), float(high)
