"""What `predict_image` takes for a scan."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from semivox.errors import UserError
from semivox.inference.sources import as_volume

ARRAY = np.arange(24.0).reshape(2, 3, 4)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def itk(array: np.ndarray, *, vector: bool = False) -> sitk.Image:
    """The scan on the grid of AFFINE: ITK's first two axes run the other way."""
    image = sitk.GetImageFromArray(array.T, isVector=vector)
    image.SetSpacing((1, 2, 3))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return image


@pytest.mark.parametrize(
    "image", [(ARRAY, AFFINE), [ARRAY, AFFINE.tolist()], (ARRAY[None].astype(np.int16), AFFINE),
              nib.Nifti1Image(ARRAY, AFFINE), nib.Nifti1Image(ARRAY[..., None], AFFINE), itk(ARRAY)],
)  # fmt: skip
def test_forms_of_one_scan(image: Any) -> None:
    volume = as_volume(image)
    np.testing.assert_array_equal(volume.array, ARRAY[None])
    assert volume.array.dtype == np.float32 and volume.spacing_mm == (1, 2, 3)


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (ARRAY[0], AFFINE, "an array of shape"),
        (ARRAY[:, :0], AFFINE, "an array of shape"),
        (ARRAY[None, None], AFFINE, "an array of shape"),
        (ARRAY, np.diag([1.0, 0.0, 3.0, 1.0]), "degenerate"),
        (ARRAY, np.full((4, 4), np.nan), "degenerate"),
        (ARRAY, np.eye(3), "degenerate"),
        (ARRAY, np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "degenerate"),
    ],
)
def test_no_scan_and_no_space(array: np.ndarray, affine: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        as_volume((array, affine))


def test_components_of_an_itk_image_are_channels() -> None:
    array = np.stack([ARRAY, -ARRAY])
    volume = as_volume(itk(array, vector=True))
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_array_equal(volume.affine, AFFINE)


@pytest.mark.parametrize(
    "image",
    [
        None,
        5,
        ARRAY,
        (ARRAY,),
        [ARRAY, AFFINE, 1],
        ["a.nii", "b.nii"],
        (ARRAY + 1j, AFFINE),
        (None, AFFINE),
        (ARRAY.astype(object), AFFINE),
        (ARRAY.astype(str), AFFINE),
        (ARRAY, None),
        {"image": ARRAY},
        nib.Nifti1Image(ARRAY.astype(np.complex64), AFFINE),
        itk(ARRAY)[:, :, 1],
        ([[1], [1, 2]], AFFINE),
    ],
)
def test_what_is_no_scan_is_refused(image: Any) -> None:
    with pytest.raises(UserError):
        as_volume(image)
