"""Reading and writing NIfTI: values, geometry, and a message for every kind of broken file."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scans import save

from semivox.errors import UserError
from semivox.io.volume import Volume, read_header, read_image, read_label, write_label, write_map

SHAPE = (5, 6, 7)
OBLIQUE = np.array([[0.0, -1.2, 0.1, 10.0], [0.7, 0.0, 0.0, -20.5], [0.05, 0.0, 2.5, 300.25], [0, 0, 0, 1]])


def ramp(dtype: type = np.float32) -> np.ndarray:
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def labels(dtype: type = np.uint8) -> np.ndarray:
    array = np.zeros(SHAPE, dtype)
    array[1, 2, 3:5] = 1
    array[4, 5, 6] = 2
    return array


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_image_of_one_channel(tmp_path: Path, ending: str, dtype: type) -> None:
    volume = read_image([save(tmp_path / f"case ä{ending}", ramp(dtype), OBLIQUE)])
    assert volume.array.dtype == np.float32
    assert volume.array.shape == (1, *SHAPE)
    assert volume.array.flags.c_contiguous
    np.testing.assert_array_equal(volume.array[0], ramp(dtype))
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-5)
    assert volume.affine.dtype == np.float64
    expected = (np.hypot(0.7, 0.05), 1.2, np.hypot(0.1, 2.5))
    assert volume.spacing_mm == pytest.approx(expected, abs=1e-6)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    stored = ramp(np.uint8)
    data = bytearray(nib.Nifti1Image(stored, np.eye(4)).to_bytes())
    data[112:120] = np.array([0.25, -3.0], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(data)
    np.testing.assert_allclose(read_image([tmp_path / "a.nii"]).array[0], stored * 0.25 - 3.0)


def test_two_forms_of_two_channels_are_the_same(tmp_path: Path) -> None:
    a, b = ramp(), ramp()[::-1] * 2 + 1
    one = save(tmp_path / "a.nii.gz", np.stack([a, b], axis=-1), OBLIQUE)
    two = [save(tmp_path / "b_0000.nii.gz", a, OBLIQUE), save(tmp_path / "b_0001.nii.gz", b, OBLIQUE)]
    for paths in ([one], two):
        volume = read_image(paths, channels=2)
        np.testing.assert_array_equal(volume.array, np.stack([a, b]))
        assert volume.array.flags.c_contiguous


def test_trailing_axes_of_length_one_are_no_channels(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", ramp()[..., None, None])
    assert read_image([path], channels=1).array.shape == (1, *SHAPE)
    assert read_label(save(tmp_path / "b.nii.gz", labels()[..., None]), (0, 1, 2)).array.shape == SHAPE


def test_nifti2(tmp_path: Path) -> None:
    for ending in (".nii", ".nii.gz"):
        path = tmp_path / f"a{ending}"
        nib.save(nib.Nifti2Image(ramp(), OBLIQUE), path)
        np.testing.assert_array_equal(read_image([path]).array[0], ramp())


def test_wrong_number_of_channels_names_both_numbers(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", ramp())
    with pytest.raises(UserError, match=r"expected 2, found 1") as error:
        read_image([path], channels=("T1", "FLAIR"))
    assert "T1, FLAIR" in str(error.value)
    assert "a.nii.gz" in str(error.value)
    four = save(tmp_path / "b.nii.gz", np.stack([ramp()] * 4, axis=-1))
    with pytest.raises(UserError, match="expected 3, found 4"):
        read_image([four], channels=3)


def test_missing_file(tmp_path: Path) -> None:
    first = save(tmp_path / "a_0000.nii.gz", ramp())
    with pytest.raises(UserError, match="does not exist") as error:
        read_image([first, tmp_path / "a_0001.nii.gz"])
    assert error.value.path == tmp_path / "a_0001.nii.gz"
    with pytest.raises(UserError, match="does not exist"):
        read_header(tmp_path / "b.nii")


@pytest.mark.parametrize("name", ["a\0.nii", "\ud800.nii.gz"])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"cannot be read|does not exist"):
        read_image([tmp_path / name])


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.mha"])
def test_a_pipe_is_no_scan(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="neither a file nor a folder"):
        read_image([tmp_path / name])


def _truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip_a_bit(data: bytes) -> bytes:
    """One voxel changed: the stream still unpacks to the right length, only its checksum is wrong."""
    raw = bytearray(gzip.decompress(data))
    stored = bytearray(gzip.compress(bytes(raw), 0))
    stored[-100] ^= 1
    return bytes(stored)


DAMAGE = {
    "truncated": _truncate,
    "checksum": _flip_a_bit,
    "deflate stream": lambda data: data[:60] + bytes(40) + data[100:],
    "not gzip": lambda data: b"version https://git-lfs.github.com/spec/v1",
    "empty": lambda data: b"",
    "gzip of nothing": lambda data: gzip.compress(b""),
    "gzip of other things": lambda data: gzip.compress(b"abc" * 500),
    "short": lambda data: gzip.compress(gzip.decompress(data)[:-7]),
    "huge dimensions": lambda data: gzip.compress(
        gzip.decompress(data)[:42] + np.array([30000] * 3, "<i2").tobytes() + gzip.decompress(data)[48:]
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = save(tmp_path / "scan.nii.gz", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    for read in (lambda: read_image([path]), lambda: read_label(path, (0, 1))):
        with pytest.raises(UserError, match="cannot be read as NIfTI") as error:
            read()
        assert "scan.nii.gz" in str(error.value)


def test_damaged_uncompressed_file_and_another_format(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii", ramp())
    path.write_bytes(path.read_bytes()[:-3])
    other = tmp_path / "a.mgz"
    nib.save(nib.MGHImage(ramp(), np.eye(4)), other)
    for file in (path, other):
        with pytest.raises(UserError, match="cannot be read as NIfTI") as error:
            read_image([file])
        assert error.value.path == file
    path.write_bytes(b"hello")
    with pytest.raises(UserError, match="cannot be read"):
        read_header(path)


def test_values_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    array = ramp()
    array[0, 0, :3] = np.nan
    array[1, 1, 1] = -np.inf
    path = save(tmp_path / "bad.nii.gz", array)
    with pytest.raises(UserError, match="3 NaN and 1 infinite of 210") as error:
        read_image([path])
    assert "bad.nii.gz" in str(error.value)
    good = save(tmp_path / "good.nii.gz", ramp())
    with pytest.raises(UserError, match=r"bad\.nii\.gz"):
        read_image([good, path])
    huge = save(tmp_path / "huge.nii.gz", np.full(SHAPE, 1e300))
    with pytest.raises(UserError, match="0 NaN and 210 infinite"):
        read_image([huge])


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros((4, 0, 5), np.float32), "no voxels"),
        (np.zeros((5, 6), np.float32), "not a 3D image"),
        (np.zeros((5, 6, 7, 1, 3), np.float32), "not a 3D image"),
        (np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), "not plain numbers"),
    ],
)
def test_arrays_that_are_no_scan(tmp_path: Path, array: np.ndarray, problem: str) -> None:
    path = save(tmp_path / "a.nii.gz", array)
    for read in (lambda: read_image([path]), lambda: read_label(path, (0, 1))):
        with pytest.raises(UserError, match=problem):
            read()


def test_a_4d_file_is_no_label_and_no_channel(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", np.zeros((*SHAPE, 2), np.uint8))
    for read in (lambda: read_label(path, (0, 1)), lambda: read_image([path, path])):
        with pytest.raises(UserError, match="not a 3D image"):
            read()


def test_degenerate_affine(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    save(path, ramp())
    data = bytearray(path.read_bytes())
    data[280:328] = np.zeros(12, "<f4").tobytes()
    path.write_bytes(data)
    with pytest.raises(UserError, match="affine is degenerate"):
        read_image([path])


def test_channels_on_different_grids(tmp_path: Path) -> None:
    first = save(tmp_path / "a_0000.nii.gz", ramp())
    small = save(tmp_path / "a_0001.nii.gz", ramp()[:-1])
    with pytest.raises(UserError, match="shape differs") as error:
        read_image([first, small])
    assert "(4, 6, 7)" in str(error.value)
    assert "(5, 6, 7)" in str(error.value)
    moved = save(tmp_path / "a_0002.nii.gz", ramp(), np.diag([1, 1, 1.5, 1]))
    with pytest.raises(UserError, match="affine differs") as error:
        read_image([first, moved])
    assert error.value.path == moved
    assert "1.5" in str(error.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("values", [(0, 1, 2), (0, 3, 100), (0, 100, 3)])
def test_label_values_become_indices(tmp_path: Path, dtype: type, values: tuple[int, ...]) -> None:
    indices = labels()
    stored = np.asarray(values)[indices].astype(dtype)
    volume = read_label(save(tmp_path / "a.nii.gz", stored), values)
    assert volume.array.dtype == np.uint8
    assert volume.array.flags.c_contiguous
    np.testing.assert_array_equal(volume.array, indices)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((0, -1, 5), np.int32),
        ((0, 1000, 14175), np.int32),
        ((0, -70000, 2_000_000), np.int32),
        ((0, -20000, 20000), np.int16),  # their difference overflows the type
    ],
)
def test_label_values_beyond_a_byte(tmp_path: Path, values: tuple[int, ...], dtype: type) -> None:
    stored = np.asarray(values, dtype)[labels()]
    np.testing.assert_array_equal(read_label(save(tmp_path / "a.nii", stored), values).array, labels())


def test_label_without_foreground(tmp_path: Path) -> None:
    assert not read_label(save(tmp_path / "a.nii.gz", np.zeros(SHAPE, np.int16)), (0, 4)).array.any()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_unknown_label_values_are_listed_with_counts(tmp_path: Path, dtype: type) -> None:
    stored = labels(dtype)
    stored[0, 0, :4] = 7
    stored[0, 1, :2] = 9
    path = save(tmp_path / "case.nii.gz", stored)
    for values in ((0, 1, 2), (0, 2, 1)):
        with pytest.raises(UserError, match=r"7(\.0)? \(4 voxels\), 9(\.0)? \(2 voxels\)") as error:
            read_label(path, values)
        assert error.value.expected == "the declared values " + ", ".join(map(str, values))
        assert "dataset.json" in str(error.value)
        assert error.value.path == path


def test_negative_and_far_label_values_are_unknown(tmp_path: Path) -> None:
    for value in (-1, 2, 255, 70000):
        stored = labels(np.int32).clip(0, 1)
        stored[0, 0, 0] = value
        with pytest.raises(UserError, match=rf"found: +{value} \(1 voxels\)"):
            read_label(save(tmp_path / "a.nii.gz", stored), (0, 1))
    with pytest.raises(UserError, match="and 200 more"):
        read_label(save(tmp_path / "a.nii.gz", ramp(np.int16)), (0, 1))


def test_label_values_that_are_not_integers(tmp_path: Path) -> None:
    stored = labels(np.float32)
    stored[0, 0, 0], stored[0, 0, 1] = 0.5, np.nan
    with pytest.raises(UserError, match=r"not integers") as error:
        read_label(save(tmp_path / "a.nii.gz", stored), (0, 1, 2))
    assert "0.5 (1 voxels), nan (1 voxels)" in str(error.value)


def test_label_must_lie_on_its_image(tmp_path: Path) -> None:
    image = read_image([save(tmp_path / "image.nii.gz", ramp(), OBLIQUE)])
    good = save(tmp_path / "good.nii.gz", labels(), OBLIQUE)
    np.testing.assert_array_equal(read_label(good, (0, 1, 2), image).array, labels())
    with pytest.raises(UserError, match="shape differs") as error:
        read_label(save(tmp_path / "a.nii.gz", labels()[:, :-1], OBLIQUE), (0, 1, 2), image)
    assert "(5, 5, 7)" in str(error.value)
    assert "(5, 6, 7)" in str(error.value)
    with pytest.raises(UserError, match="affine differs") as error:
        read_label(save(tmp_path / "a.nii.gz", labels()), (0, 1, 2), image)
    assert "[1 0 0 0; 0 1 0 0; 0 0 1 0]" in str(error.value)
    assert "[0 -1.2 0.1 10; 0.7 0 0 -20.5; 0.05 0 2.5 300.25]" in str(error.value)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((0, 1, 255), np.uint8),
        ((0, -1, 100), np.int8),
        ((0, 1, 256), np.int16),
        ((0, 1, 40000), np.uint16),
        ((0, -1, 40000), np.int32),
    ],
)
def test_written_label_has_original_values_in_the_smallest_type(
    tmp_path: Path, values: tuple[int, ...], dtype: type
) -> None:
    path = tmp_path / "new folder" / "a b.nii.gz"
    write_label(path, labels(), values, OBLIQUE)
    image = nib.load(path)
    assert image.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(values)[labels()])
    np.testing.assert_array_equal(read_label(path, values).array, labels())
    assert [item.name for item in path.parent.iterdir()] == ["a b.nii.gz"]


def test_written_geometry(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    rotation = np.array([[0.6, -0.8, 0, 5], [0.8, 0.6, 0, -7], [0, 0, -2, 9], [0, 0, 0, 1]])
    write_label(path, labels(), (0, 1, 2), rotation)
    header = read_header(path)
    np.testing.assert_allclose(header.get_sform(), rotation, atol=1e-6)
    np.testing.assert_allclose(header.get_qform(), rotation, atol=1e-6)
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"


def test_source_header_is_kept_without_its_data_description(tmp_path: Path) -> None:
    source = nib.Nifti1Image(np.zeros((*SHAPE, 2), np.int16), OBLIQUE)
    source.set_sform(OBLIQUE, 4)
    source.header["descrip"] = b"scanner 7"
    source.header["cal_max"] = 900
    source.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"name of a patient"))
    nib.save(source, tmp_path / "source.nii.gz")
    header = read_header(tmp_path / "source.nii.gz")
    write_label(tmp_path / "a.nii.gz", labels(), (0, 1, 2), OBLIQUE, header)
    written = nib.load(tmp_path / "a.nii.gz")
    assert written.shape == SHAPE
    assert bytes(written.header["descrip"]).rstrip(b"\0") == b"scanner 7"
    assert int(written.header["sform_code"]) == 4
    assert float(written.header["cal_max"]) == 0
    assert len(written.header.extensions) == 0
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels())


def test_map_is_float32(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=SHAPE)
    write_map(tmp_path / "a.nii.gz", array, OBLIQUE)
    image = nib.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), array.astype(np.float32))
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)


def test_output_name_must_be_nifti(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.nii\.gz"):
        write_map(tmp_path / "a.mha", ramp(), np.eye(4))
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.nii.gz"
    write_map(path, ramp(), np.eye(4))
    before = path.read_bytes()

    def fail(image: object, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise RuntimeError

    monkeypatch.setattr(nib, "save", fail)
    with pytest.raises(RuntimeError):
        write_map(path, ramp() + 1, np.eye(4))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.real
def test_real_hippocampus(real_data: Path) -> None:
    """The label of case 003 is float32."""
    root = real_data / "hippocampus"
    for name in ("003", "008", "015"):
        image = read_image([root / "imagesTs" / f"hippocampus_{name}.nii.gz"], channels=1)
        label = read_label(root / "labelsTs" / f"hippocampus_{name}.nii.gz", (0, 1, 2), image)
        assert np.unique(label.array).tolist() == [0, 1, 2]
        assert image.spacing_mm == (1, 1, 1)
    with pytest.raises(UserError, match="shape differs"):
        read_label(root / "extra" / "label_only_hippocampus_010.nii.gz", (0, 1, 2), image)


@pytest.mark.real
def test_real_tumor_case(real_data: Path) -> None:
    root = real_data / "formats" / "brats_case"
    image = read_image([root / "t1n.nii.gz"], channels=("T1",))
    with pytest.raises(UserError, match="affine differs"):
        read_label(root / "seg-BraTS23_1_mapped.nii.gz", (0, 1, 2, 3), image)
    with pytest.raises(UserError, match=r"4 \(22383 voxels\)"):
        read_label(root / "seg-bratstoolkit_isen.nii.gz", (0, 1, 2, 3), image)
    label = read_label(root / "seg-bratstoolkit_isen.nii.gz", (0, 1, 2, 4), image)
    assert np.count_nonzero(label.array == 3) == 22383


@pytest.mark.real
def test_real_odd_files(real_data: Path) -> None:
    root = real_data / "formats" / "sct_testing"
    with pytest.raises(UserError, match="0 NaN and 633 infinite of 8000"):
        read_image([root / "mtr.nii.gz"])
    with pytest.raises(UserError, match="not a 3D image"):
        read_image([root / "t2" / "warp_template2anat.nii.gz"])
    image: Volume = read_image([root / "t2" / "t2.nii.gz"])
    assert nib.aff2axcodes(image.affine) == ("P", "S", "R")
    assert read_label(root / "t2" / "t2_seg-manual.nii.gz", (0, 1), image).array.any()
