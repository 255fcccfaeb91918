"""Pictures of one case for the page: slices in three planes, errors outlined, uncertainty as heat."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from semivox.reporting.page.source import CaseVolumes
from semivox.reporting.slices import (
    VIEWS,
    View,
    add_panel,
    draw_letters,
    draw_outlines,
    draw_scale_bar,
    draw_slice,
    finest_view,
    fullest_slice,
    grey_window,
    plane,
)
from semivox.reporting.style import (
    FAINT,
    SCALE_BAR,
    class_lines,
    dark_figure,
    draw_legend,
    legend_height,
    write,
)

_TRUTH, _GAP = "#ffffff", 0.06
_WIDTH, _TALLEST = 6.2, 2.5  # inches of the picture and of a row: text stays readable on a phone
DPI = 160
_MARGIN_MM, _MARGIN_SHARE = 8.0, 0.35  # around the foreground, the larger one


def planes_figure(case: CaseVolumes, class_names: Sequence[str] | None = None) -> Figure:
    """Draw the region around the foreground in three planes, the one with the finest pixels first.

    Each is the slice with the most foreground of reference and prediction together. The reference is
    outlined in white, if it is known, the prediction in the colors of its classes. With a map of
    uncertainty, a second row shows it as heat on the same slices, with the outline of the reference.

    Args:
        case: the voxels.
        class_names: background first; default: numbers.
    """
    spacing = case.spacing_mm
    both = np.maximum(case.truth, case.found)
    box = _region(both, spacing)
    views = sorted(VIEWS, key=lambda view: view != finest_view(spacing))
    sizes = [(part.stop - part.start) * step for part, step in zip(box, spacing, strict=True)]
    widths, heights = [sizes[v.horizontal] for v in views], [sizes[v.vertical] for v in views]
    rows = 1 if case.doubt is None else 2
    scale = min((_WIDTH - 2 * _GAP) / sum(widths), _TALLEST / max(heights))  # inches a mm
    row = scale * max(heights)
    lines = _legend(both, class_names, has_reference=case.has_truth)
    foot = 0.4 + legend_height(lines, _WIDTH + 0.4, SCALE_BAR)
    figure = dark_figure(_WIDTH + 0.4, rows * (row + _GAP) + 0.25 + foot, DPI)
    left = (_WIDTH + 0.4 - scale * sum(widths) - 2 * _GAP) / 2
    window = grey_window(case.image[box])
    for view, wide, high in zip(views, widths, heights, strict=True):
        at = fullest_slice(both, both.shape, view)
        for index in range(rows):
            bottom = foot + (rows - 1 - index) * (row + _GAP) + (row - scale * high) / 2
            panel = add_panel(figure, left, bottom, scale * wide, scale * high)
            draw_slice(panel, _cut(case.image, box, view, at), view, spacing, window)
            if index and case.doubt is not None:
                _draw_heat(panel, _cut(case.doubt, box, view, at), view, spacing, float(case.doubt.max()))
            else:
                draw_outlines(panel, _cut(case.found, box, view, at), view, spacing, width=1.7)
            draw_outlines(panel, _cut(case.truth, box, view, at), view, spacing, color=_TRUTH, width=0.9)
            draw_letters(panel, view)
            if not index:
                caption = f"{view.name}, {'xyz'[view.normal]} {at + 1} of {both.shape[view.normal]}"
                panel.set_title(caption, color=FAINT, fontsize=8, pad=3)
        left += scale * wide + _GAP
    draw_scale_bar(figure, 0.2, foot - 0.2, scale)
    draw_legend(figure, lines)
    if rows > 1:
        write(figure, 0.04, foot + row / 2, "uncertainty", color=FAINT, fontsize=8, rotation=90)
    return figure


def webp(figure: Figure | None) -> str | None:
    """Return a picture as base64 of a WebP, a fifth of a PNG's size."""
    if figure is None:
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", facecolor=figure.get_facecolor(), pil_kwargs={"quality": 82})
    return base64.b64encode(buffer.getvalue()).decode()


def _cut(volume: NDArray[Any], box: tuple[slice, ...], view: View, at: int) -> NDArray[Any]:
    inside = tuple(slice(None) if axis == view.normal else part for axis, part in enumerate(box))
    return plane(volume[inside], view, at)


def _draw_heat(panel: Any, pixels: NDArray[Any], view: View, spacing: Sequence[float], top: float) -> None:
    """Lay a map over a slice, the clearer the smaller it is."""
    extent = (0, pixels.shape[0] * spacing[view.horizontal], 0, pixels.shape[1] * spacing[view.vertical])
    share = np.clip(pixels.T / max(top, 1e-6), 0, 1)
    look: Any = {"cmap": "inferno", "vmin": 0, "vmax": 1, "interpolation": "bilinear", "origin": "lower"}
    panel.imshow(share, extent=extent, aspect="auto", alpha=np.clip(1.6 * share, 0, 0.85), **look)


def _region(label: NDArray[Any], spacing: Sequence[float]) -> tuple[slice, ...]:
    """Return the box around the foreground, with a margin; the whole volume if there is none."""
    if not label.any():
        return tuple(slice(0, side) for side in label.shape)
    box = []
    for axis, side in enumerate(label.shape):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero((label > 0).any(axis=others))
        start, stop = int(filled[0]), int(filled[-1]) + 1
        margin = round(max(_MARGIN_MM / spacing[axis], _MARGIN_SHARE * (stop - start)))
        box.append(slice(max(0, start - margin), min(side, stop + margin)))
    return tuple(box)


def _legend(label: NDArray[Any], class_names: Sequence[str] | None, *, has_reference: bool) -> list[Line2D]:
    reference = Line2D([], [], color=_TRUTH, linewidth=1.4, label="reference")
    present = np.flatnonzero(np.bincount(label.ravel())).tolist()
    lines = class_lines(present, class_names)
    return [reference, *lines] if has_reference else lines
