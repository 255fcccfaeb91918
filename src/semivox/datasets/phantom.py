"""Made-up scans with exact labels: a left atrium with veins, in noisy MR-like surroundings.

The anatomy is a set of signed fields in mm (negative inside), painted one over the other with soft edges
and then imaged: coil shading, blur, thick slices, Rician noise. The field of view is about 77 x 77 x 58 mm
for the default shape; x points to the right, y to the front, z to the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from semivox.datasets.phantom_shapes import (
    FAR_MM,
    Field,
    ellipsoid,
    joined,
    largest_piece,
    line,
    rotation,
    spline_weights,
    tube,
)

Triple = tuple[int, int, int]

SHAPE: Triple = (64, 64, 48)
_SPACING_MM = 1.2


@dataclass(frozen=True)
class _Target:
    body: Field  # signed distance to the body, mm
    branches: Field  # signed distance to the veins, mm
    whole: Field  # both, with rounded corners where they meet


@dataclass(frozen=True)
class _Space:
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


def phantom(
    seed: int, index: int = 0, *, classes: int = 1, shape: Triple = SHAPE
) -> tuple[Field, NDArray[np.uint8], NDArray[np.float64]]:
    """Make one scan; the same `seed` and `index` give the same scan.

    Args:
        seed: of the data set.
        index: number of the case within it.
        classes: 1: body and veins are class 1; 2: the body is 1, the veins are 2.
        shape: of the isotropic grid in (right, front, head) order. About one scan in four has slices two or
            three times as thick and as many times fewer; some have flipped or exchanged axes, some an
            oblique affine. Fewer voxels are larger ones: the field of view stays.

    Returns:
        Image (X, Y, Z), whole numbers from 0 to 32000; label (X, Y, Z); affine (4, 4), voxel to world mm.
    """
    if classes not in (1, 2):
        raise ValueError(f"classes must be 1 or 2, not {classes}")
    rng = np.random.default_rng([seed, index])
    spacing_mm = _SPACING_MM * (np.prod(SHAPE) / np.prod(shape)) ** (1 / 3) * rng.uniform(0.94, 1.06)
    space = _Space(shape, float(spacing_mm), rng)
    where = _posed(space)
    target = _target(space, where)
    signal = _paint(space, where, target)
    factor = int(rng.choice([1, 1, 1, 1, 1, 1, 2, 3]))
    image = _scan(space, signal, factor)
    label = _label(target, factor, classes)
    return _orient(space, image, label, factor)


def _posed(space: _Space) -> Field:
    """Coordinates in the heart's own frame: moved, turned and smoothly bent."""
    where = space.coordinates()
    turn = rotation(space.rng.uniform(-20, 20, 3)).astype(np.float32)
    moved = where - space.around((0, 0, 0), 4.0)[:, None, None, None]
    bend = np.stack([space.noise(26.0) for _ in range(3)])
    return np.asarray(np.tensordot(turn, moved, axes=1) + 1.6 * bend, dtype=np.float32)


def _target(space: _Space, where: Field) -> _Target:
    centre = space.around((0, -3, 0), 2.0)
    axes_mm = (space.uniform(18, 22.5), space.uniform(12.5, 16), space.uniform(13.5, 17.5))
    tilt = rotation(space.rng.uniform(-25, 25, 3))
    body = ellipsoid(where, centre, axes_mm, tilt) + 0.9 * space.noise(15.0)
    ear = centre + np.asarray([-0.8 * axes_mm[0], space.uniform(5, 10), space.uniform(-2, 7)])
    body = joined(body, ellipsoid(where, ear, tuple(space.rng.uniform(4.5, 7.5, 3))), 4.0)
    branches = np.full(space.shape, FAR_MM, np.float32)
    for start in _vein_directions(space):
        branches = np.minimum(branches, _vein(space, where, centre, axes_mm, start))
    whole = joined(body, branches, 2.5)
    inside = largest_piece(whole < 0)
    return _Target(body, branches, np.where(~inside & (whole < 0), np.float32(space.spacing_mm), whole))


def _vein_directions(space: _Space) -> list[Field]:
    """Three to five unit vectors, to both sides, upwards and downwards, mostly to the back."""
    corners = [(1, -0.5, 0.55), (1, -0.6, -0.45), (-1, -0.5, 0.6), (-1, -0.6, -0.4), (1, -0.2, 0.05)]
    number = int(space.rng.choice([3, 4, 4, 4, 5]))
    chosen = [0, 1, 2, 3] if number == 4 else space.rng.permutation(5)[:number]
    vectors = [np.asarray(corners[i]) + space.rng.uniform(-0.25, 0.25, 3) for i in chosen]
    return [np.asarray(v / np.linalg.norm(v), dtype=np.float32) for v in vectors]


