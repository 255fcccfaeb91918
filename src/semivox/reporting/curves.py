"""Scores of many settings: against the number of labels, or one row a method where there is one number."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from semivox.files import replacing
from semivox.reporting.table import metric_label

_MARKERS = "osD^vP*X<>"
_GRID = "#eceef1"


def save_curves(
    path: Path, settings: pd.DataFrame, runs: pd.DataFrame, *, metric: str = "dice", title: str | None = None
) -> None:
    """Draw the mean with its 95 % interval over cases, and a small dot a seed, as a PNG.

    Args:
        path: the PNG to write.
        settings: columns labeled, method, metric, mean, low, high.
        runs: columns labeled, method, seed and the metric.
        metric: which.
        title: above the picture.
    """
    means = settings[settings["metric"] == metric]
    against_labels = means["labeled"].nunique() > 1
    methods = list(dict.fromkeys(means["method"]))
    height = 5.0 if against_labels else 1.4 + 0.32 * len(methods)
    figure = Figure(figsize=(8.0, max(height, 2.6)), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    if against_labels:
        _lines(axes, means, runs, methods, metric)
    else:
        _rows(axes, means, runs, methods, metric)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if title:
        axes.set_title(title, fontsize=11)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _lines(axes: Axes, means: pd.DataFrame, runs: pd.DataFrame, methods: list[str], metric: str) -> None:
    """One line a method; points are moved a little sideways so that the intervals do not cover each other."""
    counts = sorted(means["labeled"].unique())
    for index, method in enumerate(methods):
        rows = means[means["method"] == method].sort_values("labeled")
        shift = 1.015 ** (index - (len(methods) - 1) / 2)
        color, marker = _style(index)
        places = rows["labeled"] * shift
        below, above = rows["mean"] - rows["low"], rows["high"] - rows["mean"]
        axes.errorbar(
            places,
            rows["mean"],
            yerr=[below, above],
            color=color,
            marker=marker,
            capsize=3,
            label=method,
            lw=1.6,
        )
        seeds = runs[runs["method"] == method]
        axes.scatter(seeds["labeled"] * shift, seeds[metric], s=10, color=color, alpha=0.45, zorder=3)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(counts))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("labeled scans")
    axes.set_ylabel(f"{metric_label(metric)} (bars: 95 % over cases; dots: seeds)")
    axes.grid(color=_GRID)
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)


def _rows(axes: Axes, means: pd.DataFrame, runs: pd.DataFrame, methods: list[str], metric: str) -> None:
    for index, method in enumerate(methods):
        (row,) = means[means["method"] == method].to_dict("records")
        color, marker = _style(index)
        spread = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
        axes.errorbar([row["mean"]], [index], xerr=spread, color=color, marker=marker, capsize=3)
        seeds = runs.loc[runs["method"] == method, metric]
        axes.scatter(seeds, [index + 0.22] * len(seeds), s=10, color=color, alpha=0.6)
    axes.set_yticks(range(len(methods)), methods)
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric_label(metric)} (bars: 95 % over cases; dots: seeds)")
    axes.grid(axis="x", color=_GRID)


def _style(index: int) -> tuple[tuple[float, float, float, float], str]:
    return colormaps["tab10"](index % 10), _MARKERS[index // 10 % len(_MARKERS)]
