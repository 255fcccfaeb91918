"""Finding cases, channels and classes in nnU-Net raw, MSD and semivox folders.

The image files here are empty: whatever opens one of them fails.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from semivox.datasets.dataset import Case, Dataset, open_dataset, write_index
from semivox.errors import UserError

NNUNET = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}
MSD = {"name": "Task", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "tumor"}}


def make(root: Path, meta: object, files: str | Sequence[str] = ()) -> Path:
    """Write `dataset.json` and empty files; names without an ending get .nii.gz."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(meta), encoding="utf-8")
    for name in files.split() if isinstance(files, str) else files:
        path = root / (name if "." in Path(name).name else f"{name}.nii.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names(cases: Sequence[Case]) -> list[str]:
    return [case.name for case in cases]


def labeled(cases: Sequence[Case]) -> list[str]:
    return [case.name for case in cases if case.label is not None]


def test_nnunet_raw(tmp_path: Path) -> None:
    root = make(
        tmp_path / "Dataset001_Liver",
        NNUNET,
        "imagesTr/b_0000 imagesTr/a_0000 imagesTr/._a_0000.nii.gz imagesTr/notes.txt labelsTr/b"
        " imagesTs/t_0000 labelsTs/t imagesTs/s_0000 imagesUn/u_0000",
    )
    dataset = open_dataset(root)
    assert dataset.name == "Dataset001_Liver"
    assert dataset.root == root.resolve()
    assert (dataset.channels, dataset.num_classes) == (("T1",), 2)
    assert (dataset.class_names, dataset.class_values) == (("background", "liver"), (0, 1))
    assert names(dataset.cases) == ["u", "s", "t", "a", "b"]
    assert [case.pool for case in dataset.cases] == ["extra", "test", "test", "train", "train"]
    assert labeled(dataset.cases) == ["t", "b"]
    assert dataset.case("a") == Case("a", (root / "imagesTr" / "a_0000.nii.gz",), None, "train")
    assert dataset.case("t").label == root / "labelsTs" / "t.nii.gz"
    assert names(dataset.pool("test")) == ["s", "t"]


TWO = {"0": "T1", "1": "T2"}
ELEVEN = {str(index): f"c{index}" for index in reversed(range(11))}
CHANNELS = "imagesTr/a_0000 imagesTr/a_0001 imagesTr/b_0000 imagesTr/b_0001 labelsTr/a"
LISTED = {
    "training": [
        {"image": "./imagesTr/c.nii.gz", "label": "./labelsTr/c.nii.gz"},
        {"image": "./imagesTr/b.nii.gz"},
        {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"},
    ],
    "test": ["./imagesTs/t.nii.gz", {"image": "imagesTs/s.nii.gz"}],
}
BY_CHANNEL = [  # as nnU-Net's first version stored its tasks, and as MONAI lists do
    {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"},
    {"image": ["imagesTr/b_0000.nii.gz", "imagesTr/b_0001.nii.gz"]},
]
AB = ["train/a: a_0000 a_0001 | a", "train/b: b_0000 b_0001"]


@pytest.mark.parametrize(
    ("meta", "files", "expected"),
    [
        (
            NNUNET,
            ["imagesTr/Müller 1_0000.nii.gz", "imagesTr/患者.二_0000.nii.gz", "labelsTr/患者.二.nii.gz"],
            ["train/Müller 1: Müller 1_0000", "train/患者.二: 患者.二_0000 | 患者.二"],
        ),
        (
            {**NNUNET, "channel_names": ELEVEN},
            [f"imagesTr/a_{i:04d}.nii.gz" for i in range(11)],
            ["train/a: " + " ".join(f"a_{i:04d}" for i in range(11))],
        ),
        ({"modality": TWO, "labels": MSD["labels"]}, CHANNELS, AB),
        ({**NNUNET, "channel_names": TWO, "training": []}, CHANNELS, AB),
        ({**MSD, "modality": TWO, "training": BY_CHANNEL}, CHANNELS, AB),
        (NNUNET, "imagesTr/a labelsTr/a", ["train/a: a | a"]),
        (
            {**NNUNET, "training": BY_CHANNEL[:1]},
            "imagesTr/a_0000 imagesTr/b_0000 labelsTr/a",
            ["train/a: a_0000 | a", "train/b: b_0000"],
        ),
        (
            {**MSD, **LISTED},
            "imagesTr/a imagesTr/b imagesTr/c imagesTr/d labelsTr/c labelsTr/b"
            " imagesTs/t imagesTs/s labelsTs/t imagesUn/u extra/x",
            ["extra/u: u", "test/s: s", "test/t: t | t", "train/a: a", "train/b: b", "train/c: c | c"],
        ),
        (
            MSD,
            "imagesTr/a_0001 imagesTr/b labelsTr/b imagesTs/t",
            ["test/t: t", "train/a_0001: a_0001", "train/b: b | b"],
        ),
    ],
)
def test_layouts(tmp_path: Path, meta: dict[str, Any], files: str | list[str], expected: list[str]) -> None:
    """Cases with their images and labels; what is on disk tells the layout."""
    dataset = open_dataset(make(tmp_path, meta, files))
    found = [
        f"{case.pool}/{case.name}: {' '.join(path.name for path in case.images)}"
        + (f" | {case.label.name}" if case.label else "")
        for case in dataset.cases
    ]
    assert [text.replace(".nii.gz", "") for text in found] == expected
    assert dataset.name == meta.get("name", tmp_path.name)
    declared = meta.get("channel_names", meta.get("modality"))
    assert dataset.channels == tuple(declared[str(index)] for index in range(len(declared)))


def test_missing_channel_is_named(tmp_path: Path) -> None:
    meta = {**NNUNET, "channel_names": {"0": "T1", "1": "FLAIR"}}
    files = "imagesTr/a_0000 imagesTr/a_0001 imagesTr/b_0000"
    with pytest.raises(UserError, match="Case b: the image of channel FLAIR is missing") as error:
        open_dataset(make(tmp_path, meta, files))
    assert error.value.path == tmp_path / "imagesTr" / "b_0001.nii.gz"
    meta = {**MSD, "modality": TWO, "training": BY_CHANNEL[:1]}
    with pytest.raises(UserError, match="Case a: the image of channel T2 is missing"):
        open_dataset(make(tmp_path / "msd", meta, "imagesTr/a_0000"))


@pytest.mark.parametrize(
    ("files", "problem", "found"),
    [
        ("imagesTr/ok_0000 imagesTr/a", "no valid channel number", "a.nii.gz"),
        ("imagesTr/ok_0000 imagesTr/a_0001", "no valid channel number", "a_0001.nii.gz"),
        ("imagesTr/ok_0000 imagesTr/a_000", "no valid channel number", "a_000.nii.gz"),
        ("imagesTr/a_0000 labelsTr/a_0000", "Label files without an image", "a_0000.nii.gz"),
        ("imagesTr/a_0000.txt imagesTs/b_0000", "no training images", "a_0000.txt"),
        ("imagesTr/a_0000 imagesTs/a_0000 imagesTs/b_0000", "same name", "a"),
        ("imagesTr/a_0000 labelTr/a", "folder of scans is not used", "labelTr, which holds a.nii.gz"),
        ("imagesTr/a_0000 LabelsTr/a", "folder of scans is not used", "LabelsTr, which holds a.nii.gz"),
        ("imagesTr/a_0000 labels/a", "folder of scans is not used", "labels, which holds a.nii.gz"),
    ],
)
def test_files_that_are_not_where_they_belong(tmp_path: Path, files: str, problem: str, found: str) -> None:
    with pytest.raises(UserError, match=problem) as error:
        open_dataset(make(tmp_path, NNUNET, files))
    assert error.value.found == found
    if "number" in problem:
        assert error.value.expected == "CASE_0000 (T1)"
    if "folder" in problem:
        assert (error.value.path, error.value.expected) == (tmp_path / found.partition(",")[0], "labelsTr")


@pytest.mark.parametrize(
    "name",
    [
        "labelsTr/a.nii",
        "labelsTr/a.NII.GZ",
        "imagesTr/b_0000.NII.GZ",
        "imagesTs/t_0000.nii",
        "imagesUn/u.mha",
    ],
)
def test_another_ending_than_the_declared_one_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="another ending than declared") as error:
        open_dataset(make(tmp_path, NNUNET, ["imagesTr/a_0000.nii.gz", name]))
    assert error.value.path == tmp_path / name
    assert "without file_ending" in str(error.value.do)


def test_without_a_declared_ending_any_mixture_is_used(tmp_path: Path) -> None:
    meta = {key: value for key, value in NNUNET.items() if key != "file_ending"}
    files = ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii", "imagesTr/b_0000.NII", "labelsTr/b.Nii.Gz"]
    dataset = open_dataset(make(tmp_path, meta, [*files, "labelsTr/.DS_Store", "labelsTr/._a.nii.gz"]))
    assert labeled(dataset.cases) == ["a", "b"]
    assert dataset.notices == ()
    (tmp_path / "imagesTr" / "a_0000.nii").touch()
    with pytest.raises(UserError, match="Two files differ in the ending alone"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("ending", ["nii.gz", ".NII.GZ", " .nii.gz", None])
def test_an_ending_is_understood_without_its_dot_and_a_byte_order_mark_is_skipped(
    tmp_path: Path, ending: str | None
) -> None:
    make(tmp_path, {**NNUNET, "file_ending": ending}, "imagesTr/a_0000 labelsTr/a")
    path = tmp_path / "dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert labeled(open_dataset(tmp_path).cases) == ["a"]


def test_links_to_nothing_are_named(tmp_path: Path) -> None:
    root = make(tmp_path, NNUNET, "imagesTr/a_0000 labelsTr/b imagesTr/b_0000")
    (root / "labelsTr" / "a.nii.gz").symlink_to(root / "gone.nii.gz")
    with pytest.raises(UserError, match="link to a file that does not exist") as error:
        open_dataset(root)
    assert error.value.path == root / "labelsTr" / "a.nii.gz"
    meta = {**MSD, "training": [{"image": "imagesTr/a_0000.nii.gz", "label": "labelsTr/a.nii.gz"}]}
    with pytest.raises(UserError, match="link to a file that does not exist"):
        open_dataset(make(tmp_path, meta))


def test_files_that_are_not_used_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = "imagesTr/a_0000 imagesTr/a.h5 imagesTr/.hidden labelsTr/a.txt imagesUn/x.npy"
    dataset = open_dataset(make(tmp_path, NNUNET, files))
    assert {Path(str(n.path)).name: n.found for n in dataset.notices} == {
        "imagesTr": "a.h5", "labelsTr": "a.txt", "imagesUn": "x.npy",
    }  # fmt: skip
    open_dataset(tmp_path)
    assert len(caplog.messages) == 3 and "a.h5" in caplog.text
    write_index(dataset, tmp_path / "work")
    assert len(open_dataset(tmp_path / "work").notices) == 3


def test_fewer_cases_than_declared_and_folders_with_names_of_scans(tmp_path: Path) -> None:
    root = make(tmp_path, {**NNUNET, "numTraining": 2}, "imagesTr/a_0000")
    assert [(notice.found, notice.expected) for notice in open_dataset(root).notices] == [
        ("1 cases", "2 (numTraining)")
    ]
    (root / "imagesTr" / "b_0000.nii.gz").mkdir()
    with pytest.raises(UserError, match="scan is a folder"):
        open_dataset(root)


@pytest.mark.parametrize("name", ["../../x", "", 3, None, "x" * 300, "a\nb"])
def test_a_name_that_is_no_file_name_is_not_taken(tmp_path: Path, name: object) -> None:
    assert open_dataset(make(tmp_path / "d", {**NNUNET, "name": name}, "imagesTr/a_0000")).name == "d"


@pytest.mark.parametrize("name", ["caf\udce9", "x" * 201, "line\nbreak"])
def test_names_that_outputs_cannot_have(tmp_path: Path, name: str) -> None:
    root = make(tmp_path, NNUNET)
    (root / "imagesTr").mkdir()
    (root / "imagesTr" / f"{name}_0000.nii.gz").touch()
    with pytest.raises(UserError, match="cannot be a file name") as error:
        open_dataset(root)
    str(error.value).encode()


@pytest.mark.parametrize("name", ["a\0", "\ud800", "\udce9"])
def test_paths_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    entry = {"image": "imagesTr/a.nii.gz", "label": f"labelsTr/{name}.nii.gz"}
    root = make(tmp_path, {**MSD, "training": [entry]}, "imagesTr/a")
    (notice,) = open_dataset(root).notices
    str(notice).encode()
    with pytest.raises(UserError) as error:
        open_dataset(make(tmp_path, {**MSD, "training": [{"image": f"imagesTr/{name}.nii.gz"}]}))
    str(error.value).encode()


def test_a_list_that_is_not_read_is_named(tmp_path: Path) -> None:
    entries = [{"image": "imagesTr/a.nii.gz"}]
    root = make(tmp_path, {**MSD, "training": entries, "validation": entries * 2}, "imagesTr/a")
    assert [notice.found for notice in open_dataset(root).notices] == ["validation: 2 entries"]


def test_labels_that_a_list_names_but_nobody_has(tmp_path: Path) -> None:
    """With spare label files it is a typing error; without them the cases are unlabeled, and named."""
    entries = [{"image": f"imagesTr/{name}.nii.gz", "label": f"labels/{name}.nii.gz"} for name in "ab"]
    root = make(tmp_path, {**MSD, "training": entries}, "imagesTr/a imagesTr/b")
    dataset = open_dataset(root)
    assert labeled(dataset.cases) == []
    assert "labels/a.nii.gz, labels/b.nii.gz" in str(dataset.notices[0].found)
    (root / "labelsTr").mkdir()
    (root / "labelsTr" / "a.nii.gz").touch()
    with pytest.raises(UserError, match="lists do not exist") as error:
        open_dataset(root)
    assert "labels/a.nii.gz" in str(error.value.found) and "not listed: a.nii.gz" in str(error.value.found)


def test_unknown_case_names_the_nearest(tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path, NNUNET, [f"imagesTr/case{i}_0000.nii.gz" for i in (12, 77)]))
    with pytest.raises(UserError, match="did you mean case12") as error:
        dataset.case("case_12")
    assert error.value.found == "case_12"
    with pytest.raises(UserError, match="case12, case77"):
        dataset.case("xyz")


@pytest.mark.parametrize(
    ("labels", "class_names", "class_values"),
    [
        ({"background": 0, "a": 1, "b": 2}, ("background", "a", "b"), (0, 1, 2)),
        ({"enhancing": 4, "edema": 2, "background": 0, "core": 1}, None, (0, 1, 2, 4)),
        ({"0": "background", "10": "ten", "2": "two"}, ("background", "two", "ten"), (0, 2, 10)),
        ({"0": "background", "1": "2"}, ("background", "2"), (0, 1)),
        ({"outside": 0, "below": -1, "above": 1}, ("outside", "below", "above"), (0, -1, 1)),
    ],
)
def test_label_declarations(
    tmp_path: Path, labels: dict[str, Any], class_names: tuple[str, ...] | None, class_values: tuple[int, ...]
) -> None:
    dataset = open_dataset(make(tmp_path, {**NNUNET, "labels": labels}, "imagesTr/a_0000"))
    assert dataset.class_values == class_values
    assert dataset.class_names == (class_names or ("background", "core", "edema", "enhancing"))


def test_regions_of_nnunet_become_classes_and_regions(tmp_path: Path) -> None:
    """BraTS as nnU-Net declares it: nested regions, the innermost of one value."""
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3], "ignore": 4}
    meta = {**NNUNET, "labels": labels, "regions_class_order": [1, 2, 3]}
    dataset = open_dataset(make(tmp_path, meta, "imagesTr/a_0000"))
    assert dataset.class_names == ("background", "label_1", "label_2", "enhancing")
    assert dataset.class_values == (0, 1, 2, 3)
    assert dataset.ignore_value == 4
    assert dataset.regions == {"whole": (1, 2, 3), "core": (2, 3)}
    own = open_dataset(make(tmp_path, {**meta, "regions": {"rim": [1, 3]}}, []))
    assert own.regions == {"rim": (1, 3)}


