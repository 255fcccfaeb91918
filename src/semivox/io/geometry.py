"""Where voxels lie: comparing two grids, and saying how they differ."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semivox.errors import UserError

Array = npt.NDArray[Any]

TOLERANCE_VOX = 0.25  # below half a voxel, the nearest voxel on the other grid is the one of the same index
_SHORTEST_MM, _LONGEST_MM = 1e-6, 1e9
_KEEP = (
    "resample it onto the other's grid; if only its header is wrong and the voxels correspond one by one,"
    " use --trust-image-geometry and look at the pictures"
)


def is_degenerate(affine: Array) -> bool:
    """Whether an affine spans no space: not finite, axes (nearly) parallel or of no possible length."""
    if not (np.isfinite(affine).all() and (np.abs(affine) < _LONGEST_MM).all()):
        return True
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(lengths.min() < _SHORTEST_MM or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-6)


def displacement(affine: Array, reference: Array, shape: Sequence[int]) -> float:
    """Give the largest distance between voxels of the same index on two grids, in voxels of the second.

    Args:
        affine: (4, 4), voxel to world.
        reference: (4, 4), likewise.
        shape: (X, Y, Z) of both; the largest distance is found at one of the eight corners.
    """
    corners = np.array([(*corner, 1.0) for corner in product(*((0, side - 1) for side in shape))])
    moved = corners @ np.linalg.solve(reference, affine).T - corners
    return float(np.abs(moved).max())


def same_affine(affine: Array, reference: Array, shape: Sequence[int]) -> bool:
    """Whether two affines place a grid alike: no voxel more than `TOLERANCE_VOX` off along any axis."""
    return displacement(affine, reference, shape) <= TOLERANCE_VOX


def check_grid(
    path: Path,
    shape: tuple[int, ...],
    affine: Array,
    other_shape: tuple[int, ...],
    other_affine: Array,
    other: str,
    *,
    trust: bool = False,
) -> None:
    """Compare the grid of `path` with another one.

    Args:
        path: of the file that is compared.
        shape: its (X, Y, Z).
        affine: its (4, 4).
        other_shape: of the grid it should have.
        other_affine: likewise.
        other: what that grid belongs to, in words.
        trust: let the shape decide alone.

    Raises:
        UserError: another shape, or (without `trust`) another place.
    """
    if shape != other_shape:
        raise UserError(
            f"The shape differs from that of {other}",
            path=path,
            found=shape,
            expected=other_shape,
            do="check that the two files belong together; if so, resample this one onto the other's grid",
        )
    if not trust and not same_affine(affine, other_affine, shape):
        raise UserError(
            f"The affine differs from that of {other}",
            path=path,
            found=f"{affine_text(affine)}, {difference_text(affine, other_affine, shape)}",
            expected=affine_text(other_affine),
            do=_KEEP,
        )


def affine_text(affine: Array) -> str:
    """Give the three rows of an affine on one line."""
    rows = [" ".join(f"{value:.6g}" for value in row) for row in (affine[:3] + 0.0).tolist()]
    return "[" + "; ".join(rows) + "]"


def difference_text(affine: Array, reference: Array, shape: Sequence[int]) -> str:
    """Say how far apart two grids of one shape are."""
    return f"up to {displacement(affine, reference, shape):.3g} voxels away"
