"""The building blocks of phantoms: a seeded grid, signed fields in mm (negative inside), and the imaging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

Field = NDArray[np.float32]
Triple = tuple[int, int, int]

FAR_MM = 1e3


@dataclass(frozen=True)
class Space:
    """A grid of voxels of `spacing_mm` around the origin, with a seeded source of randomness."""

    shape: Triple
    spacing_mm: float
    rng: np.random.Generator

    def coordinates(self) -> Field:
        """World coordinates of the voxel centres, (3, X, Y, Z), mm."""
        axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * self.spacing_mm for n in self.shape]
        return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)

    def noise(self, size_mm: float) -> Field:
        """Smooth random field, mean about 0, deviation 1, with details of `size_mm`; a cubic B-spline."""
        cells = [max(1, round(n * self.spacing_mm / size_mm)) for n in self.shape]
        field = self.rng.standard_normal([c + 3 for c in cells]).astype(np.float32)
        for n, c in zip(self.shape, cells, strict=True):
            field = np.tensordot(field, spline_weights(n, c), axes=(0, 1))
        return np.asarray(field / 0.33, dtype=np.float32)

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def around(self, centre: tuple[float, float, float], reach: float) -> Field:
        """Draw a point near `centre`, at most `reach` mm away along each axis."""
        return (np.asarray(centre) + self.rng.uniform(-reach, reach, 3)).astype(np.float32)


def ellipsoid(where: Field, centre: Any, axes_mm: Any, turn: Any = None) -> Field:
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
    reach = radii_mm.max() + 5.0
    low, high = (edge[:, None, None, None] for edge in (points.min(0) - reach, points.max(0) + reach))
    near = ((where > low) & (where < high)).all(axis=0)
    field, inside = np.full(where.shape[1:], FAR_MM, np.float32), where[:, near]
    ends = zip(points[:-1], points[1:], radii_mm[:-1], radii_mm[1:], strict=True)
    field[near] = np.minimum.reduce([_segment(inside, *pair) for pair in ends])
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
    return np.asarray(Rotation.from_euler("xyz", degrees, degrees=True).as_matrix())


def spline_weights(n: int, cells: int) -> Field:
    """Cubic B-spline weights (n, cells + 3) of n points spread evenly over `cells` cells."""
    position = (np.arange(n) + 0.5) / n * cells
    distance = np.abs(position[:, None] - (np.arange(cells + 3)[None] - 1))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def paint_over(space: Space, signal: Field, field: NDArray[np.floating[Any]], value: Any) -> None:
    """Paint `value` where `field` is negative, with an edge one voxel wide."""
    alpha = np.clip(0.5 - field / space.spacing_mm, 0, 1)
    signal += alpha * (value - signal)


def thicken(field: Field, factor: int) -> Field:
    """Mean over `factor` slices; leftover slices are dropped."""
    x, y, z = field.shape
    count = max(1, z // factor)
    used = field[:, :, : count * factor].reshape(x, y, count, -1)
    return np.asarray(used.mean(axis=3), dtype=np.float32)


def image_of(space: Space, signal: Field, factor: int) -> Field:
    """Shading, blur, thick slices, gain and Rician noise."""
    pull = space.rng.uniform(-0.006, 0.006, 3).astype(np.float32)
    shading = np.tensordot(pull, space.coordinates(), axes=1) + space.uniform(0.05, 0.2) * space.noise(45.0)
    blurred = ndimage.gaussian_filter(
        signal * np.exp(shading), space.uniform(0.45, 1.1) / space.spacing_mm, truncate=3.0
    )
    blurred = thicken(blurred, factor)
    sigma = space.uniform(0.03, 0.085)
    real, imaginary = sigma * space.rng.standard_normal((2, *blurred.shape), dtype=np.float32)
    gain = 400 * 3 ** space.uniform(-1, 1)
    noisy = gain * np.hypot(blurred + real, imaginary)
    return np.asarray(np.rint(noisy).clip(0, 32000), dtype=np.float32)


def orient(
    space: Space, image: Field, label: NDArray[np.uint8], factor: int
) -> tuple[Field, NDArray[np.uint8], NDArray[np.float64]]:
    """Return the scan with an affine; now and then oblique, or with axes flipped or in another order."""
    rng = space.rng
    turn = rotation(rng.uniform(-25, 25, 3) if rng.random() < 0.3 else np.zeros(3))
    flips = ((), (0, 1), (0, 2))[int(rng.choice(3, p=[0.6, 0.3, 0.1]))]
    order = [[0, 1, 2], [2, 0, 1], [1, 2, 0]][int(rng.choice(3, p=[0.84, 0.08, 0.08]))]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([space.spacing_mm, space.spacing_mm, space.spacing_mm * factor])
    affine[:3, 3] = rng.uniform(-60, 60, 3)
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (image.shape[axis] - 1)
        affine[:3, axis] *= -1
    affine[:3, :3] = affine[:3, order]

    def turned(array: Any) -> Any:
        return np.ascontiguousarray(np.flip(array, flips).transpose(order))

    return turned(image), turned(label), affine