@pytest.mark.parametrize(
    "labels",
    [
        None,
        {},
        ["background", "liver"],
        {"background": 0, "liver": 1, "ignore": 1},
        {"background": 0, "liver": 1, "ignore": "rest"},
        {"background": 0, "liver": 1, "ignore": 2, "Ignore": 3},
        {"background": 0, "whole": [1, 2], "core": "x"},
        {"background": 0, "whole": [1, 2.0], "core": 2},
        {"background": 0, "whole": [], "core": 2},
        {"background": 0, "label_1": [1, 2], "core": 2},
        {"background": 0, "whole": [1, 2], "core": [2], "rim": 2},
        {"whole": [1, 2], "core": 2},
        {"background": 0, "liver": 1.5},
        {"background": 0, "liver": True},
        {"background": 0, "liver": "one"},
        {"liver": 1},
        {"background": 0, "a": 1, "b": 1},
        {"0": "background", "1": "x", "2": "x"},
        {"background": 0},
        {"background": 0, **{f"c{i}": i for i in range(1, 256)}},
    ],
)
def test_bad_label_declarations(tmp_path: Path, labels: object) -> None:
    with pytest.raises(UserError, match="classes are not declared") as error:
        open_dataset(make(tmp_path, {**NNUNET, "labels": labels}, "imagesTr/a_0000"))
    assert error.value.path == tmp_path / "dataset.json"
    assert str(labels)[:60] in str(error.value.found)


