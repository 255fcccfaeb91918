"""Tables of a benchmark, to the letter, and the curves."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from semivox.reporting.benchmark import comparison_rows, cost_rows, published_rows, score_rows
from semivox.reporting.curves import save_curves
from semivox.reporting.table import duration, latex_table, markdown_table


def settings(failures: int = 0) -> pd.DataFrame:
    start = {"preset": "p", "labeled": 8, "method": "ua_mt", "network": "", "sd_seeds": 0.0123, "seeds": 3}
    means = {"dice": 0.8764, "hd95_mm": 12.346, "hd95_mm_penalised": 15.5, "hd95_vox": 7.0}
    rows = []
    for metric, mean in [(name + suffix, mean) for suffix in ("", "_lcc") for name, mean in means.items()]:
        n = 18 if metric.removesuffix("_lcc") == "hd95_mm" else 20
        found = {"metric": metric, "mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": n}
        rows.append({**start, **found, "failures": failures})
    return pd.DataFrame(rows)


def test_scores() -> None:
    headings, rows = score_rows(settings())
    assert headings == [
        "labels", "method", "seeds", "result", "Dice", "Jaccard", "95HD (mm)", "ASD (mm)", "failed",
    ]  # fmt: skip
    assert rows[0] == [
        "8", "ua_mt", "3", "all voxels", "0.876 [0.776, 0.976] ± 0.012", "none",
        "12.35 [12.25, 12.45] ± 0.01 (n = 18)", "none", "0",
    ]  # fmt: skip
    assert rows[1][:4] == ["", "", "", "largest component"]


def test_failures_count_in_distances() -> None:
    _, rows = score_rows(settings(failures=2))
    assert rows[0][6] == "15.50* [15.40, 15.60] ± 0.01" and rows[0][8] == "2"


def test_one_seed_has_no_spread() -> None:
    table = settings()
    table["sd_seeds"] = math.nan
    assert score_rows(table)[1][0][4] == "0.876 [0.776, 0.976]"


def test_markdown_and_latex() -> None:
    headings, rows = ["a_b", "%"], [["[1, 2]", "x|y ± 1 < 2"]]
    assert markdown_table(headings, rows) == "| a_b | % |\n| --- | --- |\n| [1, 2] | x\\|y ± 1 < 2 |\n"
    lines = latex_table(headings, rows, "A & B").splitlines()
    assert lines[2:8] == [
        r"\caption{A \& B}",
        r"\begin{tabular}{ll}",
        r"\hline",
        r"a\_b & \% \\",
        r"\hline",
        r"{}[1, 2] & x|y $\pm$ 1 $<$ 2 \\",
    ]
    assert sum(line.count("{") - line.count("}") for line in lines) == 0


def test_comparisons() -> None:
    row = {
        "preset": "p", "labeled": 8, "method": "b", "reference": "a", "metric": "dice", "mean": 0.01,
        "low": -0.02, "high": 0.04, "n": 20, "seed_low": -0.01, "seed_high": 0.03,
    }  # fmt: skip
    table = pd.DataFrame(
        [{**row, "p": 0.0004, "p_holm": math.nan, "declared": True},
         {**row, "method": "c", "p": 0.02, "p_holm": 0.04, "declared": False}]
    )  # fmt: skip
    headings, rows = comparison_rows(table, declared=True)
    assert headings[-1] == "p (Wilcoxon)"
    assert rows == [
        ["p", "8", "b - a", "Dice", "+0.010 [-0.020, +0.040]", "-0.010 to +0.030", "20", "< 0.001"]
    ]
    headings, rows = comparison_rows(table, declared=False)
    assert headings[-1] == "p, Holm" and rows[0][2] == "c - a" and rows[0][-1] == "0.040"


def test_costs_are_means_over_runs() -> None:
    runs = pd.DataFrame(
        {"method": ["a", "a"], "parameters": [18_897_732] * 2, "macs": [40.1087e9] * 2,
         "parameters_predicting": [9_448_866] * 2, "macs_step": [80.2174e9] * 2, "macs_printed": [94.2e9] * 2,
         "iterations": [6000] * 2, "seconds_training": [600.0, 1200.0], "seconds_predicting": [30.0, 50.0]}
    )  # fmt: skip
    assert cost_rows(runs)[1] == [
        ["a", "9.45 M", "18.90 M", "40.11 G", "80.22 G", "94.20 G", "6000", "15.0 min", "40 s"]
    ]
    expected = {0: "0 s", 99: "99 s", 100: "1.7 min", 5999: "100.0 min", 7200: "2.0 h"}
    assert {value: duration(value) for value in expected} == expected


def test_published_beside_ours() -> None:
    row = {"method": "UA-MT", "name": "ua_mt", "labeled": 8, "unlabeled": 72}
    for name in ("dice_percent", "jaccard_percent", "hd95_voxel", "asd_voxel"):
        row |= {f"{name}_mean": 87.1, f"{name}_spread": 1.09}
    table = pd.DataFrame([row, {**row, "labeled": 16}])
    headings, rows = published_rows(table, settings())
    assert headings[:4] == ["method", "labeled", "unlabeled", "Dice, published"]
    assert rows[0] == ["UA-MT", "8", "72", *["87.10 ± 1.09"] * 4, "87.64", "", "7.00", ""]
    assert rows[1][-4:] == ["", "", "", ""]


@pytest.mark.parametrize("counts", [(4, 8), (8,)])
def test_curves_show_means_intervals_and_seeds(
    counts: tuple[int, ...], tmp_path: Path, drawn: list[Figure]
) -> None:
    pairs = [(count, method) for count in counts for method in "ab"]
    seeds = [{"labeled": n, "method": name, "dice": 0.6 + seed / 100} for n, name in pairs for seed in (0, 1)]
    rows = pd.DataFrame(pairs, columns=["labeled", "method"]).assign(metric="dice")
    rows["mean"] = rows["method"].map({"a": 0.6, "b": 0.7})
    rows["low"], rows["high"] = rows["mean"] - 0.05, rows["mean"] + 0.1
    save_curves(tmp_path / "dice.png", rows, pd.DataFrame(seeds))
    (axes,) = drawn[0].axes
    lines = [container.lines[0] for container in axes.containers]
    values = [line.get_ydata() if len(counts) > 1 else line.get_xdata() for line in lines]
    assert [list(value) for value in values] == [[0.6] * len(counts), [0.7] * len(counts)]
    bars = axes.containers[0].lines[2][0].get_segments()[0]
    ends = bars[:, 1] if len(counts) > 1 else bars[:, 0]
    assert sorted(ends) == pytest.approx([0.55, 0.7])
    assert sum(len(points.get_offsets()) for points in axes.collections if len(points.get_offsets()) > 1) >= 4
    assert (tmp_path / "dice.png").stat().st_size > 3000
