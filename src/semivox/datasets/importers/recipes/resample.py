"""Resampling at import, by SimpleITK: cubic B-splines for images, nearest neighbor for labels."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from semivox.datasets.importers.found import Loaded
from semivox.io.formats import Array
from semivox.io.volume import Volume

_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def to_spacing(loaded: Loaded, spacing_mm: float) -> Loaded:
    """Bring image and label to a voxel size equal along all axes; the first voxel's center stays.

    Args:
        loaded: (C, X, Y, Z) and (X, Y, Z) with orthogonal axes.
        spacing_mm: the new voxel size.
    """
    affine = loaded.image.affine
    shape = [
        max(1, round(side * old / spacing_mm))
        for side, old in zip(loaded.image.array.shape[1:], loaded.image.spacing_mm, strict=True)
    ]
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    array = np.stack(
        [_resampled(item, affine, shape, spacing_mm, sitk.sitkBSpline) for item in loaded.image.array]
    )
    label = None
    if loaded.label is not None:
        label = _resampled(loaded.label, affine, shape, spacing_mm, sitk.sitkNearestNeighbor)
    new = np.eye(4)
    new[:3, :3], new[:3, 3] = directions * spacing_mm, affine[:3, 3]
    return Loaded(Volume(array, new), label)


def _resampled(array: Array, affine: Array, shape: list[int], spacing_mm: float, how: int) -> Array:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    axes = _TO_LPS @ affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    image.SetSpacing(lengths.tolist())
    image.SetDirection((axes / lengths).ravel().tolist())
    image.SetOrigin((_TO_LPS @ affine[:3, 3]).tolist())
    grid = sitk.ResampleImageFilter()
    grid.SetReferenceImage(image)
    grid.SetSize(shape)
    grid.SetOutputSpacing([spacing_mm] * 3)
    grid.SetInterpolator(how)
    grid.SetOutputPixelType(image.GetPixelID())
    low = float(array.min())
    grid.SetDefaultPixelValue(low)
    return np.asarray(sitk.GetArrayFromImage(grid.Execute(image)).T)