def test_of_many_classes_the_wrong_ones_are_named(tmp_path: Path) -> None:
    many = {"background": 0, **{f"structure_{index}": index for index in range(1, 105)}}
    for wrong, found in (({"odd": 7.5}, "odd: 7.5; "), ({"odd": 7}, "odd: 7, structure_7: 7; ")):
        with pytest.raises(UserError, match="classes are not declared") as error:
            open_dataset(make(tmp_path, {**NNUNET, "labels": many | wrong}, "imagesTr/a_0000"))
        assert str(error.value.found).startswith(found)


@pytest.mark.parametrize("channels", [{}, {"1": "T1"}, {"a": "T1"}, [], "T1"])
def test_bad_channel_declarations(tmp_path: Path, channels: object) -> None:
    with pytest.raises(UserError, match="channels are not declared"):
        open_dataset(make(tmp_path, {**NNUNET, "channel_names": channels}, "imagesTr/a_0000"))


def test_another_file_ending(tmp_path: Path) -> None:
    files = "imagesTr/a_0000.nii labelsTr/a.nii"
    assert labeled(open_dataset(make(tmp_path, {**NNUNET, "file_ending": ".nii"}, files)).cases) == ["a"]
    with pytest.raises(UserError, match="not supported yet") as error:
        open_dataset(make(tmp_path, {**NNUNET, "file_ending": ".nrrd"}, files))
    assert error.value.found == ".nrrd"


