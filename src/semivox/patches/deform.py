"""Random affine and elastic deformation of a patch: image and label by the same displacements.

Everything runs on one thread or treats each voxel by itself, so the result does not depend on the number of
threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import grid_sample

Array = NDArray[Any]

MAX_ANGLE = np.pi / 12  # about each axis, either way
SCALE = (0.85, 1.2)
CONTROL = 16  # voxels between the control points of the elastic part
MAX_OFFSET = 0.4 * CONTROL  # of a control point, in the finest voxels; beyond it space would fold


def deform(
    image: Array, label: Array | None, rng: np.random.Generator, spacing_mm: Sequence[float]
) -> tuple[Array, Array | None]:
    """Rotate, scale and bend a patch around its center.

    Rotations are those of space in mm; about an axis whose two others have different voxel sizes they are
    smaller, by the ratio of the two. What comes from outside the patch repeats its border.

    Args:
        image: (C, X, Y, Z) float32; interpolated linearly.
        label: (X, Y, Z) uint8; each voxel takes the nearest one's class.
        rng: source of all randomness.
        spacing_mm: voxel size.
    """
    shape, spacing = image.shape[-3:], np.asarray(spacing_mm, float)
    matrix = random_affine(rng, spacing)
    offsets = random_offsets(shape, rng, spacing) if rng.random() < 0.5 else None
    grid = torch.from_numpy(_sampling_grid(shape, matrix, offsets))[None]
    moved = _sample(image, grid, "bilinear")
    return moved, None if label is None else _sample(label[None], grid, "nearest")[0].astype(label.dtype)


def random_affine(rng: np.random.Generator, spacing: Array) -> Array:
    """Draw a (3, 3) matrix in voxel units: rotations about the three axes and one scale for all."""
    matrix = np.diag(np.full(3, 1 / rng.uniform(*SCALE)))
    for axis in range(3):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        ratio = min(spacing[one], spacing[other]) / max(spacing[one], spacing[other])
        angle = ratio * rng.uniform(-MAX_ANGLE, MAX_ANGLE)
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return np.asarray(matrix * spacing / spacing[:, None])


def random_offsets(shape: Sequence[int], rng: np.random.Generator, spacing: Array) -> Array:
    """Draw a smooth displacement of every voxel, (3, X, Y, Z) float32 in voxels.

    A free-form deformation: uniform cubic B-splines over control points with normal offsets, whose deviation
    is at most 2 of the finest voxels.
    """
    count = [-(-side // CONTROL) + 3 for side in shape]
    deviation = rng.uniform(0, 2)
    control: Array = np.clip(rng.normal(0, deviation, (3, *count)), -MAX_OFFSET, MAX_OFFSET)
    control = (control * (spacing.min() / spacing).reshape(3, 1, 1, 1)).astype(np.float32)
    for axis, side in enumerate(shape):
        # einsum without BLAS: one thread, a fixed order of summation
        letters = "axyz"
        source, target = letters, letters.replace(letters[axis + 1], "n")
        control = np.einsum(f"n{letters[axis + 1]},{source}->{target}", _splines(side), control)
    return control


def _splines(side: int) -> Array:
    """Values of the cubic B-splines around each voxel of an axis, (side, control points)."""
    place = np.arange(side) / CONTROL
    distance = np.abs(place[:, None] + 1 - np.arange(-(-side // CONTROL) + 3))
    inner, outer = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6
    return np.where(distance < 1, inner, np.where(distance < 2, outer, 0)).astype(np.float32)


def _sampling_grid(shape: Sequence[int], matrix: Array, offsets: Array | None) -> Array:
    """Where each voxel's value comes from, (X, Y, Z, 3) as `grid_sample` wants it: -1..1, last axis first."""
    grid = np.empty((*shape, 3), np.float32)
    axes = [np.arange(side) - (side - 1) / 2 for side in shape]
    for axis, side in enumerate(shape):
        unit = 2 / max(side - 1, 1)
        x, y, z = ((unit * matrix[axis, other] * axes[other]).astype(np.float32) for other in range(3))
        place = (x[:, None] + y)[:, :, None] + z
        if offsets is not None:
            place += np.float32(unit) * offsets[axis]
        grid[..., 2 - axis] = place
    return grid


def _sample(array: Array, grid: torch.Tensor, mode: str) -> Array:
    values = torch.from_numpy(np.ascontiguousarray(array, np.float32))[None]
    return np.asarray(grid_sample(values, grid, mode, "border", align_corners=True)[0].numpy())
