"""Predictions for NRRD, MetaImage and DICOM lie where the scan lies; DICOM-SEG beside them on request."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from semivox.errors import UserError
from semivox.export.dicom_seg import dicom_seg_writer, export_dicom_seg
from semivox.inference.predict import predict_files
from semivox.inference.sources import find_scans
from semivox.io.volume import read_image

VALUES = np.asarray((0, 7, 300))
MM = (1.0, 1.0, 1.0)  # voxel size of model and scans: nothing is interpolated
DIRECTION = (0.0, -1.0, 0.0, 0.6, 0.0, -0.8, 0.8, 0.0, 0.6)


@pytest.fixture(scope="module")
def write_series() -> Callable[..., list[Path]]:
    pytest.importorskip("pydicom", reason="needs the extra dicom")
    path = Path(__file__).parents[1] / "io" / "dicom_writer.py"
    spec = importlib.util.spec_from_file_location("dicom_writer_here", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_series


@pytest.fixture
def patients(tmp_path, write_series, blocks) -> Path:
    """Folders p1 and p2 of slices, the second with two series; oblique, stored from top to bottom."""
    edit = {index: {"FrameOfReferenceUID": "1.2.3"} for index in range(9)}
    options = {"intercept": 0.0, "spacing": MM, "edit": edit, "orientation": (0.8, 0.6, 0, 0, 0, -1)}
    voxels = blocks().astype(int)
    write_series(tmp_path / "in" / "p1" / "deep" / "er", voxels, step=(0.6, -0.8, 0), **options)
    write_series(tmp_path / "in" / "p2", voxels, number=5, description="T1", **options)
    write_series(tmp_path / "in" / "p2", voxels * 0, number=6, description="T2", prefix="B", **options)
    return tmp_path / "in"


def points(path: Path, value: int) -> np.ndarray:
    """Return the sorted world points, LPS, of a value in a NIfTI file."""
    image = nib.load(path)
    world = nib.affines.apply_affine(image.affine, np.argwhere(np.asarray(image.dataobj) == value))
    return np.unique((world * [-1, -1, 1]).round(3) + 0.0, axis=0)


@pytest.mark.parametrize("ending", ["nrrd", "mha", "mhd", "nhdr", "nii"])
def test_formats_of_itk(make_model, tmp_path, blocks, ending) -> None:
    image = sitk.GetImageFromArray(blocks().T.astype(np.float32))
    image.SetOrigin((-10.0, 20.0, 30.0))
    image.SetDirection(DIRECTION)
    (tmp_path / "in").mkdir()
    sitk.WriteImage(image, str(tmp_path / "in" / f"a.{ending}"))
    (file,) = predict_files(make_model(spacing_mm=MM), tmp_path / "in", tmp_path / "out")
    assert file == tmp_path / "out" / "a.nii.gz"
    np.testing.assert_array_equal(np.asarray(nib.load(file).dataobj), VALUES[blocks()])
    found = sitk.ReadImage(str(file))
    for index in ((0, 0, 0), (13, 10, 8)):
        wanted = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(found.TransformIndexToPhysicalPoint(index), wanted, atol=1e-4)


@pytest.mark.parametrize("ending", ["mhd", "nhdr"])
def test_other_voxels_under_the_same_header_are_another_scan(make_model, tmp_path, blocks, ending) -> None:
    (tmp_path / "in").mkdir()
    model, file = make_model(spacing_mm=MM), tmp_path / "in" / f"a.{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(blocks().T.astype(np.float32)), str(file))
    before = file.read_bytes()
    predict_files(model, file, tmp_path / "out")
    sitk.WriteImage(sitk.GetImageFromArray(1 - blocks().T.astype(np.float32)), str(file))
    assert file.read_bytes() == before
    with pytest.raises(UserError, match="another scan"):
        predict_files(model, file, tmp_path / "out")


def test_channels_in_nrrd(make_model, tmp_path, blocks) -> None:
    (tmp_path / "in").mkdir()
    for index, shift in enumerate((0.5, -0.5)):
        image = sitk.GetImageFromArray(blocks().T + np.float32(shift))
        sitk.WriteImage(image, str(tmp_path / "in" / f"x_{index:04}.nrrd"))
    (file,) = predict_files(
        make_model(spacing_mm=MM, channels=("T1", "T2")), tmp_path / "in" / "x_0001.nrrd", tmp_path / "out"
    )
    assert file.name == "x.nii.gz"
    np.testing.assert_array_equal(np.asarray(nib.load(file).dataobj), VALUES[blocks()])


def test_folders_of_dicom(make_model, patients, tmp_path) -> None:
    (file,) = predict_files(make_model(spacing_mm=MM), patients / "p1", tmp_path / "out")
    assert file.name == "deep.nii.gz"
    reader = sitk.ImageSeriesReader()
    folder = patients / "p1" / "deep" / "er"
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    array = sitk.GetArrayFromImage(image)
    for index, value in ((1, 7), (2, 300)):
        where = np.argwhere(array == index)[:, ::-1].tolist()
        wanted = [image.TransformIndexToPhysicalPoint(tuple(voxel)) for voxel in where]
        wanted = np.unique(np.round(wanted, 3) + 0.0, axis=0)
        np.testing.assert_allclose(points(file, value), wanted, atol=2e-3)


def test_several_series(make_model, patients, tmp_path, blocks) -> None:
    with pytest.raises(UserError, match=r"several DICOM series(.|\n)*5 T1(.|\n)*6 T2(.|\n)*--series"):
        predict_files(make_model(spacing_mm=MM), patients, tmp_path / "out")
    (file,) = predict_files(make_model(spacing_mm=MM), patients / "p2", tmp_path / "out", series="T1")
    np.testing.assert_array_equal(np.asarray(nib.load(file).dataobj), VALUES[blocks()])
    with pytest.raises(UserError, match="No series fits 'T9'"):
        predict_files(make_model(spacing_mm=MM), patients / "p2", tmp_path / "out2", series="T9")
    assert not (tmp_path / "out2").exists()


def test_dicom_and_nifti_in_one_folder(patients, save_scan, blocks) -> None:
    save_scan(patients / "p2" / "seg.nii.gz", blocks())
    with pytest.raises(UserError, match="two kinds"):
        find_scans(patients / "p2", 1)
    assert [scan.name for scan in find_scans(patients / "p2", 1, "T1")] == ["p2"]


def test_one_slice_is_no_scan(patients) -> None:
    with pytest.raises(UserError, match=r"single DICOM slice(.|\n)*name the folder"):
        find_scans(next((patients / "p2").glob("*.dcm")), 1)


def test_dicom_seg_beside_the_prediction(make_model, patients, tmp_path) -> None:
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    from semivox.io.dicom import read_segments

    model, out = make_model(spacing_mm=MM), tmp_path / "out"
    predict_files(model, patients / "p2", out, series="5")  # asked for later: nothing is predicted anew
    before = (out / "p2.nii.gz").stat().st_mtime_ns
    (file,) = predict_files(model, patients / "p2", out, series="5", finisher=dicom_seg_writer())
    assert file.stat().st_mtime_ns == before
    seg = out / "p2.seg.dcm"
    (scan,) = find_scans(patients / "p2", 1, "5")
    from semivox.inference.sources import read_scan

    label = read_segments(seg, {"part 7": 7, "part 300": 300}, read_scan(scan))
    np.testing.assert_array_equal(label, np.asarray(nib.load(file).dataobj))
    export_dicom_seg(file, patients / "p2", tmp_path / "again.dcm", series="5")
    import pydicom

    assert pydicom.dcmread(seg).SOPInstanceUID == pydicom.dcmread(tmp_path / "again.dcm").SOPInstanceUID
    predict_files(
        make_model(spacing_mm=MM, sharpness=30.0, folder="r"),
        patients / "p2",
        out,
        series="5",
        overwrite=True,
    )
    assert not seg.exists()  # it was the other model's


def test_dicom_seg_of_no_dicom(make_model, save_scan, tmp_path, blocks) -> None:
    save_scan(tmp_path / "in" / "a.nii.gz", blocks())
    with pytest.raises(UserError, match="needs a DICOM series to refer to"):
        predict_files(
            make_model(spacing_mm=MM), tmp_path / "in", tmp_path / "out", finisher=dicom_seg_writer()
        )
    assert not (tmp_path / "out").exists()


def test_dicom_seg_without_the_extra(make_model, patients, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UserError, match=r'pip install "semivox\[dicom\]"'):
        predict_files(
            make_model(spacing_mm=MM), patients / "p1", tmp_path / "out", finisher=dicom_seg_writer()
        )
    assert not (tmp_path / "out").exists()


def test_export_needs_names_and_a_maker(patients, save_scan, tmp_path, blocks) -> None:
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    affine = read_image([patients / "p1"]).affine
    file, folder, out = (
        save_scan(tmp_path / "a.nii.gz", blocks(), affine),
        patients / "p1",
        tmp_path / "a.dcm",
    )
    with pytest.raises(UserError, match="not known who made the segmentation"):
        export_dicom_seg(file, folder, out, classes={"a": 1, "b": 2})
    with pytest.raises(UserError, match=r"--class NAME=VALUE"):
        export_dicom_seg(file, folder, out, origin="MANUAL")
    with pytest.raises(UserError, match="not named as DICOM"):
        export_dicom_seg(file, folder, tmp_path / "a.nii.gz", classes={"a": 1, "b": 2}, origin="MANUAL")
    assert export_dicom_seg(file, folder, out, classes={"a": 1, "b": 2}, origin="MANUAL").is_file()
    slices = sorted(path for path in folder.rglob("*") if path.is_file())
    first = slices[0].rename(slices[0].with_suffix(".dcm"))
    before = first.read_bytes()
    with pytest.raises(UserError, match="replace a file of the series"):
        export_dicom_seg(file, folder, first, classes={"a": 1, "b": 2}, origin="MANUAL")
    assert first.read_bytes() == before
