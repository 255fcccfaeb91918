"""Summaries of scores as a table for the screen and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
from rich.markup import escape
from rich.table import Table

_LABELS = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "hd95": "95HD",
    "asd": "ASD",
    "assd": "ASSD",
    "nsd": "NSD",
    "volume_pred": "volume",
    "volume_ref": "reference volume",
}
_UNITS = {"mm": "mm", "vox": "voxels", "ml": "mL"}
_DEFAULT = ("dice", "jaccard", "hd95_mm", "asd_mm", "nsd")
_PUBLISHED = ("dice", "jaccard", "hd95_vox", "asd_vox")
_WHEN_FAILED = ("hd95_mm_penalised", "asd_mm_penalised")
_OVERALL = "mean"
_STARRED = "* with failures counted as the image's diagonal"


class _Line(NamedTuple):
    name: str  # of the class, empty where it is that of the line above
    metric: str
    raw: str
    lcc: str
    n: str
    failures: str


def metric_label(metric: str) -> str:
    """Name and unit of a column: `hd95_mm` is `95HD (mm)`.

    `*_lcc` is of the largest component; `*_penalised`, which counts failures, gets a star.
    """
    base = metric.removesuffix("_lcc")
    plain = base.removesuffix("_penalised")
    stem, _, unit = plain.rpartition("_")
    known = stem in _LABELS and unit in _UNITS
    label = _LABELS[stem] if known else _LABELS.get(plain, plain)
    label += ("*" if base != plain else "") + (f" ({_UNITS[unit]})" if known else "")
    return label + (", largest component" if base != metric else "")


def summary_table(
    summary: pd.DataFrame, *, metrics: Sequence[str] | None = None, title: str | None = None
) -> Table:
    """Lay out a summary for the screen: mean [95 % interval] over cases, n, failures.

    Args:
        summary: columns class, metric, mean, low, high, n, failures; from `scoring.statistics.summarise`.
        metrics: which, without `_lcc`; default: Dice, Jaccard, 95HD, ASD, NSD, and for classes with failures
            the distances that count these as the image's diagonal, with a star.
        title: above the table.
    """
    lines = list(_lines(summary, metrics))
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.caption, table.caption_justify = _note(lines), "left"
    for heading, style in _headings(summary):
        table.add_column(heading, no_wrap=heading != "metric", **style)
    for line in lines:
        if line.name and table.row_count:
            table.add_row()
        failures = f"[bold red]{line.failures}[/]" if line.failures not in ("0", "") else line.failures
        table.add_row(*_cells(line._replace(name=escape(line.name), failures=failures), summary))
    return table


def summary_markdown(summary: pd.DataFrame, *, metrics: Sequence[str] | None = None) -> str:
    """Lay out a summary as a Markdown table; arguments as for `summary_table`."""
    headings, lines = list(_headings(summary)), list(_lines(summary, metrics))
    rule = ["---:" if style.get("justify") == "right" else "---" for _, style in headings]
    rows = [[heading for heading, _ in headings], rule]
    rows += [_cells(line, summary) for line in lines]
    text = "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |\n" for row in rows)
    note = _note(lines)
    return (f"{text}\n{note}\n" if note else text).replace("*", r"\*")


def _note(lines: Sequence[_Line]) -> str | None:
    return _STARRED if any("*" in line.metric for line in lines) else None


def _headings(summary: pd.DataFrame) -> Iterator[tuple[str, dict[str, Any]]]:
    right = {"justify": "right"}
    yield "class", {}
    yield "metric", {}
    if _has_lcc(summary):
        yield "all voxels [95 % CI]", right
        yield "largest component", right
    else:
        yield "mean [95 % CI]", right
    yield "n", right
    yield "failed", right


def _cells(line: _Line, summary: pd.DataFrame) -> list[str]:
    return list(line) if _has_lcc(summary) else [line.name, line.metric, line.raw, line.n, line.failures]


def _has_lcc(summary: pd.DataFrame) -> bool:
    return bool(summary["metric"].str.endswith("_lcc").any())


def _lines(summary: pd.DataFrame, metrics: Sequence[str] | None) -> Iterator[_Line]:
    rows = {(row["class"], row["metric"]): row for row in summary.to_dict("records")}
    classes = list(dict.fromkeys(summary["class"]))
    if len(classes) == 2 and _OVERALL in classes:
        classes.remove(_OVERALL)  # with one class the mean over classes says nothing new
    chosen = _chosen(summary) if metrics is None else metrics
    for name in classes:
        shown = str(name)
        for metric in chosen:
            row = rows.get((name, metric))
            if row is None or (metrics is None and metric in _WHEN_FAILED and not row["failures"]):
                continue
            lcc = rows.get((name, f"{metric}_lcc"))
            values = _interval(row), "" if lcc is None else _interval(lcc)
            yield _Line(shown, metric_label(metric), *values, str(int(row["n"])), str(int(row["failures"])))
            shown = ""


def _chosen(summary: pd.DataFrame) -> Sequence[str]:
    return (*_DEFAULT, *_WHEN_FAILED) if (summary["metric"] == "hd95_mm").any() else _PUBLISHED


def _interval(row: dict[Any, Any]) -> str:
    if math.isnan(row["mean"]):
        return "none"
    digits = 3 if abs(row["mean"]) < 10 else 2
    mean = f"{row['mean']:.{digits}f}"
    return mean if math.isnan(row["low"]) else f"{mean} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
