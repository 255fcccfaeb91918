"""What the screen says."""

from __future__ import annotations

import pytest

from semivox.cli.show import put, table, verdict
from semivox.reporting.table import interval_text


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.01, 0.05, "clear gain"),
        (-0.05, -0.01, "do harm"),
        (-0.01, 0.01, "not clear"),
        (0.0, 0.1, "not clear"),
    ],
)
def test_the_verdict_follows_the_interval(low: float, high: float, word: str) -> None:
    assert word in verdict({"mean": (low + high) / 2, "low": low, "high": high})


def test_interval_text() -> None:
    assert interval_text({"mean": 0.8706, "low": 0.85, "high": 0.89}) == "0.871 [0.850, 0.890]"
    assert interval_text({"mean": 0.01, "low": -0.02, "high": 0.04}, sign="+") == "+0.010 [-0.020, +0.040]"


@pytest.mark.parametrize("columns", [10, 40, 200])
def test_no_width_loses_a_cell(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = [("left atrium [all]", "0.873 [0.851, 0.901]", 10), ("pulmonary veins", "", 9)]
    put(table("class", "Dice [95 % interval]", "n", title="on 10 cases", rows=rows))
    shown = capsys.readouterr().out
    assert all(part in shown for row in rows for part in map(str, row))
    assert "Dice [95 % interval]" in shown and "on 10 cases" in shown
    assert ("  n: 10" in shown) == (columns < 60)
