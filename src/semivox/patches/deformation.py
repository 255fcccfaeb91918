"""Random rotation, scale, bending and shift of a patch, in one resampling of image and label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import grid_sample, interpolate

Array = NDArray[Any]
Triple = tuple[int, int, int]

_CELLS = 4  # between the control points of bending, along an axis of mean length
_BORDER = 0.06  # of a patch's side: how far its center may leave the middle of a scan that it holds whole


@dataclass(frozen=True)
class Deformation:
    """How much patches are deformed at random; drawn anew for each.

    Args:
        spacing_mm: voxel size. Rotations are those of space; about an axis whose two others have different
            voxel sizes they are smaller, by the ratio of the two.
        angles: largest rotation about each axis, either way, in degrees.
        scale: smallest and largest size of what was there.
        bend: standard deviation of the control points' offsets / distance between them. The points are as
            many millimetres apart along each axis, about 4 cells a patch; offsets between them are linear.
        rotated: probability of a rotation, for each axis.
        scaled: probability of another scale.
        bent: probability of bending.
    """

    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    angles: tuple[float, float, float] = (15.0, 15.0, 30.0)
    scale: tuple[float, float] = (0.75, 1.3)
    bend: tuple[float, float] = (0.04, 0.15)
    rotated: float = 0.6
    scaled: float = 0.5
    bent: float = 0.3

    def places(self, shape: Sequence[int], rng: np.random.Generator) -> Array:
        """Draw where each voxel of a patch comes from: (3, X, Y, Z) float32, in voxels from its center."""
        matrix = self.affine(rng)
        places = np.empty((3, *shape), np.float32)
        for axis, row in enumerate(matrix):
            x, y, z = (
                (factor * (np.arange(side) - (side - 1) / 2)).astype(np.float32)
                for factor, side in zip(row, shape, strict=True)
            )
            np.add((x[:, None] + y)[:, :, None], z, out=places[axis])
        if rng.random() < self.bent:
            places += self._offsets(shape, rng)
        return places

    def affine(self, rng: np.random.Generator) -> Array:
        """Draw a (3, 3) matrix in voxel units: rotations about the three axes and one scale for all."""
        spacing = np.asarray(self.spacing_mm, float)
        zoom = 1 / rng.uniform(*self.scale) if rng.random() < self.scaled else 1.0
        matrix = zoom * np.eye(3)
        for axis in range(3):
            one, other = (axis + 1) % 3, (axis + 2) % 3
            ratio = min(spacing[one], spacing[other]) / max(spacing[one], spacing[other])
            angle = np.deg2rad(ratio * rng.uniform(-self.angles[axis], self.angles[axis]))
            angle *= rng.random() < self.rotated
            turn = np.eye(3)
            turn[one, one] = turn[other, other] = np.cos(angle)
            turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
            matrix = matrix @ turn
        return np.asarray(matrix * spacing / spacing[:, None])

    def _offsets(self, shape: Sequence[int], rng: np.random.Generator) -> Array:
        spacing = np.asarray(self.spacing_mm, float)
        sides_mm = np.multiply(shape, spacing)
        cell_mm = np.cbrt(sides_mm.prod()) / _CELLS
        points = [max(2, 1 + round(side / cell_mm)) for side in sides_mm]
        control = rng.normal(0, rng.uniform(*self.bend) * cell_mm, (3, *points)) / spacing.reshape(3, 1, 1, 1)
        field = torch.from_numpy(control.astype(np.float32))[None]
        return np.asarray(interpolate(field, tuple(shape), mode="trilinear", align_corners=True)[0].numpy())


class Warp(NamedTuple):
    """Where the voxels of one patch come from.

    Attributes:
        start: first voxel of the scan that is needed.
        size: voxels that are needed along each axis.
        grid: (1, X, Y, Z, 3) for `grid_sample` on these voxels with a border of one around.
    """

    start: Triple
    size: Triple
    grid: torch.Tensor

    def sample(self, image: Array, maps: Array) -> tuple[Array, Array]:
        """Resample both linearly in one go; outside the scan the image repeats its border, maps are 0.

        Args:
            image: (C, *size).
            maps: (M, *size), e.g. shares of classes; M may be 0.

        Returns:
            (C, X, Y, Z) and (M, X, Y, Z) float32.
        """
        channels = len(image)
        whole = np.zeros((channels + len(maps), *(side + 2 for side in self.size)), np.float32)
        whole[:channels, 1:-1, 1:-1, 1:-1] = image
        whole[channels:, 1:-1, 1:-1, 1:-1] = maps
        for axis in (1, 2, 3):
            turned = np.moveaxis(whole[:channels], axis, 0)  # a view
            turned[0], turned[-1] = turned[1], turned[-2]
        found = grid_sample(
            torch.from_numpy(whole)[None], self.grid, padding_mode="border", align_corners=True
        )[0].numpy()
        return found[:channels], found[channels:]


def warp_at(places: Array, center: Sequence[float], shape: Sequence[int]) -> Warp:
    """Put `places` of `Deformation` around a point of a scan.

    Args:
        places: (3, X, Y, Z) voxels from the center; overwritten.
        center: in voxels of the scan.
        shape: of the scan.
    """
    start, size = [], []
    for place, middle, side in zip(places, center, shape, strict=True):
        first = min(max(int(np.floor(place.min() + middle)), 0), side - 1)
        last = max(min(int(np.ceil(place.max() + middle)) + 1, side), first + 1)
        unit = 2 / (last - first + 1)
        np.multiply(place, np.float32(unit), out=place)
        np.add(place, np.float32((middle + 1 - first) * unit - 1), out=place)
        start.append(first)
        size.append(last - first)
    x, y, z = start
    i, j, k = size
    grid = torch.from_numpy(places[::-1].copy()).permute(1, 2, 3, 0)
    return Warp((x, y, z), (i, j, k), grid[None])


def random_center(
    shape: Sequence[int],
    patch: Sequence[int],
    rng: np.random.Generator,
    wanted: Sequence[float] | None = None,
) -> list[float]:
    """Draw the center of a patch: within the scan, and a little beyond its border.

    Args:
        shape: of the scan.
        patch: voxels along each axis.
        rng: source of randomness.
        wanted: a voxel to be centered, as far as these limits allow it.
    """
    center = []
    for axis, (side, length) in enumerate(zip(shape, patch, strict=True)):
        middle, free = (side - 1) / 2, max(side - length, 0) / 2 + _BORDER * length
        drawn = rng.uniform(middle - free, middle + free)
        center.append(drawn if wanted is None else float(np.clip(wanted[axis], middle - free, middle + free)))
    return center
