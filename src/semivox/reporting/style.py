"""One look for all pictures: colors, fonts, charts, and how they become files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text

from semivox.files import replacing

# Clear on grey and beside white, and told apart by color-blind readers in this order.
CLASS_COLORS = ("#ff4b5c", "#1fb6ff", "#ffb000", "#4fd36b", "#b98cff", "#ff7ad1", "#00d1b2", "#c8a06a")
# Clear on white.
CHART_COLORS = ("#1f6fb5", "#d1495b", "#2a9d5c", "#7b4b94", "#d9930d", "#00798c", "#8c564b", "#6b8f3c")
BACKGROUND, TEXT, FAINT = "#14161a", "#f2f2f2", "#9aa0a8"  # of scans
INK, PALE, LINE, NEUTRAL = "#1a1d23", "#626a76", "#d9dde3", "#8a8f98"  # of charts
DPI, PAGE_DPI = 110, 160  # of files; of pictures inside a page
# With letters that matplotlib's own font lacks: those of Chinese, Japanese, Korean, of India, of Thailand.
FALLBACK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",
    "PingFang SC", "Hiragino Sans GB", "Apple SD Gothic Neo", "Arial Unicode MS", "Noto Sans Devanagari",
    "Nirmala UI", "Noto Sans Thai", "Leelawadee UI", "Unifont",
)  # fmt: skip


def class_color(index: int) -> str:
    """Return the color of a foreground class."""
    return CLASS_COLORS[(index - 1) % len(CLASS_COLORS)]


def chart(width: float, height: float, title: str = "") -> Figure:
    """Start a page of charts, sized in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    if title:
        figure.suptitle(plain(title), fontsize=11)
    return figure


def dress(
    panel: Axes, *, x: str = "", y: str = "", grid: Any = "both", ink: str = INK, line: str = LINE
) -> None:
    """Add axis labels and a grid to a panel of a chart."""
    panel.set_xlabel(x, fontsize=10, color=ink)
    panel.set_ylabel(y, fontsize=10, color=ink)
    panel.grid(axis=grid, color=line, linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(PALE)
    panel.tick_params(labelsize=9, color=PALE, labelcolor=ink)
    panel.patch.set_alpha(0)


def add_legend(panel: Axes) -> None:
    """Add a legend if there are several named lines."""
    if len(panel.get_legend_handles_labels()[1]) > 1:
        panel.legend(fontsize=8.5, frameon=False, ncols=2, labelcolor=INK)


def draw_intervals(
    panel: Axes, means: pd.DataFrame, places: Any, *, upright: bool = False, **look: Any
) -> None:
    """Draw the columns mean, low and high as points with bars, along x or, upright, along y."""
    spread = [means["mean"] - means["low"], means["high"] - means["mean"]]
    if upright:
        panel.errorbar(places, means["mean"], yerr=spread, capsize=3, **look)
    else:
        panel.errorbar(means["mean"], places, xerr=spread, capsize=3, **look)


def name_rows(panel: Axes, names: Sequence[str]) -> None:
    """Name the rows at 0, 1, 2, ..., the first on top."""
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)


def plain(text: str) -> str:
    """Return a text as matplotlib has to get it: between two dollars it would read a formula."""
    return text.replace("$", r"\$")


def shorten(text: str, length: int) -> str:
    """Leave out the middle of a long text, and make it `plain`."""
    return plain(text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-length // 2 + 1 :]}")


def encoded(figure: Figure, kind: str, **options: Any) -> bytes:
    """Return a picture as a file of a kind: png, pdf, svg, webp; `options` are those of `savefig`."""
    for text in figure.findobj(Text):
        text.set_fontfamily(font_families())
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, **{"facecolor": figure.get_facecolor(), **options})
    return buffer.getvalue()


def save_png(figure: Figure, path: Path, kind: str = "png") -> None:
    """Write the picture, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(encoded(figure, kind))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture for a paper, as PNG and as PDF; `path` has no ending."""
    for kind in ("png", "pdf"):
        save_png(figure, path.with_name(f"{path.name}.{kind}"), kind)


@cache
def font_families() -> list[str]:
    """Return the usual font, and what is installed of `FALLBACK_FONTS`."""
    installed = set(fontManager.get_font_names())
    return [*rcParams["font.family"], *(name for name in FALLBACK_FONTS if name in installed)]
