"""What becomes of a downloaded case: crops and resampling as published, labels laid by their content."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from scipy.ndimage import affine_transform, binary_dilation, binary_erosion, find_objects

from semivox.datasets.importers.source import Loaded
from semivox.errors import UserError
from semivox.io.formats import Array
from semivox.io.geometry import foreground_box
from semivox.io.volume import Volume

_SOFT_HU = (-150.0, 250.0)
_SHELL = 3  # voxels
_NEAR = 0.85  # of the best contrast: counts as equal
_LEAST = 0.3  # contrast, in standard deviations, below which content says nothing
# For each axis of the label's array, the axis that it becomes, and its direction, as nibabel has them
_WAYS = [np.stack(way, axis=1) for way in product(((0, 1, 2), (1, 0, 2)), product((1, -1), repeat=3))]


def margins(name: str, low: Sequence[int], high: Sequence[int]) -> Array:
    """Draw the margins before and behind each axis, (2, axes), uniform in low..high, fixed by the name.

    The published code draws them without a seed, so that no two preparations agree; here they always do.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return np.asarray(rng.integers(low, np.asarray(high) + 1, size=(2, len(low))))


def crop_in_plane(loaded: Loaded, target: Sequence[int], margin: Array, path: Path) -> Loaded:
    """Crop X and Y around the label as the published preparations do; Z stays whole.

    The box is the label's, widened to the size `target` (X, Y) where it is smaller, plus the margins (2, 2)
    before and behind along X and Y. Its upper end is exclusive and counts from the last labeled voxel, as in
    the published code. Messages name `path`.
    """
    label = loaded.label
    if label is None or not label.any():
        what, do = "The published crop needs a label", "download the case again, or leave out --crop"
        raise UserError(what, "no label file, or an empty one", None, do, path)
    box: list[slice] = []
    for axis in range(2):
        inside = np.flatnonzero(label.any(axis=(1 - axis, 2)))
        first, last = int(inside[0]), int(inside[-1])
        pad = max(target[axis] - (last - first), 0) // 2
        start = max(first - int(margin[0, axis]) - pad, 0)
        box.append(slice(start, min(last + int(margin[1, axis]) + pad, label.shape[axis])))
    return _crop_to(loaded, (*box, slice(0, label.shape[2])))


def crop_to_brain(loaded: Loaded) -> Loaded:
    """Crop to the box of voxels other than 0, clip, normalise; the box ends one voxel early, as published."""
    start, stop, _ = foreground_box((loaded.image.array != 0).astype(np.uint8))
    cropped = _crop_to(loaded, tuple(slice(a, max(a + 1, b - 1)) for a, b in zip(start, stop, strict=True)))
    array = np.stack([np.minimum(channel, clip_level(channel)) for channel in cropped.image.array])
    return Loaded(zscored(Volume(array, cropped.image.affine), array > 0), cropped.label)


def clip_level(values: Array) -> float:
    """Return the center of the first of 256 bins up to which 99.9 % of the values lie, as published."""
    counts, edges = np.histogram(values, bins=256)
    index = int(np.argmax(np.cumsum(counts) / values.size >= 0.999))
    return float((edges[index] + edges[index + 1]) / 2)


def _crop_to(loaded: Loaded, box: tuple[slice, ...]) -> Loaded:
    """Cut a box out of image and label; the affine moves along."""
    affine = loaded.image.affine.copy()
    affine[:3, 3] = affine[:3, :3] @ [part.start for part in box] + affine[:3, 3]
    label = None if loaded.label is None else loaded.label[box]
    return Loaded(Volume(loaded.image.array[(slice(None), *box)], affine), label)


def to_spacing(loaded: Loaded, spacing_mm: float) -> Loaded:
    """Resample to a voxel size equal along all axes, images by cubic B-splines; the first voxel stays."""
    image, label = loaded.image, loaded.label
    step = spacing_mm / np.array(image.spacing_mm)  # from one new voxel to the next, in old ones
    shape = np.maximum(1, np.rint(image.array.shape[1:] / step)).astype(int)
    array = [
        affine_transform(item, step, output_shape=shape, order=3, mode="nearest") for item in image.array
    ]
    if label is not None:
        label = affine_transform(label, step, output_shape=shape, order=0, mode="nearest")
    return Loaded(Volume(np.stack(array), image.affine @ np.diag([*step, 1.0])), label)


def zscored(image: Volume, mask: Array | None = None) -> Volume:
    """Return the image with mean 0 and deviation 1 over all voxels, or over those of `mask` (C, X, Y, Z)."""
    array = np.empty_like(image.array, np.float32)
    for index, channel in enumerate(image.array.astype(np.float64)):
        values = channel if mask is None else channel[mask[index]]
        array[index] = (channel - values.mean()) / max(float(values.std()), 1e-12)
    return Volume(array, image.affine)


def orient_label(label: Volume, image: Volume, path: Path) -> tuple[Array, str]:
    """Lay a label whose header cannot be trusted onto its image, (1, X, Y, Z) in HU.

    All ways to lay the array are tried (flips, and exchange of X and Y). Content judges by contrast: an organ
    is brighter than the shell around it, because fat surrounds it in part; a label laid on the wrong place
    has organs, bone or air inside and out alike. Where content leaves several ways equal, the one nearest to
    what the header says is taken. Returned are the label on the image's grid, and how it was laid, in words.
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


def prepare_la(loaded: Loaded, is_crop: bool, name: str, path: Path) -> Loaded:
    """Prepare a scan of the 2018 Atrial Segmentation Challenge; the crop is that of UA-MT (Yu et al. 2019).

    Its margins along Z are computed there, but not applied.
    """
    if not is_crop:
        return loaded
    margin = margins(name, (10, 10), (19, 19))  # published as numpy's upper bound 20, which is exclusive
    return crop_in_plane(Loaded(zscored(loaded.image), loaded.label), (112, 112), margin, path)


def prepare_pancreas(loaded: Loaded, is_crop: bool, name: str, path: Path) -> Loaded:
    """Prepare a scan of NIH Pancreas-CT (The Cancer Imaging Archive) as MC-Net, MCF and CoraNet do."""
    image, label, _ = to_spacing(loaded, 1.0) if is_crop else loaded
    windowed = Loaded(Volume(np.clip(image.array, -120.0, 240.0), image.affine), label)
    if not is_crop:
        return windowed
    cropped = crop_in_plane(windowed, (96, 96), np.full((2, 2), 25), path)
    return cropped._replace(image=zscored(cropped.image))


def prepare_brats(loaded: Loaded, is_crop: bool, name: str, path: Path) -> Loaded:
    """Prepare a FLAIR scan of BraTS 2019; the crop is that of SSL4MIS."""
    return crop_to_brain(loaded) if is_crop else loaded


# By recipe; arguments: the case, whether the published crop is asked, its name, the file that messages name
PREPARATIONS: dict[str, Callable[[Loaded, bool, str, Path], Loaded]] = {
    "la2018": prepare_la,
    "pancreas-ct": prepare_pancreas,
    "brats2019": prepare_brats,
}
