"""One picture a case: three orthogonal slices with the outlines of the label, as a viewer shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from semivox.files import replacing

Volume = NDArray[Any]  # (X, Y, Z)
Plane = NDArray[Any]  # (horizontal, vertical)

# Clear on grey and beside white, and told apart by color-blind readers in this order.
CLASS_COLORS = ("#ff4b5c", "#1fb6ff", "#ffb000", "#4fd36b", "#b98cff", "#ff7ad1", "#00d1b2", "#c8a06a")
BACKGROUND, TEXT, FAINT = "#14161a", "#f2f2f2", "#9aa0a8"
DPI = 110


class View(NamedTuple):
    """How a volume with axes to the right, front and head is cut and laid on the page."""

    name: str
    normal: int  # the axis that is cut
    horizontal: int
    vertical: int
    letters: tuple[str, ...]  # at the left, right, top and bottom edge


AXIAL = View("axial", 2, 0, 1, tuple("RLAP"))
VIEWS = (AXIAL, View("coronal", 1, 0, 2, tuple("RLSI")), View("sagittal", 0, 1, 2, tuple("APSI")))


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
    """Draw an axial, a coronal and a sagittal slice through the label, or through the middle, as a PNG.

    All three have the same scale; the patient's right is at the left.

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
    center = center_of(classes, channel.shape)
    size = [n * step for n, step in zip(channel.shape, spacing, strict=True)]
    widths, heights = ([size[axis] for axis in picked] for picked in ((0, 0, 1), (1, 2, 2)))
    scale = min(9.6 / sum(widths), 4.6 / max(heights))  # inches a mm
    row = scale * max(heights)
    cells = [max(scale * wide, 1.5) for wide in widths]  # room for the caption
    width = max(10.0, sum(cells) + 0.4)
    figure = dark_figure(width, row + 1.3, DPI)
    left = (width - sum(cells) - 0.2) / 2
    window = grey_window(channel)
    for view, wide, high, cell in zip(VIEWS, widths, heights, cells, strict=True):
        place = left + (cell - scale * wide) / 2, 0.35 + (row - scale * high) / 2
        panel = add_panel(figure, *place, scale * wide, scale * high)
        at = center[view.normal]
        draw_slice(panel, plane(channel, view, at), view, spacing, window)
        if classes is not None:
            draw_outlines(panel, plane(classes, view, at), view, spacing)
        caption = f"{'xyz'[view.normal]} {at + 1} of {channel.shape[view.normal]}"
        panel.set_title(f"{view.name}, {caption}" if axes else caption, color=FAINT, fontsize=9, pad=4)
        if axes:
            draw_letters(panel, view)
        left += cell + 0.1
    draw_scale_bar(figure, 0.2, 0.16, scale)
    steps = " × ".join(f"{step:.3g}" for step in spacing_mm)
    voxels = " × ".join(str(n) for n in image.shape[1:])
    _write_header(
        figure, shorten(name or path.stem, 70), f"{voxels} voxels of {steps} mm", label, class_names
    )
    save_png(figure, path)


def to_ras(volume: Volume, axes: str | None) -> Volume:
    """Turn (X, Y, Z), whose axes have these nibabel codes, so that they point right, front and head."""
    if axes is None or axes == "RAS":
        return volume
    turned = volume.transpose(_order(axes))
    return turned[tuple(slice(None, None, -1 if code in axes else 1) for code in "LPI")]


def ras_spacing(spacing_mm: Sequence[float], axes: str | None) -> tuple[float, ...]:
    """Spacing along the axes of `to_ras`."""
    return tuple(spacing_mm[axis] for axis in _order(axes or "RAS"))


def _order(axes: str) -> tuple[int, ...]:
    return tuple(next(i for i, code in enumerate(axes) if code in pair) for pair in ("RL", "AP", "SI"))


def plane(volume: Volume, view: View, index: int) -> Plane:
    """Cut a slice (horizontal, vertical), the patient's right or front first."""
    return np.asarray(np.take(volume, index, axis=view.normal))[::-1]


def grey_window(volume: Volume) -> tuple[float, float]:
    """Intensities shown as black and white: the 0.5th and 99.5th percentile."""
    step = max(1, round((volume.size / 200_000) ** (1 / 3)))
    low, high = np.percentile(volume[::step, ::step, ::step], (0.5, 99.5))
    return float(low), float(high if high > low else low + 1)


def dark_figure(width: float, height: float, dpi: int) -> Figure:
    """Start a picture of about this size in inches: whole pixels, else its last row is half transparent."""
    return Figure(
        figsize=(round(width * dpi) / dpi, round(height * dpi) / dpi), dpi=dpi, facecolor=BACKGROUND
    )


