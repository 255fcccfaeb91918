"""Shaded surfaces of segmentations: rays meet smoothed masks, no meshes are built."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, distance_transform_edt, gaussian_filter, map_coordinates

from semivox.evaluation.surface import surface, union_box
from semivox.reporting.layout import Panel, Row, page
from semivox.reporting.slices import Volume, surroundings
from semivox.reporting.style import BACKGROUND, PAGE_DPI, class_color

Array = NDArray[np.floating[Any]]
FRONT, BACK = 30.0, 210.0  # degrees from the front to the patient's left
_ELEVATION = 20.0  # degrees upwards
_SMOOTH = 0.7  # voxels: standard deviation that turns steps of voxels into a surface
_AMBIENT, _RIM = 0.25, 3  # light from everywhere; voxels added around the foreground
_SHADES = colormaps["YlOrRd"]
_PANEL, _SIDE = 1.42, 120  # inches of a panel; pixels of a picture


class Frame(NamedTuple):
    """What a picture shows: its center in voxels; its width, height and depth in mm."""

    center: Array
    size: Array

    @property
    def side(self) -> float:
        """The longer side in mm."""
        return float(self.size[:2].max())


def frame_foreground(labels: Sequence[Volume], spacing: Sequence[float]) -> Frame:
    """Return the smallest frame around the foreground of all labels, seen from the front or the back."""
    box = union_box(*(label > 0 for label in labels)) or tuple(slice(0, side) for side in labels[0].shape)
    low, high = np.array([(part.start, part.stop - 1) for part in box]).T
    return Frame((low + high) / 2.0, np.abs(_view(FRONT)) @ ((high - low + 1) * np.asarray(spacing)))


def render(
    label: Volume,
    spacing: Sequence[float],
    frame: Frame,
    pixels: int = 240,
    *,
    azimuth: float = FRONT,
    paint: Volume | None = None,
) -> NDArray[np.uint8]:
    """Draw the surface of each class in its color.

    Each class is smoothed, turned so that the third axis points to the viewer, and cut at one half; a pixel
    shows the nearest surface, lit from the upper left of the viewer.

    Args:
        label: class indices (X, Y, Z), axes to the right, front and head; `spacing` in mm.
        pixels: of the longer side of the picture (rows, columns, 3), whose first row is on top.
        azimuth: where the viewer stands, in degrees from the front to the patient's left.
        paint: (X, Y, Z) in 0..1, shown on the surface instead of the colors of the classes.
    """
    right, up, viewer = axes = _view(azimuth)
    light = viewer + 0.6 * up - 0.6 * right
    light = light / np.linalg.norm(light)
    grid = np.ceil(frame.size / frame.side * pixels).astype(int)
    grid[2] = pixels // 2  # places along a line between two samples are interpolated
    steps = frame.size / grid
    matrix = axes.T * steps / np.asarray(spacing)[:, None]  # from steps in the picture to voxels
    offset = frame.center - matrix @ ((grid - 1) / 2)
    nearest = np.full(grid[:2], -np.inf)
    picture = np.tile(np.array(to_rgb(BACKGROUND)), (*grid[:2], 1))
    for index in np.flatnonzero(np.bincount(label.ravel())[1:]) + 1:
        box = union_box(label == index) or ()
        start = np.array([part.start - _RIM for part in box])
        field = gaussian_filter(np.pad((label[box] == index).astype(np.float32), _RIM), _SMOOTH)
        depth = _depth(affine_transform(field, matrix, offset - start, tuple(grid), order=1))
        seen = depth > nearest
        at = np.stack([*np.nonzero(seen), depth[seen]])
        places = matrix @ at + offset[:, None]
        normal = _normals(field, places - start[:, None], spacing)
        bright = _AMBIENT + (1 - _AMBIENT) * np.clip(light @ normal, 0, 1)
        color = np.array(to_rgb(class_color(int(index))))
        if paint is not None:
            color = _SHADES(map_coordinates(paint, places, order=1, mode="nearest"))[:, :3]
        picture[seen] = bright[:, None] * color
        nearest[seen] = depth[seen]
    return np.asarray(np.round(picture.transpose(1, 0, 2)[::-1] * 255), np.uint8)


def surface_panel(
    label: Volume, spacing: Sequence[float], frame: Frame, side: float, pixels: int, **look: Any
) -> Panel:
    """Draw surfaces in a panel whose longer side has these inches; `look` is for `render`."""
    wide, high = (side * frame.size[:2] / frame.side).tolist()
    picture = render(label, spacing, frame, pixels, **look)
    return Panel(wide, high, lambda panel: panel.imshow(picture, interpolation="bilinear", aspect="auto"))


def surface_figure(truth: Volume, found: Volume, spacing_mm: Sequence[float]) -> Figure | None:
    """Draw reference and prediction in the colors of their classes, and the prediction by its distance.

    Both are (X, Y, Z) class indices, axes to right, front and head. Returns two rows (seen from the front,
    from behind) of three pictures; None if both are empty.
    """
    if not truth.any() and not found.any():
        return None
    box = surroundings(np.maximum(truth, found))
    truth, found = truth[box], found[box]
    frame = frame_foreground([truth, found], spacing_mm)
    off_mm = np.full(truth.shape, frame.side)
    if truth.any():
        off_mm = distance_transform_edt(~surface(truth > 0), sampling=spacing_mm)
    worst = max(2.0, float(np.percentile(off_mm[surface(found > 0)], 98)) if found.any() else 2.0)
    columns = {"reference": (truth, None), "prediction": (found, None), "distance": (found, off_mm / worst)}
    rows: list[Row] = []
    for name, azimuth in (("front left", FRONT), ("behind right", BACK)):
        panels = [
            surface_panel(label, spacing_mm, frame, _PANEL, _SIDE, azimuth=azimuth, paint=paint)
            for label, paint in columns.values()
        ]
        rows.append(Row(panels, name, () if rows else list(columns)))
    bar = np.linspace(0, 1, 64)[None]
    caption = f"distance to the reference: 0 to {worst:.2g} mm"
    draw = partial(Axes.imshow, X=bar, cmap=_SHADES, aspect="auto")
    rows.append(Row([Panel(3 * _PANEL, 0.1, draw, caption)]))
    return page(rows, narrowest=_PANEL, dpi=PAGE_DPI)


def _view(azimuth: float) -> Array:
    """Return what is right, up and towards the viewer in the picture, as rows, along the volume's axes."""
    turn, elevation = np.radians([azimuth, _ELEVATION])
    flat = np.cos(elevation)
    viewer = np.array([-np.sin(turn) * flat, np.cos(turn) * flat, np.sin(elevation)])
    right = np.cross([0.0, 0.0, 1.0], viewer)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(viewer, right), viewer])


def _depth(turned: Array) -> Array:
    """Return where each line towards the viewer leaves the half level last; -inf where it is never above."""
    inside = turned > 0.5
    count = turned.shape[2]
    last = count - 1 - inside[:, :, ::-1].argmax(axis=2)
    here = np.take_along_axis(turned, last[..., None], 2)[..., 0]
    after = np.take_along_axis(turned, np.minimum(last + 1, count - 1)[..., None], 2)[..., 0]
    part = np.clip((here - 0.5) / np.maximum(here - after, 1e-6), 0, 1)
    return np.where(inside.any(axis=2), last + part, -np.inf)


def _normals(field: Array, places: Array, spacing: Sequence[float]) -> Array:
    """Return unit vectors (3, N) out of the surface at `places` (3, N; voxels)."""
    slopes = np.gradient(field, *spacing)
    normal = -np.stack([map_coordinates(slope, places, order=1, mode="nearest") for slope in slopes])
    return np.asarray(normal / np.maximum(np.linalg.norm(normal, axis=0), 1e-9))
