"""`info` and `check` as functions: what they measure, and which labels they leave alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import semivox
from semivox.config import load_config
from semivox.datasets.check import CheckResult


@pytest.fixture
def folder(phantoms: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(phantoms, tmp_path / "data"))


def labels(folder: Path) -> list[Path]:
    return sorted((folder / "labelsTr").glob("*.nii.gz"))


def test_info_opens_labels_of_labeled_cases_alone_and_no_test_case(folder: Path, tmp_path: Path) -> None:
    for path in [*labels(folder)[2:], *(folder / "imagesTs").iterdir(), *(folder / "labelsTs").iterdir()]:
        path.write_bytes(b"not to be read")
    config = load_config(split={"labeled": 2})
    found = semivox.info(folder, config=config, figure=tmp_path / "a.png", workers=0)
    content = json.loads(json.dumps(found.as_dict()))
    cases = content["cases"]
    assert (
        len(cases) == 6
        and [case["class_volumes_ml"] is not None for case in cases] == [True] * 2 + [False] * 4
    )
    image = nib.load(labels(folder)[0])
    name = content["summary"]["labeled_cases"][0]
    first = nib.load(folder / "labelsTr" / f"{name}.nii.gz")
    voxel_ml = abs(np.linalg.det(first.affine[:3, :3])) / 1000
    values = np.asarray(first.dataobj)
    for label, value in list(content["labels"].items())[1:]:
        assert cases[0]["class_volumes_ml"][label] == pytest.approx((values == value).sum() * voxel_ml)
    assert cases[0]["shape"] == list(image.shape)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_a_workspace_is_seen_with_its_own_split_and_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    config = load_config(split={"labeled": 2, "val": 1}, plan={"patch": (16, 16, 16)})
    workspace, split, _ = semivox.plan(folder, config=config, work=tmp_path / "work")
    before = {path: path.stat().st_mtime_ns for path in workspace.folder.rglob("*")}
    hidden = [folder / "labelsTr" / f"{name}.nii.gz" for name in split.unlabeled]
    for path in hidden:
        path.write_bytes(b"not to be read")
    assert semivox.info(workspace.folder, workers=0).split == split
    result = semivox.check(workspace.folder, workers=0)
    assert (result.errors, result.hidden, result.cases) == (0, 3, 8)
    assert semivox.check(folder, workers=0).errors == 3
    assert {path: path.stat().st_mtime_ns for path in workspace.folder.rglob("*")} == before


def test_check_goes_on_without_any_label(folder: Path) -> None:
    for path in labels(folder):
        path.unlink()
    result: CheckResult = semivox.check(folder, workers=0)
    assert [problem.what for problem in result.problems if problem.severity == "error"] != []
    assert result.as_dict()["errors"] == result.errors
    (folder / "imagesTr" / "phantom_000_0000.nii.gz").unlink(missing_ok=True)
    assert semivox.check(folder, workers=0).errors == result.errors