def add_panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes without frame, placed in inches."""
    wide, high = figure.get_size_inches()
    panel = figure.add_axes((left / wide, bottom / high, width / wide, height / high))
    panel.set_axis_off()
    return panel


def draw_slice(
    panel: Axes, pixels: Plane, view: View, spacing: Sequence[float], window: tuple[float, float]
) -> None:
    """Show a slice in mm coordinates."""
    wide, high = pixels.shape[0] * spacing[view.horizontal], pixels.shape[1] * spacing[view.vertical]
    panel.imshow(
        pixels.T,
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        origin="lower",
        extent=(0, wide, 0, high),
        interpolation="bilinear",
        aspect="auto",
    )
    panel.set_autoscale_on(False)


def draw_outlines(
    panel: Axes,
    classes: Plane,
    view: View,
    spacing: Sequence[float],
    *,
    color: str | None = None,
    width: float = 1.4,
) -> None:
    """Outline each foreground class of a slice, in its color or the one given; small areas on top."""
    padded = np.pad(classes, 1)
    x, y = (
        (np.arange(n) - 0.5) * spacing[axis]
        for n, axis in zip(padded.shape, (view.horizontal, view.vertical), strict=True)
    )
    areas = np.bincount(classes.ravel())
    for index in sorted(np.flatnonzero(areas[1:]) + 1, key=lambda index: -areas[index]):
        colors = [color or class_color(int(index))]
        panel.contour(x, y, (padded == index).T, levels=[0.5], colors=colors, linewidths=width)


def draw_letters(panel: Axes, view: View) -> None:
    """Write where the patient's right, left, front, back, head and feet are."""
    left, right, top, bottom = view.letters
    write_in_panel(panel, left, 0, 0.5, ha="left", va="center")
    write_in_panel(panel, right, 1, 0.5, ha="right", va="center")
    write_in_panel(panel, top, 0.5, 1, ha="center", va="top")
    write_in_panel(panel, bottom, 0.5, 0, ha="center", va="bottom")


def write_in_panel(panel: Axes, text: str, x: float, y: float, *, ha: str, va: str) -> None:
    """Write on a dark ground, 3 points inside the panel; `x` and `y` are fractions of it."""
    inward = {"left": 3, "bottom": 3, "center": 0, "right": -3, "top": -3}
    panel.annotate(
        text,
        (x, y),
        (inward[ha], inward[va]),
        xycoords="axes fraction",
        textcoords="offset points",
        color="#ffe9a8",
        fontsize=9,
        ha=ha,
        va=va,
        bbox={"facecolor": BACKGROUND, "alpha": 0.55, "edgecolor": "none", "pad": 1.5},
    )


def draw_scale_bar(figure: Figure, left: float, bottom: float, scale: float) -> None:
    """Draw a bar of a round length, at most 1.5 inches; `scale` is inches a mm, the place is in inches."""
    wide, high = figure.get_size_inches()
    length = max((mm for mm in (1, 2, 5, 10, 20, 50, 100, 200) if mm * scale <= 1.5), default=1)
    right = left + length * scale
    figure.add_artist(Line2D([left / wide, right / wide], [bottom / high] * 2, color=TEXT, linewidth=2))
    figure.text(
        (right + 0.08) / wide, bottom / high, f"{length} mm", color=TEXT, fontsize=9, va="center_baseline"
    )


def class_color(index: int) -> str:
    """Color of a foreground class."""
    return CLASS_COLORS[(index - 1) % len(CLASS_COLORS)]


def shorten(text: str, length: int) -> str:
    """Leave out the middle of a long text."""
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-length // 2 + 1 :]}"


def save_png(figure: Figure, path: Path) -> None:
    """Write the picture, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", facecolor=figure.get_facecolor())


def center_of(label: Volume | None, shape: Sequence[int]) -> tuple[int, ...]:
    """Find the foreground voxel nearest to the center of mass: slices through it meet the label."""
    if label is None or not label.any():
        return tuple(n // 2 for n in shape)
    voxels = np.argwhere(label)
    nearest = ((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()
    return tuple(int(index) for index in voxels[nearest])


def _write_header(
    figure: Figure, name: str, grid: str, label: Volume | None, class_names: Sequence[str] | None
) -> None:
    wide, high = figure.get_size_inches()
    figure.text(0.2 / wide, 1 - 0.27 / high, name, color=TEXT, fontsize=13, weight="bold", va="center")
    figure.text(0.2 / wide, 1 - 0.53 / high, grid, color=FAINT, fontsize=10, va="center")
    words = [("unlabeled", FAINT)] if label is None else _list_classes(label, class_names)
    # Right to left: each text ends where the next one begins.
    right = wide - 0.2
    renderer = FigureCanvasAgg(figure).get_renderer()
    for text, color in reversed(words):
        drawn = figure.text(
            right / wide, 1 - 0.53 / high, text, color=color, fontsize=11, ha="right", va="center"
        )
        right -= drawn.get_window_extent(renderer).width / DPI + 0.12


def _list_classes(label: Volume, class_names: Sequence[str] | None) -> list[tuple[str, str]]:
    """Name the classes of a label in their colors, as many as fit into half a line."""
    present = [int(index) for index in np.flatnonzero(np.bincount(label.ravel())) if index]
    names = [shorten(class_names[index] if class_names else f"class {index}", 24) for index in present]
    fitting = [index for index in range(len(names)) if sum(map(len, names[: index + 1])) <= 40]
    words = [(names[index], class_color(present[index])) for index in fitting]
    if len(fitting) < len(names):
        words.append((f"and {len(names) - len(fitting)} more", FAINT))
    return [("labeled:", TEXT), *(words or [("no foreground in the label", FAINT)])]
