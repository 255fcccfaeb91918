"""Pseudo-labels on their scans: a row a case, to see what a model teaches itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from semivox.preprocessing.inspect import Sample
from semivox.reporting.slices import VIEWS, Outline, RasImage, draw_slice, fullest_slice, grey_window, to_ras
from semivox.reporting.style import (
    FAINT,
    class_lines,
    dark_figure,
    draw_legend,
    legend_height,
    save_png,
    shorten,
    write,
)

_WIDTH, _ROW, _TEXT, _EDGE = 10.0, 1.9, 2.6, 0.3  # inches: page, a row, what is written beside it, margin
_CELL, _GAP = (_WIDTH - _TEXT - 2 * _EDGE) / 3, 0.1
_HEAD, _LINE, _LINES = 0.8, 0.2, 7  # inches, inches, lines beside a row


def save_rows(
    path: Path, samples: Sequence[Sample], captions: Sequence[str], title: str, class_names: Sequence[str]
) -> None:
    """Draw each sample in an axial, a coronal and a sagittal slice with its label outlined, as a PNG.

    Args:
        path: the PNG to write.
        samples: scans with labels, from top to bottom.
        captions: lines of text about each; the first one is its name.
        title: of the page.
        class_names: background first.
    """
    legend = class_lines(range(len(class_names)), class_names)
    figure = dark_figure(_WIDTH, _HEAD + len(samples) * _ROW + 0.3 + legend_height(legend, _WIDTH, 0.0))
    high = figure.get_figheight()
    write(figure, _EDGE, high - 0.45, shorten(title, 80), fontsize=14, weight="bold")
    for index, (sample, caption) in enumerate(zip(samples, captions, strict=True)):
        top = high - _HEAD - index * _ROW
        name, *lines = caption.split("\n")
        write(figure, _EDGE, top - 0.25, shorten(name, 26), fontsize=10, weight="bold")
        for place, line in enumerate(lines[:_LINES], start=2):
            write(figure, _EDGE, top - 0.1 - place * _LINE, shorten(line, 34), color=FAINT, fontsize=9)
        _draw_planes(figure, sample, top - _ROW + _GAP)
    draw_legend(figure, legend)
    save_png(figure, path)


def _draw_planes(figure: Figure, sample: Sample, bottom: float) -> None:
    scan = RasImage.turned(sample.image, sample.spacing_mm, sample.axes)
    label = None if sample.label is None else to_ras(sample.label, sample.axes)
    outlines = [] if label is None else [Outline(label, None, 1.1)]
    sizes, high = [scan.size_mm(view) for view in VIEWS], _ROW - _GAP
    window = grey_window(scan.image)
    scale = min((_CELL - _GAP) / max(wide for wide, _ in sizes), high / max(tall for _, tall in sizes))
    for column, (view, (wide, tall)) in enumerate(zip(VIEWS, sizes, strict=True)):
        left = _EDGE + _TEXT + column * _CELL + (_CELL - scale * wide) / 2
        at = fullest_slice(label, scan.image.shape, view)
        place = (left, bottom + (high - scale * tall) / 2, scale)
        draw_slice(figure, place, scan, view, at, outlines, window=window)
