"""DICOM-SEG written from label maps: read back by SimpleITK, highdicom and our own reader."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from semivox.errors import UserError
from semivox.io.dicom import read_segments, read_series, segments
from semivox.io.dicom_series import Series, find_series
from semivox.io.dicom_write import KNOWN, UNKNOWN, Maker, segment_codes, write_segmentation
from semivox.io.volume import Volume, read_image

pytest.importorskip("highdicom", reason="needs the extra dicom")
from dicom_writer import write_series

VALUES = {"liver": 300, "vein": 7, "absent": 9}
FRAME = "1.2.826.0.1.3680043.8.498.77"
TILTED = {"step": (0.0, 0.6, 2.0)}
OBLIQUE = {"orientation": (0.8, 0.6, 0, 0, 0, -1)}


def make_series(folder: Path, columns: int = 7, **options) -> Series:
    voxels = np.random.default_rng(0).integers(-1000, 1500, (columns, 5, 6))
    edit = {index: {"FrameOfReferenceUID": FRAME} for index in range(6)}
    write_series(folder, voxels, edit=edit, **options)
    return find_series(folder)[0]


def label_of(series: Series, path: Path) -> np.ndarray:
    """Write a label map without symmetry on the voxels of a series, 2 of 3 classes in it."""
    voxels, affine = read_series(series)
    label = np.zeros(voxels.shape, np.int16)
    label[1:4, 2, 1:4], label[-2:, 1:3, 2] = 300, 7
    nib.save(nib.Nifti1Image(label, affine), path)
    return label


def write(path: Path, label_file: Path, series: Series, values=VALUES, **changes) -> None:
    given = {"codes": segment_codes(list(values)), "maker": Maker("AUTOMATIC", "dual", "f" * 64)}
    write_segmentation(path, label_file, series, values, **(given | changes))


def world_of(seg: pydicom.Dataset) -> dict[int, set[tuple[float, ...]]]:
    """Give the world points (LPS, 0.01 mm) of each segment by the formula of PS3.3 C.7.6.2.1.1."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    rows, columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    axes = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    points: dict[int, set[tuple[float, ...]]] = {}
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        owner = group if "SegmentIdentificationSequence" in group else shared
        number = int(owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        for y, x in np.argwhere(frame):
            point = corner + axes[:3] * columns * x + axes[3:] * rows * y
            points.setdefault(number, set()).add(tuple((np.round(point, 2) + 0.0).tolist()))
    return points


def world_of_label(path: Path, value: int) -> set[tuple[float, ...]]:
    image = nib.load(path)
    index = np.argwhere(np.asarray(image.dataobj) == value)
    ras = nib.affines.apply_affine(image.affine, index)
    return {tuple(point) for point in (np.round(ras * [-1, -1, 1], 2) + 0.0).tolist()}


@pytest.mark.parametrize("options", [{}, OBLIQUE, TILTED, {"step": (0, 0, -2.0)}], ids=str)
def test_each_voxel_is_where_the_nifti_file_has_it(tmp_path: Path, options: dict) -> None:
    series, nifti, out = make_series(tmp_path / "ct", **options), tmp_path / "a.nii.gz", tmp_path / "a.dcm"
    label = label_of(series, nifti)
    write(out, nifti, series)
    points = world_of(pydicom.dcmread(out))
    assert points[1] == world_of_label(nifti, 7)
    assert points[3] == world_of_label(nifti, 300)
    assert points.keys() == {1, 3}
    if options is not TILTED:  # highdicom builds no volume of sheared stacks
        again = read_segments(out, VALUES, read_image([tmp_path / "ct"]))
        np.testing.assert_array_equal(again, label)


def test_simpleitk_reads_the_same_frames(tmp_path: Path) -> None:
    """GDCM does not read the last bits where their number is no multiple of 8: hence 8 columns."""
    series, nifti, out = make_series(tmp_path / "ct", columns=8), tmp_path / "a.nii.gz", tmp_path / "a.dcm"
    label = label_of(series, nifti)
    write(out, nifti, series)
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(out)))  # (frames, Y, X), segment by segment
    wanted = [(label == value).T for value in (7, 9, 300)]
    wanted = [frame for mask in wanted for frame in mask if frame.any()]
    np.testing.assert_array_equal(found != 0, wanted)


