"""Cases in an axial, a coronal and a sagittal slice, and scans with their labels on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from semivox.preprocessing.inspect import SAMPLES, Sample
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.workspace import overlay_name
from semivox.reporting import slices, style
from semivox.reporting.layout import Panel, Row, class_lines, page
from semivox.reporting.slices import Outline, RasImage, Volume, fullest_slice, slice_panel, turned
from semivox.reporting.style import FAINT, TEXT, shorten

Size = tuple[float, float]  # inches of three panels beside each other, and of the tallest of them

THUMB = 1.85  # inches of a thumbnail
_WHOLE, _NEAR = (9.6, 4.6), (6.1, 2.5)
_CAPTION = 1.5  # inches: room for a caption
_TEXT, _BESIDE = 2.4, (6.8, 1.8)  # inches of text in a sheet, and of the panels beside it


def draw_case(workspace: Path, plan: Plan, name: str, image: NDArray[Any], label: Volume | None) -> None:
    """Draw a prepared case with the outline of its label; `save_overlay` in the process that prepares it."""
    path = workspace / overlay_name(name)
    save_overlay(path, image, label, plan.spacing_mm, name=name, class_names=plan.class_names)


def save_overlay(
    path: Path,
    image: NDArray[Any],
    label: Volume | None,
    spacing_mm: Sequence[float],
    *,
    name: str,
    class_names: Sequence[str] | None = None,
) -> None:
    """Draw a whole case, of which the first channel is shown, with the outlines of its label as a PNG.

    `image` is (C, X, Y, Z), axes to the right, front and head, `label` (X, Y, Z) class indices, or None for
    an unlabeled case; `class_names` begin with the background, default: numbers.
    """
    state = "unlabeled" if label is None else "labeled" if label.any() else "no foreground in the label"
    steps, voxels = " × ".join(f"{step:.3g}" for step in spacing_mm), " × ".join(map(str, image.shape[1:]))
    head = name, f"{voxels} voxels of {steps} mm, {state}"
    scan = RasImage(image[0], tuple(spacing_mm))
    style.save_png(planes_figure(scan, label, class_names=class_names, head=head), path)


def planes_figure(
    scan: RasImage,
    found: Volume | None,
    truth: Volume | None = None,
    doubt: Volume | None = None,
    *,
    class_names: Sequence[str] | None = None,
    head: tuple[str, str] | None = None,
) -> Figure:
    """Draw three planes in one scale, that with the finest pixels first.

    Each is the slice with the most foreground, or the middle one. With `head` (name of the case, what it is)
    the picture shows the whole scan, without it the region around the foreground, small enough to be read on
    a phone. `found`, class indices (X, Y, Z), is outlined in the colors of the classes, `truth` in white;
    `doubt`, uncertainty (X, Y, Z), is heat on the same slices in a second row.
    """
    labels = [label for label in (found, truth) if label is not None]
    both = np.maximum.reduce(labels) if labels else np.zeros(scan.image.shape, np.uint8)
    box = (slice(0, None),) * 3 if head else slices.surroundings(both)
    reference = [] if truth is None else [Outline(truth[box], slices.TRUTH, 0.9)]
    outlines = [*([] if found is None else [Outline(found[box], None, 1.5)]), *reference]
    near, size = (scan.cropped(box), both[box]), _WHOLE if head else _NEAR
    rows = [Row(_planes(*near, outlines, size))]
    if doubt is not None:
        heat = np.clip(doubt[box] / max(float(doubt.max()), 1e-6), 0, 1)
        rows.append(Row(_planes(*near, reference, size, heat), "uncertainty"))
    legend = slices.outline_lines(labels, class_names, reference=truth is not None)
    title, subtitle = head or ("", "")
    dpi = style.DPI if head else style.PAGE_DPI
    return page(rows, title=title, subtitle=subtitle, legend=legend, narrowest=_CAPTION, dpi=dpi)


def _planes(
    scan: RasImage, label: Volume, outlines: Sequence[Outline], size: Size, heat: Volume | None = None
) -> list[Panel]:
    """Show the slice with most foreground of each plane, that with the finest pixels first."""
    finest, panels = slices.finest_view(scan.spacing), []
    sizes = [scan.size_mm(view) for view in slices.VIEWS]
    scale = min(size[0] / sum(wide for wide, _ in sizes), size[1] / max(high for _, high in sizes))
    for view in sorted(slices.VIEWS, key=lambda view: view != finest):
        at = fullest_slice(label, view)
        caption = "" if heat is not None else f"{view.name}, {scan.slice_name(view, at)}"
        panels.append(slice_panel(scan, view, at, scale, outlines, caption=caption, heat=heat))
    return panels


def draw_sheet(
    title: str,
    class_names: Sequence[str],
    path: Path,
    samples: Sequence[Sample],
    captions: Sequence[str],
    *,
    rows: bool = False,
) -> None:
    """Draw samples with their labels outlined, as a PNG: a slice of each, six beside each other.

    With `rows`, each sample is shown in three planes, with the lines of its caption beside them, the first of
    which is a name.
    """
    pairs = list(zip(samples, captions, strict=True))
    if rows:
        made = [Row([_text_panel(text), *_planes(*_turned(sample), _BESIDE)]) for sample, text in pairs]
    else:
        thumbs = [thumbnail(*pair) for pair in pairs]
        made = [Row(thumbs[first : first + SAMPLES]) for first in range(0, len(thumbs), SAMPLES)]
    legend, narrowest = class_lines(range(len(class_names)), class_names), _BESIDE[0] / 3 if rows else THUMB
    style.save_png(page(made, title=title, legend=legend, narrowest=narrowest), path)


def thumbnail(sample: Sample, caption: str) -> Panel:
    """Draw the slice with most foreground in the plane with the finest pixels."""
    scan, label, outlines = _turned(sample)
    view = slices.finest_view(scan.spacing)
    scale = THUMB / max(scan.size_mm(view))
    return slice_panel(scan, view, fullest_slice(label, view), scale, outlines, caption=shorten(caption, 24))


def _turned(sample: Sample) -> tuple[RasImage, Volume, list[Outline]]:
    label = np.zeros(sample.image.shape, np.uint8) if sample.label is None else sample.label
    scan, label = turned(sample.image, sample.spacing_mm, sample.axes, label)
    return scan, label, [] if sample.label is None else [Outline(label, None, 1.1)]


def _text_panel(text: str) -> Panel:
    name, *lines = text.split("\n")

    def draw(panel: Axes) -> None:
        panel.text(0, 1, shorten(name, 26), color=TEXT, fontsize=10, weight="bold", va="top")
        below = "\n".join(shorten(line, 34) for line in lines[:7])
        panel.text(0, 0.86, below, color=FAINT, fontsize=9, va="top", linespacing=1.4)

    return Panel(_TEXT, _BESIDE[1], draw)
