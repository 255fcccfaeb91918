"""NRRD and MetaImage behind `read_image` and `read_label`, against direct reads by SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semivox.errors import UserError
from semivox.io.volume import read_image, read_label, read_values

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def image_of(array: np.ndarray, vector: bool = False) -> sitk.Image:
    """(Z, Y, X) or (Z, Y, X, C), oblique."""
    image = sitk.GetImageFromArray(array, isVector=vector)
    turn = sitk.Euler3DTransform((0, 0, 0), 0.1, -0.2, 0.3)
    image.SetDirection(turn.GetMatrix())
    image.SetSpacing((0.5, 0.75, 2.0))
    image.SetOrigin((-10, 20, 30))
    return image


def check_against(path: Path, image: sitk.Image) -> None:
    found = read_image([path])
    array = np.moveaxis(sitk.GetArrayFromImage(image), -1, 0) if found.array.shape[0] > 1 else None
    expected = array if array is not None else sitk.GetArrayFromImage(image)[None]
    np.testing.assert_array_equal(found.array, expected.transpose(0, 3, 2, 1))
    for index in ((0, 0, 0), [size - 1 for size in image.GetSize()]):
        world = LPS @ [*image.TransformIndexToPhysicalPoint(index), 1]
        np.testing.assert_allclose(found.affine @ [*index, 1], world, atol=1e-4)


@pytest.mark.parametrize("ending", [".nrrd", ".nhdr", ".mha", ".mhd", ".NRRD", ".Nhdr", ".MHA", ".Mhd"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_voxels_and_place(tmp_path: Path, ending: str, dtype: type) -> None:
    image = image_of(np.random.default_rng(0).integers(0, 100, (4, 5, 6)).astype(dtype))
    sitk.WriteImage(image, str(tmp_path / f"scan{ending.lower()}"))
    (tmp_path / f"scan{ending.lower()}").rename(tmp_path / f"scan{ending}")
    check_against(tmp_path / f"scan{ending}", image)


def test_vector_voxels_are_channels(tmp_path: Path) -> None:
    image = image_of(np.random.default_rng(0).normal(size=(4, 5, 6, 2)).astype(np.float32), vector=True)
    sitk.WriteImage(image, str(tmp_path / "scan.mha"))
    check_against(tmp_path / "scan.mha", image)


def test_label_values_are_mapped(tmp_path: Path) -> None:
    array = np.array([0, 7, 300], np.int16)[np.random.default_rng(0).integers(0, 3, (4, 5, 6))]
    sitk.WriteImage(image_of(array), str(tmp_path / "label.nrrd"))
    label = read_label(tmp_path / "label.nrrd", (0, 7, 300))
    np.testing.assert_array_equal(np.array([0, 7, 300])[label.array], array.T)
    with pytest.raises(UserError, match="no class") as error:
        read_label(tmp_path / "label.nrrd", (0, 7))
    assert "300 (" in str(error.value.found)


def test_world_axes_of_the_header_count(tmp_path: Path) -> None:
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 3 4\nencoding: raw\nendian: little\n"
        "space: right-anterior-superior\nspace directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (5,6,7)\n\n"
    )
    (tmp_path / "scan.nrrd").write_bytes(header.encode() + np.arange(24, dtype="<i2").tobytes())
    expected = [[2, 0, 0, 5], [0, 3, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]]
    found = read_image([tmp_path / "scan.nrrd"])
    np.testing.assert_allclose(found.affine, expected)
    np.testing.assert_array_equal(found.array[0], np.arange(24).reshape(4, 3, 2).T)


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd"])
def test_damaged_files(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"scan{ending}"
    sitk.WriteImage(image_of(np.random.default_rng(0).integers(0, 999, (20, 20, 20), np.int16)), str(path))
    data = path.with_suffix(".raw") if ending == ".mhd" else path
    data.write_bytes(data.read_bytes()[:-500])
    with pytest.raises(UserError, match="cannot be read") as error:
        read_image([path])
    assert error.value.path == path
    assert "0x" not in str(error.value.found)
    path.write_text("nothing of the kind")
    with pytest.raises(UserError, match="cannot be read"):
        read_image([path])
    path.unlink()
    with pytest.raises(UserError, match="does not exist"):
        read_image([path])


def test_zero_voxel_size(tmp_path: Path) -> None:
    sitk.WriteImage(image_of(np.zeros((4, 5, 6), np.int16)), str(tmp_path / "scan.mhd"))
    text = (tmp_path / "scan.mhd").read_text()
    (tmp_path / "scan.mhd").write_text(text.replace("0.5 0.75 2", "0.5 0 2"))
    with pytest.raises(UserError) as error:
        read_image([tmp_path / "scan.mhd"])
    assert error.value.path == tmp_path / "scan.mhd"


def test_two_dimensions(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.Image(4, 5, sitk.sitkInt16), str(tmp_path / "flat.mha"))
    with pytest.raises(UserError, match="not a 3D image"):
        read_image([tmp_path / "flat.mha"])


VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)  # (Z, Y, X)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(tmp_path / "whole.mha"))
    return tmp_path / "whole.mha"


@pytest.mark.parametrize("files", ["slice%03d.raw 1 4 1", "slice%03d.raw", "LIST\nslice001.raw", "LIST 2"])
def test_a_file_a_slice_is_refused(scan: Path, files: str) -> None:
    """ITK returns memory that nothing was read into where such files are too few."""
    path = scan.with_suffix(".mhd")
    path.write_bytes(scan.read_bytes().split(b"LOCAL\n")[0] + files.encode() + b"\n")
    with pytest.raises(UserError, match="a file a slice") as raised:
        read_image([path])
    assert (raised.value.path, raised.value.found) == (path, files.partition("\n")[0])


@pytest.mark.parametrize(
    "line",
    [f"NDims = {value}" for value in ("-1", "0", "2", "100", "999999999", "")]
    + [f"NDims = 3\nElementNumberOfChannels = {value}" for value in ("0", "-3", "99999999", "x")],
)
def test_axes_and_channels_that_no_scan_has(scan: Path, line: str) -> None:
    """Some end the process inside ITK."""
    whole = scan.read_bytes()
    scan.write_bytes(whole.replace(b"NDims = 3", line.encode()))
    with pytest.raises(UserError) as raised:
        read_image([scan])
    assert raised.value.path == scan and raised.value.do
    scan.write_bytes(whole)
    np.testing.assert_array_equal(read_image([scan]).array[0], VOXELS.T)


@pytest.mark.real
@pytest.mark.parametrize("name", ["brain1", "brain2", "breast1", "prostate_phantom_subvolume"])
def test_real_files_equal_a_direct_read(real_data: Path, name: str) -> None:
    folder = real_data / "formats" / "pyradiomics"
    tails = ("", "-label") if "prostate" in name else ("_image", "_label")
    image = sitk.ReadImage(str(folder / f"{name}{tails[0]}.nrrd"))
    check_against(folder / f"{name}{tails[0]}.nrrd", image)
    label = sitk.ReadImage(str(folder / f"{name}{tails[1]}.nrrd"))
    found = read_values(folder / f"{name}{tails[1]}.nrrd")
    np.testing.assert_array_equal(found.array, sitk.GetArrayFromImage(label).T)
    assert found.array.any()
