"""Scores as text: names of metrics, means with intervals, tables for the screen, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

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
Rows = list[list[str]]


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
    digits = mean_digits(row["mean"])
    mean = f"{row['mean']:{sign}.{digits}f}{star}"
    if math.isnan(row["low"]):
        return mean
    return f"{mean} [{row['low']:{sign}.{digits}f}, {row['high']:{sign}.{digits}f}]"


def duration(seconds: float) -> str:
    """Write `45 s`, `12.3 min` or `1.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def mean_digits(value: float) -> int:
    """Return the digits after the point that a mean is worth."""
    return 3 if abs(value) < 10 else 2


def summary_table(summary: pd.DataFrame, *, title: str | None = None) -> Table:
    """Lay out a summary, from `evaluation.summary.summarise`, for the screen.

    Dice, Jaccard, 95HD, ASD, NSD, and for classes with failures the distances that count these as the image's
    diagonal, with a star.
    """
    has_lcc = bool(summary["metric"].str.endswith("_lcc").any())
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    values = ("all voxels [95 % CI]", "largest component") if has_lcc else ("mean [95 % CI]",)
    for heading in ("class", "metric", *values, "n", "failed"):
        side: Any = "left" if heading in ("class", "metric") else "right"
        table.add_column(heading, justify=side, no_wrap=heading != "metric")
    rows = {(row["class"], row["metric"]): row for row in summary.to_dict("records")}
    classes = list(dict.fromkeys(summary["class"]))
    if len(classes) == 2 and _OVERALL in classes:
        classes.remove(_OVERALL)  # with one class the mean over classes says nothing new
    in_mm = (summary["metric"] == "hd95_mm").any()
    for name in classes:
        if table.row_count:
            table.add_row()
        shown = escape(str(name))
        for metric in (*_DEFAULT, *_WHEN_FAILED) if in_mm else _PUBLISHED:
            row = rows.get((name, metric))
            if row is None or (metric in _WHEN_FAILED and not row["failures"]):
                continue
            means = [interval_text(row)]
            if has_lcc:
                largest = rows.get((name, f"{metric}_lcc"))
                means.append("" if largest is None else interval_text(largest))
            failures = f"[bold red]{row['failures']:.0f}[/]" if row["failures"] else "0"
            table.add_row(shown, metric_label(metric), *means, f"{row['n']:.0f}", failures)
            shown = ""
            if metric in _WHEN_FAILED:
                table.caption, table.caption_justify = STARRED, "left"
    return table


def markdown_table(headings: Sequence[str], rows: Rows) -> str:
    """Lay out as a Markdown table."""
    lines = [list(headings), ["---"] * len(headings), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def latex_table(headings: Sequence[str], rows: Rows, caption: str) -> str:
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


_ESCAPES = {
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "<": r"$<$", ">": r"$>$",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_ESCAPES.get(letter, letter) for letter in text)
