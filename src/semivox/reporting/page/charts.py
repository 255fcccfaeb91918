"""Charts as SVG inside the page: text and lines take the page's colors, light or dark."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
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
from semivox.reporting.style import class_color, shorten

# Stand-ins that become colors of the page.
_INK, _FAINT, _LINE = "#010203", "#040506", "#070809"
_PAGE = {_INK: "currentColor", _FAINT: "var(--faint)", _LINE: "var(--line)"}
_MEAN = "#3b82d6"
_SIZE = (4.6, 3.0)  # inches: small enough that text is readable on a phone
BINS = 10


class Chart(NamedTuple):
    """An SVG with the sentence below it."""

    svg: str
    text: str


def training_curves(log: pd.DataFrame, class_names: Sequence[str]) -> list[Chart]:
    """Draw the losses of a run's log, and the Dice of the validation cases if it was measured twice."""
    figure, axes = _chart("iteration", "loss")
    parts = loss_parts(log)
    for index, name in enumerate(parts if len(parts) > 1 else (), start=1):
        look: dict[str, Any] = {"color": class_color(index), "linewidth": 0.9, "label": shorten(name, 16)}
        axes.plot(log["iteration"], log[name], **look)
    axes.plot(log["iteration"], log["loss"], color=_INK, linewidth=1.8, label="sum")
    axes.set_ylim(bottom=min(0.0, float(log["loss"].min())))
    found = [Chart(_svg(figure, "Training losses over the iterations"), "Losses, as weighted in the sum")]
    if "val_dice" not in log or len(rows := log[log["val_dice"].notna()]) < 2:
        return found
    figure, axes = _chart("iteration", "Dice on the working grid")
    lines = [(f"val_dice_{name}", name, class_color(i), 1.1) for i, name in enumerate(class_names, 1)]
    lines = lines if len(lines) > 1 else []
    for column, name, color, width in [*lines, ("val_dice", "mean", _INK, 1.8)]:
        if column in rows:
            look = {"color": color, "linewidth": width, "label": shorten(name, 20), "markersize": 3.5}
            axes.plot(rows["iteration"], rows[column], marker="o", **look)
    axes.set_ylim(0, 1)
    svg = _svg(figure, "Dice of the validation cases over the iterations")
    return [*found, Chart(svg, "Dice of the validation cases while training")]


def loss_parts(log: pd.DataFrame) -> list[str]:
    """Find the columns after `loss` whose sum it is; those behind them are notes."""
    names = [name for name in log.columns[list(log.columns).index("loss") + 1 :] if name != "forecast_s"]
    for count in range(1, len(names) + 1):
        if np.allclose(log[names[:count]].sum(axis=1), log["loss"], rtol=1e-3, atol=1e-4):
            return names[:count]
    return []


def score_chart(table: pd.DataFrame, means: Mapping[str, Mapping[str, float]]) -> Chart:
    """Draw the Dice of each case as a dot, a row a class, with `means`: mean, low and high of each class."""
    figure, axes = _rows("Dice", means, 18, _INK)
    generator, by_case = np.random.default_rng(0), case_means(table).dropna()
    for row, name in enumerate(means):
        whole = name == MEAN_ROW
        values = by_case if whole else table.loc[table["class"] == name, "dice"].dropna()
        heights = row + generator.uniform(-0.2, 0.2, len(values))
        color = _FAINT if whole else class_color(row + 1)
        axes.scatter(values, heights, s=13, color=color, alpha=0.75, linewidths=0)
    axes.set_xlim(min(0.5, float(table["dice"].min()) - 0.05), 1)
    svg = _svg(figure, "Dice of each case, with mean and 95 % interval")
    return Chart(svg, "Dot: a case; diamond and bar: mean, 95 % interval")