def test_msd_missing_image(tmp_path: Path) -> None:
    meta = {**MSD, "training": [{"image": "./imagesTr/a.nii.gz"}, {"image": "./imagesTr/b.nii.gz"}]}
    with pytest.raises(UserError, match="Case b: the image of channel CT is missing"):
        open_dataset(make(tmp_path, meta, "imagesTr/a"))


@pytest.mark.parametrize(
    "entry",
    [3, {"label": "a.nii.gz"}, {"image": "a.txt"}, {"image": []}, None, {"image": "a.nii.gz", "label": 1}],
)
def test_msd_malformed_entry(tmp_path: Path, entry: object) -> None:
    for entries in ([entry], {"image": "a.nii.gz"}):
        with pytest.raises(UserError, match="malformed"):
            open_dataset(make(tmp_path, {**MSD, "training": entries}))


@pytest.mark.parametrize("order", ["case_1", [1], {"a": 1}])
def test_a_malformed_order_is_refused(tmp_path: Path, order: object) -> None:
    with pytest.raises(UserError, match="order of the cases is malformed"):
        open_dataset(make(tmp_path, {**MSD, "order": order}, "imagesTr/a"))


def test_unknown_layout_lists_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "patient 7.nii.gz").touch()
    with pytest.raises(UserError, match="no data set of a known layout") as error:
        open_dataset(tmp_path / "scans")
    text = str(error.value)
    assert all(word in text for word in ("channel_names", "modality", "semivox", "patient 7.nii.gz"))
    with pytest.raises(UserError, match="keys labels, numTraining"):
        open_dataset(make(tmp_path / "b", {"labels": {}, "numTraining": 3}))
    with pytest.raises(UserError, match="no data set of a known layout") as error:
        open_dataset(make(tmp_path / "c", [1, 2]))
    assert error.value.found == "a dataset.json without names and values"
    with pytest.raises(UserError, match="does not exist"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "c" / "dataset.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="not valid JSON"):
        open_dataset(tmp_path / "c")


def example(root: Path) -> Dataset:
    files = [
        "imagesTr/a_0000.nii.gz",
        "imagesTr/ä b_0000.nii.gz",
        "labelsTr/a.nii.gz",
        "imagesUn/u_0000.nii.gz",
    ]
    return open_dataset(make(root, {**NNUNET, "name": "Größe"}, files))


def test_index_round_trip_outside_the_data(tmp_path: Path) -> None:
    dataset = example(tmp_path / "data")
    write_index(dataset, tmp_path / "work")
    assert open_dataset(tmp_path / "work") == dataset
    index = json.loads((tmp_path / "work" / "dataset.json").read_text(encoding="utf-8"))
    assert index["format"] == "semivox"
    assert all(Path(path).is_absolute() for case in index["cases"] for path in case["images"])
    write_index(dataset, tmp_path / "work")


def test_index_with_the_data_inside_can_be_moved(tmp_path: Path) -> None:
    dataset = example(tmp_path / "work" / "data")
    write_index(dataset, tmp_path / "work")
    assert open_dataset(tmp_path / "work") == dataset
    shutil.move(tmp_path / "work", tmp_path / "elsewhere")
    moved = open_dataset(tmp_path / "elsewhere")
    assert moved.case("a").label == tmp_path / "elsewhere" / "data" / "labelsTr" / "a.nii.gz"
    assert moved.root == tmp_path / "elsewhere" / "data"


def test_index_without_its_files(tmp_path: Path) -> None:
    dataset = example(tmp_path / "data")
    write_index(dataset, tmp_path / "work")
    (tmp_path / "data" / "labelsTr" / "a.nii.gz").unlink()
    opened = open_dataset(tmp_path / "work")
    assert opened.case("a").label is None
    assert opened.notices[0].found == "a.nii.gz"
    (tmp_path / "data" / "imagesTr" / "a_0000.nii.gz").unlink()
    with pytest.raises(UserError, match="Case a: the image of channel T1 is missing"):
        open_dataset(tmp_path / "work")


def test_index_never_replaces_the_users_description(tmp_path: Path) -> None:
    dataset = example(tmp_path / "data")
    before = (tmp_path / "data" / "dataset.json").read_bytes()
    with pytest.raises(UserError, match="another form"):
        write_index(dataset, tmp_path / "data")
    assert (tmp_path / "data" / "dataset.json").read_bytes() == before


@pytest.mark.parametrize("change", [{"version": 2}, {"cases": 3}, {"surprise": 1}])
def test_damaged_index(tmp_path: Path, change: dict[str, Any]) -> None:
    write_index(example(tmp_path / "data"), tmp_path / "work")
    index = json.loads((tmp_path / "work" / "dataset.json").read_text(encoding="utf-8"))
    with pytest.raises(UserError, match="index is damaged or of another version"):
        open_dataset(make(tmp_path / "work", {**index, **change}))


@pytest.mark.real
def test_real_hippocampus(real_data: Path) -> None:
    dataset = open_dataset(real_data / "hippocampus")
    assert (dataset.name, dataset.channels) == ("Hippocampus", ("MRI",))
    assert dataset.class_names == ("background", "Anterior", "Posterior")
    assert [len(dataset.pool(pool)) for pool in ("train", "test", "extra")] == [160, 40, 0]
    assert len(labeled(dataset.cases)) == 200
    assert dataset.case("hippocampus_003").label == dataset.root / "labelsTs" / "hippocampus_003.nii.gz"


@pytest.mark.real
def test_real_left_atrium(real_data: Path) -> None:
    dataset = open_dataset(real_data / "la2018")
    assert (dataset.name, dataset.channels) == ("LA2018", ("LGE-MR",))
    assert (dataset.class_names, dataset.class_values) == (("background", "left_atrium"), (0, 1))
    assert names(dataset.pool("train")) == (real_data / "la2018" / "train.list").read_text().split()
    assert names(dataset.pool("test")) == sorted((real_data / "la2018" / "test.list").read_text().split())
    assert len(labeled(dataset.cases)) == 90