def test_references_and_description(tmp_path: Path) -> None:
    series, nifti, out = make_series(tmp_path / "ct", number=4), tmp_path / "a.nii.gz", tmp_path / "a.dcm"
    label = label_of(series, nifti)
    write(out, nifti, series)
    seg = pydicom.dcmread(out)
    images = [pydicom.dcmread(item.path) for item in series.slices]
    assert (seg.Modality, seg.SegmentationType) == ("SEG", "BINARY")
    assert seg.FrameOfReferenceUID == FRAME
    assert (seg.StudyInstanceUID, seg.PatientID) == (images[0].StudyInstanceUID, images[0].PatientID)
    assert seg.SeriesInstanceUID != images[0].SeriesInstanceUID
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == images[0].SeriesInstanceUID
    listed = {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence}
    assert listed == {image.SOPInstanceUID for image in images}
    by_place = {tuple(image.ImagePositionPatient): image.SOPInstanceUID for image in images}
    for group in seg.PerFrameFunctionalGroupsSequence:  # each frame names the slice it was drawn on
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        place = tuple(group.PlanePositionSequence[0].ImagePositionPatient)
        assert source.ReferencedSOPInstanceUID == by_place[place]
    assert len(seg.PerFrameFunctionalGroupsSequence) == sum(
        int((label == value).any((0, 1)).sum()) for value in (7, 300)
    )
    described = [(s.SegmentNumber, s.SegmentLabel, s.SegmentDescription) for s in seg.SegmentSequence]
    assert described == [
        (1, "vein", "label value 7"),
        (2, "absent", "label value 9"),
        (3, "liver", "label value 300"),
    ]
    liver = seg.SegmentSequence[2]
    code = liver.SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == ("10200004", "SCT", "Liver")
    assert liver.SegmentAlgorithmName == "semivox dual"
    assert "not a medical device" in seg.SeriesDescription
    assert segments(out) == {"vein": 1, "absent": 2, "liver": 3}


def test_nothing_segmented(tmp_path: Path) -> None:
    series, nifti, out = make_series(tmp_path / "ct", columns=8), tmp_path / "a.nii.gz", tmp_path / "a.dcm"
    label = label_of(series, nifti)
    nib.save(nib.Nifti1Image(label * 0, nib.load(nifti).affine), nifti)
    write(out, nifti, series)
    assert set(segments(out)) == set(VALUES)
    assert not read_segments(out, VALUES, read_image([tmp_path / "ct"])).any()
    assert not sitk.GetArrayFromImage(sitk.ReadImage(str(out))).any()


def test_the_same_content_is_one_object(tmp_path: Path) -> None:
    series, nifti, out = make_series(tmp_path / "ct"), tmp_path / "a.nii.gz", tmp_path / "a.dcm"
    label_of(series, nifti)
    write(out, nifti, series)
    first = pydicom.dcmread(out).SOPInstanceUID
    write(tmp_path / "b.dcm", nifti, series)
    assert pydicom.dcmread(tmp_path / "b.dcm").SOPInstanceUID == first
    write(out, nifti, series, maker=Maker("SEMIAUTOMATIC", "dual", "f" * 64))
    assert pydicom.dcmread(out).SOPInstanceUID != first


def test_by_hand_there_is_no_algorithm(tmp_path: Path) -> None:
    series, nifti, out = make_series(tmp_path / "ct"), tmp_path / "a.nii.gz", tmp_path / "a.dcm"
    label_of(series, nifti)
    write(out, nifti, series, maker=Maker("MANUAL"))
    segment = pydicom.dcmread(out).SegmentSequence[0]
    assert segment.SegmentAlgorithmType == "MANUAL"
    assert "SegmentAlgorithmName" not in segment


@pytest.mark.parametrize("charset", ["ISO_IR 100", ""])
def test_names_in_any_letters(tmp_path: Path, charset: str) -> None:
    name = "Müller^Jörg" if charset else "Miller^J"
    series = make_series(tmp_path / "ct")
    for item in series.slices:
        image = pydicom.dcmread(item.path)
        image.SpecificCharacterSet, image.PatientName = charset, name
        image.save_as(item.path)
    label_of(series, tmp_path / "a.nii.gz")
    write(tmp_path / "a.dcm", tmp_path / "a.nii.gz", series, {"játra": 300, "žíla": 7})
    seg = pydicom.dcmread(tmp_path / "a.dcm")
    assert seg.PatientName == name
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["žíla", "játra"]


