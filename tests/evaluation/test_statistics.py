"""Intervals against a naive loop, scipy and known coverage; paired tests; the summary of a table."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from semivox.evaluation.statistics import bootstrap_mean, holm, paired_difference, wilcoxon_p
from semivox.evaluation.summary import summarise

DICE = np.array([0.9104, 0.8797, 0.9312, 0.4203, 0.9018, 0.8669, 0.9533, 0.8921, 0.9257, 0.7841])


def naive_bca(values: np.ndarray, confidence: float, n: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    means = sorted(
        float(np.mean([values[i] for i in rng.integers(0, len(values), len(values))])) for _ in range(n)
    )
    mean = float(np.mean(values))
    normal = stats.norm()
    ties = [math.isclose(m, mean) for m in means]
    below = sum(0.5 if tie else float(m < mean) for m, tie in zip(means, ties, strict=True))
    bias = normal.ppf(below / n)
    leave_one_out = [np.mean(np.delete(values, i)) for i in range(len(values))]
    centred = [np.mean(leave_one_out) - one for one in leave_one_out]
    acceleration = sum(d**3 for d in centred) / (6 * sum(d**2 for d in centred) ** 1.5)
    levels = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + normal.ppf(tail)
        levels.append(normal.cdf(bias + z / (1 - acceleration * z)))
    return tuple(np.quantile(means, levels))


def test_bootstrap_equals_a_naive_loop() -> None:
    interval = bootstrap_mean(DICE, 0.9, n=2000, seed=3)
    low, high = naive_bca(DICE, 0.9, 2000, 3)
    assert interval.mean == pytest.approx(DICE.mean())
    assert interval.n == 10
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-9)
    assert bootstrap_mean(DICE, seed=1) == bootstrap_mean(DICE, seed=1) != bootstrap_mean(DICE, seed=2)


def test_bootstrap_agrees_with_scipy() -> None:
    interval = bootstrap_mean(DICE, n=20_000, seed=0)
    options = {"n_resamples": 20_000, "method": "BCa", "random_state": np.random.default_rng(0)}
    theirs = stats.bootstrap((DICE,), np.mean, **options).confidence_interval
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=1e-3)
    assert interval.mean - interval.low > 2 * (interval.high - interval.mean)  # the outlier below is felt


def test_bootstrap_covers_the_true_mean() -> None:
    rng = np.random.default_rng(0)
    intervals = [bootstrap_mean(rng.normal(5, 2, 30), n=1000, seed=i) for i in range(300)]
    covered = np.mean([interval.low <= 5 <= interval.high for interval in intervals])
    assert 0.90 <= covered <= 0.98


def test_bootstrap_of_few_values() -> None:
    assert bootstrap_mean([]).n == 0
    assert all(math.isnan(value) for value in bootstrap_mean([math.nan])[:3])
    single = bootstrap_mean([0.5, math.nan])
    assert (single.mean, single.n) == (0.5, 1)
    assert math.isnan(single.low) and math.isnan(single.high)
    assert bootstrap_mean([0.1] * 3)[:3] == pytest.approx((0.1, 0.1, 0.1))
    assert bootstrap_mean([1, 3])[:3] == (2, 1, 3)


def test_paired_difference_uses_common_cases() -> None:
    a = pd.Series({"p": 0.9, "q": 0.8, "r": math.nan, "s": 0.7, "only": 0.1})
    b = {"s": 0.6, "q": 0.6, "p": 0.8, "r": 0.5}
    interval = paired_difference(a, b)
    assert interval.n == 3
    assert interval.mean == pytest.approx((0.1 + 0.2 + 0.1) / 3)
    assert 0.1 - 1e-9 <= interval.low <= interval.mean <= interval.high <= 0.2 + 1e-9


def test_wilcoxon() -> None:
    a, b = (dict(enumerate(values)) for values in (DICE, DICE - np.linspace(0.01, 0.1, 10)))
    assert wilcoxon_p(a, b) == pytest.approx(2 / 2**10)  # all ten signs equal
    assert wilcoxon_p(a, a) == 1
    assert math.isnan(wilcoxon_p({}, {}))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    corrected = holm([0.02, math.nan, 0.03])
    assert corrected[0::2] == pytest.approx([0.04, 0.04])
    assert math.isnan(corrected[1])
    assert holm([]) == []


def table() -> pd.DataFrame:
    nan = math.nan
    rows = [
        ("a", "left", "ok", 0.8, 1.0), ("a", "right", "missed", 0.0, nan), ("b", "left", "ok", 0.6, 3.0),
        ("b", "right", "absent", nan, nan), ("c", "left", "ok", 0.7, 2.0), ("c", "right", "ok", 0.5, 4.0),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["case", "class", "status", "dice", "asd_mm"])


def test_summary_by_hand() -> None:
    summary = summarise(table()).set_index(["class", "metric"])
    assert list(summary.columns) == ["mean", "low", "high", "n", "failures"]
    left, right = summary.loc[("left", "dice")], summary.loc[("right", "dice")]
    assert (left["mean"], left["n"], left["failures"]) == (pytest.approx(0.7), 3, 0)
    assert (right["mean"], right["n"], right["failures"]) == (pytest.approx(0.25), 2, 1)
    distance = summary.loc[("right", "asd_mm")]
    assert (distance["mean"], distance["n"]) == (4.0, 1)
    assert math.isnan(distance["low"])
    # Over classes first: a (0.8 + 0) / 2, b 0.6 (one class is absent), c (0.7 + 0.5) / 2.
    overall = summary.loc[("mean", "dice")]
    assert overall["mean"] == pytest.approx((0.4 + 0.6 + 0.6) / 3)
    assert (overall["n"], overall["failures"]) == (3, 1)
    assert summary.loc[("mean", "asd_mm"), "mean"] == pytest.approx((1 + 3 + 3) / 3)


def test_summary_intervals_are_those_of_the_columns() -> None:
    summary = summarise(table(), n=500, seed=4).set_index(["class", "metric"])
    for name in ("left", "right"):
        for metric in ("dice", "asd_mm"):
            alone = bootstrap_mean(table().query("`class` == @name")[metric], n=500, seed=4)
            assert tuple(summary.loc[(name, metric)][:4]) == pytest.approx(tuple(alone), nan_ok=True)
