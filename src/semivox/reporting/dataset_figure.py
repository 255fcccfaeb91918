"""What a data set looks like on one page: some of its scans, their sizes, intensities and class volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from semivox.preprocessing.inspect import Information, Sample
from semivox.reporting import style
from semivox.reporting.layout import Panel, Row, class_lines, page
from semivox.reporting.planes import THUMB, thumbnail
from semivox.reporting.style import FAINT, TEXT, dress, shorten

_WIDE, _HIGH = 3.75, 2.9  # inches of a chart
_LABELED, _OTHER = style.CLASS_COLORS[1], FAINT
_AXES = ("right-left", "back-front", "down-up")
_NAMED = 5  # classes that have room for their names side by side
_FAR = 50.0  # ratio of the largest to the usual values from which on their axis is logarithmic


def save_dataset_figure(path: Path, found: Information, samples: Sequence[Sample]) -> None:
    """Draw a slice of each sample, then sizes, intensities and class volumes, a point a case, as a PNG.

    A slice lies in the plane with the finest pixels, where there is most foreground. There is room for 6.
    """
    dataset, cases = found.dataset, found.measured.cases
    volumes = [case.class_volumes_ml for case in cases if case.class_volumes_ml is not None]
    colors = [_OTHER if case.class_volumes_ml is None else _LABELED for case in cases]
    shapes = np.array([case.shape for case in cases])
    spacings = np.array([case.spacing_mm for case in cases])
    charts = [
        _chart("voxels", partial(_draw_strips, names=_AXES, values=shapes, colors=[colors] * 3)),
        _chart("voxel size in mm", partial(_draw_strips, names=_AXES, values=spacings, colors=[colors] * 3)),
        _volumes(dataset.class_names, volumes),
    ]
    wide = 3 * _WIDE / min(3, len(dataset.channels))
    for index, channel in enumerate(dataset.channels):
        levels = [case.channels[index] for case in cases]
        title = f"intensities of {shorten(channel, 20)}: 0.5 to 99.5 %"
        charts.append(_chart(title, partial(_draw_intensities, levels=levels, colors=colors), wide))
    rows = [Row([thumbnail(sample, sample.name) for sample in samples])]
    rows += [Row(charts[first : first + 3]) for first in range(0, len(charts), 3)]
    counts = (
        f"{len(cases)} scan{'s' * (len(cases) > 1)}, {len(volumes)} of them labeled (blue; the others gray)"
    )
    legend = class_lines(range(len(dataset.class_names)), dataset.class_names)
    figure = page(rows, title=dataset.name, subtitle=counts, legend=legend, narrowest=THUMB)
    style.save_png(figure, path)


def _chart(title: str, draw: Callable[[Axes], object], wide: float = _WIDE) -> Panel:
    """Make a panel with axes; what is written around them stands in it, too."""

    def drawn(panel: Axes) -> None:
        box = panel.get_position()
        left = 0.12 * _WIDE / wide * box.width
        panel.set_position((box.x0 + left, box.y0 + 0.17 * box.height, box.width - left, 0.7 * box.height))
        panel.set_axis_on()
        draw(panel)
        dress(panel, x=panel.get_xlabel(), grid="y", ink=TEXT, line="#343943")
        panel.set_title(title, color=TEXT, fontsize=10, loc="left")

    return Panel(wide, _HIGH, drawn)


def _draw_strips(
    panel: Axes, *, names: Sequence[str], values: np.ndarray, colors: Sequence[str | Sequence[str]]
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
    panel.set_xticks(range(len(names)), names)
    panel.set_xlim(-0.6, len(names) - 0.4)


def _volumes(class_names: Sequence[str], volumes: Sequence[dict[str, float]]) -> Panel:
    names = class_names[1:]
    if not volumes:
        return _chart("no labels", Axes.set_axis_off)
    values = np.array([[volume[name] for name in names] for volume in volumes])
    shown = [shorten(name, 14) if len(names) <= _NAMED else str(i) for i, name in enumerate(names, 1)]
    colors = [style.class_color(index) for index in range(1, len(class_names))]
    draw = partial(_draw_strips, names=shown, values=values, colors=colors)
    return _chart("class volumes in mL, labeled cases", draw)


def _draw_intensities(panel: Axes, *, levels: Sequence[dict[str, Any]], colors: Sequence[str]) -> None:
    """Draw a line from the 0.5th to the 99.5th percentile for each scan, with a point at the median."""
    low, middle, high = (np.array([level[key] for level in levels]) for key in ("p005", "p500", "p995"))
    order = np.arange(len(levels))
    panel.vlines(order, low, high, colors=colors, linewidth=max(0.6, min(4.0, 120 / len(levels))))
    panel.scatter(order, middle, s=8, color=TEXT, zorder=3, linewidths=0)
    if high.max() > _FAR * max(float(np.median(np.abs(high))), 1e-6):
        panel.set_yscale("symlog", linthresh=max(float(np.percentile(np.abs(middle), 5)), 1e-6))
    panel.set_xlim(-0.6, len(levels) - 0.4)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panel.set_xlabel("scans, in the order of the split")