def _vein(space: _Space, where: Field, centre: Field, axes_mm: tuple[float, ...], direction: Field) -> Field:
    """Bend a tube (quadratic Bezier) from inside the body outwards, ever thinner."""
    surface_mm = float(1 / np.linalg.norm(direction / np.asarray(axes_mm)))
    length_mm = space.uniform(10, 20)
    start, middle = centre + 0.45 * surface_mm * direction, centre + surface_mm * 1.1 * direction
    end = centre + (surface_mm + length_mm) * direction + space.rng.uniform(-6, 6, 3)
    t = np.linspace(0, 1, 11)[:, None]
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
    radius_mm = space.uniform(3.4, 6.0)
    return tube(where, points, np.linspace(radius_mm, radius_mm * space.uniform(0.55, 0.85), 11))


def _paint(space: _Space, where: Field, target: _Target) -> Field:
    """Signal of every voxel before imaging; blood of the target is 1."""
    muscle = 1 - space.uniform(0.17, 0.66)
    bright = [muscle + (1 - muscle) * space.uniform(0.45, 1.3) for _ in range(8)]
    signal = _tissue(space, where, muscle)
    wall_mm, gap_mm = space.uniform(1.2, 2.8), space.uniform(0.9, 2.0)
    chambers, vessels = _chambers(space, where), _vessels(space, where)
    texture = 1 + 0.04 * space.noise(3.0)
    rim = muscle + (1 - muscle) * space.uniform(0, 1.3) * np.clip(space.noise(11.0), 0, 1)
    for field, wall, value in (
        (chambers[0], 6.0, muscle),
        (chambers[1], 3.0, muscle),
        (target.whole, wall_mm, rim),
    ):
        _over(space, signal, field - wall, value * texture)
    clear = gap_mm - target.whole
    blood = 1 + 0.05 * space.noise(14.0) + 0.02 * space.noise(3.0)
    for field, value in zip([*chambers, *vessels], bright, strict=False):
        _over(space, signal, np.maximum(field, clear), value * blood)
    for _ in range(int(space.rng.integers(4, 10))):
        blob = ellipsoid(
            where, space.rng.uniform(-34, 34, 3) * [1, 1, 0.8], tuple(space.rng.uniform(1.8, 5.0, 3))
        )
        _over(
            space, signal, np.maximum(blob, clear), (muscle + (1 - muscle) * space.uniform(0.3, 1.2)) * blood
        )
    _over(space, signal, target.whole, blood)
    return signal


def _tissue(space: _Space, where: Field, muscle: float) -> Field:
    """Fat, muscle and marrow with texture, dark lungs on both sides, air outside the chest."""
    fat = space.uniform(0.35, 1.2)
    signal = np.full(space.shape, muscle * space.uniform(0.7, 1.15), np.float32)
    _over(space, signal, 2.5 * space.noise(11.0) + 1.0, fat)
    _over(space, signal, 2.5 * space.noise(7.0) + 2.2, space.uniform(0.3, 1.1))
    _over(space, signal, 4 * np.abs(space.noise(9.0)) - 0.7, space.uniform(0.2, 0.5))
    spine = ellipsoid(where, space.around((2, -43, 0), 3.0), (13, 13, 60))
    _over(space, signal, spine, space.uniform(0.35, 0.9))
    signal *= 1 + space.uniform(0.07, 0.14) * space.noise(3.0) + 0.1 * space.noise(7.0)
    lung = space.uniform(0.04, 0.2)
    for side in (-1, 1):
        size_mm = (space.uniform(20, 28), space.uniform(28, 38), 60.0)
        field = ellipsoid(where, space.around((47 * side, -14, 4), 4.0), size_mm) + space.noise(12.0)
        _over(space, signal, field, lung * (1 + 0.3 * space.noise(3.5)))
        _over(space, signal, np.maximum(field, 3 * (1.9 - space.noise(5.5))), space.uniform(0.5, 1.0))
    x, y = where[0] / space.uniform(46, 62), where[1] / space.uniform(42, 56)
    _over(space, signal, 40 * (1 - np.sqrt(x * x + y * y)), 0.01)
    return signal


