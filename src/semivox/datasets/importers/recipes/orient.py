"""The orientation of a label file whose header cannot be trusted, settled by geometry and content.

All ways to lay the label's array onto the image's are tried (flips, and exchange of X and Y). Content judges
by contrast: an organ is brighter than the shell around it, because fat surrounds it in part; a label laid on
the wrong place has organs, bone or air inside and out alike. Where content leaves several ways equal, the one
nearest to what the header says is taken.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from scipy.ndimage import binary_dilation, binary_erosion, find_objects

from semivox.errors import UserError
from semivox.io.formats import Array
from semivox.io.volume import Volume

_SOFT_HU = (-150.0, 250.0)
_SHELL = 3  # voxels
_NEAR = 0.85  # of the best contrast: counts as equal
_LEAST = 0.3  # contrast, in standard deviations, below which content says nothing
# For each axis of the label's array, the axis that it becomes, and its direction, as nibabel has them
_WAYS = [np.stack(way, axis=1) for way in product(((0, 1, 2), (1, 0, 2)), product((1, -1), repeat=3))]


def orient_label(label: Volume, image: Volume, path: Path) -> tuple[Array, str]:
    """Lay a label onto its image, (1, X, Y, Z) in HU and of its size up to an exchange of X and Y.

    Returned are the label on the image's grid, and how it was laid, in words.
    """
    shape = image.array.shape[1:]
    laid = [(way, apply_orientation(label.array, way)) for way in _WAYS]
    fitting = [(way, array) for way, array in laid if array.shape == shape]
    if not fitting:
        what, do = "The label has another size than its scan", "check that the series is complete"
        raise UserError(what, label.array.shape, f"{shape}: a label slice for each slice", do, path)
    if not label.array.any():
        raise UserError("The label is empty", "no voxel of the pancreas", "some", path=path)
    scores = [_contrast(array, image.array[0]) for _, array in fitting]
    best = max(scores)
    if best < _LEAST:
        what = "The orientation of the label cannot be settled"
        found = f"no orientation in which it stands out (best contrast {best:.2f})"
        raise UserError(what, found, f"{_LEAST} at least", "check that it belongs to this scan", path)
    header = ornt_transform(io_orientation(label.affine), io_orientation(image.affine))

    def distance(index: int) -> tuple[int, float]:
        other = fitting[index][0] != header
        return int(4 * other[:, 0].any() + other[:, 1].sum()), -scores[index]

    chosen = min((i for i, score in enumerate(scores) if score >= _NEAR * best), key=distance)
    way, array = fitting[chosen]
    parts = ["X and Y exchanged"] if way[0, 0] == 1 else []
    parts += [f"{'XYZ'[axis]} flipped" for axis, sign in sorted(way.tolist()) if sign < 0]
    source = "header and content" if np.array_equal(way, header) else "content, against its header"
    return np.ascontiguousarray(array), f"{', '.join(parts) or 'as stored'} (by {source})"


def _contrast(label: Array, image: Array) -> float:
    """Return the difference of the mean HU of the label's core and of the shell around it, in deviations."""
    (inner,) = find_objects((label != 0).astype(np.uint8))
    box = tuple(slice(max(part.start - _SHELL, 0), part.stop + _SHELL) for part in inner)
    mask, values = label[box] != 0, np.clip(image[box], *_SOFT_HU)
    plane = np.ones((3, 3, 1), bool)  # slices may be few or thick
    core = binary_erosion(mask, plane)
    shell = binary_dilation(mask, plane, iterations=_SHELL) & ~mask
    if not shell.any():
        return 0.0
    inside, outside = values[core if core.any() else mask], values[shell]
    spread = float(np.sqrt((inside.var() + outside.var()) / 2))
    return float(inside.mean() - outside.mean()) / max(spread, 1e-6)
