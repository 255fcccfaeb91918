"""What a data set looks like on one page: some of its scans, their sizes, intensities and class volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from semivox.preprocessing.fingerprint import Fingerprint
from semivox.preprocessing.inspect import SAMPLES, Sample
from semivox.reporting.slices import Outline, RasImage, draw_slice, finest_view, fullest_slice, to_ras
from semivox.reporting.style import (
    BACKGROUND,
    FAINT,
    TEXT,
    class_color,
    class_lines,
    dark_figure,
    draw_legend,
    legend_height,
    save_png,
    shorten,
    write,
)

_WIDTH, _MARGIN, _THUMB, _PLOT = 12.0, 0.6, 1.85, 2.3  # inches
_HEADER = 6.0  # inches that the name of the data set may take
_LABELED, _OTHER = "#1fb6ff", "#9aa0a8"
_AXES = ("right-left", "back-front", "down-up")
_NAMED = 5  # classes that have room for their names side by side
_FAR = 50.0  # ratio of the largest to the usual values from which on their axis is logarithmic


def save_dataset_figure(
    path: Path,
    name: str,
    channels: Sequence[str],
    class_names: Sequence[str],
    measured: Fingerprint,
    samples: Sequence[Sample],
) -> None:
    """Draw a slice of each sample, then sizes, intensities and class volumes, a point a case, as a PNG.

    A slice lies in the plane with the finest pixels, where there is most foreground.

    Args:
        path: the PNG to write.
        name: of the data set.
        channels: their names.
        class_names: background first.
        measured: its fingerprint.
        samples: scans to draw, at most 6.
    """
    rows = 1 + (len(channels) + 2) // 3
    legend = class_lines(range(len(class_names)), class_names)
    foot = legend_height(legend, _WIDTH, _HEADER)  # beside the name of the data set if there is room
    figure = dark_figure(_WIDTH, 1.5 + _THUMB + rows * (_PLOT + 0.75) + foot)
    high = figure.get_figheight()
    labeled = sum(case.class_volumes_ml is not None for case in measured.cases)
    write(figure, _MARGIN, high - 0.35, shorten(name, 48), fontsize=14, weight="bold")
    found = f"{len(measured.cases)} scans, {labeled} of them labeled"
    write(figure, _MARGIN, high - 0.62, f"{found} (blue; the others gray)", color=FAINT)
    for index, sample in enumerate(samples):
        _draw_sample(figure, sample, _MARGIN + index * (_THUMB + 0.02), high - 0.9 - _THUMB)
    bottom = high - 1.7 - _THUMB - _PLOT
    panels = _row(figure, 3, 3, bottom)
    for first in range(0, len(channels), 3):
        bottom -= _PLOT + 0.75
        panels += _row(figure, min(3, len(channels) - first), min(3, len(channels)), bottom)
    colors = [_OTHER if case.class_volumes_ml is None else _LABELED for case in measured.cases]
    shapes, spacings = (
        np.array([getattr(case, name) for case in measured.cases]) for name in ("shape", "spacing_mm")
    )
    _strips(panels[0], "voxels", _AXES, shapes, [colors] * 3)
    _strips(panels[1], "voxel size in mm", _AXES, spacings, [colors] * 3)
    _draw_volumes(panels[2], class_names, measured)
    for index, channel in enumerate(channels):
        _draw_intensities(panels[3 + index], channel, measured, index, colors)
    draw_legend(figure, legend, "lower right" if foot else "upper right")
    save_png(figure, path)


def save_sheet(
    path: Path, samples: Sequence[Sample], captions: Sequence[str], title: str, class_names: Sequence[str]
) -> None:
    """Draw a slice of each sample with its label, six in a row and a caption below each, as a PNG.

    Args:
        path: the PNG to write.
        samples: scans to draw.
        captions: one a sample, in the place of its name.
        title: of the sheet.
        class_names: background first.
    """
    rows = -(-len(samples) // SAMPLES)
    legend = class_lines(range(len(class_names)), class_names)
    foot = 0.2 + legend_height(legend, _WIDTH, 0.0)
    figure = dark_figure(_WIDTH, 0.75 + rows * (_THUMB + 0.35) + foot)
    high = figure.get_figheight()
    write(figure, _MARGIN, high - 0.35, shorten(title, 90), fontsize=14, weight="bold")
    for index, (sample, caption) in enumerate(zip(samples, captions, strict=True)):
        row, column = divmod(index, SAMPLES)
        bottom = high - 0.6 - (row + 1) * (_THUMB + 0.35) + 0.3
        _draw_sample(figure, sample._replace(name=caption), _MARGIN + column * (_THUMB + 0.02), bottom)
    draw_legend(figure, legend)
    save_png(figure, path)


def _draw_sample(figure: Figure, sample: Sample, left: float, bottom: float) -> None:
    scan = RasImage.turned(sample.image, sample.spacing_mm, sample.axes)
    label = None if sample.label is None else to_ras(sample.label, sample.axes)
    view = finest_view(scan.spacing)
    at, (wide, high) = fullest_slice(label, scan.image.shape, view), scan.size_mm(view)
    scale = (_THUMB - 0.08) / max(wide, high)
    place = left, bottom + (_THUMB - scale * high) / 2, scale
    draw_slice(figure, place, scan, view, at, [] if label is None else [Outline(label, width=1.0)])
    color = FAINT if label is None else TEXT
    write(figure, left, bottom - 0.15, shorten(sample.name, 24), fontsize=8, color=color)


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
    colors = [class_color(index) for index in range(1, len(class_names))]
    _strips(panel, "class volumes in mL, labeled cases", shown, values, colors)


def _draw_intensities(
    panel: Axes, channel: str, measured: Fingerprint, index: int, colors: Sequence[str]
) -> None:
    """Draw a line from the 0.5th to the 99.5th percentile for each scan, with a point at the median."""
    levels = [case.channels[index].percentiles for case in measured.cases]
    low, middle, high = (np.array([level[key] for level in levels]) for key in ("p005", "p500", "p995"))
    order = np.arange(len(levels))
    panel.vlines(order, low, high, colors=colors, linewidth=max(0.6, min(4.0, 120 / len(levels))))
    panel.scatter(order, middle, s=8, color=TEXT, zorder=3, linewidths=0)
    if high.max() > _FAR * max(float(np.median(np.abs(high))), 1e-6):
        panel.set_yscale("symlog", linthresh=max(float(np.percentile(np.abs(middle), 5)), 1e-6))
    panel.set_xlim(-0.6, len(levels) - 0.4)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("scans, in the order of the split", color=FAINT, fontsize=8)
    panel.set_title(
        f"intensities of {shorten(channel, 20)}: 0.5 to 99.5 %", color=TEXT, fontsize=10, loc="left"
    )


def _row(figure: Figure, count: int, columns: int, bottom: float) -> list[Axes]:
    wide = (_WIDTH - 2 * _MARGIN - 0.7 * (columns - 1)) / columns
    return [_axes(figure, _MARGIN + column * (wide + 0.7), bottom, wide) for column in range(count)]


def _axes(figure: Figure, left: float, bottom: float, width: float) -> Axes:
    wide, high = figure.get_size_inches()
    panel = figure.add_axes((left / wide, bottom / high, width / wide, _PLOT / high), facecolor=BACKGROUND)
    panel.tick_params(colors=FAINT, labelsize=8)
    for name, spine in panel.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(FAINT)
    panel.grid(axis="y", color=FAINT, alpha=0.2, linewidth=0.6)
    return panel
