"""Tables of scores, to the letter."""

from __future__ import annotations

import math

import pandas as pd
from rich.console import Console

from semivox.reporting.table import metric_label, summary_table

COLUMNS = ["class", "metric", "mean", "low", "high", "n", "failures"]


def summary(*, lcc: bool = False, classes: tuple[str, ...] = ("left", "right", "mean")) -> pd.DataFrame:
    rows = []
    for name in classes:
        failures = 2 if name == "right" else 0
        for suffix in ("", "_lcc") if lcc else ("",):
            rows += [
                (name, "dice" + suffix, 0.8765, 0.85, 0.9, 10, failures),
                (name, "hd95_mm" + suffix, 12.345, 10.0, 20.0, 10 - failures, failures),
                (name, "hd95_mm_penalised" + suffix, 15.5, math.nan, math.nan, 10, failures),
                (name, "volume_ref_ml" + suffix, 3.0, 2.0, 4.0, 10, failures),
            ]
    return pd.DataFrame(rows, columns=COLUMNS)


def screen(table: pd.DataFrame, width: int = 80) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(summary_table(table, title="10 cases"))
    return capture.get()


def lines(table: pd.DataFrame, width: int = 80) -> list[str]:
    """Words of the screen's lines, single spaces between them."""
    return [" ".join(line.split()) for line in screen(table, width).splitlines() if line.strip()]


def test_to_the_letter() -> None:
    assert lines(summary(classes=("left", "right"))) == [
        "10 cases",
        "class metric mean [95 % CI] n failed",
        "left Dice 0.876 [0.850, 0.900] 10 0",
        "95HD (mm) 12.35 [10.00, 20.00] 10 0",
        "right Dice 0.876 [0.850, 0.900] 10 2",
        "95HD (mm) 12.35 [10.00, 20.00] 8 2",
        "95HD* (mm) 15.50 10 2",
        "* with failures counted as the image's diagonal",
    ]


def test_screen_fits_eighty_columns_and_shows_both_results() -> None:
    lines = screen(summary(lcc=True)).splitlines()
    assert lines[0].strip() == "10 cases"
    assert "all voxels" in lines[1] and "largest component" in lines[1]
    (first, *_) = [line for line in lines if "Dice" in line]
    assert " ".join(first.split()) == "left Dice 0.876 [0.850, 0.900] 0.876 [0.850, 0.900] 10 0"
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)


def test_mean_row_only_where_there_are_classes_to_average() -> None:
    assert not [line for line in lines(summary(classes=("left", "mean"))) if line.startswith("mean Dice")]
    assert [line for line in lines(summary()) if line.startswith("mean Dice")]


def test_volumes_are_left_out_and_values_may_be_none() -> None:
    table = summary(classes=("left",))
    assert "volume" not in screen(table)
    table["mean"] = math.nan
    assert "left Dice none 10 0" in lines(table)


def test_published_summary_is_in_voxels() -> None:
    rows = [("left", name, 0.5, 0.4, 0.6, 3, 1) for name in ("dice", "jaccard", "hd95_vox", "asd_vox")]
    text = screen(pd.DataFrame(rows, columns=COLUMNS))
    assert "95HD (voxels)" in text and "ASD (voxels)" in text


def test_names_with_markup_are_shown_as_they_are() -> None:
    assert "[bold]a|b[/bold]" in screen(summary(classes=("[bold]a|b[/bold]", "c")), 120)


def test_labels_carry_units() -> None:
    assert metric_label("assd_vox") == "ASSD (voxels)"
    assert metric_label("hd95_mm_penalised_lcc") == "95HD* (mm), largest component"
    assert metric_label("volume_pred_ml") == "volume (mL)"
    assert metric_label("other") == "other"
