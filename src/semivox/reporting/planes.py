"""One case in an axial, a coronal and a sagittal slice, with outlines and uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from semivox.reporting import slices, style
from semivox.reporting.slices import Outline, RasImage, Volume, draw_slice
from semivox.reporting.style import FAINT, shorten, write

_HEAD: tuple[dict[str, Any], ...] = (
    {"fontsize": 13, "weight": "bold"}, {"color": FAINT}, {"color": FAINT, "ha": "right"},
)  # fmt: skip
_GAP, _CAPTION = 0.08, 1.5  # inches: between panels; room for a caption


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
    """Draw a whole case with the outlines of its label as a PNG.

    Args:
        path: the PNG to write.
        image: (C, X, Y, Z); the first channel is shown.
        label: class indices (X, Y, Z), or None for an unlabeled case.
        spacing_mm: voxel size.
        name: of the case; default: the file's.
        class_names: background first; default: numbers.
        axes: nibabel codes of the array's axes (prepared cases: RAS); None: unknown, there are no letters.
    """
    scan = RasImage.turned(image[0], spacing_mm, axes)
    found = None if label is None else slices.to_ras(label, axes)
    state = "unlabeled" if label is None else "labeled" if label.any() else "no foreground in the label"
    steps, voxels = " × ".join(f"{step:.3g}" for step in spacing_mm), " × ".join(map(str, image.shape[1:]))
    head = shorten(name or path.stem, 70), f"{voxels} voxels of {steps} mm", state
    style.save_png(planes_figure(scan, found, class_names=class_names, head=head), path)


def planes_figure(
    scan: RasImage,
    found: Volume | None,
    truth: Volume | None = None,
    doubt: Volume | None = None,
    *,
    class_names: Sequence[str] | None = None,
    head: tuple[str, str, str] | None = None,
) -> Figure:
    """Draw three planes in one scale, that with the finest pixels first.

    Each is the slice with the most foreground, or the middle one. With `head` (name of the case, its size,
    the state of its label) the picture shows the whole scan, without it the region around the foreground,
    small enough to be read on a phone. `found`, class indices (X, Y, Z), is outlined in the colors of the
    classes, `truth` in white; `doubt`, uncertainty (X, Y, Z), is heat on the same slices in a second row.
    """
    labels = [label for label in (found, truth) if label is not None]
    both = np.maximum.reduce(labels) if labels else None
    whole: tuple[slice, ...] = (slice(0, None),) * 3
    box = whole if head or both is None else slices.surroundings(both)
    shown, window = scan.cropped(box), slices.grey_window(scan.image[box])
    widest, tallest, rim = (9.6, 4.6, 0.4) if head else (6.1, 2.5, 0.9)  # inches: slices, edges of the page

    views = sorted(slices.VIEWS, key=lambda view: view != slices.finest_view(scan.spacing))
    sizes = [shown.size_mm(view) for view in views]
    scale = min(widest / sum(wide for wide, _ in sizes), tallest / max(high for _, high in sizes))
    row = scale * max(high for _, high in sizes)
    cells = [max(scale * wide, _CAPTION) for wide, _ in sizes]
    width = max(widest + rim, sum(cells) + 2 * _GAP + 0.2)
    rows = 1 if doubt is None else 2
    legend = slices.outline_lines(labels, class_names, reference=truth is not None)
    foot = 0.4 + style.legend_height(legend, width, style.SCALE_BAR)
    height = foot + rows * (row + _GAP) + (0.9 if head else 0.25)
    figure = style.dark_figure(width, height, style.DPI if head else style.PAGE_DPI)

    outlines = [Outline(found[box], None, 1.5)] if found is not None else []
    reference = [Outline(truth[box], slices.TRUTH, 0.9)] if truth is not None else []
    heat = None if doubt is None else np.clip(doubt[box] / max(float(doubt.max()), 1e-6), 0, 1)
    left = (width - sum(cells) - 2 * _GAP) / 2
    for view, (wide, high), cell in zip(views, sizes, cells, strict=True):
        at, first = slices.fullest_slice(both, scan.image.shape, view), box[view.normal].start
        place = left + (cell - scale * wide) / 2, foot + (row - scale * high) / 2
        over = (place[0], place[1] + (rows - 1) * (row + _GAP), scale)
        panel = draw_slice(figure, over, shown, view, at - first, [*outlines, *reference], window=window)
        if heat is not None:
            draw_slice(figure, (*place, scale), shown, view, at - first, reference, window=window, heat=heat)
        caption = f"{'xyz'[view.normal]} {at + 1} of {scan.image.shape[view.normal]}"
        caption = f"{view.name}, {caption}" if scan.oriented else caption
        panel.set_title(caption, color=FAINT, fontsize=9 if head else 8, pad=4)
        left += cell + _GAP
    slices.draw_scale_bar(figure, 0.2, foot - 0.2, scale)
    style.draw_legend(figure, legend)
    if heat is not None:
        write(figure, 0.1, foot + row / 2, "uncertainty", color=FAINT, fontsize=8, rotation=90)
    for text, x, y, look in zip(head or (), (0.2, 0.2, width - 0.2), (0.27, 0.53, 0.53), _HEAD, strict=False):
        write(figure, x, height - y, text, **look)
    return figure
