"""Dark pages: rows of panels that are sized in inches, below a title and above a legend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from semivox.reporting.style import BACKGROUND, DPI, FAINT, TEXT, class_color, shorten

_EDGE, _GAP = 0.15, 0.08  # inches: around the page, between panels
_NAME, _HEAD, _CAPTION = 0.3, 0.3, 0.26  # inches for the name of a row, of a column, and of a panel
_SCALE_BAR = 2.2  # inches that a scale bar and its text take at the lower left
_MOST = 40  # classes named in a legend


class Panel(NamedTuple):
    """A picture on a page, its size in inches."""

    wide: float
    high: float
    draw: Callable[[Axes], object]
    caption: str = ""  # above it
    scale: float | None = None  # inches a mm


class Row(NamedTuple):
    """Panels beside each other, from left to right."""

    panels: Sequence[Panel]
    name: str = ""  # at the left
    heads: Sequence[str] = ()  # above each panel

    @property
    def high(self) -> float:
        """Inches, with what is written above the panels."""
        above = _HEAD * bool(self.heads) + _CAPTION * any(panel.caption for panel in self.panels)
        return above + max(panel.high for panel in self.panels) + _GAP


def page(
    rows: Sequence[Row],
    *,
    title: str = "",
    subtitle: str = "",
    note: str = "",
    legend: Sequence[Line2D] = (),
    narrowest: float = 0.0,
    dpi: int = DPI,
) -> Figure:
    """Draw rows of panels, at least `narrowest` inches a column; with a scale bar if all have one scale."""
    cells = [[max(panel.wide, narrowest) + _GAP for panel in row.panels] for row in rows]
    side, block = (_NAME if any(row.name for row in rows) else 0.0), max(map(sum, cells))
    width = max(side + block + 2 * _EDGE, 5.0, min(9.0, 0.13 * len(title)))
    scales = {panel.scale for row in rows for panel in row.panels if panel.scale}
    bar = _SCALE_BAR if len(scales) == 1 else 0.0
    head = (0.5 if title else 0.15) + (0.26 if subtitle else 0.0)
    longest = max((len(str(line.get_label())) for line in legend), default=1)
    columns = max(1, int((width - bar - 0.2) / (0.45 + 0.078 * longest)))
    foot = 0.18 + 0.22 * (-(-len(legend) // columns) or bool(bar)) + 0.22 * bool(note)
    top = head + sum(row.high for row in rows) + foot
    # Whole pixels: else the last row of a picture is half transparent.
    size = round(width * dpi) / dpi, round(top * dpi) / dpi
    figure = Figure(figsize=size, dpi=dpi, facecolor=BACKGROUND)
    write(figure, _EDGE, top - 0.28, shorten(title, int(width / 0.125)), fontsize=13, weight="bold")
    write(figure, _EDGE, top - 0.56, shorten(subtitle, int(width / 0.09)), color=FAINT)
    top -= head
    for row, sizes in zip(rows, cells, strict=True):
        _draw_row(figure, row, sizes, side + (width - side - block) / 2, top)
        top -= row.high
    write(figure, _EDGE, foot - 0.16, shorten(note, int(width / 0.065)), fontsize=8, color=FAINT)
    if bar:
        _draw_scale_bar(figure, foot - (0.4 if note else 0.18), *scales)
    look: dict[str, Any] = {"frameon": False, "labelcolor": TEXT, "fontsize": 10, "handlelength": 1.4}
    figure.legend(handles=legend, loc="lower right", ncols=columns, columnspacing=1.2, **look)
    return figure


def _draw_row(figure: Figure, row: Row, cells: Sequence[float], left: float, top: float) -> None:
    tallest, (width, height) = max(panel.high for panel in row.panels), figure.get_size_inches()
    bottom = top - row.high + _GAP
    look = {"fontsize": 8, "color": FAINT, "rotation": 90, "ha": "center"}
    write(figure, 0.17, bottom + tallest / 2, shorten(row.name, int(tallest / 0.085)), **look)
    for panel, cell, name in zip(row.panels, cells, row.heads or [""] * len(cells), strict=True):
        middle, below = left + cell / 2, bottom + (tallest - panel.high) / 2
        place = (middle - panel.wide / 2) / width, below / height, panel.wide / width, panel.high / height
        axes = figure.add_axes(place)
        axes.set_axis_off()
        panel.draw(axes)
        axes.set_title(panel.caption, color=FAINT, fontsize=8.5, pad=4)
        look = {"fontsize": 9.5, "weight": "bold", "ha": "center"}
        write(figure, middle, top - 0.17, shorten(name, int(cell / 0.09)), **look)
        left += cell


def write(figure: Figure, x: float, y: float, text: str, **look: Any) -> None:
    """Write at a place in inches, seen from the lower left."""
    wide, high = figure.get_size_inches()
    if text:
        figure.text(x / wide, y / high, text, **{"color": TEXT, "fontsize": 10, "va": "center", **look})


def _draw_scale_bar(figure: Figure, bottom: float, scale: float) -> None:
    """Draw a bar of a round length, at most 1.5 inches."""
    length = max((mm for mm in (1, 2, 5, 10, 20, 50, 100, 200) if mm * scale <= 1.5), default=1)
    (wide, high), right = figure.get_size_inches(), _EDGE + length * scale
    figure.add_artist(Line2D([_EDGE / wide, right / wide], [bottom / high] * 2, color=TEXT, linewidth=2))
    write(figure, right + 0.08, bottom, f"{length} mm", fontsize=9, va="center_baseline")


def class_lines(present: Iterable[int], class_names: Sequence[str] | None) -> list[Line2D]:
    """Return legend entries that name these classes, background left out."""
    indices, lines = sorted(set(map(int, present)) - {0}), []
    for index in indices[:_MOST]:
        name = shorten(class_names[index] if class_names else f"class {index}", 24)
        lines.append(Line2D([], [], color=class_color(index), linewidth=2.4, label=name))
    if len(indices) > _MOST:
        lines.append(Line2D([], [], linestyle="none", label=f"and {len(indices) - _MOST} more"))
    return lines
