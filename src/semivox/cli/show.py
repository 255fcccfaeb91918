"""Results on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from semivox.evaluation.summary import summarise
from semivox.reporting.table import summary_table

if TYPE_CHECKING:
    import pandas as pd


def show_scores(table: pd.DataFrame) -> None:
    """Show means with intervals over cases, the number of values and of failures."""
    Console().print(summary_table(summarise(table), title="mean [95 % interval] over cases"))


def show_comparison(summary: dict[str, Any], title: str) -> None:
    """Show each method's Dice and its paired difference to the first."""
    table = Table(title=title)
    for name in ("method", "Dice [95 % interval]", "n", f"difference to {summary['reference']}", "training"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for name, entry in summary["methods"].items():
        difference = summary["difference"].get(name)
        table.add_row(
            name,
            interval_text(entry["interval"]),
            str(entry["interval"]["n"]),
            interval_text(difference, sign="+") if difference else "",
            f"{entry['seconds_training']:.0f} s",
        )
    Console().print(table)


def interval_text(value: Mapping[Any, Any], *, sign: str = "") -> str:
    """`0.871 [0.850, 0.890]`."""
    return f"{value['mean']:{sign}.3f} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"


def verdict(difference: dict[str, float]) -> str:
    """What a paired difference with its interval says about semi-supervised training as a whole."""
    if difference["low"] > 0:
        return "Training with the unlabeled scans brings a clear gain over labels only here"
    if difference["high"] < 0:
        return "The unlabeled scans do harm here: labels only is clearly better"
    return (
        "Whether training with the unlabeled scans brings a gain is not clear here: the interval includes 0"
    )