def test_a_label_with_flipped_axes_is_laid_onto_the_series(tmp_path: Path) -> None:
    series, nifti, out = make_series(tmp_path / "ct"), tmp_path / "a.nii.gz", tmp_path / "a.dcm"
    label = label_of(series, nifti)
    nib.save(nib.as_closest_canonical(nib.load(nifti)), tmp_path / "b.nii.gz")
    assert nib.load(tmp_path / "b.nii.gz").affine[0, 0] > 0 > nib.load(nifti).affine[0, 0]
    write(out, tmp_path / "b.nii.gz", series)
    np.testing.assert_array_equal(read_segments(out, VALUES, read_image([tmp_path / "ct"])), label)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    series, nifti, out = make_series(tmp_path / "ct"), tmp_path / "a.nii.gz", tmp_path / "a.dcm"
    label_of(series, nifti)
    other = make_series(tmp_path / "other", spacing=(0.5, 0.75, 3.0))
    with pytest.raises(UserError, match="voxels are not those of its image"):
        write(out, nifti, other)
    part = nib.load(nifti).slicer[:, :, :5]  # labels inside, on a part of the voxels: of another series?
    nib.save(part, tmp_path / "part.nii.gz")
    with pytest.raises(UserError, match="another shape than the DICOM series"):
        write(out, tmp_path / "part.nii.gz", series)
    with pytest.raises(UserError, match=r"no class(.|\n)*300 \(9 voxels\)"):
        write(out, nifti, series, {"vein": 7})
    write_series(tmp_path / "old", np.zeros((7, 5, 6)))
    with pytest.raises(UserError, match="no frame of reference"):
        write(out, nifti, find_series(tmp_path / "old")[0])
    assert not out.exists()


def test_codes_of_the_table_are_those_of_pydicom() -> None:
    from pydicom.sr.codedict import codes

    for entry in (*KNOWN.values(), UNKNOWN):
        for code in (entry, entry.category):
            assert getattr(codes.SCT, code.meaning.title().replace(" ", "")).value == code.value


def test_codes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "codes.yaml"
    file.write_text(
        "cyst: {value: 12494005, meaning: Cyst, category: {value: '49755003', meaning: Abnormal}}\n"
    )
    codes = segment_codes(["cyst", "Left_Atrium", "thing"], file)
    assert (codes["cyst"].value, codes["cyst"].scheme, codes["cyst"].category.meaning) == (
        "12494005",
        "SCT",
        "Abnormal",
    )
    assert codes["Left_Atrium"].meaning == "Left atrium"
    assert codes["thing"] == UNKNOWN
    (tmp_path / "codes.json").write_text('{"cyst": {"value": "1", "scheme": "FMA", "meaning": "Cyst"}}')
    assert segment_codes(["cyst"], tmp_path / "codes.json")["cyst"].scheme == "FMA"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("liver: {value: '1', meaning: Liver}", "classes that the segmentation does not have"),
        ("cyst: {value: '1'}", "cyst.meaning: Field required"),
        ("cyst: 12494005", "cannot be understood"),
        ("- cyst", "cannot be understood"),
        ("cyst: {value: '12345678901234567', meaning: long}", "at most 16"),
    ],
)
def test_bad_codes(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "codes.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        segment_codes(["cyst"], tmp_path / "codes.yaml")


@pytest.mark.real
@pytest.mark.parametrize("name", ["ct-3slice", "24x38x3/multiframe", "23x38x3/image"])
def test_real_series(real_data: Path, tmp_path: Path, name: str) -> None:
    folder, nifti, out = real_data / "formats" / "dcmqi" / name, tmp_path / "a.nii.gz", tmp_path / "a.dcm"
    (series,) = find_series(folder)
    image = read_image([folder])
    label = np.zeros(image.array.shape[1:], np.int16)
    label[3:9, 5:20, :2], label[10:12, 7, 1:] = 7, 300
    nib.save(nib.Nifti1Image(label, image.affine), nifti)
    write(out, nifti, series)
    np.testing.assert_array_equal(read_segments(out, VALUES, Volume(image.array, image.affine)), label)
    points = world_of(pydicom.dcmread(out))
    assert (points[1], points[3]) == (world_of_label(nifti, 7), world_of_label(nifti, 300))


@pytest.mark.real
def test_a_real_segmentation_comes_out_as_it_went_in(real_data: Path, tmp_path: Path) -> None:
    """The liver of a published DICOM-SEG, from its NRRD version to DICOM-SEG."""
    folder, out = real_data / "formats" / "dcmqi", tmp_path / "liver.dcm"
    (series,) = find_series(folder / "ct-3slice")
    write(out, folder / "liver_seg.nrrd", series, {"Liver": 1})
    ours, theirs = pydicom.dcmread(out), pydicom.dcmread(folder / "liver.dcm")
    assert world_of(ours) == world_of(theirs)
    assert ours.FrameOfReferenceUID == theirs.FrameOfReferenceUID
