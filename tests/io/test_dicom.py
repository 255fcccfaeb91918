"""DICOM series: order, place and unit of the voxels, and a message for all that can be wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from semivox.errors import UserError
from semivox.io.dicom import read_dicom, read_series
from semivox.io.dicom_series import Slice, choose_series, find_series
from semivox.io.process import HERE
from semivox.io.volume import read_image

pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom")
from dicom_writer import write_series  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
)

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def voxels(shape: tuple[int, int, int] = (5, 4, 6)) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1500, shape)


def test_values_order_and_affine(tmp_path: Path) -> None:
    write_series(tmp_path, voxels())
    image = read_image([tmp_path])
    assert image.array.dtype == np.float32
    np.testing.assert_array_equal(image.array[0], voxels())
    np.testing.assert_allclose(image.spacing_mm, (0.5, 0.75, 2.0))
    expected = LPS @ [[0.5, 0, 0, -10], [0, 0.75, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(image.affine, expected, atol=1e-9)


def test_slices_written_downwards_come_out_upwards(tmp_path: Path) -> None:
    write_series(tmp_path, voxels(), step=(0, 0, -2.0))
    array, affine = read_dicom(tmp_path)
    np.testing.assert_array_equal(array, voxels()[:, :, ::-1])
    np.testing.assert_allclose(affine[:3, 3], [10, -20, 20])


def test_oblique_series_equals_itk(tmp_path: Path) -> None:
    a, b = np.radians(20), np.radians(35)
    row = np.array([np.cos(a), np.sin(a), 0])
    column = np.cross([np.sin(a) * np.sin(b), -np.cos(a) * np.sin(b), np.cos(b)], row)
    write_series(tmp_path, voxels(), orientation=(*row, *column))
    array, affine = read_dicom(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(image).T)
    for index in ((0, 0, 0), (4, 3, 5), (1, 2, 3)):
        world = LPS @ [*image.TransformIndexToPhysicalPoint(index), 1]
        np.testing.assert_allclose(affine @ [*index, 1], world, atol=1e-4)


def test_a_tilted_gantry_stays_a_sheared_grid(tmp_path: Path) -> None:
    write_series(tmp_path, voxels(), step=(0, 0.6, 2.0))
    _, affine = read_dicom(tmp_path)
    np.testing.assert_allclose(affine[:3, 2], [0, -0.6, 2.0], atol=1e-6)


@pytest.mark.parametrize(
    ("edit", "problem", "found"),
    [
        ({3: {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}}, "another orientation", "-1"),
        ({3: {"PixelSpacing": [0.8, 0.5]}}, "another spacing", "0.8"),
        ({3: {"PixelSpacing": [0.0, 0.5]}}, "no place in space", "pixel spacing"),
        ({3: {"ImagePositionPatient": [-10, 20, 34]}}, "twice there", "0 mm between"),
        ({5: {"ImagePositionPatient": [-10, 20, 45]}}, "unevenly spaced", "7 mm between"),
        ({5: {"ImagePositionPatient": [-10, 20, 44]}}, "missing", "6 mm between"),
        ({3: {"ImagePositionPatient": None}}, "no place in space", "no position"),
    ],
)
def test_bad_series(tmp_path: Path, edit: dict[int, Any], problem: str, found: str) -> None:
    paths = write_series(tmp_path, voxels(), edit=edit)
    with pytest.raises(UserError, match=problem) as error:
        read_dicom(tmp_path)
    assert found in str(error.value.found)
    assert Path(str(error.value.path)).name in {path.name for path in paths}


def test_another_size_in_the_series(tmp_path: Path) -> None:
    write_series(tmp_path, voxels(), uid="1.2.3")
    write_series(tmp_path, voxels((7, 4, 1)), uid="1.2.3", origin=(-10, 20, 42), prefix="ZZ")
    with pytest.raises(UserError, match="another size") as error:
        read_dicom(tmp_path)
    assert error.value.path == tmp_path / "ZZ003.dcm"


def test_a_missing_slice_is_named_by_its_neighbors(tmp_path: Path) -> None:
    paths = write_series(tmp_path, voxels())
    paths[2].unlink()
    with pytest.raises(UserError, match="missing") as error:
        read_dicom(tmp_path)
    assert error.value.found == f"4 mm between {paths[1].name} and {paths[3].name}"


def test_two_phases_in_a_series_are_told_from_its_spacing(tmp_path: Path) -> None:
    write_series(tmp_path, voxels(), uid="1.2.3")
    write_series(tmp_path, voxels(), uid="1.2.3", prefix="ZZ")
    with pytest.raises(UserError, match="twice there") as error:
        read_dicom(tmp_path)
    assert str(error.value.found).startswith("0 mm between")
    assert error.value.expected == "2 mm, as between others of the 12 slices"


@pytest.mark.parametrize("keep", [200, 0.5, 0.98])
def test_a_truncated_slice_is_named(tmp_path: Path, keep: float) -> None:
    path = write_series(tmp_path, voxels())[3]
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(UserError, match="cannot be read as DICOM") as error:
        read_dicom(tmp_path)
    assert error.value.path == path


def one_slice(folder: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    path = write_series(folder, np.ones((5, 4, 1), np.float32))[0]
    ds = pydicom.dcmread(path)
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
    copy = Dataset(ds)  # forgets the encoding of the file it came from
    copy.file_meta = ds.file_meta
    copy.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, copy, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
def test_transfer_syntaxes(tmp_path: Path, syntax: str) -> None:
    path = one_slice(tmp_path, syntax)
    assert Slice.read(path).path == path
    np.testing.assert_array_equal(read_dicom(tmp_path)[0], np.ones((5, 4, 1)))


def test_a_compression_without_a_package_names_the_package(tmp_path: Path) -> None:
    path = one_slice(tmp_path)
    content = pydicom.dcmread(path)
    content.PixelData = encapsulate([content.PixelData])
    content["PixelData"].is_undefined_length = True
    content.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    pydicom.dcmwrite(path, content, enforce_file_format=True)
    with pytest.raises(UserError, match="compressed in a way that needs another package") as error:
        read_dicom(tmp_path)
    assert "pylibjpeg" in str(error.value.found) and error.value.path == path


def test_one_slice_takes_its_thickness(tmp_path: Path) -> None:
    paths = write_series(tmp_path, voxels((5, 4, 1)))
    array, affine = read_dicom(tmp_path)
    assert array.shape == (5, 4, 1)
    np.testing.assert_allclose(affine[:3, 2], [0, 0, 2.0])
    with pytest.raises(UserError, match="single DICOM slice") as error:
        read_image([paths[0]])
    assert str(tmp_path) in str(error.value.do)
    write_series(tmp_path, voxels((5, 4, 1)), edit={0: {"SliceThickness": None}})
    with pytest.raises(UserError, match="no thickness"):
        read_dicom(tmp_path)


def test_several_series_are_listed_and_chosen(tmp_path: Path) -> None:
    write_series(tmp_path / "a", voxels(), number=4, description="T1 axial", uid="1.2.4")
    write_series(tmp_path / "b", voxels((5, 4, 2)) + 1, number=12, description="T2 axial", uid="1.2.12")
    (tmp_path / "notes.txt").write_text("not DICOM")
    series = find_series(tmp_path)
    assert [str(item) for item in series] == [
        "4 T1 axial [CT, 5x4, 6 slices, uid 1.2.4]",
        "12 T2 axial [CT, 5x4, 2 slices, uid 1.2.12]",
    ]
    with pytest.raises(UserError, match="several DICOM series") as error:
        read_dicom(tmp_path)
    assert "T1 axial" in str(error.value.found) and "T2 axial" in str(error.value.found)
    for wanted in ("12", "T2 axial", "t2*", "1.2.12"):
        array, _ = read_series(choose_series(series, wanted, tmp_path))
        np.testing.assert_array_equal(array, voxels((5, 4, 2)) + 1)
    with pytest.raises(UserError, match="No series fits 'T3'"):
        choose_series(series, "T3", tmp_path)
    with pytest.raises(UserError, match="several DICOM series"):
        choose_series(series, "*axial", tmp_path)


def test_without_the_extra_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_series(tmp_path / "scan", voxels())[0]
    (tmp_path / "none").mkdir()
    monkeypatch.setattr(HERE, "guarded", True)  # in this process, where the package seems to be absent
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match="DICOM needs extra packages") as error:
        read_image([tmp_path / "scan"])
    assert error.value.path == path and error.value.found == "pydicom is not installed"
    assert error.value.do == 'type: pip install "semivox[dicom]"'
    assert find_series(tmp_path / "none") == []


def test_a_folder_without_dicom(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no DICOM image series here") as error:
        read_dicom(tmp_path)
    assert error.value.path == tmp_path
    with pytest.raises(UserError, match="does not exist"):
        read_image([tmp_path / "none.dcm"])


@pytest.mark.real
@pytest.mark.parametrize(
    "folder", ["dicom_mr/Study2/14_HCropVolume", "dicom_mr/Study3/11_HCropVolume", "dcmqi/ct-3slice"]
)
def test_real_series_equal_a_direct_read(real_data: Path, folder: str) -> None:
    path = real_data / "formats" / folder
    array, affine = read_dicom(path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
    image = reader.Execute()
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(image).T)
    corner = [size - 1 for size in image.GetSize()]
    for index in ([0, 0, 0], corner):
        world = LPS @ [*image.TransformIndexToPhysicalPoint(index), 1]
        np.testing.assert_allclose(affine @ [*index, 1], world, atol=1e-4)


@pytest.mark.real
def test_real_multiframe_equals_its_single_frames(real_data: Path) -> None:
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    folder = real_data / "formats" / "dcmqi" / "24x38x3"
    single, affine = read_dicom(folder / "image")
    frames, frames_affine = read_dicom(folder / "multiframe" / "mf.dcm")
    np.testing.assert_array_equal(frames, single)
    assert single.any()
    np.testing.assert_allclose(frames_affine, affine, atol=1e-5)


@pytest.mark.real
@pytest.mark.parametrize(("folder", "problem"), [("MR700", "another orientation"), ("CT2", "missing")])
def test_real_slices_that_are_no_volume(real_data: Path, folder: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        read_dicom(real_data / "formats" / "pydicom_ct_series" / folder)
