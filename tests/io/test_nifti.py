"""Where a NIfTI file has its voxels: units, voxel sizes, two forms; what is written lies on the scan."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from semivox.errors import UserError
from semivox.io.volume import read_header, read_image, read_label, write_label

SHAPE = (4, 5, 6)
PLACE = np.array([[0.8, -1.2, 0, 10], [0.6, 1.6, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1.0]])
MOVED = PLACE + np.array([[0, 0, 0, 40]] + [[0, 0, 0, 0]] * 3)
SHEARED = PLACE + np.array([[0, 0, 0, 0], [0, 0, 1.4, 0], [0, 0, 0, 0], [0, 0, 0, 0.0]])


def scan(
    path: Path, forms: Any = ((PLACE, 1), (PLACE, 1)), kind: Any = nib.Nifti1Header, **fields: Any
) -> Path:
    """Write a file whose header is set field by field; `forms`: sform and qform, each with its code."""
    header = kind()
    header.set_data_dtype(np.int16)
    header.set_data_shape(SHAPE)
    header.set_qform(*forms[1])
    header.set_sform(*forms[0])
    header["vox_offset"] = header.sizeof_hdr + 4
    header["magic"] = b"n+1" if kind is nib.Nifti1Header else header["magic"]
    for name, value in fields.items():
        header[name] = value
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).tobytes()
    content = header.binaryblock + bytes(4) + voxels
    path.write_bytes(gzip.compress(content) if path.name.lower().endswith("gz") else content)
    return path


def pixdim(*values: float) -> np.ndarray:
    return np.array([*values, *[1] * (8 - len(values))], np.float32)


@pytest.mark.parametrize(("unit", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 1e-3), (3 + 8, 1e-3), (5, 1)])
def test_header_units_become_mm(tmp_path: Path, unit: int, factor: float) -> None:
    """SimpleITK is the second opinion for metres (1) and micrometres (3)."""
    path = scan(tmp_path / "a.nii", xyzt_units=unit)
    image, other = read_image([path]), sitk.ReadImage(str(path))
    np.testing.assert_allclose(image.affine[:3], factor * PLACE[:3], rtol=1e-5)
    np.testing.assert_allclose(image.spacing_mm, np.multiply((1, 2, 3), factor), rtol=1e-5)
    if unit < 4:
        np.testing.assert_allclose(image.spacing_mm, other.GetSpacing(), rtol=1e-5)
        np.testing.assert_allclose(image.affine[:3, 3] * [-1, -1, 1], other.GetOrigin(), rtol=1e-4)


def test_a_label_in_micrometres_lies_on_its_scan_in_mm(tmp_path: Path) -> None:
    forms = ((np.diag([1000, 1000, 1000, 1]) @ PLACE, 1),) * 2
    image = read_image([scan(tmp_path / "a.nii")])
    label = scan(tmp_path / "b.nii", forms, xyzt_units=3)
    assert read_label(label, tuple(range(120)), image).array.shape == SHAPE
    with pytest.raises(UserError, match="affine differs"):
        read_label(scan(tmp_path / "c.nii", xyzt_units=3), tuple(range(120)), image)


@pytest.mark.parametrize(
    "sides", [(1, 0, 2, 3), (1, 1, -2, 3), (-1, 1, 2, np.nan), (1, np.inf, 2, 3), (-3, 1, 2, 3)]
)
@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (1, 0), (0, 0)])
def test_voxel_sizes_that_nibabel_would_repair_are_refused(
    tmp_path: Path, sides: tuple[float, ...], codes: tuple[int, int]
) -> None:
    path = scan(tmp_path / "a.nii.gz", pixdim=pixdim(*sides), sform_code=codes[0], qform_code=codes[1])
    with pytest.raises(UserError, match="voxel size in the header is not positive") as error:
        read_image([path])
    assert error.value.path == path
    assert error.value.found == "pixdim " + " ".join(f"{side:g}" for side in sides)


def itk_place(path: Path) -> list[float]:
    image = sitk.ReadImage(str(path))
    return [*image.GetOrigin(), *image.GetSpacing(), *image.GetDirection()]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("unit", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "forms",
    [
        ((PLACE, 1), (PLACE, 1)), ((PLACE, 2), (MOVED, 1)), ((PLACE, 4), (MOVED, 1)),
        ((PLACE, 1), (MOVED, 4)), ((PLACE, 1), (MOVED, 0)), ((PLACE, 0), (MOVED, 1)),
        ((PLACE, 0), (MOVED, 0)), ((SHEARED, 1), (PLACE, 1)),
    ],
    ids=["same", "differ", "mni", "scanner", "sform", "qform", "neither", "sheared"],
)  # fmt: skip
def test_what_is_written_lies_on_the_scan_in_nibabel_and_in_itk(
    tmp_path: Path, forms: Any, unit: int, ending: str
) -> None:
    path = scan(tmp_path / f"scan{ending}", forms, xyzt_units=unit)
    image = read_image([path])
    write_label(tmp_path / "out.nii.gz", np.zeros(SHAPE, np.uint8), (0, 1), image.affine, read_header(path))
    out = tmp_path / "out.nii.gz"
    np.testing.assert_allclose(nib.load(out).affine, nib.load(path).affine, rtol=1e-6)
    np.testing.assert_allclose(itk_place(out), itk_place(path), rtol=1e-6)
    np.testing.assert_allclose(read_image([out]).affine, image.affine, rtol=1e-6)
    for name in ("sform_code", "qform_code", "xyzt_units"):
        assert int(nib.load(out).header[name]) == int(nib.load(path).header[name])


def test_the_place_of_a_nifti2_scan_is_kept(tmp_path: Path) -> None:
    path = scan(tmp_path / "scan.nii", ((PLACE, 2), (MOVED, 1)), nib.Nifti2Header)
    out = tmp_path / "out.nii.gz"
    write_label(out, np.zeros(SHAPE, np.uint8), (0, 1), np.eye(4), read_header(path))
    np.testing.assert_allclose(nib.load(out).affine, PLACE, rtol=1e-6)
    np.testing.assert_allclose(nib.load(out).header.get_qform(), MOVED, rtol=1e-5, atol=1e-5)


def test_a_sheared_affine_is_no_qform(tmp_path: Path) -> None:
    """ITK would show the nearest grid without shear, beside the scan; so it has to refuse the file."""
    out = tmp_path / "out.nii.gz"
    write_label(out, np.zeros(SHAPE, np.uint8), (0, 1), SHEARED)
    np.testing.assert_allclose(nib.load(out).affine, SHEARED, rtol=1e-6)
    assert int(nib.load(out).header["qform_code"]) == 0
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(out))


@pytest.mark.parametrize("name", ["a.NII.GZ", "a.Nii", "a.nii.Gz", "a.NII"])
def test_endings_in_any_case(tmp_path: Path, name: str) -> None:
    path = scan(tmp_path / name)
    np.testing.assert_array_equal(read_image([path]).array[0], np.arange(120).reshape(SHAPE, order="F"))
    assert read_header(path).get_data_shape() == SHAPE


def test_the_content_decides_whether_a_file_is_packed(tmp_path: Path) -> None:
    expected = np.arange(120).reshape(SHAPE, order="F")
    for name, other in (("a.nii", "b.nii.gz"), ("c.nii.gz", "d.nii")):
        scan(tmp_path / name).rename(tmp_path / other)
        np.testing.assert_array_equal(read_image([tmp_path / other]).array[0], expected)
        assert read_header(tmp_path / other).get_data_shape() == SHAPE


def test_a_dangling_link_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    path.symlink_to(tmp_path / "gone.nii.gz")
    for read in (lambda: read_image([path]), lambda: read_header(path)):
        with pytest.raises(UserError, match="does not exist") as error:
            read()
        assert error.value.path == path and "gone.nii.gz" in str(error.value.found)
