"""Voxels that are not annotated, from the label file to the scores."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import semivox
from semivox.config import PlanConfig, SplitConfig, load_config
from semivox.data.dataset import open_dataset, write_index
from semivox.data.fingerprint import fingerprint
from semivox.data.plan import make_plan
from semivox.data.prepare import prepare
from semivox.data.splits import make_split
from semivox.data.store import Store
from semivox.data.volume import IGNORE
from semivox.errors import UserError

SHAPE = (20, 18, 16)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two cases; half of the first label is not annotated (value 7)."""
    root = tmp_path / "raw"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    meta = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 3, "ignore": 7}}
    (root / "dataset.json").write_text(json.dumps(meta))
    for seed, name in enumerate("ab"):
        image = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), root / "imagesTr" / f"{name}_0000.nii.gz")
        nib.save(nib.Nifti1Image(label_of(name), np.eye(4)), root / "labelsTr" / f"{name}.nii.gz")
    return root


def label_of(name: str) -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[4:8, 5:9, 6:10] = 3
    if name == "a":
        label[10:] = 7
    return label


def test_from_the_file_to_the_store(raw: Path, tmp_path: Path) -> None:
    dataset = open_dataset(raw)
    assert (dataset.class_values, dataset.ignore_value) == ((0, 3), 7)
    write_index(dataset, tmp_path / "work")
    assert open_dataset(tmp_path / "work") == dataset
    split = make_split(dataset, SplitConfig())
    measured = fingerprint(dataset, split).cases[0]
    assert measured.class_volumes_ml == {"organ": pytest.approx(0.064)}
    plan = make_plan(dataset, split, PlanConfig(patch=(16, 16, 16)))
    assert plan.ignore_value == 7
    drawn: dict[str, set[int]] = {}
    prepare(
        dataset,
        split,
        plan,
        tmp_path / "store",
        workers=0,
        on_case=lambda name, _, label: drawn.update({name: set(np.unique(label).tolist())}),
    )
    store = Store(tmp_path / "store")
    stored = np.asarray(store.label("a")[:])
    np.testing.assert_array_equal(stored, np.array([0, 0, 0, 1, 0, 0, 0, IGNORE], np.uint8)[label_of("a")])
    assert len(store.foreground_voxels("a")) == 64
    assert drawn == {"a": {0, 1}, "b": {0, 1}}


def test_training_says_that_it_cannot(raw: Path, tmp_path: Path) -> None:
    config = load_config(
        method={"name": "supervised"}, net={"width": 2}, plan={"patch": (16, 16, 16)}, train={"workers": 0}
    )
    with pytest.raises(UserError, match="not annotated is not supported yet"):
        semivox.train(raw, config=config, out=tmp_path / "run", work=tmp_path / "work")


def test_scores_leave_them_out(raw: Path, tmp_path: Path) -> None:
    """The prediction is right where there is a label, and all organ where there is none."""
    (raw / "imagesTs").mkdir()
    (raw / "labelsTs").mkdir()
    for old, new in (("imagesTr/a_0000", "imagesTs/t_0000"), ("labelsTr/a", "labelsTs/t")):
        (raw / f"{new}.nii.gz").write_bytes((raw / f"{old}.nii.gz").read_bytes())
    predicted = np.where(label_of("a") == 7, 3, label_of("a")).astype(np.uint8)
    (tmp_path / "predicted").mkdir()
    nib.save(nib.Nifti1Image(predicted, np.eye(4)), tmp_path / "predicted" / "t.nii.gz")
    table = semivox.evaluate(tmp_path / "predicted", data=raw, workers=0)
    assert table["dice"].tolist() == [1.0]
    assert table["fp"].tolist() == [0]
