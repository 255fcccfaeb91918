"""Made-up scans with exact labels: a left atrium with veins, in noisy MR-like surroundings.

The anatomy is a set of signed fields in mm (negative inside), painted one over the other with soft edges
and then imaged: coil shading, blur, thick slices, Rician noise. The field of view is about 77 x 77 x 58 mm
for the default shape; x points to the right, y to the front, z to the head.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semivox.datasets.phantom_shapes import (
    FAR_MM,
    Field,
    Space,
    Triple,
    ellipsoid,
    image_of,
    joined,
    largest_piece,
    line,
    orient,
    paint_over,
    rotation,
    thicken,
    tube,
)
from semivox.errors import UserError
from semivox.files import read_json, write_json
from semivox.io.volume import write_map
from semivox.progress import Progress

SHAPE: Triple = (64, 64, 48)
_SPACING_MM = 1.2


class _Target(NamedTuple):
    """Signed distances, mm."""

    body: Field
    branches: Field  # the veins
    whole: Field  # both, with rounded corners where they meet


def phantom(
    seed: int, index: int = 0, *, classes: int = 1, shape: Triple = SHAPE
) -> tuple[Field, NDArray[np.uint8], NDArray[np.float64]]:
    """Make one scan; the same `seed` and `index` give the same scan.

    Args:
        seed, index: of the data set, and of the case in it.
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
    space = Space(shape, float(spacing_mm), rng)
    where = _posed(space)
    target = _target(space, where)
    signal = _paint(space, where, target)
    factor = int(rng.choice([1, 1, 1, 1, 1, 1, 2, 3]))
    image = image_of(space, signal, factor)
    label = _label(target, factor, classes)
    return orient(space, image, label, factor)


def _posed(space: Space) -> Field:
    """Coordinates in the heart's own frame: moved, turned and smoothly bent."""
    where = space.coordinates()
    turn = rotation(space.rng.uniform(-20, 20, 3)).astype(np.float32)
    moved = where - space.around((0, 0, 0), 4.0)[:, None, None, None]
    bend = np.stack([space.noise(26.0) for _ in range(3)])
    return np.asarray(np.tensordot(turn, moved, axes=1) + 1.6 * bend, dtype=np.float32)


def _target(space: Space, where: Field) -> _Target:
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


def _vein_directions(space: Space) -> list[Field]:
    """Three to five unit vectors, to both sides, upwards and downwards, mostly to the back."""
    corners = [(1, -0.5, 0.55), (1, -0.6, -0.45), (-1, -0.5, 0.6), (-1, -0.6, -0.4), (1, -0.2, 0.05)]
    number = int(space.rng.choice([3, 4, 4, 4, 5]))
    chosen = [0, 1, 2, 3] if number == 4 else space.rng.permutation(5)[:number]
    vectors = [np.asarray(corners[i]) + space.rng.uniform(-0.25, 0.25, 3) for i in chosen]
    return [np.asarray(v / np.linalg.norm(v), dtype=np.float32) for v in vectors]


def _vein(space: Space, where: Field, centre: Field, axes_mm: tuple[float, ...], direction: Field) -> Field:
    """Bend a tube (quadratic Bezier) from inside the body outwards, ever thinner."""
    surface_mm = float(1 / np.linalg.norm(direction / np.asarray(axes_mm)))
    length_mm = space.uniform(10, 20)
    start, middle = centre + 0.45 * surface_mm * direction, centre + surface_mm * 1.1 * direction
    end = centre + (surface_mm + length_mm) * direction + space.rng.uniform(-6, 6, 3)
    t = np.linspace(0, 1, 11)[:, None]
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
    radius_mm = space.uniform(3.4, 6.0)
    return tube(where, points, np.linspace(radius_mm, radius_mm * space.uniform(0.55, 0.85), 11))


def _paint(space: Space, where: Field, target: _Target) -> Field:
    """Signal of every voxel before imaging; blood of the target is 1."""
    muscle = 1 - space.uniform(0.17, 0.66)
    bright = [muscle + (1 - muscle) * space.uniform(0.45, 1.3) for _ in range(8)]
    signal = _tissue(space, where, muscle)
    wall_mm, gap_mm = space.uniform(1.2, 2.8), space.uniform(0.9, 2.0)
    chambers, vessels = _chambers(space, where), _vessels(space, where)
    texture = 1 + 0.04 * space.noise(3.0)
    rim = muscle + (1 - muscle) * space.uniform(0, 1.3) * np.clip(space.noise(11.0), 0, 1)
    values: tuple[Any, ...] = (muscle, muscle, rim)
    for field, thick_mm, value in zip((*chambers, target.whole), (6.0, 3.0, wall_mm), values, strict=True):
        paint_over(space, signal, field - thick_mm, value * texture)
    clear = gap_mm - target.whole
    blood = 1 + 0.05 * space.noise(14.0) + 0.02 * space.noise(3.0)
    for field, value in zip([*chambers, *vessels], bright, strict=False):
        paint_over(space, signal, np.maximum(field, clear), value * blood)
    for _ in range(int(space.rng.integers(4, 10))):
        place, size_mm = space.rng.uniform(-34, 34, 3) * [1, 1, 0.8], space.rng.uniform(1.8, 5.0, 3)
        value = (muscle + (1 - muscle) * space.uniform(0.3, 1.2)) * blood
        paint_over(space, signal, np.maximum(ellipsoid(where, place, size_mm), clear), value)
    paint_over(space, signal, target.whole, blood)
    return signal


