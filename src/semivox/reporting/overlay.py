"""One picture a case: three orthogonal slices with the outlines of the label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semivox.reporting.slices import (
    VIEWS,
    Volume,
    add_panel,
    draw_letters,
    draw_outlines,
    draw_scale_bar,
    draw_slice,
    finest_view,
    fullest_slice,
    grey_window,
    plane,
    ras_spacing,
    to_ras,
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


def save_overlay(
    path: Path,
    image: NDArray[Any],
    label: Volume | None,
    spacing_mm: Sequence[float],
    *,
    name: str | None = None,
    class_names: Sequence[str] | None = None,
    axes: str | None = "RAS",
) -> None:
    """Draw an axial, a coronal and a sagittal slice as a PNG, that with the finest pixels first.

    Each is the slice with the most foreground, or the middle one. All three have the same scale; the
    patient's right is at the left.

    Args:
        path: the PNG to write.
        image: (C, X, Y, Z); the first channel is shown.
        label: class indices (X, Y, Z), or None for an unlabeled case.
        spacing_mm: voxel size.
        name: of the case; default: the file's.
        class_names: background first; default: numbers.
        axes: where the array's axes point to, as `nibabel.aff2axcodes` says (prepared cases: RAS);
            None: unknown, the picture then has no letters.
    """
    channel, spacing = to_ras(image[0], axes), ras_spacing(spacing_mm, axes)
    classes = None if label is None else to_ras(label, axes)
    present = [] if label is None else np.flatnonzero(np.bincount(label.ravel())).tolist()
    legend = class_lines(present, class_names)
    views = sorted(VIEWS, key=lambda view: view != finest_view(spacing))
    size = [n * step for n, step in zip(channel.shape, spacing, strict=True)]
    widths, heights = [size[view.horizontal] for view in views], [size[view.vertical] for view in views]
    scale = min(9.6 / sum(widths), 4.6 / max(heights))  # inches a mm
    row = scale * max(heights)
    cells = [max(scale * wide, 1.5) for wide in widths]  # room for the caption
    width = max(10.0, sum(cells) + 0.4)
    foot = 0.35 + legend_height(legend, width, SCALE_BAR)
    figure = dark_figure(width, row + 0.95 + foot)
    left = (width - sum(cells) - 0.2) / 2
    window = grey_window(channel)
    for view, wide, high, cell in zip(views, widths, heights, cells, strict=True):
        place = left + (cell - scale * wide) / 2, foot + (row - scale * high) / 2
        panel = add_panel(figure, *place, scale * wide, scale * high)
        at = fullest_slice(classes, channel.shape, view)
        draw_slice(panel, plane(channel, view, at), view, spacing, window)
        if classes is not None:
            draw_outlines(panel, plane(classes, view, at), view, spacing)
        caption = f"{'xyz'[view.normal]} {at + 1} of {channel.shape[view.normal]}"
        panel.set_title(f"{view.name}, {caption}" if axes else caption, color=FAINT, fontsize=9, pad=4)
        if axes:
            draw_letters(panel, view)
        left += cell + 0.1
    draw_scale_bar(figure, 0.2, foot - 0.19, scale)
    draw_legend(figure, legend)
    top = figure.get_figheight()
    steps = " × ".join(f"{step:.3g}" for step in spacing_mm)
    voxels = " × ".join(map(str, image.shape[1:]))
    state = "unlabeled" if label is None else "labeled" if legend else "no foreground in the label"
    write(figure, 0.2, top - 0.27, shorten(name or path.stem, 70), fontsize=13, weight="bold")
    write(figure, 0.2, top - 0.53, f"{voxels} voxels of {steps} mm", color=FAINT)
    write(figure, width - 0.2, top - 0.53, state, color=FAINT, ha="right")
    save_png(figure, path)
