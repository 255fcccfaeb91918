"""DICOM-SEG by segment name, against masks of the same segmentations in NRRD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semivox.datasets.importers.bring_in import import_dataset
from semivox.errors import UserError
from semivox.io.dicom import read_segments, segments
from semivox.io.volume import Volume, read_image, read_label, read_values

pytest.importorskip("highdicom", reason="needs the extra dicom")
pytestmark = pytest.mark.real


@pytest.fixture
def dcmqi(real_data: Path) -> Path:
    return real_data / "formats" / "dcmqi"


def test_segments_have_names(dcmqi: Path) -> None:
    assert segments(dcmqi / "liver.dcm") == {"Liver": 1}
    names = ["GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE"]
    assert segments(dcmqi / "partial_overlaps.dcm") == {name: i for i, name in enumerate(names, start=1)}


def test_liver_equals_its_nrrd(dcmqi: Path) -> None:
    image, truth = read_image([dcmqi / "ct-3slice"]), read_values(dcmqi / "liver_seg.nrrd")
    label = read_segments(dcmqi / "liver.dcm", {"Liver": 4}, image)
    np.testing.assert_array_equal(label == 4, truth.array != 0)
    assert int((label == 4).sum()) == 107098


@pytest.mark.parametrize(
    ("name", "nrrd"), [("noppv", "sparse_labelmap_noppv_seg"), ("ppv5", "sparse_labelmap_ppv5_seg")]
)
def test_label_maps_with_missing_frames(dcmqi: Path, name: str, nrrd: str) -> None:
    """The frame that is missing holds the file's padding value, 5 in one of them, in the NRRD version."""
    image, truth = read_image([dcmqi / "24x38x3" / "image"]), read_values(dcmqi / f"{nrrd}.nrrd")
    label = read_segments(dcmqi / f"sparse-labelmap-{name}.dcm", {"Liver": 1}, image)
    np.testing.assert_array_equal(label == 1, truth.array == 1)
    assert label.any()


def test_overlapping_segments_are_refused_unless_one_is_chosen(dcmqi: Path) -> None:
    image, path = read_image([dcmqi / "ct-3slice"]), dcmqi / "partial_overlaps.dcm"
    with pytest.raises(UserError, match=r"make no label map(.|\n)*do not overlap") as error:
        read_segments(path, segments(path), image)
    assert error.value.path == path
    truth = np.concatenate([[read_values(dcmqi / f"partial_overlaps-{i}.nrrd").array] for i in (1, 2, 3)])
    sizes = {int((part == value).sum()) for part in truth for value in np.unique(part[part != 0])}
    for name in ("GREEN", "PURPLE"):
        assert int((read_segments(path, {name: 1}, image) == 1).sum()) in sizes


def test_another_scan_is_refused(dcmqi: Path) -> None:
    image = read_image([dcmqi / "24x38x3" / "image"])
    with pytest.raises(UserError, match="voxels are not those of its image"):
        read_segments(dcmqi / "liver.dcm", {"Liver": 1}, image)


def test_labels_outside_of_the_image_are_refused(dcmqi: Path) -> None:
    image = read_image([dcmqi / "ct-3slice"])
    part = Volume(image.array[:, :, :200], image.affine)
    with pytest.raises(UserError, match="reaches beyond its image"):
        read_segments(dcmqi / "liver.dcm", {"Liver": 1}, part)


def test_probabilities_are_refused(real_data: Path) -> None:
    path = real_data / "formats" / "highdicom" / "seg_image_ct_true_fractional.dcm"
    with pytest.raises(UserError, match="make no label map"):
        read_segments(path, {"first segment": 1}, Volume(np.zeros((1, 16, 16, 3)), np.eye(4)))


def test_damaged_file(dcmqi: Path, tmp_path: Path) -> None:
    path = tmp_path / "liver.dcm"
    path.write_bytes((dcmqi / "liver.dcm").read_bytes()[:3000])
    with pytest.raises(UserError, match="cannot be read as DICOM-SEG") as error:
        segments(path)
    assert error.value.path == path


def test_import_of_a_folder_with_scan_and_segmentation(dcmqi: Path, tmp_path: Path) -> None:
    case = tmp_path / "raw" / "patient 1"
    case.mkdir(parents=True)
    for file in [*sorted((dcmqi / "ct-3slice").iterdir()), dcmqi / "liver.dcm"]:
        (case / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="Unknown segment: liver_lobe") as error:
        import_dataset(tmp_path / "raw", tmp_path / "out", classes={"liver_lobe": 1})
    assert error.value.expected == "one of Liver"
    dataset = import_dataset(tmp_path / "raw", tmp_path / "out")
    assert (dataset.channels, dataset.class_names) == (("CT",), ("background", "Liver"))
    (found,) = dataset.cases
    direct, image = read_image([dcmqi / "ct-3slice"]), read_image(found.images)
    np.testing.assert_array_equal(image.array, direct.array)
    np.testing.assert_allclose(image.affine, direct.affine, atol=1e-4)
    assert found.label is not None
    truth = read_values(dcmqi / "liver_seg.nrrd").array != 0
    np.testing.assert_array_equal(read_label(found.label, (0, 1), image).array, truth)
