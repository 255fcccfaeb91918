"""The preparations that published code trains on: crops around the label, normalisation, resampling."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import affine_transform

from semivox.datasets.importers.source import Loaded
from semivox.errors import UserError
from semivox.io.formats import Array
from semivox.io.geometry import foreground_box
from semivox.io.volume import Volume


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
