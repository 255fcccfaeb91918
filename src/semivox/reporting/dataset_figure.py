"""What a data set looks like on one page: some of its scans, their sizes, intensities and class volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from semivox.preprocessing.fingerprint import Fingerprint
from semivox.preprocessing.inspect import Information, Sample
from semivox.reporting import style
from semivox.reporting.sheets import MARGIN, THUMB, WIDTH, draw_thumbnail
from semivox.reporting.style import FAINT, TEXT, shorten

_PLOT = 2.3  # inches
_HEADER = 6.0  # inches that the name of the data set may take
_LABELED, _OTHER = "#1fb6ff", "#9aa0a8"
_AXES = ("right-left", "back-front", "down-up")
_NAMED = 5  # classes that have room for their names side by side
_FAR = 50.0  # ratio of the largest to the usual values from which on their axis is logarithmic


def save_dataset_figure(path: Path, found: Information, samples: Sequence[Sample]) -> None:
    """Draw a slice of each sample, then sizes, intensities and class volumes, a point a case, as a PNG.

    A slice lies in the plane with the finest pixels, where there is most foreground. There is room for 6.
    """
    dataset, measured = found.dataset, found.measured
    name, channels, class_names = dataset.name, dataset.channels, dataset.class_names
    rows = 1 + (len(channels) + 2) // 3
    legend = style.class_lines(range(len(class_names)), class_names)
    foot = style.legend_height(legend, WIDTH, _HEADER)  # beside the name of the data set if there is room
    figure = style.dark_figure(WIDTH, 1.5 + THUMB + rows * (_PLOT + 0.75) + foot)
    high = figure.get_figheight()
    labeled = sum(case.class_volumes_ml is not None for case in measured.cases)
    style.write(figure, MARGIN, high - 0.35, shorten(name, 48), fontsize=14, weight="bold")
    counts = f"{len(measured.cases)} scans, {labeled} of them labeled"
    style.write(figure, MARGIN, high - 0.62, f"{counts} (blue; the others gray)", color=FAINT)
    for index, sample in enumerate(samples):
        draw_thumbnail(figure, sample, sample.name, MARGIN + index * (THUMB + 0.02), high - 0.9 - THUMB)
    bottom = high - 1.7 - THUMB - _PLOT
    panels = _row(figure, 3, 3, bottom)
    for first in range(0, len(channels), 3):
        bottom -= _PLOT + 0.75
        panels += _row(figure, min(3, len(channels) - first), min(3, len(channels)), bottom)
    colors = [_OTHER if case.class_volumes_ml is None else _LABELED for case in measured.cases]
    shapes = np.array([case.shape for case in measured.cases])
    spacings = np.array([case.spacing_mm for case in measured.cases])
    _strips(panels[0], "voxels", _AXES, shapes, [colors] * 3)
    _strips(panels[1], "voxel size in mm", _AXES, spacings, [colors] * 3)
    _draw_volumes(panels[2], class_names, measured)
    for index, channel in enumerate(channels):
        _draw_intensities(panels[3 + index], channel, measured, index, colors)
    style.draw_legend(figure, legend, "lower right" if foot else "upper right")
    style.save_png(figure, path)


def _strips(
    panel: Axes, title: str, names: Sequence[str], values: np.ndarray, colors: Sequence[str | Sequence[str]]
) -> None:
    """Draw a column of points for each column of `values` (cases, columns), with one color or one a case."""
    jitter = np.random.default_rng(0).uniform(-0.25, 0.25, len(values))
    for column, color in enumerate(colors):
        panel.scatter(column + jitter, values[:, column], s=9, c=color, alpha=0.8, linewidths=0)
    positive = values[values > 0]
    if positive.size == values.size and positive.max() > 10 * positive.min():
        panel.set_yscale("log")
    else:
        panel.set_ylim(0, 1.08 * float(values.max()) or 1)
    panel.set_xticks(range(len(names)), names, color=TEXT, fontsize=8)
    panel.set_xlim(-0.6, len(names) - 0.4)
    panel.set_title(title, color=TEXT, fontsize=10, loc="left")


def _draw_volumes(panel: Axes, class_names: Sequence[str], measured: Fingerprint) -> None:
    volumes = [case.class_volumes_ml for case in measured.cases if case.class_volumes_ml is not None]
    if not volumes:
        panel.set_title("no labels", color=FAINT, fontsize=10, loc="left")
        panel.set_axis_off()
        return
    names = class_names[1:]
    values = np.array([[volume[name] for name in names] for volume in volumes])
    shown = [shorten(name, 14) for name in names]
    if len(names) > _NAMED:
        shown = [str(index) for index in range(1, len(class_names))]
    colors = [style.class_color(index) for index in range(1, len(class_names))]
    _strips(panel, "class volumes in mL, labeled cases", shown, values, colors)


def _draw_intensities(
    panel: Axes, channel: str, measured: Fingerprint, index: int, colors: Sequence[str]
) -> None:
    """Draw a line from the 0.5th to the 99.5th percentile for each scan, with a point at the median."""
    levels = [case.channels[index] for case in measured.cases]
    low, middle, high = (np.array([level[key] for level in levels]) for key in ("p005", "p500", "p995"))
    order = np.arange(len(levels))
    panel.vlines(order, low, high, colors=colors, linewidth=max(0.6, min(4.0, 120 / len(levels))))
    panel.scatter(order, middle, s=8, color=TEXT, zorder=3, linewidths=0)
    if high.max() > _FAR * max(float(np.median(np.abs(high))), 1e-6):
        panel.set_yscale("symlog", linthresh=max(float(np.percentile(np.abs(middle), 5)), 1e-6))
    panel.set_xlim(-0.6, len(levels) - 0.4)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("scans, in the order of the split", color=FAINT, fontsize=8)
    title = f"intensities of {shorten(channel, 20)}: 0.5 to 99.5 %"
    panel.set_title(title, color=TEXT, fontsize=10, loc="left")


def _row(figure: Figure, count: int, columns: int, bottom: float) -> list[Axes]:
    """Add some panels of a row that has room for `columns` of them."""
    width = (WIDTH - 2 * MARGIN - 0.7 * (columns - 1)) / columns
    high, panels = figure.get_figheight(), []
    for column in range(count):
        place = ((MARGIN + column * (width + 0.7)) / WIDTH, bottom / high, width / WIDTH, _PLOT / high)
        panel = figure.add_axes(place, facecolor=style.BACKGROUND)
        panel.tick_params(colors=FAINT, labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color(FAINT)
        panel.grid(axis="y", color=FAINT, alpha=0.2, linewidth=0.6)
        panels.append(panel)
    return panels
