"""What `predict_image` takes for a scan."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pytest

from semivox.errors import UserError
from semivox.inference.predict import as_volume

ARRAY = np.arange(24.0).reshape(2, 3, 4)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


@pytest.mark.parametrize(
    "image", [(ARRAY, AFFINE), (ARRAY[None], AFFINE), nib.Nifti1Image(ARRAY, AFFINE),
              nib.Nifti1Image(ARRAY[..., None], AFFINE)],
)  # fmt: skip
def test_forms_of_one_scan(image: Any) -> None:
    volume = as_volume(image)
    np.testing.assert_array_equal(volume.array, ARRAY[None])
    assert volume.array.dtype == np.float32 and volume.spacing_mm == (1, 2, 3)


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (ARRAY[0], AFFINE, "not a scan"),
        (ARRAY[:, :0], AFFINE, "not a scan"),
        (ARRAY[None, None], AFFINE, "not a scan"),
        (ARRAY, np.diag([1.0, 0.0, 3.0, 1.0]), "degenerate"),
        (ARRAY, np.full((4, 4), np.nan), "degenerate"),
        (ARRAY, np.eye(3), "degenerate"),
        (ARRAY, np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "degenerate"),
    ],
)
def test_no_scan_and_no_space(array: np.ndarray, affine: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        as_volume((array, affine))
