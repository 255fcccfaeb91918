"""Means with confidence intervals over cases, and paired comparisons of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from semivox.evaluation.metrics import COUNTS, FAILURES

if TYPE_CHECKING:
    Column = pd.Series[Any] | Mapping[str, float]

MEAN_ROW = "mean"  # the row of `summarise` over all foreground classes
_NOT_METRICS = ("case", "class", "value", "status", "profile", "zeroed", *COUNTS)
_CHUNK = 4_000_000  # resampled values in memory at a time


class Interval(NamedTuple):
    """A mean of `n` finite values and its confidence interval; NaN where there are too few values."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap_mean(values: ArrayLike, confidence: float = 0.95, n: int = 10_000, seed: int = 0) -> Interval:
    """Mean of the finite `values` with a bootstrap interval, bias-corrected and accelerated (BCa).

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
    """`bootstrap_mean` of each column of a table with one row a case."""
    intervals = _column_intervals(table.to_numpy(dtype=np.float64), confidence, n, seed)
    return dict(zip(map(str, table.columns), intervals, strict=True))


def paired_difference(
    a: Column, b: Column, confidence: float = 0.95, n: int = 10_000, seed: int = 0
) -> Interval:
    """Mean of `a - b` over the cases that are in both and finite in both, with a bootstrap interval.

    Args:
        a: value of each case: a Series indexed by case, or a mapping.
        b: the same of the other method.
        confidence: as for `bootstrap_mean`.
        n: as for `bootstrap_mean`.
        seed: as for `bootstrap_mean`.
    """
    return bootstrap_mean(_differences(a, b), confidence, n, seed)


def wilcoxon_p(a: Column, b: Column) -> float:
    """Two-sided p of the Wilcoxon signed-rank test on common cases; 1 if all are equal, NaN without cases."""
    from scipy.stats import wilcoxon

    differences = _differences(a, b)
    if not differences.size:
        return float("nan")
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def holm(pvalues: Sequence[float]) -> list[float]:
    """Step-down corrected p values, in the given order; NaN stays NaN and does not count as a comparison.

    Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Statist. 1979.
    """
    p = np.asarray(pvalues, dtype=np.float64)
    corrected = np.full(p.shape, np.nan)
    order = np.argsort(p)[: np.count_nonzero(np.isfinite(p))]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return [float(value) for value in corrected]


def metric_names(table: pd.DataFrame) -> list[str]:
    """Columns of a table of cases that are scores or volumes."""
    return [name for name in table.columns if name not in _NOT_METRICS]


def summarise(table: pd.DataFrame, confidence: float = 0.95, n: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Mean, interval, number of values and of failures, for each class and metric of a table of cases.

    The last rows, of class `mean`, average each case over its foreground classes, not over regions, first,
    then over the cases.

    Args:
        table: one row a case and class, as `evaluate_folder` returns it.
        confidence: as for `bootstrap_mean`.
        n: as for `bootstrap_mean`.
        seed: as for `bootstrap_mean`.

    Returns:
        Columns class, metric, mean, low, high, n, failures; `failures` counts rows missed, false alarms
        and without prediction: 0 in overlaps, left out of distances, the image diagonal in `*_penalised`.
    """
    metrics = metric_names(table)
    blocks = [
        (str(name), rows[metrics], _failures(rows)) for name, rows in table.groupby("class", sort=False)
    ]
    classes = class_rows(table)
    blocks.append((MEAN_ROW, classes.groupby("case", sort=False)[metrics].mean(), _failures(classes)))
    rows = []
    for name, block, failures in blocks:
        intervals = _column_intervals(block.to_numpy(dtype=np.float64), confidence, n, seed)
        rows += [
            {"class": name, "metric": metric, **interval._asdict(), "failures": failures}
            for metric, interval in zip(metrics, intervals, strict=True)
        ]
    return pd.DataFrame(rows, columns=["class", "metric", *Interval._fields, "failures"])


def class_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of classes in a table of cases, without those of regions, whose `value` is like "(1, 2)"."""
    if "value" not in table:
        return table
    return table[~table["value"].astype(str).str.startswith("(")]


def _failures(rows: pd.DataFrame) -> int:
    return int(rows["status"].isin(FAILURES).sum())


def _differences(a: Column, b: Column) -> NDArray[np.float64]:
    first, second = (pd.Series(dict(column), dtype=np.float64) for column in (a, b))
    return np.asarray((first - second).dropna(), dtype=np.float64)


def _column_intervals(values: NDArray[np.float64], confidence: float, n: int, seed: int) -> list[Interval]:
    """Intervals of the columns; those with NaN in the same rows share their resamples."""
    finite = np.isfinite(values)
    result: list[Interval | None] = [None] * values.shape[1]
    for pattern in np.unique(finite, axis=1).T:
        columns = np.flatnonzero((finite == pattern[:, None]).all(axis=0))
        found = _intervals(values[np.ix_(pattern, columns)], confidence, n, seed)
        for column, interval in zip(columns, found, strict=True):
            result[column] = interval
    return [interval for interval in result if interval is not None]


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
