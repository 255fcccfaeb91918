"""Scores as text: names of metrics, means with intervals, tables for the screen, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import rich.table
from rich.markup import escape

_LABELS = {
    "dice": "Dice", "jaccard": "Jaccard", "hd95": "95HD", "asd": "ASD", "assd": "ASSD", "nsd": "NSD",
    "volume_pred": "volume", "volume_ref": "reference volume",
}  # fmt: skip
_UNITS = {"mm": "mm", "vox": "voxels", "ml": "mL"}
_DEFAULT = ("dice", "jaccard", "hd95_mm", "asd_mm", "nsd")
_PUBLISHED = ("dice", "jaccard", "hd95_vox", "asd_vox")
_WHEN_FAILED = ("hd95_mm_penalised", "asd_mm_penalised")
_OVERALL = "mean"
_WIDE = 8  # columns of a LaTeX table that fit beside each other
STARRED = "* with failures counted as the image's diagonal"


class Table(NamedTuple):
    """A table of text, for Markdown, LaTeX or a page."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def table_of(rows: Sequence[Mapping[str, str]]) -> Table:
    """Make a table of one row or more, whose cells have their headings as keys."""
    return Table(list(rows[0]), [list(row.values()) for row in rows])


def metric_label(metric: str) -> str:
    """Return name and unit of a column: `hd95_mm` is `95HD (mm)`.

    `*_lcc` is of the largest component; `*_penalised`, which counts failures, gets a star.
    """
    base = metric.removesuffix("_lcc")
    plain = base.removesuffix("_penalised")
    stem, _, unit = plain.rpartition("_")
    known = stem in _LABELS and unit in _UNITS
    label = _LABELS[stem] if known else _LABELS.get(plain, plain)
    label += ("*" if base != plain else "") + (f" ({_UNITS[unit]})" if known else "")
    return label + (", largest component" if base != metric else "")


def interval_text(row: Mapping[Any, Any], *, sign: str = "", star: str = "") -> str:
    """Write a mean with its interval: `0.871 [0.850, 0.890]`; without one where there is none."""
    if math.isnan(row["mean"]):
        return "none"
    form = f"{sign}.{mean_digits(row['mean'])}f"
    interval = "" if math.isnan(row["low"]) else f" [{row['low']:{form}}, {row['high']:{form}}]"
    return f"{row['mean']:{form}}{star}{interval}"


def duration(seconds: float) -> str:
    """Write `45 s`, `12.3 min` or `1.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def mean_digits(value: float) -> int:
    """Return the digits after the point that a mean is worth."""
    return 3 if abs(value) < 10 else 2


def summary_table(summary: pd.DataFrame, *, title: str | None = None) -> rich.table.Table:
    """Lay out a summary, from `evaluation.summary.summarise`, for the screen.

    Dice, Jaccard, 95HD, ASD, NSD, and for classes with failures the distances that count these as the image's
    diagonal, with a star.
    """
    has_lcc = bool(summary["metric"].str.endswith("_lcc").any())
    table = rich.table.Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    values = ("all voxels [95 % CI]", "largest component") if has_lcc else ("mean [95 % CI]",)
    table.add_column("class", no_wrap=True)
    table.add_column("metric")
    for heading in (*values, "n", "failed"):
        table.add_column(heading, justify="right", no_wrap=True)
    metrics = (*_DEFAULT, *_WHEN_FAILED) if (summary["metric"] == "hd95_mm").any() else _PUBLISHED
    blocks: dict[str, dict[str, dict[Any, Any]]] = {}
    for row in summary.to_dict("records"):
        blocks.setdefault(str(row["class"]), {})[row["metric"]] = row
    if len(blocks) == 2:
        blocks.pop(_OVERALL, None)  # with one class the mean over classes says nothing new
    for name, rows in blocks.items():
        if table.row_count:
            table.add_row()
        shown = escape(name)
        for metric in metrics:
            failures = rows[metric]["failures"] if metric in rows else 0
            if metric not in rows or (metric in _WHEN_FAILED and not failures):
                continue
            columns = [metric, f"{metric}_lcc"] if has_lcc else [metric]
            means = [interval_text(rows[name]) if name in rows else "" for name in columns]
            failed = f"[bold red]{failures:.0f}[/]" if failures else "0"
            table.add_row(shown, metric_label(metric), *means, f"{rows[metric]['n']:.0f}", failed)
            shown = ""
            if metric in _WHEN_FAILED:
                table.caption, table.caption_justify = STARRED, "left"
    return table


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out as a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def latex_table(headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """Lay out as a LaTeX `table`; many columns are scaled to the text, which needs the package graphicx."""
    before, after = (r"\resizebox{\textwidth}{!}{%", "}") if len(headings) > _WIDE else ("", "")
    lines = [" & ".join(map(_latex, line)) for line in rows]
    # After the end of a row, `[` and `*` would be taken for an option of the row end.
    lines = ["{}" + line if line.startswith(("[", "*")) else line for line in lines]
    text = [
        r"\begin{table}", r"\centering\scriptsize", rf"\caption{{{_latex(caption)}}}", before,
        rf"\begin{{tabular}}{{{'l' * len(headings)}}}", r"\hline", " & ".join(map(_latex, headings)) + r" \\",
        r"\hline", *(line + r" \\" for line in lines), r"\hline", r"\end{tabular}", after, r"\end{table}",
    ]  # fmt: skip
    return "\n".join(filter(None, text)) + "\n"


_ESCAPES = str.maketrans({
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "<": r"$<$", ">": r"$>$",
})  # fmt: skip


def _latex(text: str) -> str:
    return text.translate(_ESCAPES)
