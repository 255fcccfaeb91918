"""Random rotation, scale, bending and shift of a patch, in one resampling of image and label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from semivox.hardware import one_thread
from semivox.preprocessing.averaging import linear_weights

Array = NDArray[Any]
Triple = tuple[int, int, int]
Spacing = tuple[float, float, float]

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

    spacing_mm: Spacing = (1.0, 1.0, 1.0)
    angles: tuple[float, float, float] = (15.0, 15.0, 30.0)
    scale: tuple[float, float] = (0.75, 1.3)
    bend: tuple[float, float] = (0.04, 0.15)
    rotated: float = 0.6
    scaled: float = 0.5
    bent: float = 0.3

    def draw(self, patch: Sequence[int], rng: np.random.Generator) -> Motion:
        """Draw the deformation of one patch of so many voxels."""
        matrix = self.affine(rng)
        if rng.random() >= self.bent:
            return Motion(patch, matrix)
        spacing = np.asarray(self.spacing_mm, float)
        sides_mm = np.multiply(patch, spacing)
        cell_mm = np.cbrt(sides_mm.prod()) / _CELLS
        points = [max(2, 1 + round(side / cell_mm)) for side in sides_mm]
        control = rng.normal(0, rng.uniform(*self.bend) * cell_mm, (3, *points))
        return Motion(patch, matrix, control / spacing.reshape(3, 1, 1, 1))

    def affine(self, rng: np.random.Generator) -> Array:
        """Draw a (3, 3) matrix in voxel units: rotations about the three axes and one scale for all."""
        spacing = np.asarray(self.spacing_mm, float)
        zoom = 1 / rng.uniform(*self.scale) if rng.random() < self.scaled else 1.0
        matrix = zoom * np.eye(3)
        for axis, most in enumerate(self.angles):
            plane = [(axis + 1) % 3, (axis + 2) % 3]
            ratio = spacing[plane].min() / spacing[plane].max()
            angle = np.deg2rad(ratio * rng.uniform(-most, most)) * (rng.random() < self.rotated)
            turn = np.eye(3)
            turn[np.ix_(plane, plane)] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            matrix = matrix @ turn
        return np.asarray(matrix * spacing / spacing[:, None])


class Motion(NamedTuple):
    """The deformation of one patch."""

    patch: Sequence[int]  # voxels along each axis
    matrix: Array  # (3, 3) from voxels of the patch to voxels of the scan, both from the center
    control: Array | None = None  # (3, I, J, K) offsets at control points, the outer ones in the corners

    def places(self, scale: Sequence[float] = (1, 1, 1), shift: Sequence[float] = (0, 0, 0)) -> Array:
        """Compute where voxels come from: (3, X, Y, Z) float32, scale * voxels from the center + shift."""
        places = np.empty((3, *self.patch), np.float32)[::-1]  # `grid_sample` wants the last axis first
        for axis, row in enumerate(self.matrix):
            x, y, z = (
                (scale[axis] * factor * (np.arange(side) - (side - 1) / 2)).astype(np.float32)
                for factor, side in zip(row, self.patch, strict=True)
            )
            np.add((x[:, None] + y + np.float32(shift[axis]))[:, :, None], z, out=places[axis])
        if self.control is not None:
            control = torch.from_numpy((self.control * np.reshape(scale, (3, 1, 1, 1))).astype(np.float32))
            places += resized(control, self.patch, corners=True).numpy()
        return places

    def at(self, center: Sequence[float], shape: Sequence[int]) -> Warp:
        """Put the patch around a point of a scan of this shape; all in voxels."""
        middle, far = np.asarray(center), np.abs(self.matrix) @ ((np.asarray(self.patch) - 1) / 2)
        bent = np.zeros((3, 1)) if self.control is None else self.control.reshape(3, -1)
        before, after = far - bent.min(axis=1), far + bent.max(axis=1)
        low = np.clip(np.floor(middle - before), 0, np.subtract(shape, 1)).astype(int)
        high = np.maximum(np.minimum(np.ceil(middle + after).astype(int) + 1, shape), low + 1)
        unit = 2 / (high - low + 1)  # `grid_sample` counts from -1 to 1, over one voxel more on either side
        with one_thread():
            places = self.places(unit, (middle + 1 - low) * unit - 1)
        grid = torch.from_numpy(places[::-1]).permute(1, 2, 3, 0)
        return Warp(tuple(map(slice, low.tolist(), high.tolist())), grid[None])


class Warp(NamedTuple):
    """Where the voxels of one patch come from."""

    box: tuple[slice, ...]  # index of the voxels of the scan that are needed
    grid: Tensor  # (1, X, Y, Z, 3) for `grid_sample` on these voxels with a border of one around

    def read(self, source: Any) -> Array:
        """Read the voxels that are needed of (..., X, Y, Z)."""
        return np.asarray(source[(slice(None),) * (len(source.shape) - 3) + self.box])

    def sample(self, image: Array, maps: Array | None) -> tuple[Array, Array | None]:
        """Resample both linearly in one go; outside the scan the image repeats its border, maps are 0.

        (C, *size) and (M, *size), e.g. shares of classes, or None -> (C, X, Y, Z), (M, X, Y, Z) float32.
        """
        channels, both = len(image), image if maps is None else [*image, *maps]
        whole = np.zeros((len(both), *(side + 2 for side in image.shape[1:])), np.float32)
        for inside, values in zip(whole, both, strict=True):
            inside[1:-1, 1:-1, 1:-1] = values
        for axis in (1, 2, 3):
            turned = np.moveaxis(whole[:channels], axis, 0)  # a view
            turned[0], turned[-1] = turned[1], turned[-2]
        values = torch.from_numpy(whole)[None]
        found = grid_sample(values, self.grid, padding_mode="border", align_corners=True)[0].numpy()
        return found[:channels], None if maps is None else found[channels:]


def random_center(
    shape: Sequence[int],
    patch: Sequence[int],
    rng: np.random.Generator,
    wanted: Sequence[float] | None = None,
) -> list[float]:
    """Draw the center of a patch: within the scan, and a little beyond its border.

    Or take the voxel that is `wanted` there, as far as these limits allow it.
    """
    middle = (np.asarray(shape) - 1) / 2
    free = np.maximum(np.subtract(shape, patch), 0) / 2 + _BORDER * np.asarray(patch)
    drawn = rng.uniform(middle - free, middle + free)
    center: Array = drawn if wanted is None else np.clip(wanted, middle - free, middle + free)
    return [float(place) for place in center]


def resized(values: Tensor, shape: Sequence[int], *, corners: bool = False) -> Tensor:
    """Interpolate (..., I, J, K) linearly to (..., X, Y, Z): from edge to edge, or from corner to corner.

    As `torch.nn.functional.interpolate`, but axis by axis, in a third of the time.
    """
    x, y, z = (
        torch.from_numpy(linear_weights(old, new, corners=corners))
        for old, new in zip(values.shape[-3:], shape, strict=True)
    )
    first = torch.matmul(x, values.flatten(-2)).reshape(*values.shape[:-3], -1, *values.shape[-2:])
    return torch.matmul(torch.matmul(y, first), z.T)
