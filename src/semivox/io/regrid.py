"""A label map on another array of the same voxels: reordered, flipped, embedded, never interpolated."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semivox.io.formats import Array, bad_file
from semivox.io.geometry import affine_text, same_affine
from semivox.io.volume import Volume

_TOLERANCE = 0.05  # voxels that the centers of the two grids may be apart


def onto_grid(label: Volume, like: Volume, path: Path) -> Array:
    """Give the label map on the grid of `like`.

    Args:
        label: (X, Y, Z) values; its voxel centers have to be voxel centers of `like`, too.
        like: the scan.
        path: of the label, for the message.

    Returns:
        (X, Y, Z) in the shape of `like`, 0 where the label's grid does not reach.

    Raises:
        UserError: other voxels than those of `like`, or labeled ones outside of it.
    """
    shape = like.array.shape[-3:]
    if label.array.shape == shape and same_affine(label.affine, like.affine, shape):
        return label.array
    step = np.linalg.solve(like.affine, label.affine)  # label index to index of `like`
    axes = np.rint(step[:3, :3]).astype(int)
    ends = np.array(np.meshgrid(*([0, side - 1] for side in label.array.shape))).reshape(3, -1)
    exact = step[:3, :3] @ ends + step[:3, 3:]
    start = np.rint(step[:3, 3]).astype(int)
    off = float(np.abs(axes @ ends + start[:, None] - exact).max())
    if (
        not np.array_equal(np.abs(axes).sum(0), [1, 1, 1])
        or abs(np.linalg.det(axes)) != 1
        or off > _TOLERANCE
    ):
        raise bad_file(
            path,
            "The label's voxels are not those of its image",
            f"shape {label.array.shape}, affine {affine_text(label.affine)}",
            f"the voxels of shape {shape}, affine {affine_text(like.affine)}",
            "check that the two belong together; if so, resample the label onto the image's grid",
        )
    marked = np.nonzero(label.array)
    target = axes @ np.array(marked) + start[:, None]
    outside = ((target < 0) | (target >= np.array(shape)[:, None])).any(axis=0)
    if outside.any():
        found = f"{int(outside.sum())} of {len(outside)} labeled voxels outside the image"
        raise bad_file(path, "The label reaches beyond its image", found, "labels inside the image")
    result = np.zeros(shape, label.array.dtype)
    result[tuple(target)] = label.array[marked]
    return result
