"""A scan from what a Python caller has: a path, a nibabel or SimpleITK image, an array with its affine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from semivox.errors import UserError
from semivox.io.geometry import affine_text, is_degenerate, ras_affine
from semivox.io.volume import Volume, read_image

ImageLike = Any  # see `as_volume`
_FORMS = "a path, a nibabel or SimpleITK image, or (array, affine)"


def as_volume(image: ImageLike) -> Volume:
    """Turn an image into a `Volume` `(C, X, Y, Z)`.

    Args:
        image: a path; a nibabel image `(X, Y, Z)` or `(X, Y, Z, C)`; a SimpleITK image, also with several
            components; or an array `(X, Y, Z)` or `(C, X, Y, Z)` with its affine `(4, 4)` to mm, RAS axes.

    Raises:
        UserError: anything else, no real numbers, another number of axes, an affine that spans no space.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image([Path(image)])
    if isinstance(image, (tuple, list)) and len(image) == 2:
        array, affine = _numbers(image[0]), _numbers(image[1], np.float64)
    elif hasattr(image, "dataobj") and getattr(image, "affine", None) is not None:
        array, affine = _numbers(image.dataobj), _numbers(image.affine, np.float64)
        array = np.moveaxis(array, -1, 0) if array.ndim == 4 else array
    elif hasattr(image, "GetDirection"):
        array, affine = _from_sitk(image)
    else:
        shape = f" of shape {image.shape}" if hasattr(image, "shape") else ""
        raise UserError(
            "This is not a scan with a place in space", type(image).__name__ + shape, _FORMS,
            "for an array: (array, affine), with e.g. nibabel's image.affine",
        )  # fmt: skip
    if array.ndim not in (3, 4) or array.size == 0:
        expected = "(X, Y, Z), or with channels (C, X, Y, Z), in a nibabel image (X, Y, Z, C); no side of 0"
        raise UserError("The array is not a scan", f"shape {array.shape}", expected, "pass one 3D scan")
    if affine.shape != (4, 4) or is_degenerate(affine):
        found = affine_text(affine) if affine.shape == (4, 4) else f"shape {affine.shape}"
        expected = "(4, 4) with three independent axes in mm"
        do = "pass the affine of the scan, e.g. nibabel's image.affine"
        raise UserError("The affine is degenerate", found, expected, do)
    return Volume(array if array.ndim == 4 else array[None], affine)


def _numbers(values: Any, dtype: Any = np.float32) -> Any:
    """Convert to an array of floats; complex numbers, text and objects are refused."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError("This is not an array", str(error), "an array of numbers") from error
    if array.dtype.kind not in "biuf":
        found = f"{array.dtype} of shape {array.shape}"
        raise UserError("The array does not hold real numbers", found, "integers or floats")
    return array.astype(dtype, copy=False)


def _from_sitk(image: Any) -> tuple[Any, Any]:
    import SimpleITK as sitk

    size = image.GetDimension()
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
        array = array.transpose(0, *reversed(range(1, array.ndim)))
    else:
        array = array.T
    if size != 3:
        raise UserError(
            "The image is not 3D", f"{size} axes, size {image.GetSize()}", "3 axes", "pass one 3D scan"
        )
    axes = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    return _numbers(array), ras_affine(axes, np.asarray(image.GetOrigin()))
