"""Where voxels lie: a volume and its affine, comparing two grids, moving labels between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np

from semivox.io.formats import Array, bad_file

Triple = tuple[int, int, int]
GridOf = tuple[tuple[int, ...], Array]  # shape (X, Y, Z), affine (4, 4)

TOLERANCE_VOX = 0.25  # below half a voxel, the nearest voxel on the other grid is the one of the same index
_CENTRES_VOX = 0.05  # how far the voxel centres of a label may be from those of its image
_SHORTEST_MM, _LONGEST_MM = 1e-6, 1e9
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_KEEP = (
    "resample it onto the other's grid; if only its header is wrong and the voxels correspond one by one,"
    " use --trust-image-geometry and look at the pictures"
)


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan or a label map, with its place in the world."""

    array: Array  # image (C, X, Y, Z) float32, or label (X, Y, Z) uint8 class indices; C-contiguous
    affine: Array  # (4, 4) float64, voxel indices to world mm (RAS+); its axes may be sheared

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighboring voxel centers along X, Y, Z."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    @property
    def axes(self) -> str:
        """Where the array's axes point to, as `nibabel.aff2axcodes` says."""
        return "".join(nib.aff2axcodes(self.affine))

    @property
    def grid(self) -> GridOf:
        """The shape (X, Y, Z) and the affine."""
        return self.array.shape[-3:], self.affine


def canonical_axes(affine: Array) -> tuple[Triple, tuple[bool, bool, bool]]:
    """Return for each canonical axis (nearest to R, A, S) the source axis, and whether that is flipped."""
    orientation = nib.orientations.io_orientation(affine)
    x, y, z = np.argsort(orientation[:, 0]).tolist()
    flips = orientation[:, 1] < 0
    return (x, y, z), (bool(flips[x]), bool(flips[y]), bool(flips[z]))


def foreground_box(image: Array) -> tuple[Triple, Triple, float]:
    """Find the box of an image (C, X, Y, Z) around all voxels above the background, by intensity alone.

    A voxel is background if it holds the minimum of the channel, in every channel. Returned are first voxel
    and end (exclusive) of the box, and the background's share of the scan, 0..1. A constant image is all
    background; its box is the whole image.
    """
    mask = np.zeros(image.shape[1:], bool)
    for channel in image:
        mask |= channel > channel.min()
    box = []
    for axis in range(3):
        inside = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append((int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, mask.shape[axis]))
    start, stop = zip(*box, strict=True)
    return start, stop, 1.0 - np.count_nonzero(mask) / mask.size


def ras_affine(axes: Array, origin: Array) -> Array:
    """Return (4, 4), voxel to world mm (RAS+), from the world of DICOM and ITK (LPS+).

    Columns of `axes` are the steps in mm along each array axis; `origin` is the center of the first voxel.
    """
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, origin
    return _LPS_TO_RAS @ affine


def is_degenerate(affine: Array) -> bool:
    """Whether an affine spans no space: not finite, axes (nearly) parallel or of no possible length."""
    if not (np.isfinite(affine).all() and (np.abs(affine) < _LONGEST_MM).all()):
        return True
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(lengths.min() < _SHORTEST_MM or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-6)


def is_sheared(affine: Array) -> bool:
    """Whether two axes are not perpendicular, as with a tilted CT gantry."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4)


def check_affine(affine: Array, path: Path) -> None:
    """Refuse an affine that places no grid: zero or infinite voxel size, dependent axes."""
    if is_degenerate(affine):
        raise bad_file(path, "The affine is degenerate", affine_text(affine), "three independent axes in mm")


def displacement(affine: Array, reference: Array, shape: Sequence[int]) -> float:
    """Return the largest distance between voxels of the same index on two grids, in voxels of the second.

    Both have the `shape` (X, Y, Z); the largest distance is found at one of the eight corners.
    """
    corners = np.array([(*corner, 1.0) for corner in product(*((0, side - 1) for side in shape))])
    moved = corners @ np.linalg.solve(reference, affine).T - corners
    return float(np.abs(moved).max())


def same_affine(affine: Array, reference: Array, shape: Sequence[int]) -> bool:
    """Whether no voxel is more than `TOLERANCE_VOX` off along any axis."""
    return displacement(affine, reference, shape) <= TOLERANCE_VOX


def check_grid(path: Path, grid: GridOf, like: GridOf, other: str, *, trust: bool = False) -> None:
    """Compare the grid (shape and affine) of a file with that of `other`; with `trust`, the shapes alone."""
    (shape, affine), (other_shape, other_affine) = grid, like
    if shape != other_shape:
        do = "check that the two files belong together; if so, resample this one onto the other's grid"
        raise bad_file(path, f"The shape differs from that of {other}", shape, other_shape, do)
    if not trust and not same_affine(affine, other_affine, shape):
        off = f"up to {displacement(affine, other_affine, shape):.3g} voxels away"
        what, found = f"The affine differs from that of {other}", f"{affine_text(affine)}, {off}"
        raise bad_file(path, what, found, affine_text(other_affine), _KEEP)


def affine_text(affine: Array) -> str:
    """Return the three rows of an affine on one line."""
    rows = [" ".join(f"{value:.6g}" for value in row) for row in (affine[:3] + 0.0).tolist()]
    return "[" + "; ".join(rows) + "]"


def onto_grid(label: Volume, like: Volume, path: Path) -> Array:
    """Bring a label map to another array of the same voxels: reorder, flip, embed, never interpolate.

    The label's voxel centers have to be voxel centers of `like`, too; it is 0 where its grid does not reach.
    """
    shape, _ = like.grid
    if label.array.shape == shape and same_affine(label.affine, like.affine, shape):
        return label.array
    step = np.linalg.solve(like.affine, label.affine)  # label index to index of `like`
    axes, start = np.rint(step[:3, :3]).astype(int), np.rint(step[:3, 3]).astype(int)
    ends = np.array(np.meshgrid(*([0, side - 1] for side in label.array.shape))).reshape(3, -1)
    off = float(np.abs(axes @ ends + start[:, None] - step[:3, :3] @ ends - step[:3, 3:]).max())
    is_permutation = np.array_equal(np.abs(axes).sum(0), [1, 1, 1]) and abs(np.linalg.det(axes)) == 1
    if not is_permutation or off > _CENTRES_VOX:
        found = f"shape {label.array.shape}, affine {affine_text(label.affine)}"
        expected = f"the voxels of shape {shape}, affine {affine_text(like.affine)}"
        do = "check that the two belong together; if so, resample the label onto the image's grid"
        raise bad_file(path, "The label's voxels are not those of its image", found, expected, do)
    marked = np.nonzero(label.array)
    target = axes @ np.array(marked) + start[:, None]
    outside = ((target < 0) | (target >= np.array(shape)[:, None])).any(axis=0)
    if outside.any():
        found = f"{int(outside.sum())} of {len(outside)} labeled voxels outside the image"
        raise bad_file(path, "The label reaches beyond its image", found, "labels inside the image")
    result = np.zeros(shape, label.array.dtype)
    result[tuple(target)] = label.array[marked]
    return result
