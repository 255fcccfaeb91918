"""Scores of many settings against the number of labels, and of several methods on the same cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from semivox.reporting import style
from semivox.reporting.benchmark import PAPER_METRICS
from semivox.reporting.style import CHART_COLORS, NEUTRAL, dress

_DOT, _TITLE = CHART_COLORS[0], "Dice (bars: 95 % over cases; dots: seeds)"


def save_curves(path: Path, settings: pd.DataFrame, runs: pd.DataFrame, *, title: str | None = None) -> None:
    """Draw the mean Dice with its 95 % interval over cases, and a small dot a seed, as a PNG.

    Against the number of labels, or one row a method where there is one number.

    Args:
        path: the PNG to write.
        settings, runs: from `benchmark.scores.setting_table` and `run_table`.
    """
    means = settings[settings["metric"] == "dice"]
    against_labels = means["labeled"].nunique() > 1
    height = 5.0 if against_labels else max(1.4 + 0.32 * means["method"].nunique(), 2.6)
    figure, axes = style.chart_figure(8.0, height, title)
    (_lines if against_labels else _rows)(axes, means, runs)
    style.save_png(figure, path)


def _lines(axes: Axes, means: pd.DataFrame, runs: pd.DataFrame) -> None:
    """One line a method; points are moved a little sideways so that the intervals do not cover each other."""
    methods = list(dict.fromkeys(means["method"]))
    for index, method in enumerate(methods):
        rows = means[means["method"] == method].sort_values("labeled")
        shift, look = 1.015 ** (index - (len(methods) - 1) / 2), style.series_look(index)
        spread = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
        axes.errorbar(
            rows["labeled"] * shift, rows["mean"], yerr=spread, capsize=3, label=method, lw=1.6, **look
        )
        seeds = runs[runs["method"] == method]
        dots = {"s": 10, "color": look["color"], "alpha": 0.45, "zorder": 3}
        axes.scatter(seeds["labeled"] * shift, seeds["dice"], **dots)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(means["labeled"].unique())))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    dress(axes, x="labeled scans", y=_TITLE)
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)


def _rows(axes: Axes, means: pd.DataFrame, runs: pd.DataFrame) -> None:
    methods = list(dict.fromkeys(means["method"]))
    for index, method in enumerate(methods):
        (row,) = means[means["method"] == method].to_dict("records")
        look = style.series_look(index)
        spread = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
        axes.errorbar([row["mean"]], [index], xerr=spread, capsize=3, **look)
        seeds = runs.loc[runs["method"] == method, "dice"]
        axes.scatter(seeds, [index + 0.22] * len(seeds), s=10, color=look["color"], alpha=0.6)
    axes.set_yticks(range(len(methods)), methods)
    axes.invert_yaxis()
    dress(axes, x=_TITLE, grid="x")


def save_methods(path: Path, lines: pd.DataFrame, title: str) -> None:
    """Draw a panel a data set and a row a method: the published value hollow, ours full with its interval.

    `lines` come from `benchmark.paper.beside`, of all data sets; a PNG and a PDF are written.
    """
    names = list(dict.fromkeys(lines["dataset"]))
    most = max(lines[lines["dataset"] == name]["row"].nunique() for name in names)
    figure = _figure(3.0 + 3.0 * len(names), 1.5 + 0.28 * most, title)
    for panel, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _dots(panel, lines[lines["dataset"] == name])
        panel.set_title(name, fontsize=10)
        dress(panel, x=PAPER_METRICS["dice"], grid="x")
    look: dict[str, Any] = {"linestyle": "none", "marker": "o"}
    handles = [
        Line2D([], [], markerfacecolor="none", color=NEUTRAL, label="paper", **look),
        Line2D([], [], color=_DOT, label="here, 95 % interval over cases", **look),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    style.save_figure(figure, path)


def _dots(panel: Axes, lines: pd.DataFrame) -> None:
    rows = lines.drop_duplicates("row").to_dict("records")
    for place, line in enumerate(rows):
        panel.plot(line["dice_published"], place, "o", mfc="none", color=NEUTRAL, ms=7)
        if (mean := line.get("dice_mean")) is not None and mean == mean:
            spread = [[mean - line["dice_low"]], [line["dice_high"] - mean]]
            panel.errorbar([mean], [place], xerr=spread, fmt="o", color=_DOT, ms=5, capsize=2)
    panel.set_yticks(range(len(rows)), [line["row"] for line in rows])
    panel.invert_yaxis()


def save_sensitivity(path: Path, lines: pd.DataFrame, title: str) -> None:
    """Draw all four metrics (rows) against each option (columns), one curve a data set.

    The rows of `lines` are called `option = value`. A ring marks the published setting of each data set.
    See `save_methods`.
    """
    parts = lines["row"].str.extract(r"^(?P<option>[^=]+) = (?P<value>[\d.]+)$")
    lines = lines.assign(option=parts["option"], value=parts["value"].astype(float)).dropna(subset=["value"])
    options, names = list(dict.fromkeys(lines["option"])), list(dict.fromkeys(lines["dataset"]))
    head = f"{title}\nring: published setting; band: 95 % interval over cases"
    figure = _figure(1.2 + 3.0 * len(options), 1.2 + 2.0 * len(PAPER_METRICS), head)
    panels = figure.subplots(len(PAPER_METRICS), len(options), squeeze=False, sharex="col", sharey="row")
    for across, metric in zip(panels, PAPER_METRICS, strict=True):
        for panel, option in zip(across, options, strict=True):
            for index, name in enumerate(names):
                chosen = lines[(lines["option"] == option) & (lines["dataset"] == name)]
                _curve(panel, chosen.sort_values("value"), metric, CHART_COLORS[index], name)
            last, first = metric == list(PAPER_METRICS)[-1], option == options[0]
            dress(panel, x=option if last else "", y=PAPER_METRICS[metric] if first else "")
    handles, labels = panels[0][0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    style.save_figure(figure, path)


def _curve(panel: Axes, lines: pd.DataFrame, metric: str, color: str, name: str) -> None:
    if f"{metric}_mean" not in lines or lines[f"{metric}_mean"].isna().all():
        return
    panel.plot(lines["value"], lines[f"{metric}_mean"], "o-", color=color, ms=4, label=name)
    panel.fill_between(
        lines["value"], lines[f"{metric}_low"], lines[f"{metric}_high"], color=color, alpha=0.12, lw=0
    )
    marked = lines[lines["is_reference"] == True]  # noqa: E712  (NaN is no reference)
    panel.plot(marked["value"], marked[f"{metric}_mean"], "o", mfc="none", color=color, ms=9)


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), dpi=style.DPI, facecolor="white", layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure
