"""`semivox import` and `fetch` as typed."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from semivox.datasets.dataset import open_dataset
from semivox.errors import UserError
from shell import passes as semivox

CASE = "06SR5RBREL16DQ6M8LWS"


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def test_pairs(tmp_path: Path) -> None:
    label = np.zeros((4, 5, 6), np.uint8)
    label[1], label[2] = 2, 9
    save(tmp_path / "raw" / "p1" / "t1.nii.gz", np.zeros((4, 5, 6), np.int16))
    save(tmp_path / "raw" / "p1" / "seg.nii.gz", label)
    out = tmp_path / "out"
    arguments = ("import", tmp_path / "raw", "-o", out, "--images", "T1={case}/t1.nii.gz")
    arguments = (*arguments, "--labels", "{case}/seg.nii.gz", "--class", "organ=2", "--ignore", 9)
    text = semivox(*arguments)
    assert "1 training cases (1 with a label file)" in text
    assert "channels T1; classes organ" in text
    assert f"next: semivox prepare -d {out}" in text
    assert json.loads((out / "dataset.json").read_text())["labels"] == {
        "background": 0, "organ": 2, "ignore": 9,
    }  # fmt: skip
    assert json.loads((out / "run_report.json").read_text())["import"]["cases"] == 1


def test_recipe(tmp_path: Path) -> None:
    folder = tmp_path / "raw" / CASE
    folder.mkdir(parents=True)
    for name, value in (("lgemri", 90), ("laendo", 255)):
        array = np.zeros((6, 130, 130), np.uint8)
        array[2:4, 50:70, 50:70] = value
        sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / f"{name}.nrrd"))
    text = semivox("import", "la2018", tmp_path / "raw", "-o", tmp_path / "out", "--crop", "published")
    assert "99 of 100 published cases are missing" in text
    assert "the labels of all cases" in text
    assert f"next: semivox prepare -d {tmp_path / 'out'} --preset la-8\n" in text
    assert [case.name for case in open_dataset(tmp_path / "out").cases] == [CASE]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("la2018",), "needs the folder of the download"),
        (("la2019", "."), "import_dataset: kind"),
        (("la2018", ".", "--kind", "h5"), "la2018 has no use for another option"),
        ((".", "--crop", "published"), "without a meaning here"),
        (("brats2019", "nowhere"), "The source is no folder"),
        ((".", "--class", "organ"), "A class is malformed"),
        ((".", "--class", "organ=0"), "A class is malformed"),
        ((".",), "no data set of a known layout"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=problem):
        semivox("import", *arguments, "-o", "out")


def test_fetch_without_an_archive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not in the mirror"):
        semivox("fetch", "hippocampus", tmp_path / "out", "--from", tmp_path)
