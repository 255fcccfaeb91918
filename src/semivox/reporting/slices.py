"""Slices of a scan with the outlines of labels, as a viewer shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from semivox.evaluation.surface import union_box
from semivox.reporting.layout import Panel, class_lines
from semivox.reporting.style import BACKGROUND, class_color

Volume = NDArray[Any]  # (X, Y, Z)
Plane = NDArray[Any]  # (horizontal, vertical)
TRUTH = "#ffffff"  # outline of a reference
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


@dataclass(frozen=True)
class RasImage:
    """An image as it is drawn."""

    image: Volume  # one channel, axes to the right, front and head
    spacing: tuple[float, ...]  # mm
    first: tuple[int, ...] = (0, 0, 0)  # its first voxel, where it was cut out of a larger image

    @cached_property
    def window(self) -> tuple[float, float]:
        """The intensities shown as black and white: the 0.5th and 99.5th percentile."""
        step = max(1, round((self.image.size / 200_000) ** (1 / 3)))
        low, high = np.percentile(self.image[::step, ::step, ::step], (0.5, 99.5))
        return float(low), float(high if high > low else low + 1)

    def size_mm(self, view: View) -> tuple[float, float]:
        """Return width and height of a slice."""
        size = [n * step for n, step in zip(self.image.shape, self.spacing, strict=True)]
        return size[view.horizontal], size[view.vertical]

    def cropped(self, box: tuple[slice, ...]) -> RasImage:
        """Cut out a box."""
        return RasImage(self.image[box], self.spacing, tuple(side.start for side in box))

    def slice_name(self, view: View, at: int) -> str:
        """Return axis and number of a slice of the whole image, counted from 1."""
        return f"{'xyz'[view.normal]} {self.first[view.normal] + at + 1}"


class Outline(NamedTuple):
    """A label to outline."""

    label: Volume
    color: str | None = None  # None: each class in its own
    width: float = 1.4  # points


def turned(image: Volume, spacing_mm: Sequence[float], axes: str, *labels: Any) -> list[Any]:
    """Return a `RasImage` and what lies on its grid, turned so that the axes point right, front and head.

    All are (X, Y, Z, ...), `axes` is as `nibabel.aff2axcodes` says; where a label is None, it stays so.
    """
    turn = nib.orientations.axcodes2ornt(axes)
    scan, *others = (
        one if one is None else nib.orientations.apply_orientation(one, turn) for one in (image, *labels)
    )
    return [RasImage(np.asarray(scan), tuple(spacing_mm[axis] for axis in turn[:, 0].argsort())), *others]


def finest_view(spacing: Sequence[float]) -> View:
    """Return the plane with the smallest pixels; the axial one unless another is clearly finer."""
    area = {view: spacing[view.horizontal] * spacing[view.vertical] for view in VIEWS}
    finest = min(VIEWS, key=lambda view: area[view])
    return finest if area[finest] < _CLEARLY_FINER * area[AXIAL] else AXIAL


def fullest_slice(label: Volume, view: View) -> int:
    """Return the slice of a plane with the most foreground, or the middle one."""
    if not label.any():
        return int(label.shape[view.normal]) // 2
    return int((label > 0).sum(axis=(view.horizontal, view.vertical)).argmax())


def surroundings(label: Volume) -> tuple[slice, ...]:
    """Return the box around the foreground and a quarter of its size on each side; if there is none, all."""
    box, found = [], union_box(label > 0) or tuple(slice(0, side) for side in label.shape)
    for side, part in zip(label.shape, found, strict=True):
        margin = round((part.stop - part.start) / 4)
        box.append(slice(max(0, part.start - margin), min(side, part.stop + margin)))
    return tuple(box)


def slice_panel(
    scan: RasImage,
    view: View,
    at: int,
    scale: float,
    outlines: Sequence[Outline] = (),
    *,
    caption: str = "",
    heat: Volume | None = None,
    text: str = "",
    letters: bool = True,
) -> Panel:
    """Show a slice in mm coordinates, with labels outlined and the patient's right or front at the left.

    Args:
        scan, view, at: what to show, plane and slice.
        scale: inches a mm.
        outlines: labels on the grid of the scan, the last on top.
        heat: (X, Y, Z) in 0..1, laid over the scan, the clearer the smaller it is.
        caption, text, letters: above the panel; at its lower left; whether to write where right, left, front,
            back, head and feet are.
    """
    wide, high = scan.size_mm(view)
    low, top = scan.window
    look: Any = {"extent": (0, wide, 0, high), "interpolation": "bilinear"}
    look |= {"aspect": "auto", "origin": "lower"}

    def draw(panel: Axes) -> None:
        panel.imshow(_plane(scan.image, view, at).T, cmap="gray", vmin=low, vmax=top, **look)
        if heat is not None:
            share = _plane(heat, view, at).T
            panel.imshow(share, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(1.6 * share, 0, 0.85), **look)
        panel.set_autoscale_on(False)
        for outline in outlines:
            _draw_outline(panel, outline, view, at, scan.spacing)
        for letter, x, y in zip(view.letters, (0, 1, 0.5, 0.5), (0.5, 0.5, 1, 0), strict=True):
            _write_inside(panel, letter if letters else "", x, y)
        _write_inside(panel, text, 0, 0)

    return Panel(scale * wide, scale * high, draw, caption, scale)


def _plane(volume: Volume, view: View, at: int) -> Plane:
    return np.asarray(np.take(volume, at, axis=view.normal))[::-1]


def _draw_outline(panel: Axes, outline: Outline, view: View, at: int, spacing: Sequence[float]) -> None:
    """Outline each foreground class, small areas on top."""
    classes = _plane(outline.label, view, at)
    padded = np.pad(classes, 1)
    x, y = (
        (np.arange(n) - 0.5) * spacing[axis]
        for n, axis in zip(padded.shape, (view.horizontal, view.vertical), strict=True)
    )
    areas = np.bincount(classes.ravel())
    for index in sorted(np.flatnonzero(areas[1:]) + 1, key=lambda index: -areas[index]):
        colors = [outline.color or class_color(int(index))]
        panel.contour(x, y, (padded == index).T, levels=[0.5], colors=colors, linewidths=outline.width)


def _write_inside(panel: Axes, text: str, x: float, y: float) -> None:
    """Write on a dark ground at an edge of a panel, of which `x` and `y`, 0, 0.5 or 1, are fractions."""
    look: dict[str, Any] = {
        "xycoords": "axes fraction", "textcoords": "offset points", "color": "#ffe9a8", "fontsize": 9,
        "ha": ("left", "center", "right")[round(2 * x)], "va": ("bottom", "center", "top")[round(2 * y)],
        "bbox": {"facecolor": BACKGROUND, "alpha": 0.55, "edgecolor": "none", "pad": 1.5},
    }  # fmt: skip
    if text:
        panel.annotate(text, (x, y), (3 - 6 * x, 3 - 6 * y), **look)


def outline_lines(
    labels: Sequence[Volume], class_names: Sequence[str] | None, *, reference: bool
) -> list[Line2D]:
    """Return legend entries of the classes that are there, after that of the reference."""
    present = {int(index) for label in labels for index in np.flatnonzero(np.bincount(label.ravel()))}
    first = [Line2D([], [], color=TRUTH, linewidth=1.4, label="reference")] if reference else []
    return [*first, *class_lines(present, class_names)]