def _tissue(space: Space, where: Field, muscle: float) -> Field:
    """Fat, muscle and marrow with texture, dark lungs on both sides, air outside the chest."""
    fat = space.uniform(0.35, 1.2)
    signal = np.full(space.shape, muscle * space.uniform(0.7, 1.15), np.float32)
    paint_over(space, signal, 2.5 * space.noise(11.0) + 1.0, fat)
    paint_over(space, signal, 2.5 * space.noise(7.0) + 2.2, space.uniform(0.3, 1.1))
    paint_over(space, signal, 4 * np.abs(space.noise(9.0)) - 0.7, space.uniform(0.2, 0.5))
    spine = ellipsoid(where, space.around((2, -43, 0), 3.0), (13, 13, 60))
    paint_over(space, signal, spine, space.uniform(0.35, 0.9))
    signal *= 1 + space.uniform(0.07, 0.14) * space.noise(3.0) + 0.1 * space.noise(7.0)
    lung = space.uniform(0.04, 0.2)
    for side in (-1, 1):
        size_mm = (space.uniform(20, 28), space.uniform(28, 38), 60.0)
        field = ellipsoid(where, space.around((47 * side, -14, 4), 4.0), size_mm) + space.noise(12.0)
        paint_over(space, signal, field, lung * (1 + 0.3 * space.noise(3.5)))
        paint_over(space, signal, np.maximum(field, 3 * (1.9 - space.noise(5.5))), space.uniform(0.5, 1.0))
    x, y = where[0] / space.uniform(46, 62), where[1] / space.uniform(42, 56)
    paint_over(space, signal, 40 * (1 - np.sqrt(x * x + y * y)), 0.01)
    return signal


def _chambers(space: Space, where: Field) -> list[Field]:
    """Round neighbours: left ventricle, right atrium."""
    left = ellipsoid(where, space.around((-15, 22, -13), 3.0), tuple(space.rng.uniform(11, 16, 3)))
    right = ellipsoid(where, space.around((19, 17, -5), 3.0), tuple(space.rng.uniform(11, 15, 3)))
    return [left + 0.8 * space.noise(12.0), right + 0.8 * space.noise(12.0)]


def _vessels(space: Space, where: Field) -> list[Field]:
    """Straight tubes: descending and ascending aorta, upper vena cava, pulmonary artery."""
    return [
        line(where, space.around(start, near), space.around(end, far), space.uniform(*radius_mm))
        for start, near, end, far, radius_mm in (
            ((-17, -24, -50), 3.5, (-17, -24, 50), 5.0, (6.0, 9.5)),
            ((1, 20, 6), 3.0, (6, 22, 60), 4.0, (7.5, 10.5)),
            ((20, 8, 4), 2.0, (20, 4, 60), 4.0, (4.5, 7.0)),
            ((-20, 8, 24), 3.0, (24, -2, 24), 3.0, (4.5, 7.5)),
        )
    ]


def _label(target: _Target, factor: int, classes: int) -> NDArray[np.uint8]:
    """Cut the target's signed field, taken at the centres of the slices, at 0; one connected piece."""
    inside = largest_piece(thicken(target.whole, factor) < 0)
    label = inside.astype(np.uint8)
    if classes == 2:
        body, branches = thicken(target.body, factor), thicken(target.branches, factor)
        label[inside & (body >= 0) & (branches < body)] = 2
    return label


def make_phantoms(
    out: Path,
    *,
    train: int = 40,
    test: int = 20,
    classes: int = 1,
    shape: Triple = SHAPE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write scans, all with labels, as an nnU-Net raw data set; the same seed gives the same bytes.

    Cases are `phantom_000`, `phantom_001`, ...; the test cases follow the train cases. Files that exist are
    kept, so an interrupted call resumes where it stopped. Arguments: see `semivox.make_phantoms`.
    """
    names = ("background", "atrium") if classes == 1 else ("background", "body", "veins")
    path = out / "dataset.json"
    meta = {
        "name": "phantoms",
        "description": "made-up left atria with pulmonary veins",
        "channel_names": {"0": "MR"},
        "labels": {name: value for value, name in enumerate(names)},
        "numTraining": train,
        "file_ending": ".nii.gz",
        "phantoms": {"train": train, "test": test, "classes": classes, "shape": list(shape), "seed": seed},
    }
    if not path.exists():
        write_json(path, meta)
    elif read_json(path) != meta:
        what, do = "The folder already holds another data set", "choose another folder, or remove this one"
        raise UserError(what, None, f"phantoms made with {meta['phantoms']}", do, path)
    for index in range(train + test):
        name, part = f"phantom_{index:03d}", "Tr" if index < train else "Ts"
        paths = out / f"images{part}" / f"{name}_0000.nii.gz", out / f"labels{part}" / f"{name}.nii.gz"
        if not all(path.is_file() for path in paths):
            image, label, affine = phantom(seed, index, classes=classes, shape=shape)
            write_map(paths[0], image.astype(np.int16), affine)
            write_map(paths[1], label, affine)
        if progress is not None:
            progress(index + 1, train + test, name)
    return out
