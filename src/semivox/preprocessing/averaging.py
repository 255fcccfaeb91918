"""Averages of voxels over the cells of a coarser grid, and what a mask keeps of itself on the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import csr_array

Array = npt.NDArray[Any]

FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)  # of the smallest voxel side, for the grids compared


def average(values: Array, shape: Sequence[int]) -> Array:
    """Resample (X, Y, Z) from edge to edge: a coarser voxel holds the mean over its volume.

    Voxels that are divided between two new ones count in proportion. Along an axis that gets finer, values
    are interpolated linearly. The result is float32.
    """
    for axis, (old, new) in enumerate(zip(values.shape, shape, strict=True)):
        if new != old:
            weights = mean_weights(old, new) if new < old else linear_weights(old, new)
            values = _along(csr_array(weights), values, axis)
    return np.asarray(values, np.float32)


def fidelity(mask: Array, spacing_mm: Sequence[float]) -> list[float]:
    """Measure what is left of a structure on coarser grids: its Dice, for each of `FACTORS`.

    The mask, (X, Y, Z) bool with at least one voxel, is averaged to voxels of f times the smallest side (an
    axis that is coarser already stays), interpolated linearly back, and cut at one half.
    """
    sides = np.asarray(spacing_mm, float)
    margin = np.ceil(2 * FACTORS[-1] * sides.min() / sides).astype(int)
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    inside = mask[box]
    part = np.pad(inside, [(side, side) for side in margin])
    found = []
    for factor in FACTORS:
        wanted = np.maximum(sides, factor * sides.min())
        shape = np.maximum(1, np.round(part.shape * sides / wanted)).astype(int)
        back = part if tuple(shape) == part.shape else average(average(part, shape), part.shape) > 0.5
        found.append(float(2 * np.count_nonzero(back & part) / (back.sum() + inside.sum())))
    return found


def largest_share(mask: Array) -> float:
    """Return the share of a structure's voxels in its largest connected piece; 1 for an empty mask."""
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count < 2:
        return 1.0
    sizes = np.bincount(labels.ravel())[1:]
    return float(sizes.max() / sizes.sum())


def _along(matrix: csr_array, values: Array, axis: int) -> Array:
    """Multiply the values along one axis by a sparse matrix (new, old)."""
    moved = np.moveaxis(values, axis, 0)
    result = matrix @ np.ascontiguousarray(moved, np.float32).reshape(len(moved), -1)
    return np.moveaxis(result.reshape(-1, *moved.shape[1:]), 0, axis)


def mean_weights(old: int, new: int) -> Array:
    """Return the shares (new, old) of each old voxel in each new, larger one; rows sum to 1."""
    edges, first = np.arange(new + 1) * (old / new), np.arange(old)
    overlap = np.minimum(first + 1, edges[1:, None]) - np.maximum(first, edges[:-1, None])
    return np.asarray(np.maximum(overlap, 0) * (new / old), np.float32)


def linear_weights(old: int, new: int, *, corners: bool = False) -> Array:
    """Return the weights (new, old) of linear interpolation, from edge to edge or from corner to corner.

    From edge to edge the border repeats.
    """
    place = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    if corners:
        place = np.linspace(0, old - 1, new)
    return np.asarray(np.maximum(0, 1 - np.abs(place[:, None] - np.arange(old))), np.float32)
