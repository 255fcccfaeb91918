"""The orientation of a label file whose header cannot be trusted, settled by geometry and content.

All ways to lay the label's array onto the image's are tried (flips, and exchange of X and Y). Content judges
by contrast: an organ is brighter than the shell around it, because fat surrounds it in part; a label laid on
the wrong place has organs, bone or air inside and out alike. Where content leaves several ways equal, the one
nearest to what the header says is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from semivox.errors import UserError
from semivox.io.formats import Array
from semivox.io.volume import Volume

_SOFT_HU = (-150.0, 250.0)
_SHELL = 3  # voxels
_NEAR = 0.85  # of the best contrast: counts as equal
_LEAST = 0.3  # contrast, in standard deviations, below which content says nothing


@dataclass(frozen=True)
class _Way:
    """A way to lay the label's array onto the image's: exchange X and Y or not, then flip."""

    swap: bool
    flips: tuple[bool, bool, bool]

    def lay(self, array: Array) -> Array:
        turned = array.swapaxes(0, 1) if self.swap else array
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    def distance(self, other: _Way) -> int:
        turned = sum(a != b for a, b in zip(self.flips, other.flips, strict=True))
        return 4 * (self.swap != other.swap) + turned

    def __str__(self) -> str:
        parts = ["X and Y exchanged"] if self.swap else []
        parts += [f"{axis} flipped" for axis, flip in zip("XYZ", self.flips, strict=True) if flip]
        return ", ".join(parts) or "as stored"


def orient_label(label: Volume, image: Volume, path: Path) -> tuple[Array, str]:
    """Lay a label onto its image.

    Args:
        label: (X, Y, Z), of the image's size up to an exchange of X and Y.
        image: (1, X, Y, Z) in HU.
        path: of the label.

    Returns:
        The label on the image's grid, and how it was laid, in words.

    Raises:
        UserError: another size; an empty label; no way in which the label differs from what is around it.
    """
    shape = image.array.shape[1:]
    ways = [
        _Way(swap, (x, y, z))
        for swap, x, y, z in product((False, True), *[(False, True)] * 3)
        if _Way(swap, (x, y, z)).lay(label.array).shape == shape
    ]
    if not ways:
        what, expected = "The label has another size than its scan", f"{shape}: a label slice for each slice"
        do = "check that the series is complete and that the label belongs to it"
        raise UserError(what, label.array.shape, expected, do, path)
    if not label.array.any():
        raise UserError("The label is empty", "no voxel of the pancreas", "some", path=path)
    header = _from_header(label, image)
    scores = {way: _contrast(way.lay(label.array), image.array[0]) for way in ways}
    best = max(scores.values())
    if best < _LEAST:
        what = "The orientation of the label cannot be settled"
        found = f"no orientation in which it stands out (best contrast {best:.2f})"
        expected = f"a contrast of {_LEAST} at least between the label and its surroundings"
        raise UserError(what, found, expected, "check that the label belongs to this scan", path)
    equal = [way for way, score in scores.items() if score >= _NEAR * best]
    chosen = min(equal, key=lambda way: (way.distance(header), -scores[way]))
    source = "header and content" if chosen == header else "content, against its header"
    return np.ascontiguousarray(chosen.lay(label.array)), f"{chosen} (by {source})"


def _from_header(label: Volume, image: Volume) -> _Way:
    """Return the way that the directions of the two affines say; where they are, does not matter."""
    own, wanted = (nib.orientations.io_orientation(item.affine) for item in (label, image))
    turn = nib.orientations.ornt_transform(own, wanted)
    swap = int(turn[0, 0]) == 1
    flips = [False] * 3
    for target, sign in turn:
        flips[int(target)] = bool(sign < 0)
    return _Way(swap, (flips[0], flips[1], flips[2]))


def _contrast(label: Array, image: Array) -> float:
    """Return the difference of the mean HU of the label's core and of the shell around it, in deviations."""
    where = [np.flatnonzero(label.any(axis=tuple(o for o in range(3) if o != axis))) for axis in range(3)]
    box = tuple(
        slice(max(int(w[0]) - _SHELL, 0), min(int(w[-1]) + _SHELL + 1, side))
        for w, side in zip(where, label.shape, strict=True)
    )
    mask, values = label[box] != 0, np.clip(image[box], *_SOFT_HU)
    plane = np.ones((3, 3, 1), bool)  # slices may be few or thick
    core = binary_erosion(mask, plane)
    core = core if core.any() else mask
    shell = binary_dilation(mask, plane, iterations=_SHELL) & ~mask
    if not shell.any():
        return 0.0
    inside, outside = values[core], values[shell]
    spread = float(np.sqrt((inside.var() + outside.var()) / 2))
    return float(inside.mean() - outside.mean()) / max(spread, 1e-6)
