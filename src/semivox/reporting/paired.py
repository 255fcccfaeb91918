"""Scores of several methods on the same cases, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from semivox.files import replacing

_LINE, _DOT, _MEAN = "#b9bec7", "#2f6fb5", "#c2452d"


def save_paired_scores(
    path: Path, scores: Mapping[str, Mapping[str, float]], *, metric: str = "Dice", title: str | None = None
) -> None:
    """Draw one dot a case and method, lines joining a case's dots, and each method's mean, as a PNG.

    Args:
        path: the PNG to write.
        scores: for each method (left to right) the score of each case; only common cases are drawn.
        metric: name of the score, for the axis.
        title: above the picture.
    """
    names = list(scores)
    cases = sorted(set.intersection(*(set(by_case) for by_case in scores.values())))
    values = np.array([[scores[name][case] for name in names] for case in cases])  # (cases, methods)
    figure = Figure(figsize=(1.6 + 1.5 * len(names), 4.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(names))
    axes.plot(places, values.T, color=_LINE, linewidth=0.8, zorder=1)
    for place, column in zip(places, values.T, strict=True):
        axes.scatter(np.full(len(column), place), column, s=14, color=_DOT, zorder=2, alpha=0.7)
        mean = float(np.nanmean(column))
        axes.plot([place - 0.18, place + 0.18], [mean, mean], color=_MEAN, linewidth=2.5, zorder=3)
        axes.annotate(
            f"{mean:.3f}", (place + 0.2, mean), color=_MEAN, va="center", fontsize=10, weight="bold"
        )
    axes.set_xticks(places, names, fontsize=11)
    axes.set_xlim(-0.5, len(names) - 0.3)
    axes.set_ylabel(f"{metric}, {len(cases)} cases (bar: mean)", fontsize=11)
    axes.grid(axis="y", color="#eceef1")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if title:
        axes.set_title(title, fontsize=11)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
