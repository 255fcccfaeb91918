"""Published figures beside ours: cells of tables, and the charts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from semivox.reporting.benchmark import paper_score_rows, paper_size_rows
from semivox.reporting.curves import save_methods, save_sensitivity

LINE: dict[str, Any] = {
    "dataset": "LA", "family": "la", "row": "ua_mt", "network": "", "share": 0.1, "labels": 8.0, "seeds": 3.0,
    "failures": 2.0, "is_reference": False, "params_M": 18.88, "macs_G": 94.80,
}  # fmt: skip
for name, ours in (("dice", 88.0), ("jaccard", 78.5), ("hd95_vox", 12.0), ("asd_vox", math.nan)):
    LINE |= {f"{name}_published": 87.10, f"{name}_spread": 1.09}
    LINE |= {f"{name}_mean": ours, f"{name}_low": ours - 1, f"{name}_high": ours + 1, f"{name}_n": 20}
LINE["hd95_vox_n"] = 18
SIZE = {
    "macs": 40.1087e9, "macs_step": 80.2174e9, "macs_printed": 94.2e9, "parameters": 18_897_732,
    "parameters_predicting": 9_448_866,
}  # fmt: skip


def test_scores_beside_the_published_ones() -> None:
    unprinted = {key: math.nan for key in LINE if key.endswith(("published", "spread"))}
    alone = {**LINE, "network": "a", **unprinted}
    open_row = {"dataset": "LA", "row": "row 4", "share": 0.1, "dice_published": 88.37, "dice_spread": 1.23}
    headings, rows = paper_score_rows(pd.DataFrame([LINE, alone, open_row]))
    assert headings[:5] == ["labels", "here", "method", "Dice (%), paper", "Dice (%), here"]
    assert rows[0] == [
        "10%", "8", "ua_mt", "87.10 ± 1.09", "88.00 [87.00, 89.00]", "87.10 ± 1.09", "78.50 [77.50, 79.50]",
        "87.10 ± 1.09", "12.00 [11.00, 13.00] (n = 18)", "87.10 ± 1.09", "none", "3", "2",
    ]  # fmt: skip
    assert rows[1][2:5] == ["ua_mt, a alone", "", "88.00 [87.00, 89.00]"]
    assert rows[2][:5] == ["10%", "", "row 4", "88.37 ± 1.23", ""] and rows[2][-2:] == ["", ""]


def test_sizes_in_both_conventions() -> None:
    headings, rows = paper_size_rows(pd.DataFrame([{**LINE, **SIZE}, {**LINE, "row": "unknown"}]))
    assert headings[:3] == ["method", "parameters, paper", "MACs, paper"]
    assert rows == [["ua_mt", "18.88 M", "94.80 G", "9.45 M", "18.90 M", "40.11 G", "80.22 G", "94.20 G"]]


def written(path: Path) -> bool:
    return [path.with_suffix(end).read_bytes()[:4] for end in (".png", ".pdf")] == [b"\x89PNG", b"%PDF"]


def test_methods_over_data_sets(tmp_path: Path, drawn: list[Figure]) -> None:
    lines = pd.DataFrame([LINE, {**LINE, "dataset": "Pancreas", "dice_mean": math.nan}])
    save_methods(tmp_path / "figure1", lines, "methods")
    assert written(tmp_path / "figure1")
    first, second = drawn[0].axes
    assert {float(line.get_xdata()[0]) for line in first.lines if len(line.get_xdata()) == 1} >= {87.1, 88}
    assert [float(line.get_xdata()[0]) for line in second.lines] == [87.10], "nothing of ours to show"


def test_curves_against_options(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = [
        {**LINE, "row": f"{option} = {value}", "dice_mean": 80 + value, "is_reference": value == 0.6}
        for option in ("tau", "beta") for value in (0.6, 0.4, 0.5)
    ]  # fmt: skip
    save_sensitivity(tmp_path / "figure8", pd.DataFrame([*rows, {**LINE, "row": "row 4"}]), "options")
    assert written(tmp_path / "figure8")
    panels = drawn[0].axes
    assert len(panels) == 4 * 2 and [panel.get_xlabel() for panel in panels[-2:]] == ["tau", "beta"]
    curve, mark = panels[0].lines
    assert list(curve.get_xdata()) == [0.4, 0.5, 0.6] and list(curve.get_ydata()) == [80.4, 80.5, 80.6]
    assert list(mark.get_xdata()) == [0.6]
