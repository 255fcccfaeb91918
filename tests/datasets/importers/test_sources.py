"""Pairs by pattern, tables, single files, nnU-Net raw in NRRD: what is found, merged, kept and refused."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scans import save as write

from semivox.config import SplitConfig
from semivox.datasets.dataset import Dataset, open_dataset
from semivox.datasets.importers.bring_in import import_dataset
from semivox.datasets.splits import make_split
from semivox.errors import UserError
from semivox.io.volume import IGNORE, read_image, read_label

pytest.importorskip("pydicom", reason="needs the extra dicom")
from dicom_writer import write_series

SHAPE = (4, 5, 6)
PAIRS = {"images": ("{case}_t1.nii.gz",), "labels": ("{case}_seg.nii.gz",), "classes": {"organ": 1}}
AFFINE = np.array([[0, -0.5, 0, 10], [0.75, 0, 0, -20], [0, 0, 2, 30], [0, 0, 0, 1.0]])


save = partial(write, affine=AFFINE)


def scan(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, SHAPE).astype(np.int16)


def label(*values: int, seed: int = 0) -> np.ndarray:
    return np.array(values, np.int16)[np.random.default_rng(seed).integers(0, len(values), SHAPE)]


def stored(dataset: Dataset, name: str) -> np.ndarray:
    path = dataset.case(name).label
    assert path is not None
    return np.asarray(nib.load(path).dataobj)


def test_pairs_with_two_channels(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for index, name in enumerate(("p1", "p2", "p3")):
        save(raw / name / f"{name}_t1.nii.gz", scan(index))
        save(raw / name / f"{name}_t2.nii", scan(index + 10) + np.float32(0.5))
        if name != "p3":
            save(raw / name / "seg.nii.gz", label(0, 2, 5, seed=index))
    save(raw / ".hidden" / "p9_t1.nii.gz", scan())
    (raw / "p1" / "p1_t1.txt").write_text("notes")
    dataset = import_dataset(
        raw, tmp_path / "out", images=("T1=*/{case}_t1.*", "T2=*/{case}_t2.*"), labels=("{case}/seg.nii.gz",)
    )
    assert dataset.channels == ("T1", "T2")
    assert (dataset.class_names, dataset.class_values) == (("background", "class_2", "class_5"), (0, 2, 5))
    assert [(case.name, case.label is not None) for case in dataset.cases] == [
        ("p1", True), ("p2", True), ("p3", False),
    ]  # fmt: skip
    for index, name in enumerate(("p1", "p2", "p3")):
        image = read_image(dataset.case(name).images)
        np.testing.assert_array_equal(image.array, [scan(index), scan(index + 10) + np.float32(0.5)])
        np.testing.assert_array_equal(image.affine, AFFINE)
        first, second = (nib.load(path) for path in dataset.case(name).images)
        assert (first.get_data_dtype(), second.get_data_dtype()) == (np.int16, np.float32)
    np.testing.assert_array_equal(stored(dataset, "p2"), label(0, 2, 5, seed=1))


def test_a_single_star_is_the_case_and_one_class_is_foreground(tmp_path: Path) -> None:
    save(tmp_path / "raw" / "images" / "a b.nii.gz", scan())
    save(tmp_path / "raw" / "labels" / "a b.nii.gz", label(0, 255))
    out = tmp_path / "out"
    dataset = import_dataset(tmp_path / "raw", out, images=("images/*.nii.gz",), labels=("labels/*.nii.gz",))
    assert [case.name for case in dataset.cases] == ["a b"]
    assert (dataset.class_names, dataset.class_values) == (("background", "foreground"), (0, 255))


def test_several_label_files_are_merged_by_name_and_the_later_wins(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    organ, tumor = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    organ[1:4], tumor[2:4, 2:] = 255, 1
    save(raw / "images" / "a.nii.gz", scan())
    save(raw / "masks" / "a_kidney.nii.gz", organ)
    save(raw / "masks" / "a_tumor.nii.gz", tumor)
    save(raw / "images" / "b.nii.gz", scan(1))
    save(raw / "masks" / "b_tumor.nii.gz", tumor)
    patterns = ("kidney=masks/{case}_kidney.nii.gz", "tumor=masks/{case}_tumor.nii.gz")
    dataset = import_dataset(raw, tmp_path / "out", images=("images/{case}.nii.gz",), labels=patterns)
    assert dataset.class_names == ("background", "kidney", "tumor")
    expected = np.zeros(SHAPE, np.uint8)
    expected[1:4] = 1
    expected[2:4, 2:] = 2
    np.testing.assert_array_equal(stored(dataset, "a"), expected)
    np.testing.assert_array_equal(stored(dataset, "b"), tumor * 2)
    dataset = import_dataset(
        raw,
        tmp_path / "out2",
        images=("images/{case}.nii.gz",),
        labels=patterns,
        classes={"tumor": 4, "kidney": 300},
    )
    np.testing.assert_array_equal(stored(dataset, "b"), tumor.astype(np.int16) * 4)
    assert set(np.unique(stored(dataset, "a"))) == {0, 4, 300}
    with pytest.raises(UserError, match="not declared"):
        import_dataset(
            raw, tmp_path / "out3", images=("images/*.nii.gz",), labels=patterns, classes={"tumor": 1}
        )


def test_a_label_in_another_axis_order_is_brought_to_its_image(tmp_path: Path) -> None:
    turned = label(0, 1)[::-1].transpose(2, 0, 1)
    affine = AFFINE.copy()
    affine[:3, 3] = (AFFINE @ [SHAPE[0] - 1, 0, 0, 1])[:3]
    affine[:3, :3] = np.stack([AFFINE[:3, 2], -AFFINE[:3, 0], AFFINE[:3, 1]], axis=1)
    save(tmp_path / "raw" / "a_image.nii.gz", scan())
    save(tmp_path / "raw" / "a_label.nii.gz", turned, affine=affine)
    options = {"images": ("{case}_image.nii.gz",), "labels": ("{case}_label.nii.gz",)}
    dataset = import_dataset(tmp_path / "raw", tmp_path / "out", **options)
    np.testing.assert_array_equal(stored(dataset, "a"), label(0, 1))
    affine[0, 3] += 0.4
    save(tmp_path / "raw" / "a_label.nii.gz", turned, affine=affine)
    with pytest.raises(UserError, match="voxels are not those of its image") as error:
        import_dataset(tmp_path / "raw", tmp_path / "out2", **options)
    assert error.value.path == tmp_path / "raw" / "a_label.nii.gz"


def test_patterns_that_do_not_fit(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    save(raw / "a_t1.nii.gz", scan())
    save(raw / "b_t1.nii.gz", scan())
    save(raw / "a_t2.nii.gz", scan())
    save(raw / "x_seg.nii.gz", label(0, 1))
    out = tmp_path / "out"
    for options, problem, found in (
        ({"images": ("{case}_flair.nii.gz",)}, "No image fits", "a_t1.nii.gz"),
        ({"images": ("all.nii.gz",)}, "which part is the case", "all.nii.gz"),
        ({"images": ("*_*.nii.gz",)}, "which part is the case", "*_*.nii.gz"),
        ({"images": ("{case}_t?.nii.gz",)}, "Several files fit the pattern for case a", "a_t2.nii.gz"),
        ({"images": ("{case}_t1.nii.gz", "T2={case}_t2.nii.gz")}, "Case b: the image of channel T2", ""),
        ({"images": ("T1={case}_t2.nii.gz", "T2={case}_t1.nii.gz")}, "Case b: the image of channel T1", ""),
        ({"images": ("{case}_t1.nii.gz",), "labels": ("{case}_seg.nii.gz",)}, "Labels have no image", "x"),
        ({"images": ("{case}_t1.nii.gz",)}, "No label holds a class", "no label file"),
    ):
        with pytest.raises(UserError, match=problem) as error:
            import_dataset(raw, out, **options)
        assert found in str(error.value.found)
    assert not out.exists()


def test_undeclared_label_values_name_the_file_and_ignored_ones_are_kept_apart(tmp_path: Path) -> None:
    save(tmp_path / "raw" / "a_t1.nii.gz", scan())
    file = save(tmp_path / "raw" / "a_seg.nii.gz", label(0, 1, 9))
    with pytest.raises(UserError, match="values that are no class") as error:
        import_dataset(tmp_path / "raw", tmp_path / "refused", **PAIRS)
    assert error.value.path == file and "9 (" in str(error.value.found)
    dataset = import_dataset(tmp_path / "raw", tmp_path / "out", ignore=9, **PAIRS)
    meta = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert meta["labels"] == {"background": 0, "organ": 1, "ignore": 9}
    assert (dataset.class_values, dataset.ignore_value) == ((0, 1), 9)
    path = dataset.case("a").label
    assert path is not None
    found = read_label(path, dataset.class_values, ignore=dataset.ignore_value).array
    np.testing.assert_array_equal(found, np.array([0, 1, IGNORE], np.uint8)[label(0, 1, 2)])
    with pytest.raises(UserError, match="no class"):
        read_label(path, dataset.class_values)


def test_table(tmp_path: Path) -> None:
    for name in ("c", "a", "b", "t", "u"):
        save(tmp_path / "scans" / f"{name}.nii.gz", scan(ord(name)))
    for name in ("c", "a", "t"):
        save(tmp_path / "scans" / f"{name}_seg.nii.gz", label(0, 1, seed=ord(name)))
    table = tmp_path / "cases.csv"
    table.write_text(
        "\ufeffimage,label,pool\nscans/c.nii.gz,scans/c_seg.nii.gz,train\nscans/a.nii.gz,scans/a_seg.nii.gz,\n"
        "scans/b.nii.gz,,\nscans/t.nii.gz,scans/t_seg.nii.gz,test\nscans/u.nii.gz,,unlabeled\n"
    )
    dataset = import_dataset(table, tmp_path / "out")
    assert [case.name for case in dataset.pool("train")] == ["a", "b", "c"]
    assert [case.name for case in dataset.pool("test")] == ["t"]
    assert [case.name for case in dataset.pool("extra")] == ["u"]
    assert dataset.order == ("c", "a", "b")
    split = make_split(dataset, SplitConfig(labeled=1))
    assert (split.labeled, split.unlabeled) == (("c",), ("a", "b", "u"))
    np.testing.assert_array_equal(read_image(dataset.case("b").images).array[0], scan(ord("b")))
    assert open_dataset(tmp_path / "out") == dataset


def test_a_list_chooses_the_test_cases_of_a_table(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / f"{name}.nii.gz", scan())
    (tmp_path / "cases.csv").write_text("image\na.nii.gz\nb.nii.gz\n")
    (tmp_path / "held-out").write_text("b\n")
    options = {"test_list": tmp_path / "held-out", "classes": {"organ": 1}}
    dataset = import_dataset(tmp_path / "cases.csv", tmp_path / "out", **options)
    assert [(case.name, case.pool) for case in dataset.cases] == [("b", "test"), ("a", "train")]


def test_table_of_channels_and_masks_with_a_root(tmp_path: Path) -> None:
    for name in ("x1", "x2", "liver", "tumor"):
        save(tmp_path / "data" / f"{name}.nii.gz", scan() if name[0] == "x" else label(0, 1, seed=1))
    table = tmp_path / "cases.csv"
    table.write_text(
        "case;image_T1;image_T2;label_liver;label_tumor\np;x1.nii.gz;x2.nii.gz;liver.nii.gz;tumor.nii.gz\n"
    )
    dataset = import_dataset(table, tmp_path / "out", root=tmp_path / "data")
    assert dataset.channels == ("T1", "T2")
    assert dataset.class_names == ("background", "liver", "tumor")
    np.testing.assert_array_equal(stored(dataset, "p"), label(0, 1, seed=1) * 2)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image,label\nnone.nii.gz,\n", "the image is missing"),
        ("scan,label\na.nii.gz,\n", "no column of images"),
        ("image,label\n", "no rows"),
        ("image,pool\na.nii.gz,somewhere\n", "Unknown pool"),
        ("image_T1,image_T2\na.nii.gz,\n", "A row of the table lacks an image"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, problem: str) -> None:
    save(tmp_path / "a.nii.gz", scan())
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(UserError, match=problem):
        import_dataset(tmp_path / "cases.csv", tmp_path / "out")


def test_single_file(tmp_path: Path) -> None:
    save(tmp_path / "scan_0000.nii.gz", scan())
    organ = save(tmp_path / "organ.nii.gz", label(0, 1))
    dataset = import_dataset(tmp_path / "scan_0000.nii.gz", tmp_path / "out", labels=(f"organ={organ}",))
    assert [case.name for case in dataset.cases] == ["scan"]
    assert dataset.class_names == ("background", "organ")
    (tmp_path / "scan.txt").write_text("")
    with pytest.raises(UserError, match="no format that can be imported"):
        import_dataset(tmp_path / "scan.txt", tmp_path / "out2")
    with pytest.raises(UserError, match="The source is no folder"):
        import_dataset(tmp_path / "scan_0000.nii.gz", tmp_path / "out2", kind="dicom")


def test_nnunet_raw_in_nrrd_is_converted(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (raw / folder).mkdir(parents=True)
    meta = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 2, "all": [1, 2], "ignore": 3},
        "file_ending": ".nrrd",
    }
    (raw / "dataset.json").write_text(json.dumps(meta))
    for name, array in {
        "imagesTr/a_0000": scan(), "labelsTr/a": label(0, 2, 3), "imagesTs/t_0000": scan(1),
    }.items():  # fmt: skip
        image = sitk.GetImageFromArray(array.T)
        image.SetSpacing((0.5, 0.5, 2.0))
        sitk.WriteImage(image, str(raw / f"{name}.nrrd"))
    with pytest.raises(UserError, match="not supported yet") as error:
        open_dataset(raw)
    assert "semivox import" in str(error.value.do)
    dataset = import_dataset(raw, tmp_path / "out")
    assert (dataset.channels, dataset.class_values, dataset.ignore_value) == (("CT",), (0, 1, 2), 3)
    assert dataset.class_names == ("background", "label_1", "organ")
    assert dataset.regions == {"all": (1, 2)}
    assert [(case.name, case.pool) for case in dataset.cases] == [("t", "test"), ("a", "train")]
    np.testing.assert_array_equal(stored(dataset, "a"), label(0, 2, 3))
    np.testing.assert_allclose(read_image(dataset.case("a").images).affine, np.diag([-0.5, -0.5, 2, 1]))


def test_the_voxels_beside_a_header_are_no_unused_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = tmp_path / "raw"
    for folder, array in (("imagesTr", scan()), ("labelsTr", label(0, 1))):
        (raw / folder).mkdir(parents=True)
        path = raw / folder / ("a_0000.mhd" if folder == "imagesTr" else "a.mhd")
        sitk.WriteImage(sitk.GetImageFromArray(array.T), str(path))
    (raw / "labelsTr" / "b.raw").touch()
    meta = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".mhd"}
    (raw / "dataset.json").write_text(json.dumps(meta))
    np.testing.assert_array_equal(stored(import_dataset(raw, tmp_path / "out"), "a"), label(0, 1))
    assert "b.raw" in caplog.text and "a.raw" not in caplog.text and "a_0000.raw" not in caplog.text


def test_dicom_folders_with_lists_and_a_chosen_series(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for index, name in enumerate(("p1", "p2")):
        write_series(raw / name / "study" / "s1", scan(index), number=1, description="CT thin")
        write_series(raw / name / "study" / "s2", scan(index + 10), number=2, description="CT thick")
    (tmp_path / "test.txt").write_text("p2\n")
    options = {"classes": {"organ": 1}, "test_list": tmp_path / "test.txt"}
    with pytest.raises(UserError, match="several DICOM series") as error:
        import_dataset(raw, tmp_path / "out", **options)
    assert error.value.path == raw / "p1"
    assert "--series" in str(error.value.do)
    dataset = import_dataset(raw, tmp_path / "out", series="CT thick", **options)
    assert [(case.name, case.pool) for case in dataset.cases] == [("p2", "test"), ("p1", "train")]
    np.testing.assert_array_equal(read_image(dataset.case("p2").images).array[0], scan(11))
    one = import_dataset(raw / "p1" / "study" / "s1", tmp_path / "one", classes={"organ": 1})
    assert [case.name for case in one.cases] == ["s1"]


def test_images_of_a_pattern_may_be_dicom_folders(tmp_path: Path) -> None:
    write_series(tmp_path / "raw" / "p1" / "ct", scan(), origin=(0, 0, 0), spacing=(1, 1, 1))
    save(tmp_path / "raw" / "p1" / "seg.nii.gz", label(0, 1), affine=np.diag([-1.0, -1, 1, 1]))
    dataset = import_dataset(
        tmp_path / "raw", tmp_path / "out", images=("{case}/ct",), labels=("{case}/seg.nii.gz",)
    )
    np.testing.assert_array_equal(read_image(dataset.case("p1").images).array[0], scan())
    np.testing.assert_array_equal(stored(dataset, "p1"), label(0, 1))
    write_series(tmp_path / "raw" / "p1" / "ct" / "later", scan(1), number=7)
    options = {"images": ("{case}/ct",), "classes": {"organ": 1}}
    with pytest.raises(UserError, match="several DICOM series"):
        import_dataset(tmp_path / "raw", tmp_path / "second", **options)
    dataset = import_dataset(tmp_path / "raw", tmp_path / "second", **options, series="7")
    np.testing.assert_array_equal(read_image(dataset.case("p1").images).array[0], scan(1))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two labeled scans, a and b."""
    for seed, name in enumerate("ab"):
        save(tmp_path / "raw" / f"{name}_t1.nii.gz", scan(seed))
        save(tmp_path / "raw" / f"{name}_seg.nii.gz", label(0, 1, seed=seed))
    return tmp_path / "raw"


