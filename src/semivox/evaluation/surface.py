"""Voxel surfaces and the distances between them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

Mask = NDArray[np.bool_]  # (X, Y, Z)
Distances = NDArray[np.float64]  # (number of surface voxels,)
Voxels = NDArray[np.int64]  # (number of surface voxels,), indices into the flat box

_DENSE = 12  # a surface of more than one voxel in so many is left to the distance transform


class SurfaceDistances(NamedTuple):
    """Distance of each surface voxel of one mask to the nearest surface voxel of the other."""

    to_reference: Distances  # one value a surface voxel of the prediction
    to_prediction: Distances  # one value a surface voxel of the reference


def surface(mask: Mask) -> Mask:
    """Voxels of `mask` (X, Y, Z) with a 6-neighbour outside of it; beyond the array's border is outside."""
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(mask.ndim):
        for offset in (0, 2):
            window = [slice(1, -1)] * mask.ndim
            window[axis] = slice(offset, offset + mask.shape[axis])
            inner &= padded[tuple(window)]
    return mask & ~inner


def union_box(*masks: Mask) -> tuple[slice, ...] | None:
    """Bounding box of all `True` voxels of the masks; None if there are none.

    Surfaces and their distances are the same within this box as in the whole array: what lies just outside
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


def largest_component(mask: Mask) -> Mask:
    """Keep the largest 26-connected component of `mask` (the first of equally large ones)."""
    components, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    if count < 2:
        return mask
    sizes = np.bincount(components.ravel())
    return np.asarray(components == 1 + np.argmax(sizes[1:]))


class SurfacePair:
    """The surfaces of two masks: found once, measured with any voxel size.

    Args:
        prediction: (X, Y, Z), not empty.
        reference: likewise.
    """

    def __init__(self, prediction: Mask, reference: Mask) -> None:
        box = union_box(prediction, reference)
        if box is None:
            raise ValueError("a distance between surfaces needs two masks that are not empty")
        first, second = surface(prediction[box]), surface(reference[box])
        self._shape = first.shape
        self._first, self._second = np.flatnonzero(first), np.flatnonzero(second)
        self._first_alone, self._second_alone = ~second.ravel()[self._first], ~first.ravel()[self._second]

    def distances(self, spacing: Sequence[float]) -> SurfaceDistances:
        """Distances in the unit of `spacing`, surface voxels in C order."""
        return SurfaceDistances(
            self._directed(self._first, self._first_alone, self._second, spacing),
            self._directed(self._second, self._second_alone, self._first, spacing),
        )

    def _directed(self, start: Voxels, alone: Mask, target: Voxels, spacing: Sequence[float]) -> Distances:
        """Distance of each voxel of `start` to the nearest of `target`; 0 where not `alone`."""
        distances = np.zeros(len(start))
        nearest = _by_tree if len(start) * _DENSE < prod(self._shape) else _by_transform
        distances[alone] = nearest(start[alone], target, self._shape, np.asarray(spacing, np.float64))
        return distances


def surface_distances(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> SurfaceDistances:
    """Distances between the surfaces of two non-empty masks (X, Y, Z), in the unit of `spacing`."""
    return SurfacePair(prediction, reference).distances(spacing)


def _by_tree(start: Voxels, target: Voxels, shape: tuple[int, ...], spacing: Distances) -> Distances:
    """Nearest neighbours: quicker, and in less memory, for the usual surface, a few percent of its box."""
    here, there = (np.stack(np.unravel_index(voxels, shape), axis=1) * spacing for voxels in (start, target))
    return np.asarray(cKDTree(there, leafsize=32, balanced_tree=False).query(here)[0])


def _by_transform(start: Voxels, target: Voxels, shape: tuple[int, ...], spacing: Distances) -> Distances:
    """Distance transform: its time does not grow with the surface, e.g. for a prediction that is noise."""
    background = np.ones(shape, bool)
    background.flat[target] = False
    nearest = ndimage.distance_transform_edt(
        background, sampling=spacing, return_distances=False, return_indices=True
    )
    squared = np.zeros(len(start))
    for axis, here in enumerate(np.unravel_index(start, shape)):
        squared += (spacing[axis] * (nearest[axis].ravel()[start] - here)) ** 2
    return np.sqrt(squared)
