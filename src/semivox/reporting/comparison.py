"""Methods side by side on the same slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from semivox.reporting.slices import (
    View,
    Volume,
    add_panel,
    draw_letters,
    draw_outlines,
    draw_scale_bar,
    draw_slice,
    finest_view,
    grey_window,
    plane,
    ras_spacing,
    to_ras,
    write_in_panel,
)
from semivox.reporting.style import (
    FAINT,
    SCALE_BAR,
    class_lines,
    dark_figure,
    draw_legend,
    legend_height,
    save_png,
    shorten,
    write,
)

_TRUTH = "#ffffff"
_MARGIN_MM = 10.0  # at most a quarter of the foreground's size
_PANEL, _NARROWEST, _GAP = 2.9, 2.0, 0.08  # inches: longer side of a panel, column, space between
_DPI = 140


def save_comparison(path: Path, *args: Any, **options: Any) -> None:
    """Write the picture of `comparison_figure` as a PNG."""
    save_png(comparison_figure(*args, **options), path)


def comparison_figure(
    image: NDArray[Any],
    reference: Volume,
    labels: Mapping[str, Volume],
    spacing_mm: Sequence[float],
    *,
    scores: Mapping[str, float] | None = None,
    title: str | None = None,
    class_names: Sequence[str] | None = None,
    axes: str | None = None,
    rows: int = 3,
) -> Figure:
    """Draw slices with the outline of the reference and of each method's result, a column a method.

    The slices lie in the plane with the finest pixels and divide the foreground into equal parts; the picture
    shows the surroundings of the foreground. The patient's right is at the left.

    Args:
        image: (C, X, Y, Z); the first channel is shown.
        reference: class indices (X, Y, Z).
        labels: the result of each method, in the order of the columns.
        spacing_mm: voxel size.
        scores: Dice of each method.
        title: e.g. the name of the case.
        class_names: background first; default: numbers.
        axes: where the array's axes point to, as `nibabel.aff2axcodes` says; None: unknown, taken for RAS,
            the picture then has no letters.
        rows: slices.
    """
    spacing = ras_spacing(spacing_mm, axes)
    view = finest_view(spacing)
    truth, found = to_ras(reference, axes), {name: to_ras(label, axes) for name, label in labels.items()}
    box, cuts = foreground_region((truth, *found.values()), spacing, view, rows)
    channel, truth = to_ras(image[0], axes)[box], truth[box]
    found = {name: label[box] for name, label in found.items()}
    window = grey_window(channel)

    size = [channel.shape[axis] * spacing[axis] for axis in (view.horizontal, view.vertical)]
    scale = _PANEL / max(size)  # inches a mm
    wide, high = scale * size[0], scale * size[1]
    pitch = max(wide, _NARROWEST) + _GAP
    width = max(_GAP + len(found) * pitch, 5.0)
    legend = _legend((truth, *found.values()), class_names)
    foot = 0.45 + legend_height(legend, width, SCALE_BAR)
    top = foot + len(cuts) * (high + _GAP) + 0.38 + (0.24 if scores else 0)
    figure = dark_figure(width, top + (0.38 if title else 0), _DPI)
    if title:
        write(figure, 0.15, top + 0.13, shorten(title, int(width / 0.135)), fontsize=13, weight="bold")
    for column, (name, label) in enumerate(found.items()):
        center = width / 2 + pitch * (column - (len(found) - 1) / 2)
        _write_head(figure, name, (scores or {}).get(name), (center, top), pitch)
        for row, cut in enumerate(cuts):
            bottom = foot + (len(cuts) - 1 - row) * (high + _GAP)
            panel = add_panel(figure, center - wide / 2, bottom, wide, high)
            draw_slice(panel, plane(channel, view, cut), view, spacing, window)
            draw_outlines(panel, plane(label, view, cut), view, spacing, width=2.0)
            draw_outlines(panel, plane(truth, view, cut), view, spacing, color=_TRUTH, width=0.9)
            write_in_panel(panel, f"{'xyz'[view.normal]} {cut + 1}", 0, 0, ha="left", va="bottom")
            if axes:
                draw_letters(panel, view)
    draw_scale_bar(figure, 0.15, foot - 0.22, scale)
    draw_legend(figure, legend)
    return figure


def foreground_region(
    labels: Sequence[Volume], spacing: Sequence[float], view: View, rows: int
) -> tuple[tuple[slice, ...], list[int]]:
    """Find the box in the plane around all foreground, with a margin, and the slices to show, last first."""
    foreground = np.logical_or.reduce([label > 0 for label in labels])
    if not foreground.any():
        foreground = np.ones_like(foreground)
    box = [slice(None)] * 3
    for axis, other in ((view.horizontal, view.vertical), (view.vertical, view.horizontal)):
        filled = np.flatnonzero(foreground.any(axis=(other, view.normal)))
        start, stop = int(filled[0]), int(filled[-1]) + 1
        margin = round(min(_MARGIN_MM / spacing[axis], (stop - start) / 4))
        box[axis] = slice(max(0, start - margin), stop + margin)
    cumulative = np.cumsum(foreground.sum(axis=(view.horizontal, view.vertical)))
    shares = (np.arange(rows) + 0.5) / rows
    cuts = {int(np.searchsorted(cumulative, share * cumulative[-1])) for share in shares}
    return tuple(box), sorted(cuts, reverse=True)


def _write_head(
    figure: Figure, name: str, dice: float | None, place: tuple[float, float], pitch: float
) -> None:
    """Write name and Dice above a column whose head begins at `place` (center, top; inches)."""
    center, top = place
    text = shorten(name, int(pitch / 0.12))
    write(figure, center, top - 0.2, text, fontsize=12, weight="bold", ha="center")
    if dice is not None:
        write(figure, center, top - 0.44, f"Dice {dice:.3f}", fontsize=11, ha="center", color=FAINT)


def _legend(labels: Sequence[Volume], class_names: Sequence[str] | None) -> list[Line2D]:
    present = np.unique(np.concatenate([np.flatnonzero(np.bincount(label.ravel())) for label in labels]))
    reference = Line2D([], [], color=_TRUTH, linewidth=1.4, label="reference")
    return [reference, *class_lines(present.tolist(), class_names)]
