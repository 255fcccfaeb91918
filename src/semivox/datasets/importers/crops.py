"""What published code makes of a scan: crops and resampling; and labels laid onto their scan by content."""

from __future__ import annotations

import zlib
from itertools import product
from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from scipy.ndimage import affine_transform, binary_dilation, binary_erosion, find_objects

from semivox.errors import UserError
from semivox.io.formats import Array, bad_file
from semivox.io.geometry import foreground_box
from semivox.io.volume import Volume

_SOFT_HU = (-150.0, 250.0)
_SHELL = 3  # voxels
_NEAR = 0.85  # of the best contrast: counts as equal
_LEAST = 0.3  # contrast, in standard deviations, below which content says nothing
# For each axis of the label's array, the axis that it becomes, and its direction, as nibabel has them
_WAYS = [np.stack(way, axis=1) for way in product(((0, 1, 2), (1, 0, 2)), product((1, -1), repeat=3))]


def published_crop(recipe: str, case: str, image: Volume, label: Array | None) -> tuple[Volume, Array | None]:
    """Crop and normalise a scan (1, X, Y, Z) and its label (X, Y, Z) as published code does.

    That is SSL4MIS for brats2019, UA-MT (Yu et al. 2019) for la2018, and MC-Net, MCF and CoraNet for
    pancreas-ct. The latter two crop around the label.
    """
    if recipe == "brats2019":
        start, stop, _ = foreground_box(image.array != 0)
        box = tuple(slice(a, max(a + 1, b - 1)) for a, b in zip(start, stop, strict=True))  # as published
        image, label = _cut(image, label, box)
        clipped = Volume(np.minimum(image.array, clip_level(image.array)), image.affine)
        return _zscored(clipped, clipped.array > 0), label
    if label is None or not label.any():
        do = "download the case again, or leave out --crop"
        raise UserError(f"Case {case}: the published crop needs a label", "none, or an empty one", do=do)
    if recipe == "la2018":
        return _cut(_zscored(image), label, _box_in_plane(label, 112, margins(case)))
    image, label = _to_1_mm(image, label)
    image, label = _cut(windowed(image), label, _box_in_plane(label, 96, np.full((2, 2), 25)))
    return _zscored(image), label


def windowed(image: Volume) -> Volume:
    """Clip a CT scan to the window of the published preparations of Pancreas-CT."""
    return Volume(np.clip(image.array, -120.0, 240.0), image.affine)


def margins(case: str) -> Array:
    """Draw the margins before and behind X and Y, (2, 2), from 10 to 19, fixed by the name of the case.

    The published code draws them without a seed, so that no two preparations agree; here they always do.
    It also draws margins along Z, and does not apply them.
    """
    rng = np.random.default_rng(zlib.crc32(case.encode()))
    return np.asarray(rng.integers((10, 10), (20, 20), size=(2, 2)))


def clip_level(values: Array) -> float:
    """Return the center of the first of 256 bins up to which 99.9 % of the values lie, as published."""
    counts, edges = np.histogram(values, bins=256)
    index = int(np.argmax(np.cumsum(counts) / values.size >= 0.999))
    return float((edges[index] + edges[index + 1]) / 2)


def _box_in_plane(label: Array, least: int, margin: Array) -> tuple[slice, ...]:
    """Return the label's box in X and Y, widened to `least` voxels, and by the margins; Z stays whole.

    Its upper end is exclusive and counts from the last labeled voxel, as in the published code.
    """
    box = []
    for axis in range(2):
        inside = np.flatnonzero(label.any(axis=(1 - axis, 2)))
        first, last = int(inside[0]), int(inside[-1])
        pad = max(least - (last - first), 0) // 2
        box.append(slice(max(first - margin[0, axis] - pad, 0), last + margin[1, axis] + pad))
    return (*box, slice(0, None))


def _cut(image: Volume, label: Array | None, box: tuple[slice, ...]) -> tuple[Volume, Array | None]:
    """Cut a box out of image and label; the affine moves along."""
    affine = image.affine.copy()
    affine[:3, 3] = (affine @ [*(part.start for part in box), 1])[:3]
    return Volume(image.array[(slice(None), *box)], affine), None if label is None else label[box]


def _to_1_mm(image: Volume, label: Array) -> tuple[Volume, Array]:
    """Resample to voxels of 1 mm, the image by cubic B-splines; the first voxel stays where it is."""
    step = 1 / np.array(image.spacing_mm)  # from one new voxel to the next, in old ones
    shape = np.maximum(1, np.rint(label.shape / step)).astype(int)
    array = affine_transform(image.array[0], step, output_shape=shape, order=3, mode="nearest")
    label = affine_transform(label, step, output_shape=shape, order=0, mode="nearest")
    return Volume(array[None], image.affine @ np.diag([*step, 1])), label


def _zscored(image: Volume, mask: Array | None = None) -> Volume:
    """Return the image with mean 0 and deviation 1 over all voxels, or over those of `mask`."""
    values = image.array.astype(np.float64)
    inside = values if mask is None else values[mask]
    array = (values - inside.mean()) / max(float(inside.std()), 1e-12)
    return Volume(array.astype(np.float32), image.affine)


def orient_label(label: Volume, image: Volume, path: Path) -> tuple[Array, str]:
    """Lay a label whose header cannot be trusted onto its image, (1, X, Y, Z) in HU.

    All ways to lay the array are tried (flips, and exchange of X and Y). Content judges by contrast: an organ
    is brighter than the shell around it, because fat surrounds it in part; a label laid on the wrong place
    has organs, bone or air inside and out alike. Where content leaves several ways equal, the one nearest to
    what the header says is taken. Returned are the label on the image's grid, and how it was laid, in words.
    """
    if not label.array.any():
        raise bad_file(path, "The label is empty", "no voxel of the organ", "some")
    header = ornt_transform(io_orientation(label.affine), io_orientation(image.affine))
    ways = []  # contrast, steps from what the header says, the way and the array laid
    for way in _WAYS:
        array, other = apply_orientation(label.array, way), way != header
        if array.shape == image.array.shape[1:]:
            steps = 4 * other[:, 0].any() + other[:, 1].sum()
            ways.append((_contrast(array, image.array[0]), steps, way, array))
    if not ways:
        what, wanted = "The label has another size than its scan", f"{image.array.shape[1:]}"
        raise bad_file(path, what, label.array.shape, wanted, "check that the series is complete")
    best = max(contrast for contrast, *_ in ways)
    if best < _LEAST:
        what, found = "The orientation of the label cannot be settled", f"a contrast of {best:.2f} at best"
        raise bad_file(path, what, found, f"{_LEAST} at least", "check that it belongs to this scan")
    near = [way for way in ways if way[0] >= _NEAR * best]
    _, _, way, array = min(near, key=lambda way: (way[1], -way[0]))
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
