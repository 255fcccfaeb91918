"""Charts as SVG inside the page: text and lines take the page's colors, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from semivox.evaluation.summary import MEAN_ROW, case_means
from semivox.evaluation.surface import union_box
from semivox.reporting import style
from semivox.reporting.style import CHART_COLORS, CLASS_COLORS, INK, LINE, PALE, class_color, dress, shorten

_PAGE = {INK: "currentColor", PALE: "var(--faint)", LINE: "var(--line)"}
_WIDE, _HIGH = 4.6, 3.0  # inches: small enough that text is readable on a phone
BINS = 10


class Chart(NamedTuple):
    """An SVG with the sentence below it."""

    svg: str
    text: str


def training_curves(log: pd.DataFrame, class_names: Sequence[str]) -> list[Chart]:
    """Draw the losses of a run's log, and the Dice of the validation cases if it was measured twice.

    Classes have a line each as long as each has a color of its own.
    """
    figure, panel = _chart("iteration", "loss")
    parts = loss_parts(log)
    for index, name in enumerate(parts if len(parts) > 1 else (), start=1):
        look: dict[str, Any] = {"color": class_color(index), "linewidth": 0.9, "label": shorten(name, 16)}
        panel.plot(log["iteration"], log[name], **look)
    panel.plot(log["iteration"], log["loss"], color=INK, linewidth=1.8, label="sum")
    panel.set_ylim(bottom=min(0.0, float(log["loss"].min())))
    found = [_finish(figure, "Training losses over the iterations", "Losses, as weighted in the sum")]
    if "val_dice" not in log or len(rows := log[log["val_dice"].notna()]) < 2:
        return found
    figure, panel = _chart("iteration", "Dice on the working grid")
    for index, name in enumerate(class_names if 1 < len(class_names) <= len(CLASS_COLORS) else (), start=1):
        if (column := f"val_dice_{name}") in rows:
            look = {"color": class_color(index), "linewidth": 1.1, "label": shorten(name, 20)}
            panel.plot(rows["iteration"], rows[column], "o-", markersize=3.5, **look)
    look = {"color": INK, "linewidth": 1.8, "label": "mean"}
    panel.plot(rows["iteration"], rows["val_dice"], "o-", markersize=3.5, **look)
    panel.set_ylim(0, 1)
    title = "Dice of the validation cases over the iterations"
    return [*found, _finish(figure, title, "Dice of the validation cases while training")]


def loss_parts(log: pd.DataFrame) -> list[str]:
    """Find the columns after `loss` whose sum it is; those behind them are notes."""
    names = [name for name in log.columns[list(log.columns).index("loss") + 1 :] if name != "forecast_s"]
    for count in range(1, len(names) + 1):
        if np.allclose(log[names[:count]].sum(axis=1), log["loss"], rtol=1e-3, atol=1e-4):
            return names[:count]
    return []


def score_chart(table: pd.DataFrame, means: pd.DataFrame) -> Chart:
    """Draw the Dice of each case as a dot, a row a class, with `means`: mean, low and high of each class."""
    figure, panel = _rows("Dice", means, INK)
    generator = np.random.default_rng(0)
    for row, name in enumerate(means.index):
        whole = name == MEAN_ROW
        values = (case_means(table) if whole else table.loc[table["class"] == name, "dice"]).dropna()
        heights = row + generator.uniform(-0.2, 0.2, len(values))
        color = PALE if whole else class_color(row + 1)
        panel.scatter(values, heights, s=13, color=color, alpha=0.75, linewidths=0)
    panel.set_xlim(min(0.5, float(table["dice"].min()) - 0.05), 1)
    title = "Dice of each case, with mean and 95 % interval"
    return _finish(figure, title, "Dot: a case; diamond and bar: mean, 95 % interval")


def difference_chart(differences: pd.DataFrame, first: str) -> Chart:
    """Draw the mean paired difference of each run to the first, with its 95 % interval."""
    figure, panel = _rows(f"Dice minus that of {shorten(first, 24)}", differences, CHART_COLORS[0])
    panel.axvline(0, color=PALE, linewidth=1, linestyle="--")
    title = "Paired differences of Dice with 95 % intervals"
    return _finish(figure, title, "Mean paired difference with its 95 % interval over cases")


def reliability_bins(probs: NDArray[Any], truth: NDArray[Any], margin: int = 4) -> NDArray[np.float64]:
    """Count how often voxels that are given a probability of a foreground class belong to it.

    Only the box around reference and prediction counts, with a margin in voxels: far background is easy.
    `probs` is (K, X, Y, Z), `truth` (X, Y, Z) class indices. Returns (BINS, 3): voxels, sum of their
    probabilities, voxels of the class; all foreground classes together.
    """
    counts = np.zeros((BINS, 3))
    if (near := union_box((truth > 0) | (probs.argmax(0) > 0))) is None:
        return counts
    box = tuple(slice(max(0, part.start - margin), part.stop + margin) for part in near)
    for index in range(1, len(probs)):
        given, hit = probs[index][box].ravel(), (truth[box] == index).ravel()
        bins = np.minimum((given * BINS).astype(int), BINS - 1)
        columns = (np.ones_like(given), given, hit)
        counts += np.stack([np.bincount(bins, column, minlength=BINS) for column in columns], axis=1)
    return counts


def calibration_error(counts: NDArray[np.float64]) -> float:
    """Compute the expected calibration error of bins: mean of |share - probability|, weighted by voxels."""
    voxels, given, hits = counts.T
    return float(np.abs(hits - given).sum() / voxels.sum())


def reliability_chart(counts: NDArray[np.float64]) -> Chart:
    """Draw the share of voxels of a class against the probability that they were given."""
    voxels, given, hits = counts[counts[:, 0] > 0].T
    figure, panel = _chart("probability given to a class", "share of voxels of that class")
    panel.plot([0, 1], [0, 1], color=PALE, linewidth=1, linestyle="--", label="perfectly calibrated")
    look: dict[str, Any] = {"color": CHART_COLORS[0], "linewidth": 1.8, "markersize": 5}
    panel.plot(given / voxels, hits / voxels, "o-", label="this model", **look)
    panel.set(xlim=(0, 1), ylim=(0, 1))
    title = "Reliability: share of voxels of a class against the probability given to it"
    error = f"expected calibration error {calibration_error(counts):.3f}"
    return _finish(figure, title, f"Probabilities near the structures against reality; {error}")


def _chart(x: str, y: str, height: float = _HIGH) -> tuple[Figure, Axes]:
    figure = style.chart(_WIDE, height)
    panel = figure.add_subplot()
    dress(panel, x=x, y=y)
    return figure, panel


def _rows(x: str, means: pd.DataFrame, color: str) -> tuple[Figure, Axes]:
    """Start a chart of one row a name, with a diamond at the mean and a bar for the interval."""
    figure, panel = _chart(x, "", height=max(1.5, 0.7 + 0.42 * len(means)))
    look: dict[str, Any] = {"fmt": "D", "color": color, "markersize": 6, "ecolor": INK, "elinewidth": 2.2}
    style.draw_intervals(panel, means, range(len(means)), zorder=5, **look)
    style.name_rows(panel, [shorten(name, 20) for name in means.index])
    panel.locator_params(axis="x", nbins=5)  # the numbers of small differences are long
    return figure, panel


def _finish(figure: Figure, title: str, text: str) -> Chart:
    for panel in figure.axes:
        style.add_legend(panel)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub("|".join(_PAGE), lambda color: _PAGE[color[0]], buffer.getvalue())
    svg = svg[svg.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
    return Chart(svg, text)
