"""Files in, files out: every prediction lies where its scan does, to 1e-4 mm, whatever the scan's axes."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from semivox.config import PredictConfig
from semivox.inference.predict import predict_files

ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))
CORNERS = list(product((0, -1), repeat=3))
SHAPE = (9, 7, 11)


def turned(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def affine_of(axes, signs, spacing, degrees: float) -> np.ndarray:
    """Array axis i runs along (turned) world axis axes[i]; the origin is far away, as scanners' are."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for index, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[axis, index] = sign * spacing[axis]
    affine[:3, :3] = turned(degrees) @ affine[:3, :3]
    affine[:3, 3] = (-212.34567, 187.65432, -1012.1111)
    return affine


def corner_places(path) -> np.ndarray:
    image = nib.load(path)
    corners = [[*np.multiply(corner, -1) * (np.array(image.shape) - 1), 1] for corner in CORNERS]
    return np.array(corners) @ image.affine.T


@pytest.mark.parametrize(
    ("form", "degrees", "spacing"),
    [("sform", 0, (1.5, 1.5, 1.5)), ("qform", 0, (0.4, 1.1, 6.5)), ("qform", 23, (0.4, 1.1, 6.5))],
)
def test_all_48_orientations(make_model, tmp_path, form, degrees, spacing):
    """One labeled voxel in a corner, another one in each scan, comes back there and nowhere else."""
    scans = tmp_path / "scans"
    scans.mkdir()
    for number, (axes, signs) in enumerate(ORIENTATIONS):
        array = np.zeros([SHAPE[axis] for axis in axes], np.float32)
        array[CORNERS[number % 8]] = 1
        image = nib.Nifti1Image(array, None)
        image.set_sform(affine_of(axes, signs, spacing, degrees), int(form == "sform"))
        image.set_qform(affine_of(axes, signs, spacing, degrees), int(form == "qform"))
        nib.save(image, scans / f"{number}.nii.gz")
    model = make_model(spacing_mm=spacing)
    for number, path in enumerate(predict_files(model, scans, tmp_path / "out", PredictConfig())):
        source = scans / path.name
        assert np.abs(corner_places(path) - corner_places(source)).max() < 1e-4
        expected = np.where(np.asarray(nib.load(source).dataobj) == 1, 7, 0)
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), expected, err_msg=str(number))


def test_resampled_predictions_lie_on_the_scans_grid_too(make_model, tmp_path):
    """A corner block of three voxels a side, on a working grid of another voxel size."""
    scans = tmp_path / "scans"
    scans.mkdir()
    for number, (axes, signs) in enumerate(ORIENTATIONS):
        array = np.zeros([SHAPE[axis] for axis in axes], np.float32)
        corner = CORNERS[number % 8]
        block = tuple(slice(0, 3) if end == 0 else slice(-3, None) for end in corner)
        array[block] = 1
        nib.save(nib.Nifti1Image(array, affine_of(axes, signs, (1, 1.2, 2), 17)), scans / f"{number}.nii.gz")
    for path in predict_files(
        make_model(spacing_mm=(0.8, 0.7, 1.7)), scans, tmp_path / "out", PredictConfig()
    ):
        number = int(path.name.removesuffix(".nii.gz"))
        assert np.abs(corner_places(path) - corner_places(scans / path.name)).max() < 1e-4
        found, wanted = np.asarray(nib.load(path).dataobj) == 7, nib.load(scans / path.name).get_fdata() == 1
        assert found[CORNERS[number % 8]]
        assert (found != wanted).sum() <= 10, "more than half of the voxels at the block's faces"