def _chambers(space: _Space, where: Field) -> list[Field]:
    """Round neighbours: left ventricle, right atrium."""
    left = ellipsoid(where, space.around((-15, 22, -13), 3.0), tuple(space.rng.uniform(11, 16, 3)))
    right = ellipsoid(where, space.around((19, 17, -5), 3.0), tuple(space.rng.uniform(11, 15, 3)))
    return [left + 0.8 * space.noise(12.0), right + 0.8 * space.noise(12.0)]


def _vessels(space: _Space, where: Field) -> list[Field]:
    """Straight tubes: descending and ascending aorta, upper vena cava, pulmonary artery."""
    descending = line(
        where, space.around((-17, -24, -50), 3.5), space.around((-17, -24, 50), 5.0), space.uniform(6.0, 9.5)
    )
    ascending = line(
        where, space.around((1, 20, 6), 3.0), space.around((6, 22, 60), 4.0), space.uniform(7.5, 10.5)
    )
    vena = line(where, space.around((20, 8, 4), 2.0), space.around((20, 4, 60), 4.0), space.uniform(4.5, 7.0))
    artery = line(
        where, space.around((-20, 8, 24), 3.0), space.around((24, -2, 24), 3.0), space.uniform(4.5, 7.5)
    )
    return [descending, ascending, vena, artery]


def _scan(space: _Space, signal: Field, factor: int) -> Field:
    """Shading, blur, thick slices, gain and Rician noise."""
    pull = space.rng.uniform(-0.006, 0.006, 3).astype(np.float32)
    shading = np.tensordot(pull, space.coordinates(), axes=1) + space.uniform(0.05, 0.2) * space.noise(45.0)
    blurred = ndimage.gaussian_filter(
        signal * np.exp(shading), space.uniform(0.45, 1.1) / space.spacing_mm, truncate=3.0
    )
    blurred = _thick(blurred, factor)
    sigma = space.uniform(0.03, 0.085)
    real, imaginary = sigma * space.rng.standard_normal((2, *blurred.shape), dtype=np.float32)
    gain = 400 * 3 ** space.uniform(-1, 1)
    noisy = gain * np.hypot(blurred + real, imaginary)
    return np.asarray(np.rint(noisy).clip(0, 32000), dtype=np.float32)


def _label(target: _Target, factor: int, classes: int) -> NDArray[np.uint8]:
    """Cut the target's signed field, taken at the centres of the slices, at 0; one connected piece."""
    inside = largest_piece(_thick(target.whole, factor) < 0)
    label = inside.astype(np.uint8)
    if classes == 2:
        body, branches = _thick(target.body, factor), _thick(target.branches, factor)
        label[inside & (body >= 0) & (branches < body)] = 2
    return label


def _orient(
    space: _Space, image: Field, label: NDArray[np.uint8], factor: int
) -> tuple[Field, NDArray[np.uint8], NDArray[np.float64]]:
    """Give the scan an affine; now and then oblique, with flipped axes, or with axes in another order."""
    rng = space.rng
    turn = rotation(rng.uniform(-25, 25, 3) if rng.random() < 0.3 else np.zeros(3))
    flips = [[False, False, False], [True, True, False], [True, False, True]][
        int(rng.choice(3, p=[0.6, 0.3, 0.1]))
    ]
    order = [[0, 1, 2], [2, 0, 1], [1, 2, 0]][int(rng.choice(3, p=[0.84, 0.08, 0.08]))]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([space.spacing_mm, space.spacing_mm, space.spacing_mm * factor])
    affine[:3, 3] = rng.uniform(-60, 60, 3)
    for axis in np.flatnonzero(flips):
        affine[:3, 3] += affine[:3, axis] * (image.shape[axis] - 1)
        affine[:3, axis] *= -1
    affine[:3, :3] = affine[:3, order]
    flipped = tuple(int(axis) for axis in np.flatnonzero(flips))
    image = np.ascontiguousarray(np.flip(image, flipped).transpose(order))
    label = np.ascontiguousarray(np.flip(label, flipped).transpose(order))
    return image, label, affine


def _over(space: _Space, signal: Field, field: NDArray[np.floating[Any]], value: Any) -> None:
    """Paint `value` where `field` is negative, with an edge one voxel wide."""
    alpha = np.clip(0.5 - field / space.spacing_mm, 0, 1)
    signal += alpha * (value - signal)


def _thick(field: Field, factor: int) -> Field:
    """Mean over `factor` slices; leftover slices are dropped."""
    x, y, z = field.shape
    count = max(1, z // factor)
    used = field[:, :, : count * factor].reshape(x, y, count, -1)
    return np.asarray(used.mean(axis=3), dtype=np.float32)
