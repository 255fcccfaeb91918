"""Signed fields in mm, negative inside, on a grid of points: the building blocks of phantoms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float32]

FAR_MM = 1e3


def ellipsoid(where: Field, centre: Any, axes_mm: tuple[float, ...], turn: Any = None) -> Field:
    """Approximate signed distance: r (r - 1) / |gradient|, exact at the surface and on the axes."""
    offset = where - np.asarray(centre, np.float32)[:, None, None, None]
    if turn is not None:
        offset = np.tensordot(np.asarray(turn, np.float32), offset, axes=1)
    scale = np.asarray(axes_mm, np.float32)[:, None, None, None]
    offset /= scale
    radius = np.sqrt((offset**2).sum(0)) + np.float32(1e-6)
    offset /= scale
    return np.asarray(radius * (radius - 1) / (np.sqrt((offset**2).sum(0)) + 1e-6), dtype=np.float32)


def line(where: Field, start: Field, end: Field, radius_mm: float) -> Field:
    """Signed distance to a straight tube."""
    return _segment(where.reshape(3, -1), start, end, radius_mm, radius_mm).reshape(where.shape[1:])


def tube(where: Field, points: Any, radii_mm: Any) -> Field:
    """Signed distance to a bent, tapering tube, computed near it; elsewhere a large number."""
    field = np.full(where.shape[1:], FAR_MM, np.float32)
    reach = radii_mm.max() + 5.0
    low, high = points.min(0) - reach, points.max(0) + reach
    near = np.ones(where.shape[1:], bool)
    for axis in range(3):
        near &= (where[axis] > low[axis]) & (where[axis] < high[axis])
    inside = where[:, near]
    values = np.full(inside.shape[1], FAR_MM, np.float32)
    for i in range(len(points) - 1):
        values = np.minimum(values, _segment(inside, points[i], points[i + 1], radii_mm[i], radii_mm[i + 1]))
    field[near] = values
    return field


def _segment(where: Field, start: Any, end: Any, radius_start: float, radius_end: float) -> Field:
    """Distance of points (3, N) to a segment, less the radius there."""
    a, d = np.asarray(start, np.float32), np.asarray(end - start, np.float32)
    offset = where - a[:, None]
    t = np.clip(d @ offset / np.float32(d @ d), 0, 1)
    offset -= d[:, None] * t
    radius = np.float32(radius_start) + np.float32(radius_end - radius_start) * t
    return np.asarray(np.sqrt((offset**2).sum(0)) - radius, dtype=np.float32)


def joined(a: Field, b: Field, round_mm: float) -> Field:
    """Union of two signed fields with a rounded corner (polynomial smooth minimum)."""
    h = np.maximum(round_mm - np.abs(a - b), 0) / round_mm
    return np.asarray(np.minimum(a, b) - h * h * round_mm / 4, dtype=np.float32)


def largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the largest piece of `mask` (neighbours share a face)."""
    pieces, number = ndimage.label(mask)
    if number <= 1:
        return mask
    return np.asarray(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)


def rotation(degrees: Any) -> NDArray[np.float64]:
    """Rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        turn = np.eye(3)
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def spline_weights(n: int, cells: int) -> Field:
    """Cubic B-spline weights (n, cells + 3) of n points spread evenly over `cells` cells."""
    position = (np.arange(n) + 0.5) / n * cells
    distance = np.abs(position[:, None] - (np.arange(cells + 3)[None] - 1))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)
