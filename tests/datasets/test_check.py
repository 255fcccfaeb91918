"""`check` finds each kind of problem, names the file, and lets sound data sets pass."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scans import Raw, save

from semivox.config import load_config
from semivox.datasets.check import Problem, check_case, check_folder
from semivox.datasets.dataset import open_dataset
from semivox.datasets.splits import Split, save_splits

SHAPE = (8, 9, 10)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


class Tree(Raw):
    """Six sound cases, a to f, and one test case; all may be replaced."""

    def __init__(self, root: Path, channels: tuple[str, ...] = ("T1",)) -> None:
        super().__init__(root, {"x": 1}, channels, AFFINE)
        for number, name in enumerate("abcdef"):
            self.sound(name, number)
        self.sound("t", 6, pool="Ts")

    def sound(self, name: str, number: int, pool: str = "Tr") -> None:
        images = [self.noise(number + 100 * index) for index in range(len(self.channels))]
        self.add(name, *images, label=self.blob(number), pool=pool)

    @staticmethod
    def noise(number: int) -> np.ndarray:
        return np.random.default_rng(number).normal(100, 10, SHAPE).astype(np.float32)

    @staticmethod
    def blob(number: int) -> np.ndarray:
        label = np.zeros(SHAPE, np.uint8)
        label[1 : 3 + number % 4, 2:4, 3 : 6 + number // 4] = 1
        return label

    def check(self, split: Split | None = None, **options: Any) -> list[Problem]:
        return check(self.root, split, **options)


def check(
    root: Path, split: Split | None = None, *, trust: bool = False, workers: int = 0, **options: Any
) -> list[Problem]:
    config = {"plan": {"trust_image_geometry": trust}}
    if split is not None:
        save_splits(root / "chosen.json", [split])
        config["split"] = {"file": str(root / "chosen.json")}
    return list(check_folder(root, load_config(**config), workers=workers, **options).problems)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def one(problems: list[Problem]) -> Problem:
    assert len(problems) == 1, problems
    return problems[0]


def test_sound_data_pass(tree: Tree) -> None:
    assert tree.check() == []


def test_all_problems_of_all_files_are_found_in_one_pass(tree: Tree) -> None:
    """Each file has its own trouble; none hides another one."""
    bad = tree.noise(0)
    bad[0, 0, 0], bad[0, 0, 1] = np.nan, -np.inf
    expected = {
        tree.image("a", bad): "values that are not finite",
        tree.label("a", np.full(SHAPE, 7, np.uint8)): "no class of this data set",
        tree.image("c", np.zeros((*SHAPE, 1, 3), np.float32)): "not a 3D image",
        tree.label("d", tree.blob(3)[:-1]): "shape differs from that of its image",
        tree.label("e", tree.blob(4), np.eye(4)): "affine differs from that of its image",
        tree.label("f", np.full(SHAPE, 0.5, np.float32)): "not integers",
    }
    cut = tree.image("b", tree.noise(1))
    cut.write_bytes(cut.read_bytes()[:-20])
    expected[cut] = "cannot be read as NIfTI"
    problems = tree.check()
    assert {problem.path for problem in problems} == set(map(str, expected))
    for path, text in expected.items():
        assert text in one([problem for problem in problems if problem.path == str(path)]).what
    assert all(p.severity == "error" and p.case and p.found and p.expected and p.do for p in problems)


def test_worker_processes_find_the_same(tree: Tree) -> None:
    tree.label("b", np.zeros(SHAPE, np.uint8))
    tree.image("c", tree.noise(0))
    seen: list[tuple[int, int]] = []
    report = nullcontext(lambda done, total, name: seen.append((done, total)))
    parallel = tree.check(workers=2, progress=lambda title: report)
    assert parallel == tree.check() and len(parallel) == 2
    assert seen == [(n, 7) for n in range(1, 8)]


def test_labels_that_the_split_hides_are_not_opened(tree: Tree) -> None:
    tree.label("a", tree.blob(0)).write_bytes(b"not to be read")
    (tree.root / "labelsTr" / "b.nii.gz").write_bytes(b"nor this")
    split = Split(labeled=("c", "d"), unlabeled=("a", "b", "e", "f"), test=("t",))
    assert tree.check(split) == []
    assert len(tree.check()) == 2


@pytest.mark.parametrize("form", ["type", "axes", "compression"])
def test_a_scan_on_both_sides_of_the_split_is_an_error_in_any_form(tree: Tree, form: str) -> None:
    array = np.random.default_rng(9).integers(0, 200, SHAPE).astype(np.int16)
    tree.image("b", array.astype(np.float32))
    if form == "axes":
        tree.image("t", array[::-1].transpose(2, 0, 1), np.array(
            [[0.0, -1, 0, 7], [0, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 1]]), pool="Ts")  # fmt: skip
        tree.label("t", tree.blob(2)[::-1].transpose(2, 0, 1), np.array(
            [[0.0, -1, 0, 7], [0, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 1]]), pool="Ts")  # fmt: skip
    else:
        tree.image("t", array, pool="Ts")
    problem = one(tree.check())
    assert problem.severity == "error" and "test cases is also used otherwise" in problem.what
    assert "b (labeled, b_0000.nii.gz)" in str(problem.found) and "t (test" in str(problem.found)
    within = Split(labeled=tuple("abcdef"), unlabeled=("t",))
    assert one([p for p in tree.check(within) if "same image" in p.what]).severity == "warning"
    validation = Split(labeled=tuple("acdef"), val=("b",), unlabeled=("t",))
    assert "val cases" in one([p for p in tree.check(validation) if "used otherwise" in p.what]).what


def test_two_equal_channels(tmp_path: Path) -> None:
    tree = Tree(tmp_path, channels=("T1", "T2"))
    tree.image("b", tree.noise(1), index=1)
    problem = one(tree.check())
    assert problem.severity == "error" and "Two channels of a case" in problem.what
    assert problem.case == "b"


def test_channels_on_different_grids(tmp_path: Path) -> None:
    tree = Tree(tmp_path, channels=("T1", "T2"))
    path = tree.image("b", tree.noise(77), np.eye(4), index=1)
    assert one(tree.check()).path == str(path)
    assert tree.check(trust=True) == []


def test_empty_labels_and_absent_classes(tree: Tree) -> None:
    path = tree.label("c", np.zeros(SHAPE, np.uint8))
    assert one(tree.check()).path == str(path)
    tree.describe({"background": 0, "x": 1, "y": 2})
    empty, absent = tree.check()
    assert empty.severity == absent.severity == "warning"
    assert "no voxel of y in 6 labels" in str(absent.found)


def test_classes_count_in_the_labels_that_train(tree: Tree) -> None:
    """A class in a test label alone, or in a label that the split hides, cannot be learnt."""
    tree.describe({"background": 0, "x": 1, "y": 2})
    tree.label("t", 2 * tree.blob(6), pool="Ts")
    tree.label("f", 2 * tree.blob(5))
    split = Split(labeled=tuple("abcde"), unlabeled=("f",), test=("t",))
    assert "no voxel of y in 5 labels" in str(one(tree.check(split)).found)
    assert tree.check() == []
    for name in "abc":
        tree.label(name, np.zeros(SHAPE, np.uint8))
    problem, *empty = tree.check(
        Split(labeled=("a", "b", "c"), unlabeled=("d", "e"), val=("f",), test=("t",))
    )
    assert problem.severity == "error" and "All labels of the labeled cases are empty" in problem.what
    assert len(empty) == 3


def test_a_constant_scan(tree: Tree) -> None:
    tree.image("c", np.full(SHAPE, 5, np.int16))
    problem = one(tree.check())
    assert problem.severity == "error" and problem.case == "c" and "constant" in problem.what


def test_a_header_that_places_the_scan_in_two_ways(tree: Tree) -> None:
    two_ways = nib.Nifti1Image(tree.noise(2), AFFINE)
    two_ways.set_qform(np.diag([-1.0, 1, 2, 1]), 1)
    tree.image("c", two_ways)
    (problem,) = tree.check()
    assert problem.severity == "warning" and "in two ways" in problem.what
    assert Path(problem.path).name == "c_0000.nii.gz"


def test_an_implausible_voxel_size(tree: Tree) -> None:
    for name in "abcdef":
        tree.image(name, tree.noise(ord(name)), np.diag([0.001, 0.001, 0.002, 1]))
        tree.label(name, tree.blob(ord(name) - 97), np.diag([0.001, 0.001, 0.002, 1]))
    assert sum("implausible" in problem.what for problem in tree.check()) == 6


def test_structure_is_reported_as_a_whole(tree: Tree) -> None:
    for name in ("b_0001", "wrong", "h_000"):
        save(tree.root / "imagesTr" / f"{name}.nii.gz", tree.noise(0), AFFINE)
    tree.label("nobody", tree.blob(0))
    (tree.root / "labelsTr" / "notes.txt").write_text("")
    problems = tree.check()
    errors = [problem for problem in problems if problem.severity == "error"]
    assert sorted(Path(str(problem.path)).name for problem in errors) == [
        "b_0001.nii.gz", "h_000.nii.gz", "labelsTr", "wrong.nii.gz",
    ]  # fmt: skip
    unused = [problem for problem in problems if "does not use" in problem.what]
    assert {Path(str(problem.path)).name: problem.found for problem in unused} == {
        "imagesTr": "b_0001.nii.gz, h_000.nii.gz, wrong.nii.gz",
        "labelsTr": "nobody.nii.gz, notes.txt",
    }


def test_msd_lists_are_read_past_bad_entries(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    good = {"image": "./imagesTr/a_0000.nii.gz", "label": "./labelsTr/a.nii.gz"}
    content = {
        "modality": {"0": "MR"},
        "labels": {"0": "background", "1": "x"},
        "training": [3, good, {"image": "./imagesTr/gone.nii.gz"}, {"label": "x"}],
        "test": [],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    errors = [problem for problem in tree.check() if problem.severity == "error"]
    assert ["malformed" in p.what for p in errors] == [True, True, False]
    assert errors[2].path == str(tmp_path.resolve() / "imagesTr" / "gone.nii.gz")


def test_a_single_file_has_to_hold_all_channels(tree: Tree) -> None:
    dataset = open_dataset(tree.root)
    report = check_case(dataset.case("a"), replace(dataset, channels=("T1", "T2")), False)
    assert "expected 2, found 1" in report.problems[0].what


@pytest.mark.real
def test_real_trouble(real_data: Path, tmp_path: Path) -> None:
    """A truncated copy, infinite voxels, a displacement field, a foreign label, a scan on both sides."""
    source = real_data / "formats" / "sct_testing"
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (tmp_path / folder).mkdir()
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "cord": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    images = {
        "t1": "t1/t1w",
        "t2": "t2/t2",
        "mtr": "mtr",
        "warp": "t2/warp_template2anat",
        "other": "t2s/t2s",
    }
    labels = {"t1": "t1/t1w_seg-manual", "t2": "t2/t2_seg-manual", "other": "t2/t2_centerline-manual"}
    for name, file in images.items():
        (tmp_path / "imagesTr" / f"{name}_0000.nii.gz").symlink_to(source / f"{file}.nii.gz")
    for name, file in labels.items():
        (tmp_path / "labelsTr" / f"{name}.nii.gz").symlink_to(source / f"{file}.nii.gz")
    (tmp_path / "imagesTs" / "leak_0000.nii.gz").symlink_to(source / "t2" / "t2.nii.gz")
    data = (source / "t1" / "t1w.nii.gz").read_bytes()
    (tmp_path / "imagesTr" / "cut_0000.nii.gz").write_bytes(data[: len(data) // 2])
    split = Split(labeled=("t1", "t2", "other"), unlabeled=("mtr", "warp", "cut"), test=("leak",))
    problems = check(tmp_path, split)
    assert {problem.case: problem.what for problem in problems if problem.severity == "error"} == {
        "cut": "The file cannot be read as NIfTI",
        "mtr": "The image holds values that are not finite",
        "other": "The shape differs from that of its image",
        "warp": "The file is not a 3D image",
        "leak": "A scan of the test cases is also used otherwise",
    }
