"""Tables of many runs, against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from semivox.benchmark.published import TABLES, published
from semivox.benchmark.scores import Pair, case_table, comparison_table, run_table, setting_table
from semivox.evaluation.statistics import bootstrap_mean, paired_difference
from semivox.reporting.benchmark import score_rows


def run(
    method: str, seed: int, values: dict[str, tuple[float, float]], labeled: int = 8, network: str = ""
) -> pd.DataFrame:
    """Two classes, `left` and `right`, with the given Dice."""
    rows = [
        {
            "case": case, "class": name, "value": "1", "status": "missed" if dice == 0 else "ok",
            "profile": "semivox", "dice": dice, "dice_lcc": dice / 2,
            "hd95_mm": math.nan if dice == 0 else 10 * dice,
        }
        for case, pair in values.items()
        for name, dice in zip(("left", "right"), pair, strict=True)
    ]  # fmt: skip
    facts = {} if network else {"seconds_training": 60.0 + seed}
    setting = {"preset": "p", "labeled": labeled, "method": method, "network": network}
    return case_table(pd.DataFrame(rows), **setting, seed=seed, **facts)


EACH = [
    run("dual", 0, {"a": (0.8, 0.6), "b": (0.9, 0.7), "c": (0.5, 0.0)}),
    run("dual", 1, {"a": (0.6, 0.4), "b": (0.9, 0.9), "c": (0.7, 0.3)}),
    run("supervised", 0, {"a": (0.5, 0.5), "b": (0.6, 0.6), "c": (0.4, 0.4)}),
]
RUNS = pd.concat(EACH)


def test_one_row_a_run() -> None:
    table = run_table(RUNS)
    assert list(table["dice"]) == pytest.approx([(0.7 + 0.8 + 0.25) / 3, (0.5 + 0.9 + 0.5) / 3, 0.5])
    assert list(table["failures"]) == [1, 0, 0]
    assert list(table["cases"]) == [3, 3, 3]
    assert list(table["seconds_training"]) == [60, 61, 60]


def test_cases_are_averaged_over_classes_and_seeds_and_seeds_have_a_spread() -> None:
    table = setting_table(RUNS).set_index(["method", "metric"])
    row = table.loc[("dual", "dice")]
    cases = [(0.7 + 0.5) / 2, (0.8 + 0.9) / 2, (0.25 + 0.5) / 2]
    expected = bootstrap_mean(cases)
    assert (row["mean"], row["low"], row["high"], row["n"]) == pytest.approx(tuple(expected))
    seeds = [1.75 / 3, 1.9 / 3]
    assert row["sd_seeds"] == pytest.approx(abs(seeds[0] - seeds[1]) / math.sqrt(2))
    assert (row["seeds"], row["failures"]) == (2, 1)
    assert table.loc[("dual", "dice_lcc"), "mean"] == pytest.approx(np.mean(cases) / 2)
    assert table.loc[("dual", "hd95_mm"), "mean"] == pytest.approx((6 + 8.5 + 5) / 3)
    assert math.isnan(table.loc[("supervised", "dice"), "sd_seeds"])


def test_networks_alone_have_rows_but_no_comparisons() -> None:
    values = {"a": (0.1, 0.2), "b": (0.3, 0.3), "c": (0.4, 0.4)}
    both = pd.concat([RUNS, *(run("dual", seed, values, network="vnet") for seed in (0, 1))])
    table = setting_table(both).set_index(["method", "network", "metric"])
    assert table.loc[("dual", "vnet", "dice"), "mean"] == pytest.approx((0.15 + 0.3 + 0.4) / 3)
    assert table.loc[("dual", "", "dice"), "mean"] == pytest.approx((0.6 + 0.85 + 0.375) / 3)
    _, rows = score_rows(table.reset_index())
    assert [row[1] for row in rows if row[1]] == ["dual", "supervised", "dual, vnet alone"]
    plain = comparison_table(RUNS, "supervised")
    pd.testing.assert_frame_equal(comparison_table(both, "supervised"), plain)


def naive_holm(pvalues: list[float]) -> list[float]:
    corrected = []
    for p in pvalues:
        smaller = [(len(pvalues) - sum(r < q for r in pvalues)) * q for q in pvalues if q <= p]
        corrected.append(min(1.0, max(smaller)))
    return corrected


def many() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    base = {f"case{i}": rng.uniform(0.3, 0.6) for i in range(12)}

    def of(method: str, gain: float, labeled: int) -> pd.DataFrame:
        values = {case: (value + gain + rng.normal(0, 0.05),) * 2 for case, value in base.items()}
        return run(method, 0, values, labeled)

    gains = {"first": 0.0, "second": 0.1, "third": 0.03}
    return pd.concat([of(method, gain, labeled) for labeled in (4, 8) for method, gain in gains.items()])


def test_the_declared_comparison_is_not_corrected_and_all_others_are_together() -> None:
    runs = many()
    declared = Pair("p", 8, "second", "first")
    table = comparison_table(runs, "first", declared)
    assert list(table["declared"]) == [True, False, False, False]
    assert list(zip(table["method"], table["labeled"], strict=True)) == [
        ("second", 8), ("second", 4), ("third", 4), ("third", 8),
    ]  # fmt: skip
    values = runs.set_index("case").groupby(["method", "labeled"])["dice"].get_group
    for row in table.to_dict("records"):
        a, b = values((row["method"], row["labeled"])), values(("first", row["labeled"]))
        assert row["p"] == pytest.approx(wilcoxon(a - b).pvalue)
        assert (row["mean"], row["low"], row["high"]) == pytest.approx(tuple(paired_difference(a, b))[:3])
    assert math.isnan(table["p_holm"][0])
    assert list(table["p_holm"][1:]) == pytest.approx(naive_holm(list(table["p"][1:])))


def test_differences_of_runs_with_the_same_seed() -> None:
    again = run("supervised", 1, {"a": (0.9, 0.9), "b": (0.6, 0.6), "c": (0.6, 0.6)})
    (row,) = comparison_table(pd.concat([RUNS, again]), "supervised").to_dict("records")
    assert (row["seed_low"], row["seed_high"]) == pytest.approx((1.9 / 3 - 0.7, 1.75 / 3 - 0.5))
    (row,) = comparison_table(pd.concat(EACH[1:]), "supervised").to_dict("records")
    assert math.isnan(row["seed_low"])


def test_without_a_declaration_every_comparison_is_corrected() -> None:
    table = comparison_table(many(), "first")
    assert not table["declared"].any()
    assert list(table["p_holm"]) == pytest.approx(naive_holm(list(table["p"])))


def test_comparisons_wait_for_their_runs() -> None:
    declared = Pair("p", 8, "dual", "supervised")
    assert comparison_table(pd.concat(EACH[:2]), "supervised", declared).empty
    assert len(comparison_table(RUNS, "supervised", declared)) == 1


@pytest.mark.parametrize(("dataset", "rows"), [("la", 25), ("pancreas", 25), ("brats", 19)])
def test_published_comparison(dataset: str, rows: int) -> None:
    table = published(dataset)
    assert len(table) == rows
    assert set(table["name"]) <= {
        "supervised", "ua_mt", "sassnet", "dtc", "mc_net", "mc_net_plus", "ss_net", "mcf", "bcp", "luseg",
        "ml_rpl", "urpc", "cpcl", "ac_mt", "dual",
    }  # fmt: skip
    assert table["dice_percent_mean"].between(50, 100).all()


def test_published_figures_as_printed() -> None:
    table = published("la").set_index(["name", "labeled"])
    assert table.loc[("dual", 8), "dice_percent_mean"] == 89.95
    assert table.loc[("bcp", 16), "hd95_voxel_mean"] == 4.97
    assert table.loc[("dual", 8), "params_M"] == 27.3
    lengths = {name: len(published("brats", name)) for name in TABLES if name != "comparison"}
    assert lengths == {"modules": 8, "distance": 8, "contrast": 4, "percentile": 9}