def unlabeled(dataset: Dataset) -> list[tuple[str, bool]]:
    return [(case.name, case.label is None) for case in dataset.cases]


def notes(out: Path) -> str:
    return "; ".join(json.loads((out / "import.json").read_text())["notes"])


def test_an_import_follows_its_source(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_dataset(raw, out, **PAIRS)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    os.utime(raw / "a_seg.nii.gz")
    import_dataset(raw, out, **PAIRS)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")} == times, "the same content"
    before = (raw / "a_seg.nii.gz").stat()
    corrected = np.zeros(SHAPE, np.int16)
    corrected[1, 2, 3] = 1
    save(raw / "a_seg.nii.gz", corrected)
    os.utime(raw / "a_seg.nii.gz", ns=(before.st_atime_ns, before.st_mtime_ns - 10**12))
    save(raw / "c_t1.nii.gz", scan(2))
    dataset = import_dataset(raw, out, **PAIRS)
    np.testing.assert_array_equal(stored(dataset, "a"), corrected)
    assert unlabeled(dataset) == [("a", False), ("b", False), ("c", True)]
    assert "written anew, because their source files have changed: a" in notes(out)
    (raw / "a_seg.nii.gz").unlink()
    for kind in ("t1", "seg"):
        (raw / f"b_{kind}.nii.gz").unlink()
    save(raw / "d_t1.nii.gz", scan(4))
    save(raw / "d_seg.nii.gz", label(0, 1))
    dataset = import_dataset(raw, out, **PAIRS)
    assert unlabeled(dataset) == [("a", True), ("c", True), ("d", False)]
    assert not list(out.rglob("b*.nii.gz")) and not (out / "labelsTr" / "a.nii.gz").exists()
    assert "removed, because the source no longer has them: b" in notes(out)
    import_dataset(raw, out, **PAIRS)
    assert notes(out) == ""


@pytest.mark.parametrize("kind", ["csv", "h5", "dicom"])
def test_every_kind_of_source_is_followed(tmp_path: Path, kind: str) -> None:
    """The values of the scan change, and nothing else."""
    raw = tmp_path / "raw"
    raw.mkdir()

    def make(seed: int) -> Path:
        if kind == "dicom":
            write_series(raw / "a", scan(seed))
        elif kind == "h5":
            with h5py.File(raw / "a.h5", "w") as file:
                file["image"], file["label"] = scan(seed), label(0, 1)
        else:
            save(raw / "a.nii", scan(seed))
            (raw / "cases.csv").write_text("image\na.nii\n")
            return raw / "cases.csv"
        return raw

    for seed in (0, 1):
        dataset = import_dataset(make(seed), tmp_path / "out", classes={"organ": 1})
        np.testing.assert_array_equal(read_image(dataset.case("a").images).array[0], scan(seed))


def test_two_labels_that_change_places_are_noticed(raw: Path, tmp_path: Path) -> None:
    import_dataset(raw, tmp_path / "out", **PAIRS)
    (raw / "a_seg.nii.gz").rename(raw / "x")
    (raw / "b_seg.nii.gz").rename(raw / "a_seg.nii.gz")
    (raw / "x").rename(raw / "b_seg.nii.gz")
    dataset = import_dataset(raw, tmp_path / "out", **PAIRS)
    np.testing.assert_array_equal(stored(dataset, "a"), label(0, 1, seed=1))


def test_classes_by_name_that_get_other_values_are_written_anew(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    labels = ("liver={case}_liver.nii.gz", "tumor={case}_tumor.nii.gz")
    options = {"images": ("scans/{case}.nii.gz",), "labels": labels}
    save(raw / "b_tumor.nii.gz", label(0, 1))
    for name in ("a", "b"):
        save(raw / "scans" / f"{name}.nii.gz", scan())
    assert import_dataset(raw, tmp_path / "out", **options).class_names[1:] == ("tumor",)
    save(raw / "a_liver.nii.gz", label(0, 1))
    dataset = import_dataset(raw, tmp_path / "out", **options)
    assert dataset.class_names[1:] == ("liver", "tumor")
    np.testing.assert_array_equal(stored(dataset, "b"), 2 * label(0, 1))


def test_the_output_of_another_import_is_left_alone(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_dataset(raw, out, **PAIRS)
    save(tmp_path / "second" / "a_t1.nii.gz", scan())
    save(tmp_path / "second" / "a_seg.nii.gz", label(0, 1))
    with pytest.raises(UserError, match="imported from another source"):
        import_dataset(tmp_path / "second", out, **PAIRS)
    save(out / "imagesTr" / "x_0000.nii.gz", scan())
    with pytest.raises(UserError, match="did not write") as error:
        import_dataset(raw, out, **PAIRS)
    assert error.value.found == "imagesTr/x_0000.nii.gz"
    for name in ("dataset.json", "labelsTr/a.nii.gz"):
        path = tmp_path / "other" / name
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        with pytest.raises(UserError, match="did not write"):
            import_dataset(raw, tmp_path / "other", **PAIRS)
        assert [file for file in (tmp_path / "other").rglob("*") if file.is_file()] == [path]
        shutil.rmtree(tmp_path / "other")


def test_an_imported_label_that_was_edited_is_not_lost(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    edited = import_dataset(raw, out, **PAIRS).case("a").label
    assert edited is not None
    save(edited, label(1, 1))
    np.testing.assert_array_equal(stored(import_dataset(raw, out, **PAIRS), "a"), label(1, 1))
    save(raw / "a_seg.nii.gz", label(0, 1, seed=9))
    with pytest.raises(UserError, match="edited") as error:
        import_dataset(raw, out, **PAIRS)
    assert error.value.path == edited


@pytest.mark.real
def test_real_files_as_they_are(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "formats" / "sct_testing"
    dataset = import_dataset(
        folder / "t2" / "t2.nii.gz", tmp_path / "out", labels=(str(folder / "t2" / "t2_seg-manual.nii.gz"),)
    )
    case = dataset.case("t2")
    source, found = nib.load(folder / "t2" / "t2.nii.gz"), nib.load(case.images[0])
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(source.dataobj))
    np.testing.assert_array_equal(found.affine, source.affine)
    assert nib.aff2axcodes(found.affine) == ("P", "S", "R")
    truth = np.asarray(nib.load(folder / "t2" / "t2_seg-manual.nii.gz").dataobj)
    np.testing.assert_array_equal(stored(dataset, "t2"), truth)
    with pytest.raises(UserError, match="not finite") as error:
        import_dataset(folder / "mtr.nii.gz", tmp_path / "mtr", classes={"cord": 1})
    assert error.value.path == folder / "mtr.nii.gz"
