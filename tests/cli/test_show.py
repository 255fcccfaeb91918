"""What the screen says about a comparison."""

from __future__ import annotations

import pytest

from semivox.cli.show import verdict
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
