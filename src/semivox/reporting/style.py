"""One look for all pictures: dark pages for scans, light ones for charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from semivox.files import replacing

# Clear on grey and beside white, and told apart by color-blind readers in this order.
CLASS_COLORS = ("#ff4b5c", "#1fb6ff", "#ffb000", "#4fd36b", "#b98cff", "#ff7ad1", "#00d1b2", "#c8a06a")
# Clear on white.
CHART_COLORS = ("#1f6fb5", "#d1495b", "#2a9d5c", "#7b4b94", "#d9930d", "#00798c", "#8c564b", "#6b8f3c")
BACKGROUND, TEXT, FAINT = "#14161a", "#f2f2f2", "#9aa0a8"
DARK, NEUTRAL = "#22262c", "#8a8f98"  # on white
DPI, PAGE_DPI = 110, 160  # of files; of pictures inside a page
SCALE_BAR = 2.2  # inches that a scale bar and its text take at the lower left
_MARKERS = "osD^vP*X<>"
_MOST = 40  # classes named in a legend


def dark_figure(width: float, height: float, dpi: int = DPI) -> Figure:
    """Start a picture of about this size in inches: whole pixels, else its last row is half transparent."""
    size = round(width * dpi) / dpi, round(height * dpi) / dpi
    return Figure(figsize=size, dpi=dpi, facecolor=BACKGROUND)


def chart_figure(width: float, height: float, title: str | None = None) -> tuple[Figure, Axes]:
    """Start a chart of one panel."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    if title:
        axes.set_title(title, fontsize=11)
    return figure, axes


def dress(panel: Axes, *, x: str = "", y: str = "", grid: Any = "both") -> None:
    """Add axis labels, a grid and, if there are several named lines, a legend to a panel of a chart."""
    panel.set_xlabel(x, fontsize=10)
    panel.set_ylabel(y, fontsize=11)
    panel.grid(axis=grid, color="#e3e3e3", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=10)


def add_legend(panel: Axes) -> None:
    """Add a legend if there are several named lines."""
    if len(panel.get_legend_handles_labels()[1]) > 1:
        panel.legend(fontsize=9, frameon=False, ncols=2)


def series_look(index: int) -> dict[str, Any]:
    """Return color and marker of one of many series."""
    return {"color": colormaps["tab10"](index % 10), "marker": _MARKERS[index // 10 % len(_MARKERS)]}


def class_color(index: int) -> str:
    """Return the color of a foreground class."""
    return CLASS_COLORS[(index - 1) % len(CLASS_COLORS)]


def class_lines(present: Iterable[int], class_names: Sequence[str] | None) -> list[Line2D]:
    """Return legend entries that name these classes, background left out."""
    indices, lines = sorted(set(map(int, present)) - {0}), []
    for index in indices[:_MOST]:
        name = shorten(class_names[index] if class_names else f"class {index}", 24)
        lines.append(Line2D([], [], color=class_color(index), linewidth=2.4, label=name))
    if len(indices) > _MOST:
        lines.append(Line2D([], [], linestyle="none", label=f"and {len(indices) - _MOST} more"))
    return lines


def legend_height(lines: Sequence[Line2D], width: float, beside: float = 0.0) -> float:
    """Return the inches that a legend below a picture adds: none if one line fits next to `beside` inches."""
    if _columns(lines, width - beside) == len(lines):
        return 0.0
    return 0.22 * -(-len(lines) // _columns(lines, width))


def draw_legend(figure: Figure, lines: Sequence[Line2D], place: str = "lower right") -> None:
    """Draw a legend in a corner."""
    look: dict[str, Any] = {"frameon": False, "labelcolor": TEXT, "fontsize": 10, "handlelength": 1.4}
    columns = _columns(lines, figure.get_figwidth())
    figure.legend(handles=lines, loc=place, ncols=columns, columnspacing=1.2, **look)


def _columns(lines: Sequence[Line2D], width: float) -> int:
    """Legend entries that fit into a line of `width` inches."""
    longest = max((len(str(line.get_label())) for line in lines), default=1)
    return max(1, min(len(lines), int((width - 0.2) / (0.45 + 0.078 * longest))))


def write(figure: Figure, x: float, y: float, text: str, **look: Any) -> None:
    """Write at a place in inches, seen from the lower left."""
    wide, high = figure.get_size_inches()
    style: dict[str, Any] = {"color": TEXT, "fontsize": 10, "va": "center"} | look
    figure.text(x / wide, y / high, text, **style)


def shorten(text: str, length: int) -> str:
    """Leave out the middle of a long text."""
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-length // 2 + 1 :]}"


def save_png(figure: Figure, path: Path, kind: str = "png") -> None:
    """Write the picture, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, facecolor=figure.get_facecolor())


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture for a paper, as PNG and as PDF; `path` has no ending."""
    for kind in ("png", "pdf"):
        save_png(figure, path.with_name(f"{path.name}.{kind}"), kind)
