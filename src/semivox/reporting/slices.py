"""Slices of a scan with the outlines of labels, as a viewer shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from semivox.reporting.style import BACKGROUND, TEXT, class_color, write

Volume = NDArray[Any]  # (X, Y, Z)
Plane = NDArray[Any]  # (horizontal, vertical)
_CLEARLY_FINER = 0.8  # area of a pixel, of that of an axial one, from which on another plane is shown


class View(NamedTuple):
    """How a volume with axes to the right, front and head is cut and laid on the page."""

    name: str
    normal: int  # the axis that is cut
    horizontal: int
    vertical: int
    letters: tuple[str, ...]  # at the left, right, top and bottom edge


AXIAL = View("axial", 2, 0, 1, tuple("RLAP"))
VIEWS = (AXIAL, View("coronal", 1, 0, 2, tuple("RLSI")), View("sagittal", 0, 1, 2, tuple("APSI")))


def finest_view(spacing: Sequence[float]) -> View:
    """Return the plane with the smallest pixels; the axial one unless another is clearly finer."""

    def area(view: View) -> float:
        return spacing[view.horizontal] * spacing[view.vertical]

    finest = min(VIEWS, key=area)
    return finest if area(finest) < _CLEARLY_FINER * area(AXIAL) else AXIAL


def fullest_slice(label: Volume | None, shape: Sequence[int], view: View) -> int:
    """Return the slice of a plane with the most foreground, or the middle one."""
    if label is None or not label.any():
        return shape[view.normal] // 2
    return int((label > 0).sum(axis=(view.horizontal, view.vertical)).argmax())


def to_ras(volume: Volume, axes: str | None) -> Volume:
    """Turn (X, Y, Z), whose axes have these nibabel codes, so that they point right, front and head."""
    if axes is None or axes == "RAS":
        return volume
    turned = volume.transpose(_order(axes))
    return turned[tuple(slice(None, None, -1 if code in axes else 1) for code in "LPI")]


def ras_spacing(spacing_mm: Sequence[float], axes: str | None) -> tuple[float, ...]:
    """Return the spacing along the axes of `to_ras`."""
    return tuple(spacing_mm[axis] for axis in _order(axes or "RAS"))


def _order(axes: str) -> tuple[int, ...]:
    return tuple(next(i for i, code in enumerate(axes) if code in pair) for pair in ("RL", "AP", "SI"))


def plane(volume: Volume, view: View, index: int) -> Plane:
    """Cut a slice (horizontal, vertical), the patient's right or front first."""
    return np.asarray(np.take(volume, index, axis=view.normal))[::-1]


def grey_window(volume: Volume) -> tuple[float, float]:
    """Return the intensities shown as black and white: the 0.5th and 99.5th percentile."""
    step = max(1, round((volume.size / 200_000) ** (1 / 3)))
    low, high = np.percentile(volume[::step, ::step, ::step], (0.5, 99.5))
    return float(low), float(high if high > low else low + 1)


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
    low, top = window
    extent = (0, wide, 0, high)
    look: Any = {"cmap": "gray", "interpolation": "bilinear", "aspect": "auto", "origin": "lower"}
    panel.imshow(pixels.T, vmin=low, vmax=top, extent=extent, **look)
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
    """Outline each foreground class of a slice, in its color or the one passed; small areas on top."""
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
    write(figure, right + 0.08, bottom, f"{length} mm", fontsize=9, va="center_baseline")
