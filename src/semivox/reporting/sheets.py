"""Scans with their labels on one sheet: thumbnails, or a row of three planes each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from semivox.preprocessing.inspect import SAMPLES, Sample
from semivox.reporting import slices, style
from semivox.reporting.slices import Outline, RasImage, Volume, draw_slice, fullest_slice, to_ras

WIDTH, MARGIN, THUMB = 12.0, 0.6, 1.85  # inches of a page of thumbnails
_WIDTH, _ROW, _TEXT, _EDGE = 10.0, 1.9, 2.6, 0.3  # inches: page, a row, what is written beside it, margin
_CELL, _GAP = (_WIDTH - _TEXT - 2 * _EDGE) / 3, 0.1
_HEAD, _LINE, _LINES = 0.8, 0.2, 7  # inches, inches, lines beside a row


def save_sheet(
    path: Path, samples: Sequence[Sample], captions: Sequence[str], title: str, class_names: Sequence[str]
) -> None:
    """Draw a slice of each sample with its label, six in a row and a caption below each, as a PNG."""
    rows, legend = -(-len(samples) // SAMPLES), style.class_lines(range(len(class_names)), class_names)
    foot = 0.2 + style.legend_height(legend, WIDTH)
    figure = style.dark_figure(WIDTH, 0.75 + rows * (THUMB + 0.35) + foot)
    high = figure.get_figheight()
    style.write(figure, MARGIN, high - 0.35, style.shorten(title, 90), fontsize=14, weight="bold")
    for index, (sample, caption) in enumerate(zip(samples, captions, strict=True)):
        row, column = divmod(index, SAMPLES)
        bottom = high - 0.6 - (row + 1) * (THUMB + 0.35) + 0.3
        draw_thumbnail(figure, sample, caption, MARGIN + column * (THUMB + 0.02), bottom)
    _finish(figure, legend, path)


def save_rows(
    path: Path, samples: Sequence[Sample], captions: Sequence[str], title: str, class_names: Sequence[str]
) -> None:
    """Draw each sample in three planes with its label outlined, as a PNG.

    The lines of a caption stand beside its row; the first one is a name.
    """
    legend = style.class_lines(range(len(class_names)), class_names)
    foot = 0.3 + style.legend_height(legend, _WIDTH)
    figure = style.dark_figure(_WIDTH, _HEAD + len(samples) * _ROW + foot)
    high = figure.get_figheight()
    style.write(figure, _EDGE, high - 0.45, style.shorten(title, 80), fontsize=14, weight="bold")
    for index, (sample, caption) in enumerate(zip(samples, captions, strict=True)):
        top = high - _HEAD - index * _ROW
        name, *lines = caption.split("\n")
        style.write(figure, _EDGE, top - 0.25, style.shorten(name, 26), fontsize=10, weight="bold")
        for place, line in enumerate(lines[:_LINES], start=2):
            look = {"color": style.FAINT, "fontsize": 9}
            style.write(figure, _EDGE, top - 0.1 - place * _LINE, style.shorten(line, 34), **look)
        _draw_planes(figure, sample, top - _ROW + _GAP)
    _finish(figure, legend, path)


def draw_thumbnail(figure: Figure, sample: Sample, caption: str, left: float, bottom: float) -> None:
    """Draw the slice with most foreground in the plane with the finest pixels."""
    scan, label = _turned(sample)
    view = slices.finest_view(scan.spacing)
    at, (wide, high) = fullest_slice(label, scan.image.shape, view), scan.size_mm(view)
    scale = (THUMB - 0.08) / max(wide, high)
    place = left, bottom + (THUMB - scale * high) / 2, scale
    draw_slice(figure, place, scan, view, at, [] if label is None else [Outline(label, width=1.0)])
    color = style.FAINT if label is None else style.TEXT
    style.write(figure, left, bottom - 0.15, style.shorten(caption, 24), fontsize=8, color=color)


def _draw_planes(figure: Figure, sample: Sample, bottom: float) -> None:
    scan, label = _turned(sample)
    outlines = [] if label is None else [Outline(label, None, 1.1)]
    sizes, high = [scan.size_mm(view) for view in slices.VIEWS], _ROW - _GAP
    window = slices.grey_window(scan.image)
    scale = min((_CELL - _GAP) / max(wide for wide, _ in sizes), high / max(tall for _, tall in sizes))
    for column, (view, (wide, tall)) in enumerate(zip(slices.VIEWS, sizes, strict=True)):
        left = _EDGE + _TEXT + column * _CELL + (_CELL - scale * wide) / 2
        place = (left, bottom + (high - scale * tall) / 2, scale)
        at = fullest_slice(label, scan.image.shape, view)
        draw_slice(figure, place, scan, view, at, outlines, window=window)


def _turned(sample: Sample) -> tuple[RasImage, Volume | None]:
    label = None if sample.label is None else to_ras(sample.label, sample.axes)
    return RasImage.turned(sample.image, sample.spacing_mm, sample.axes), label


def _finish(figure: Figure, legend: Sequence[Line2D], path: Path) -> None:
    style.draw_legend(figure, legend)
    style.save_png(figure, path)
