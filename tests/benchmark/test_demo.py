"""The demo and the comparison behind it, with a tiny setting."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from semivox.benchmark.demo import demo, median_case
from semivox.config import Config, overridden


def test_demo_compares_the_two_methods_on_the_same_cases(quick: Config, tmp_path: Path) -> None:
    config = overridden(quick, {"split": {"val": 0}, "train": {"iterations": 2}})
    result = demo(tmp_path, config=config, train=3, test=2)
    by_method = {cell.config.method.name: cell.table() for cell in result.cells}
    assert set(by_method) == {"labels_only", "self_training"}
    assert all(
        sorted(table["case"]) == sorted(by_method["self_training"]["case"]) for table in by_method.values()
    )
    expected = by_method["self_training"]["dice"].mean() - by_method["labels_only"]["dice"].mean()
    (row,) = result.tables.comparisons.to_dict("records")
    assert (row["method"], row["reference"], row["n"]) == ("self_training", "labels_only", 2)
    assert row["mean"] == pytest.approx(expected)
    with Image.open(result.picture) as picture:
        assert min(picture.size) > 200
    weights = [(cell.run / "model.safetensors").stat().st_mtime_ns for cell in result.cells]
    again = demo(tmp_path, config=config, train=3, test=2)
    assert [(cell.run / "model.safetensors").stat().st_mtime_ns for cell in again.cells] == weights
    pd.testing.assert_frame_equal(again.tables.comparisons, result.tables.comparisons)


def test_the_picture_shows_neither_the_best_nor_the_worst_case() -> None:
    gains = pd.Series({"a": 0.5, "b": -0.2, "c": 0.1, "d": 0.3, "e": 0.0})
    assert median_case(gains) == "c"
