"""Importing: folders as they are, and the published h5 files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest

from semivox.datasets.dataset import open_dataset
from semivox.datasets.importers import convert
from semivox.datasets.importers.bring_in import import_dataset
from semivox.datasets.importers.source import CaseSource
from semivox.errors import UserError
from semivox.io.volume import read_image, read_label

SHAPE = (4, 5, 6)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def label(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, SHAPE).astype(np.uint8)


def h5(path: Path, **arrays: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array
    return path


def cases(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        h5(root / name / "mri_norm2.h5", image=image(seed), label=label(seed))
    return root


def nnunet(root: Path) -> Path:
    meta = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}}
    for name in ("imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz", "labelsTr/a.nii.gz"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "dataset.json").write_text(json.dumps(meta))
    return root


@pytest.mark.parametrize("kind", ["auto", "nnunet"])
def test_folder_is_indexed_where_it_is(tmp_path: Path, kind: str) -> None:
    source = nnunet(tmp_path / "source")
    before = sorted(path for path in source.rglob("*"))
    dataset = import_dataset(source, tmp_path / "out", kind=kind)
    assert open_dataset(source) == dataset
    assert open_dataset(tmp_path / "out") == dataset
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"dataset.json", "run_report.json"}
    assert sorted(source.rglob("*")) == before


@pytest.mark.parametrize(("kind", "options"), [("auto", {"ignore": 255}), ("h5", {"series": "1"})])
def test_options_that_a_layout_cannot_use(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="without a meaning here") as error:
        import_dataset(nnunet(tmp_path / "source"), tmp_path / "out", kind=kind, **options)
    assert error.value.found == next(iter(options))


def test_msd_folder(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "source")
    meta = {
        "modality": {"0": "MR"},
        "labels": {"0": "background", "1": "organ"},
        "training": [{"image": "imagesTr/a_0000.nii.gz", "label": "labelsTr/a.nii.gz"}],
    }
    (source / "dataset.json").write_text(json.dumps(meta))
    dataset = import_dataset(source, tmp_path / "out", kind="msd")
    assert dataset == open_dataset(source)
    assert [case.name for case in dataset.cases] == ["a_0000"]


def test_source_is_never_overwritten(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "source")
    before = (source / "dataset.json").read_bytes()
    with pytest.raises(UserError, match="overwrite its source"):
        import_dataset(source, tmp_path / "source" / ".." / "source")
    assert (source / "dataset.json").read_bytes() == before


def test_a_description_says_more_than_files_beside_it(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "source")
    cases(source, "x")
    assert len(import_dataset(source, tmp_path / "out").cases) == 2
    assert len(import_dataset(source, tmp_path / "out2", kind="h5").cases) == 1


def test_the_index_of_another_source_is_left_alone(tmp_path: Path) -> None:
    first, second = nnunet(tmp_path / "first"), nnunet(tmp_path / "second")
    import_dataset(first, tmp_path / "out")
    (first / "labelsTr" / "b.nii.gz").touch()
    assert import_dataset(first, tmp_path / "out").case("b").label is not None, "a new label is taken up"
    with pytest.raises(UserError, match="index of another source"):
        import_dataset(second, tmp_path / "out")


@pytest.mark.parametrize(
    "options",
    [{"ignore": 0}, {"classes": {"liver": 2}}, {"labels": ("*.nii.gz",)}, {"series": "3", "root": Path()}],
)
def test_options_that_the_layout_has_no_use_for_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    source = nnunet(tmp_path / "source")
    with pytest.raises(UserError, match="Options without a meaning here") as error:
        import_dataset(source, tmp_path / "out", **options)
    assert error.value.found == ", ".join(options)
    assert "dataset.json" in str(error.value.do)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="Options without a meaning here"):
        import_dataset(cases(tmp_path / "h5", "x"), tmp_path / "out", kind="h5", images=("*.h5",))


def test_folders_that_hold_no_cases_or_one_twice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data set of a known layout") as unknown:
        import_dataset(tmp_path, tmp_path / "out")
    assert "--images" in str(unknown.value.do)
    for kind, problem in (("h5", "no training case"), ("dicom", "no DICOM image series")):
        with pytest.raises(UserError, match=problem) as error:
            import_dataset(tmp_path, tmp_path / "out", kind=kind)
        assert error.value.path == tmp_path
    h5(cases(tmp_path / "source", "a") / "a.h5", image=image(), label=label())
    with pytest.raises(UserError, match="Two cases have the same name"):
        import_dataset(tmp_path / "source", tmp_path / "out")


def test_h5_becomes_nifti(tmp_path: Path) -> None:
    source = cases(tmp_path / "source", "Müller 1", "b")
    h5(source / "c.h5", image=image(7), label=label(7))
    seen: list[tuple[int, int, str]] = []
    dataset = import_dataset(
        source, tmp_path / "out", classes={"atrium": 1}, progress=lambda *step: seen.append(step)
    )
    assert [case.name for case in dataset.cases] == ["Müller 1", "b", "c"]
    assert seen == [(1, 3, "Müller 1"), (2, 3, "b"), (3, 3, "c")]
    assert (dataset.class_names, dataset.class_values) == (("background", "atrium"), (0, 1))
    for name, seed in (("Müller 1", 0), ("b", 1), ("c", 7)):
        case = dataset.case(name)
        volume = read_image(case.images, channels=1)
        np.testing.assert_array_equal(volume.array[0], image(seed))
        assert volume.spacing_mm == (0.625, 0.625, 0.625)
        assert case.label is not None
        np.testing.assert_array_equal(read_label(case.label, (0, 1), volume).array, label(seed))
        assert nib.load(case.images[0]).get_data_dtype() == np.float32
        assert nib.load(case.label).get_data_dtype() == np.uint8
    meta = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert meta["numTraining"] == 3
    assert "0.625 x 0.625 x 0.625 mm is assumed" in meta["description"]


def test_h5_import_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = cases(tmp_path / "source", "a", "b", "c")
    read: list[str] = []
    original = convert._label_values

    def spy(case: CaseSource, *rest: Any) -> list[int]:
        read.append(case.name)
        if len(read) == 3:
            raise KeyboardInterrupt
        return original(case, *rest)

    monkeypatch.setattr(convert, "_label_values", spy)
    with pytest.raises(KeyboardInterrupt):
        import_dataset(source, tmp_path / "out")
    (tmp_path / "out" / "imagesTr" / "a_0000.nii.gz").unlink()
    read.clear()
    assert len(import_dataset(source, tmp_path / "out").cases) == 3
    assert read == ["a", "c"]
    read.clear()
    import_dataset(source, tmp_path / "out")
    assert read == []


def test_other_options_need_another_folder(tmp_path: Path) -> None:
    source, options = cases(tmp_path / "source", "a"), {"spacing_mm": (1, 0.5, 2)}
    import_dataset(source, tmp_path / "out")
    with pytest.raises(UserError, match="other options") as error:
        import_dataset(source, tmp_path / "out", **options)
    assert "spacing_mm: [1, 0.5, 2]" in str(error.value.expected)
    dataset = import_dataset(source, tmp_path / "other", **options)
    np.testing.assert_array_equal(read_image(dataset.case("a").images).affine, np.diag([1, 0.5, 2, 1]))


@pytest.mark.parametrize(
    "options",
    [
        {"classes": {"a": 1, "b": 1}},
        {"classes": {"a": 1}, "ignore": 1},
        {"classes": {"background": 1}},
        {"classes": {"ignore": 1}},
        {"classes": {"a": 0}},
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused_before_a_scan_is_read(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="cannot be told apart"):
        import_dataset(cases(tmp_path / "source", "a"), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", [0, -2.0, float("nan")])
def test_voxel_sizes_that_are_not_positive_are_refused(tmp_path: Path, side: float) -> None:
    with pytest.raises(UserError, match="voxel size is not positive"):
        import_dataset(cases(tmp_path / "source", "a"), tmp_path / "out", spacing_mm=(1, 1, side))


def test_an_output_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    source = cases(tmp_path / "source", "a")
    import_dataset(nnunet(tmp_path / "indexed"), tmp_path / "index")
    before = (tmp_path / "index" / "dataset.json").read_bytes()
    with pytest.raises(UserError, match="index of another source"):
        import_dataset(source, tmp_path / "index")
    assert (tmp_path / "index" / "dataset.json").read_bytes() == before
    for content in ('{"x": 1}', "[1]"):
        (tmp_path / "foreign").mkdir(exist_ok=True)
        (tmp_path / "foreign" / "import.json").write_text(content)
        with pytest.raises(UserError, match="did not write"):
            import_dataset(source, tmp_path / "foreign")


@pytest.mark.parametrize("place", ["source", "parent", "given"])
def test_h5_lists_choose_the_pool(tmp_path: Path, place: str) -> None:
    source = cases(tmp_path / "set" / "source", "a", "b", "c")
    folder = {"source": source, "parent": source.parent, "given": tmp_path}[place]
    more = "" if place == "given" else "not here\n"
    (folder / "train.list").write_text(f"a\n\nc/mri_norm2.h5\r\n{more}")
    (folder / "test.list").write_text("b.h5")
    given = {"train_list": tmp_path / "train.list", "test_list": tmp_path / "test.list"}
    dataset = import_dataset(source, tmp_path / "out", **(given if place == "given" else {}))
    assert [case.name for case in dataset.pool("train")] == ["a", "c"]
    assert [case.name for case in dataset.pool("test")] == ["b"]
    assert dataset.case("b").label == (tmp_path / "out" / "labelsTs" / "b.nii.gz").resolve()
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["numTraining"] == 2


@pytest.mark.parametrize(
    ("train", "test", "given", "problem", "found"),
    [
        ("a b", "b", False, "in both lists", "b"),
        ("a", "x", False, "in neither list", "b"),
        ("a b", "x", True, "have no image", "x"),
        ("a b", None, True, "cannot be read", ""),
    ],
)
def test_h5_lists_that_do_not_fit(
    tmp_path: Path, train: str, test: str | None, given: bool, problem: str, found: str
) -> None:
    source = cases(tmp_path / "source", "a", "b")
    for name, names in (("train.list", train), ("test.list", test)):
        if names is not None:
            (source / name).write_text("\n".join(names.split()))
    with pytest.raises(UserError, match=problem) as error:
        import_dataset(source, tmp_path / "out", **({"test_list": source / "test.list"} if given else {}))
    assert found in str(error.value.found)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arrays", "problem", "found"),
    [
        ({"image": image(), "mask": label()}, "cannot be read as h5", "label"),
        ({"image": image(), "label": label()[:-1]}, "do not fit", "shapes (4, 5, 6) and (3, 5, 6)"),
        ({"image": image()[0], "label": label()[0]}, "do not fit", "shapes (5, 6) and (5, 6)"),
        ({"image": image()[:0], "label": label()[:0]}, "do not fit", "shapes (0, 5, 6)"),
        (
            {"image": np.where(image() > 2, np.nan, image()), "label": label()},
            "not finite",
            "NaN and 0 infinite",
        ),
        ({"image": image(), "label": label() * 0.5}, "not integers", "0.5 ("),
        (None, "cannot be read as h5", ""),
    ],
)
def test_h5_files_that_cannot_be_used(
    tmp_path: Path, arrays: dict[str, np.ndarray] | None, problem: str, found: str
) -> None:
    path = h5(tmp_path / "source" / "a" / "mri_norm2.h5", **(arrays or {"image": image(), "label": label()}))
    if arrays is None:
        path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UserError, match=problem) as error:
        import_dataset(tmp_path / "source", tmp_path / "out")
    assert found in str(error.value.found)
    assert error.value.path == path
    assert not (tmp_path / "out").exists()


@pytest.mark.real
def test_real_h5_equals_the_nifti_versions(real_data: Path, tmp_path: Path) -> None:
    reference = open_dataset(real_data / "la2018")
    dataset = import_dataset(real_data / "la2018" / "h5", tmp_path / "out")
    assert [case.name for case in dataset.pool("train")] == [
        case.name for case in reference.pool("train")[:3]
    ]
    for case in dataset.cases:
        expected = reference.case(case.name)
        ours, theirs = read_image(case.images), read_image(expected.images)
        np.testing.assert_allclose(ours.array, theirs.array, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(ours.affine, theirs.affine)
        assert case.label is not None
        assert expected.label is not None
        label_array = read_label(case.label, (0, 1), ours).array
        np.testing.assert_array_equal(label_array, read_label(expected.label, (0, 1)).array)
        assert label_array.any()
