"""How a scan lies in its grid: the order of its axes, and the box around what is not background."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Triple = tuple[int, int, int]


def canonical_axes(affine: Array) -> tuple[Triple, tuple[bool, bool, bool]]:
    """Find the permutation and flips that bring a grid closest to RAS; nothing is ever rotated.

    Args:
        affine: (4, 4), voxel to world mm (RAS+).

    Returns:
        The source axis that becomes each canonical axis, and whether it runs the other way.
    """
    orientation = nib.orientations.io_orientation(affine)
    source = [int(np.flatnonzero(orientation[:, 0] == axis)[0]) for axis in range(3)]
    flips = [bool(orientation[axis, 1] < 0) for axis in source]
    return (source[0], source[1], source[2]), (flips[0], flips[1], flips[2])


def foreground_box(image: Array) -> tuple[Triple, Triple, float]:
    """Find the box around all voxels above the background, by intensity alone.

    Background is what holds the channel's minimum, in every channel.

    Args:
        image: (C, X, Y, Z).

    Returns:
        First voxel and end (exclusive) of the box, and the background's share of the scan, 0..1. A constant
        image is all background; its box is the whole image.
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