def reliability_bins(probs: NDArray[Any], truth: NDArray[Any], margin: int = 4) -> NDArray[np.float64]:
    """Count how often voxels that are given a probability of a foreground class belong to it.

    Only the box around reference and prediction counts, with a margin in voxels: far background is easy.
    `probs` is (K, X, Y, Z), `truth` (X, Y, Z) class indices. Returns (BINS, 3): voxels, sum of their
    probabilities, voxels of the class; all foreground classes together.
    """
    near = union_box((truth > 0) | (probs.argmax(0) > 0))
    if near is None:
        return np.zeros((BINS, 3))
    box = tuple(slice(max(0, part.start - margin), part.stop + margin) for part in near)
    counts = np.zeros((BINS, 3))
    for index in range(1, len(probs)):
        given, hit = probs[index][box].ravel(), (truth[box] == index).ravel()
        bins = np.minimum((given * BINS).astype(int), BINS - 1)
        columns = (np.ones_like(given), given, hit)
        counts += np.stack([np.bincount(bins, column, minlength=BINS) for column in columns], axis=1)
    return counts


def calibration_error(counts: NDArray[np.float64]) -> float:
    """Compute the expected calibration error of bins: mean of |share - probability|, weighted by voxels."""
    used = counts[counts[:, 0] > 0]
    return float(np.abs(used[:, 2] - used[:, 1]).sum() / used[:, 0].sum())


def reliability_chart(counts: NDArray[np.float64]) -> Chart:
    """Draw the share of voxels of a class against the probability that they were given."""
    used = counts[counts[:, 0] > 0]
    given, share = used[:, 1] / used[:, 0], used[:, 2] / used[:, 0]
    figure, axes = _chart("probability given to a class", "share of voxels of that class")
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, linestyle="--", label="perfectly calibrated")
    axes.plot(given, share, "o-", color=_MEAN, linewidth=1.8, markersize=5, label="this model")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    svg = _svg(figure, "Reliability: share of voxels of a class against the probability given to it")
    error = f"expected calibration error {calibration_error(counts):.3f}"
    return Chart(svg, f"Probabilities near the structures against reality; {error}")


def difference_chart(differences: Mapping[str, Mapping[str, float]], first: str) -> Chart:
    """Draw the mean paired difference of each run to the first, with its 95 % interval."""
    figure, axes = _rows(f"Dice minus that of {shorten(first, 24)}", differences, 24, _MEAN)
    axes.axvline(0, color=_FAINT, linewidth=1, linestyle="--")
    svg = _svg(figure, "Paired differences of Dice with 95 % intervals")
    return Chart(svg, "Mean paired difference with its 95 % interval over cases")


def _chart(x: str, y: str, height: float = _SIZE[1]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_SIZE[0], height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x, fontsize=9.5, color=_INK)
    axes.set_ylabel(y, fontsize=9.5, color=_INK)
    axes.grid(color=_LINE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(labelsize=9, color=_FAINT, labelcolor=_INK)
    axes.patch.set_alpha(0)
    return figure, axes


def _rows(x: str, means: Mapping[str, Mapping[str, float]], longest: int, color: str) -> tuple[Figure, Axes]:
    """Start a chart of one row a name, with a diamond at the mean and a bar for the interval."""
    figure, axes = _chart(x, "", height=max(1.5, 0.7 + 0.42 * len(means)))
    for row, found in enumerate(means.values()):
        if not np.isnan(found["low"]):
            axes.plot([found["low"], found["high"]], [row, row], color=_INK, linewidth=2.2, zorder=4)
        axes.plot([found["mean"]], [row], "D", color=color, markersize=6, zorder=5)
    axes.set_yticks(range(len(means)), [shorten(name, longest) for name in means])
    axes.set_ylim(len(means) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=5)  # the numbers of small differences are long
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    for axes in figure.axes:
        if len(axes.get_legend_handles_labels()[1]) > 1:
            axes.legend(fontsize=8, frameon=False, ncols=2, labelcolor=_INK)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for color, replacement in _PAGE.items():
        text = text.replace(color, replacement)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
