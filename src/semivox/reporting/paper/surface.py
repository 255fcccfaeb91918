"""Shaded surfaces of a segmentation, seen from the front, the patient's left and slightly above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

from semivox.reporting.slices import Volume
from semivox.reporting.style import BACKGROUND, class_color

Array = NDArray[np.floating[Any]]
_AZIMUTH, _ELEVATION = 30.0, 20.0  # degrees from the front to the patient's left, and upwards
_SMOOTH = 0.7  # voxels: standard deviation that turns steps of voxels into a surface
_AMBIENT, _RIM = 0.25, 3  # light from everywhere; voxels added around the foreground


class Frame(NamedTuple):
    """What a picture shows: its center in voxels; its sides, and its depth, in mm."""

    center: Array
    side: float
    depth: float


def frame_foreground(labels: Sequence[Volume], spacing: Sequence[float]) -> Frame:
    """Return the smallest frame around the box of the foreground of all labels."""
    filled = np.argwhere(np.logical_or.reduce([label > 0 for label in labels]))
    low, high = (
        (filled.min(0), filled.max(0)) if len(filled) else (np.zeros(3), np.array(labels[0].shape) - 1)
    )
    size = (high - low + 1) * np.asarray(spacing)
    wide, tall, deep = np.abs(_view()) @ size
    return Frame((low + high) / 2.0, float(max(wide, tall)), float(deep))


def render(label: Volume, spacing: Sequence[float], frame: Frame, pixels: int = 240) -> NDArray[np.uint8]:
    """Draw the surface of each class in its color.

    Each class is smoothed, turned so that the third axis points to the viewer, and cut at one half; a pixel
    shows the nearest surface, lit from the upper left of the viewer.

    Args:
        label: class indices (X, Y, Z), axes to the right, front and head.
        spacing: voxel size in mm.
        frame: what the picture shows.
        pixels: sides of the picture.

    Returns:
        (pixels, pixels, 3), first row on top.
    """
    right, up, viewer = axes = _view()
    light = viewer + 0.6 * up - 0.6 * right
    light = light / np.linalg.norm(light)
    grid = np.array([pixels, pixels, pixels // 2])  # places along a line between two samples are interpolated
    steps = np.array([frame.side, frame.side, frame.depth]) / grid
    matrix = axes.T * steps / np.asarray(spacing)[:, None]  # from steps in the picture to voxels
    offset = frame.center - matrix @ ((grid - 1) / 2)
    nearest = np.full((pixels, pixels), -np.inf)
    picture = np.broadcast_to(np.array(to_rgb(BACKGROUND)), (pixels, pixels, 3)).copy()
    for index in np.flatnonzero(np.bincount(label.ravel())[1:]) + 1:
        box, start = _cropped(label == index)
        field = gaussian_filter(box, _SMOOTH)
        depth = _depth(affine_transform(field, matrix, offset - start, tuple(grid), order=1))
        seen = depth > nearest
        at = np.stack([*np.nonzero(seen), depth[seen]])
        normal = _normals(field, matrix @ at + (offset - start)[:, None], spacing)
        bright = _AMBIENT + (1 - _AMBIENT) * np.clip(light @ normal, 0, 1)
        picture[seen] = bright[:, None] * np.array(to_rgb(class_color(int(index))))
        nearest[seen] = depth[seen]
    return np.asarray(np.round(picture.transpose(1, 0, 2)[::-1] * 255), np.uint8)


def _view() -> Array:
    """Return what is right, up and towards the viewer in the picture, as rows, along the volume's axes."""
    azimuth, elevation = np.radians([_AZIMUTH, _ELEVATION])
    viewer = np.array(
        [-np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation), np.sin(elevation)]
    )
    right = np.cross([0.0, 0.0, 1.0], viewer)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(viewer, right), viewer])


def _cropped(mask: Volume) -> tuple[Array, Array]:
    """Cut out the foreground with a rim of background, and return where it began."""
    filled = np.argwhere(mask)
    low, high = filled.min(0), filled.max(0) + 1
    box = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return np.pad(box.astype(np.float32), _RIM), low - float(_RIM)


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
