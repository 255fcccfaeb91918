"""Voxel surfaces and the distances between them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

Mask = NDArray[np.bool_]  # (X, Y, Z)
Distances = NDArray[np.float64]  # (number of surface voxels,)
Voxels = NDArray[np.int64]  # (number of surface voxels,), indices into the flat box
Axes = NDArray[np.float64]  # (3, 3), the step from one voxel to the next along each array axis, in columns

_DENSE = 12  # a surface of more than one voxel in so many is left to the distance transform
_RIGHT_ANGLE = 1e-4  # cosine up to which axes count as perpendicular: headers hold few digits


class SurfaceDistances(NamedTuple):
    """Distance of each surface voxel of one mask to the nearest surface voxel of the other."""

    to_reference: Distances  # one value a surface voxel of the prediction
    to_prediction: Distances  # one value a surface voxel of the reference


def voxel_axes(grid: ArrayLike) -> Axes:
    """Return the axes of a grid in columns, (3, 3).

    Axes that are perpendicular up to rounding come back as a diagonal matrix: a rotation changes no distance.

    Args:
        grid: voxel size (3,), or affine (4, 4), or its upper left part (3, 3).
    """
    array = np.asarray(grid, np.float64)
    axes = np.diag(array) if array.ndim == 1 else array[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    cosines = axes.T @ axes / np.outer(lengths, lengths) - np.eye(3)
    return np.diag(lengths) if np.abs(cosines).max() < _RIGHT_ANGLE else axes


def surface(mask: Mask) -> Mask:
    """Mark the voxels of `mask` (X, Y, Z) that have a 6-neighbour outside; beyond the array is outside."""
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(mask.ndim):
        for offset in (0, 2):
            window = [slice(1, -1)] * mask.ndim
            window[axis] = slice(offset, offset + mask.shape[axis])
            inner &= padded[tuple(window)]
    return mask & ~inner


def union_box(*masks: Mask) -> tuple[slice, ...] | None:
    """Return the bounding box of all `True` voxels of the masks; None if there are none.

    Surfaces and their distances are the same in this box as in the whole array: what lies just outside
    the box is background, as is what lies beyond an array's border. So no margin is needed.
    """
    box = []
    for axis in range(masks[0].ndim):
        others = tuple(other for other in range(masks[0].ndim) if other != axis)
        filled = np.flatnonzero(np.logical_or.reduce([mask.any(axis=others) for mask in masks]))
        if not filled.size:
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def surface_distances(prediction: Mask, reference: Mask, *grids: ArrayLike) -> list[SurfaceDistances]:
    """Measure the distances between the surfaces of two non-empty masks, in the unit of each of `voxel_axes`.

    Both masks are (X, Y, Z); surface voxels are in C order.
    """
    box = union_box(prediction, reference)
    if box is None:
        raise ValueError("a distance between surfaces needs two masks that are not empty")
    first, second = surface(prediction[box]), surface(reference[box])
    return [
        SurfaceDistances(_directed(first, second, axes), _directed(second, first, axes))
        for axes in map(voxel_axes, grids)
    ]


def _directed(start: Mask, target: Mask, axes: Axes) -> Distances:
    """Compute the distance of each voxel of a surface to the nearest of the other; 0 where they share it."""
    voxels, others = np.flatnonzero(start), np.flatnonzero(target)
    alone, distances = ~target.ravel()[voxels], np.zeros(len(voxels))
    dense = len(voxels) * _DENSE >= start.size
    nearest = _by_transform if dense and np.count_nonzero(axes) == 3 else _by_tree
    distances[alone] = nearest(voxels[alone], others, start.shape, axes)
    return distances


def _by_tree(start: Voxels, target: Voxels, shape: tuple[int, ...], axes: Axes) -> Distances:
    """Nearest neighbours: any axes; quicker, and in less memory, for a surface of few percent of its box."""
    here, there = (np.stack(np.unravel_index(voxels, shape), axis=1) @ axes.T for voxels in (start, target))
    return np.asarray(cKDTree(there, leafsize=32, balanced_tree=False).query(here)[0])


def _by_transform(start: Voxels, target: Voxels, shape: tuple[int, ...], axes: Axes) -> Distances:
    """Distance transform: its time does not grow with the surface, e.g. for a prediction that is noise."""
    background, spacing = np.ones(shape, bool), axes.diagonal()
    background.flat[target] = False
    nearest = ndimage.distance_transform_edt(
        background, sampling=spacing, return_distances=False, return_indices=True
    )
    squared = np.zeros(len(start))
    for axis, here in enumerate(np.unravel_index(start, shape)):
        squared += (spacing[axis] * (nearest[axis].ravel()[start] - here)) ** 2
    return np.sqrt(squared)
