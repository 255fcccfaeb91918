"""Scores of many settings against the number of labels, and of several methods on the same cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from semivox.reporting import style
from semivox.reporting.benchmark import PAPER_METRICS
from semivox.reporting.style import CHART_COLORS, chart, draw_intervals, dress, name_rows

_TITLE = "Dice (bars: 95 % over cases; dots: seeds)"
_DOT: dict[str, Any] = {"linestyle": "none", "marker": "o"}
_MARKERS = "osD^vP*X<>"  # after ten colors the next marker


def save_curves(path: Path, settings: pd.DataFrame, runs: pd.DataFrame, *, title: str = "") -> None:
    """Draw the mean Dice with its 95 % interval over cases, and a small dot a seed, as a PNG.

    Against the number of labels, or one row a method where there is one number. `settings` and `runs` are
    the tables of these names from `benchmark.scores`.
    """
    means = settings[settings["metric"] == "dice"]
    against_labels, methods = means["labeled"].nunique() > 1, list(dict.fromkeys(means["method"]))
    figure = chart(8.0, 5.0 if against_labels else max(1.4 + 0.32 * len(methods), 2.6), title)
    panel = figure.add_subplot()
    for index, method in enumerate(methods):
        rows = means[means["method"] == method].sort_values("labeled")
        seeds, color = runs[runs["method"] == method], colormaps["tab10"](index % 10)
        look: dict[str, Any] = {"color": color, "marker": _MARKERS[index // 10 % len(_MARKERS)]}
        dots: dict[str, Any] = {"s": 10, "color": color, "alpha": 0.5, "zorder": 3}
        if against_labels:
            shift = 1.015 ** (index - (len(methods) - 1) / 2)  # the intervals do not cover each other
            draw_intervals(panel, rows, rows["labeled"] * shift, upright=True, label=method, lw=1.6, **look)
            panel.scatter(seeds["labeled"] * shift, seeds["dice"], **dots)
        else:
            draw_intervals(panel, rows, [index], **look)
            panel.scatter(seeds["dice"], [index + 0.22] * len(seeds), **dots)
    if against_labels:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(FixedLocator(sorted(means["labeled"].unique())))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(ScalarFormatter())
        dress(panel, x="labeled scans", y=_TITLE)
        figure.legend(loc="outside right center", frameon=False)
    else:
        name_rows(panel, methods)
        dress(panel, x=_TITLE, grid="x")
    style.save_png(figure, path)


def save_methods(path: Path, lines: pd.DataFrame, title: str) -> None:
    """Draw a panel a data set and a row a method: the published value hollow, ours full with its interval.

    `lines` come from `benchmark.paper.beside`, of all data sets; a PNG and a PDF are written.
    """
    every = {name: rows.drop_duplicates("row") for name, rows in lines.groupby("dataset", sort=False)}
    figure = chart(3.0 + 3.0 * len(every), 1.5 + 0.28 * max(map(len, every.values())), title)
    panels = figure.subplots(1, len(every), squeeze=False)[0]
    for panel, (name, rows) in zip(panels, every.items(), strict=True):
        places = pd.Series(range(len(rows)), rows.index)
        hollow = {"label": "paper", "mfc": "none", "color": style.NEUTRAL, "ms": 7, **_DOT}
        panel.plot(rows["dice_published"], places, **hollow)
        means = rows.reindex(columns=["dice_mean", "dice_low", "dice_high"])
        means = means.set_axis(["mean", "low", "high"], axis="columns").dropna(subset="mean")
        if len(means):
            full = {"label": "here, 95 % interval over cases", "color": CHART_COLORS[0], "ms": 5, **_DOT}
            draw_intervals(panel, means, places[means.index], **full)
        name_rows(panel, rows["row"].tolist())
        panel.set_title(name, fontsize=10)
        dress(panel, x=PAPER_METRICS["dice"], grid="x")
    _add_legend(figure)
    style.save_figure(figure, path)


def save_sensitivity(path: Path, lines: pd.DataFrame, title: str) -> None:
    """Draw all four metrics (rows) against each option (columns), one curve a data set.

    The rows of `lines` are called `option = value`. A ring marks the published setting of each data set.
    See `save_methods`.
    """
    parts = lines["row"].str.extract(r"^(?P<option>[^=]+) = (?P<value>[\d.]+)$")
    lines = lines.assign(option=parts["option"], value=parts["value"].astype(float)).dropna(subset=["value"])
    options, names = list(dict.fromkeys(lines["option"])), list(dict.fromkeys(lines["dataset"]))
    head = f"{title}\nring: published setting; band: 95 % interval over cases"
    figure = chart(1.2 + 3.0 * len(options), 1.2 + 2.0 * len(PAPER_METRICS), head)
    panels = figure.subplots(len(PAPER_METRICS), len(options), squeeze=False, sharex="col", sharey="row")
    for metric, across in zip(PAPER_METRICS, panels, strict=True):
        for option, panel in zip(options, across, strict=True):
            for name, color in zip(names, CHART_COLORS, strict=False):
                chosen = lines[(lines["option"] == option) & (lines["dataset"] == name)]
                _draw_curve(panel, chosen.sort_values("value"), metric, label=name, color=color)
            dress(panel)
    for metric, panel in zip(PAPER_METRICS, panels[:, 0], strict=True):
        panel.set_ylabel(PAPER_METRICS[metric])
    for option, panel in zip(options, panels[-1], strict=True):
        panel.set_xlabel(option)
    _add_legend(figure)
    style.save_figure(figure, path)


def _draw_curve(panel: Axes, lines: pd.DataFrame, metric: str, **look: Any) -> None:
    mean, low, high = (f"{metric}_{part}" for part in ("mean", "low", "high"))
    if mean not in lines or lines[mean].isna().all():
        return
    panel.plot(lines["value"], lines[mean], "o-", ms=4, **look)
    panel.fill_between(lines["value"], lines[low], lines[high], color=look["color"], alpha=0.12, lw=0)
    marked = lines[lines["is_reference"] == True]  # noqa: E712  (NaN is no reference)
    panel.plot(marked["value"], marked[mean], "o", mfc="none", color=look["color"], ms=9)


def _add_legend(figure: Figure) -> None:
    """Name the lines of all panels once, below them."""
    named: dict[str, Any] = {}
    for panel in figure.axes:
        handles, labels = panel.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    if named:
        figure.legend(named.values(), named, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
