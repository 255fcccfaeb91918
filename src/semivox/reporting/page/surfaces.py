"""3D surfaces of segmentations, seen from two sides: rays meet the smoothed masks, no meshes are built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, distance_transform_edt, gaussian_filter, map_coordinates

from semivox.reporting.page.pictures import DPI
from semivox.reporting.slices import add_panel
from semivox.reporting.style import BACKGROUND, FAINT, class_color, dark_figure, write

_SIDE = 120  # pixels of a picture, and samples along a ray
_LIGHT = np.array([-0.4, 0.6, -0.7])  # where the light is: left, above, in front (depth grows to the back)
# Name, and where the right side of the picture points to in the patient (to right, front).
_VIEWS = (("from the front left", (-0.45, -0.89)), ("from behind right", (0.45, 0.89)))
_SHADES = colormaps["YlOrRd"]
_PANEL, _STEP = 1.42, 1.47  # inches


def surface_figure(truth: NDArray[Any], found: NDArray[Any], spacing_mm: Sequence[float]) -> Figure | None:
    """Draw reference and prediction in the colors of their classes, and the prediction by its distance.

    Args:
        truth: (X, Y, Z) class indices, axes to right, front and head.
        found: the same of the prediction.
        spacing_mm: voxel size.

    Returns:
        Two rows (seen from the front, from behind) of three pictures; None if both are empty.
    """
    box = _box((truth > 0) | (found > 0))
    if box is None:
        return None
    truth, found = np.pad(truth[box], 3), np.pad(found[box], 3)
    off_mm = _distance_to_surface(truth > 0, spacing_mm)
    worst = max(2.0, float(np.percentile(off_mm[found > 0], 98)) if (found > 0).any() else 2.0)
    figure = dark_figure(3 * _STEP + 0.1, 2 * _STEP + 0.75, DPI)
    top = figure.get_figheight()
    for row, (name, right) in enumerate(_VIEWS):
        turn = _rotation(right)
        panels = (
            _render(truth, spacing_mm, turn, None),
            _render(found, spacing_mm, turn, None),
            _render(found, spacing_mm, turn, off_mm / worst),
        )
        for column, pixels in enumerate(panels):
            panel = add_panel(figure, 0.08 + _STEP * column, top - 0.35 - _STEP * (row + 1), _PANEL, _PANEL)
            panel.imshow(pixels, interpolation="bilinear", origin="lower")
        write(figure, 0.08, top - 0.42 - _STEP * row, name, color=FAINT, fontsize=7.5)
    for column, text in enumerate(("reference", "prediction", "distance")):
        write(figure, 0.08 + _PANEL / 2 + _STEP * column, top - 0.18, text, ha="center", fontsize=8.5)
    _scale(figure, worst)
    return figure


def _scale(figure: Figure, worst: float) -> None:
    bar = add_panel(figure, 2.3, 0.18, 1.2, 0.1)
    bar.imshow(np.linspace(0, 1, 64)[None], cmap=_SHADES, aspect="auto")
    write(figure, 0.08, 0.23, "distance to the reference: 0", fontsize=8, color=FAINT)
    write(figure, 3.58, 0.23, f"{worst:.2g} mm", fontsize=8, color=FAINT)


def _box(mask: NDArray[Any]) -> tuple[slice, ...] | None:
    if not mask.any():
        return None
    others = ((1, 2), (0, 2), (0, 1))
    ends = [np.flatnonzero(mask.any(axis=pair))[[0, -1]] for pair in others]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends)


def _distance_to_surface(mask: NDArray[Any], spacing_mm: Sequence[float]) -> NDArray[Any]:
    """Distance in mm of each voxel to the border of a mask, inside and outside of it."""
    if not mask.any():
        return np.full(mask.shape, float(np.linalg.norm(np.array(mask.shape) * spacing_mm)))
    outside, inside = (distance_transform_edt(part, sampling=spacing_mm) for part in (~mask, mask))
    return np.asarray(np.maximum(outside + inside - min(spacing_mm), 0.0))


def _rotation(right: Sequence[float]) -> NDArray[np.float64]:
    """Rows: where right, top and depth of the picture point to; the eye is a little above."""
    across = np.array([*right, 0.0]) / np.linalg.norm(right)
    top = np.array([0.0, 0.0, 1.0]) + 0.45 * np.cross([0.0, 0.0, 1.0], across)
    top /= np.linalg.norm(top)
    return np.stack([across, top, np.cross(top, across)])


def _render(
    label: NDArray[Any], spacing_mm: Sequence[float], turn: NDArray[np.float64], paint: NDArray[Any] | None
) -> NDArray[np.float64]:
    """Return an RGB picture (vertical, horizontal, 3) of the outer surface of all classes.

    `paint` in [0, 1] colors the surface instead of the classes.
    """
    spacing, center = np.asarray(spacing_mm), (np.array(label.shape) - 1) / 2
    reach = np.abs(turn) @ (np.array(label.shape) * spacing)  # of the box, along right, top and depth
    step = float(reach.max()) / _SIDE  # mm a pixel
    matrix = (turn.T * step) / spacing[:, None]  # picture (right, top, depth) to voxels
    offset = center - matrix @ np.full(3, (_SIDE - 1) / 2)
    blur = 0.8 * min(spacing) / spacing
    smooth = gaussian_filter((label > 0).astype(np.float32), blur)
    rays = affine_transform(smooth, matrix, offset, (_SIDE,) * 3, order=1)
    hit = rays > 0.5
    seen = hit.any(axis=2)
    pixels = np.tile(np.array(to_rgb(BACKGROUND)), (_SIDE, _SIDE, 1))
    if not seen.any():
        return pixels
    where = np.argwhere(seen)
    depth = hit.argmax(axis=2)[seen]
    places = np.column_stack([where, depth]).astype(float)
    slopes = np.stack(
        [map_coordinates(one, places.T, order=1) for one in np.gradient(gaussian_filter(rays, 1.2))]
    )
    normals = -slopes / np.maximum(np.linalg.norm(slopes, axis=0), 1e-6)
    shade = 0.3 + 0.7 * np.clip(_LIGHT @ normals / np.linalg.norm(_LIGHT), 0, 1)
    inside = matrix @ (places + np.array([0, 0, 1.0])).T + offset[:, None]
    if paint is None:
        colors = _class_colors(label, inside, blur)
    else:
        colors = _SHADES(np.clip(map_coordinates(paint, inside, order=1, mode="nearest"), 0, 1))[:, :3]
    pixels[where[:, 1], where[:, 0]] = np.clip(colors * shade[:, None], 0, 1)
    return pixels


def _class_colors(label: NDArray[Any], inside: NDArray[Any], blur: NDArray[Any]) -> NDArray[Any]:
    """Return the color of the class at each place, with smooth borders between classes."""
    present = [int(index) for index in np.flatnonzero(np.bincount(label.ravel())) if index]
    shares = [
        map_coordinates(gaussian_filter((label == index).astype(np.float32), blur), inside, order=1)
        for index in present
    ]
    palette = np.array([to_rgb(class_color(index)) for index in present])
    return np.asarray(palette[np.argmax(shares, axis=0)])
