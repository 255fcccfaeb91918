"""Voxels that are not annotated, from the label file to the scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scans import Raw, save

import semivox
from semivox.config import Config, PlanConfig, SplitConfig, load_config
from semivox.datasets.dataset import open_dataset, write_index
from semivox.datasets.splits import make_split
from semivox.errors import UserError
from semivox.io.volume import IGNORE
from semivox.methods.base import Batch
from semivox.methods.supervised import Supervised
from semivox.preprocessing.fingerprint import fingerprint
from semivox.preprocessing.planner import make_plan
from semivox.preprocessing.prepare import Preparation
from semivox.preprocessing.store import Store
from semivox.training.step import Stepper
from semivox.training.validation import _dice

SHAPE = (20, 18, 16)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two cases; half of the first label is not annotated (value 7)."""
    root = Raw(tmp_path / "raw", {"organ": 3, "ignore": 7})
    for seed, name in enumerate("ab"):
        root.add(
            name, np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32), label=label_of(name)
        )
    return root.root


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
    measured = fingerprint(dataset, split)
    assert measured.cases[0].class_volumes_ml == {"organ": pytest.approx(0.064)}
    plan = make_plan(dataset, measured, PlanConfig(patch=(16, 16, 16)))
    assert plan.ignore_value == 7
    drawn: dict[str, set[int]] = {}
    Preparation(dataset, split, plan, tmp_path / "store").run(
        0, lambda name, _, label: drawn.update({name: set(np.unique(label).tolist())})
    )
    store = Store(tmp_path / "store")
    stored = np.asarray(store.label("a")[:])
    np.testing.assert_array_equal(stored, np.array([0, 0, 0, 1, 0, 0, 0, IGNORE], np.uint8)[label_of("a")])
    assert len(store.foreground_voxels("a")) == 64
    assert drawn == {"a": {0, 1}, "b": {0, 1}}


def settings(method: str, **split: object) -> Config:
    train = {"workers": 0, "iterations": 2, "precision": "32", "device": "cpu"}
    plan = {"patch": (16, 16, 16), "spacing_mm": (2, 2, 2)}
    return load_config(method={"name": method}, net={"width": 2}, plan=plan, train=train, split=split)


def test_training_does_not_depend_on_them(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are the same whatever stands in the store's label where nothing is annotated."""
    config = settings("supervised")
    first = semivox.train(raw, config=config, out=tmp_path / "run", work=tmp_path / "work")
    seen = []

    def hide(stepper: Stepper, iteration: int, labeled: Batch, unlabeled: Batch) -> None:
        assert labeled.valid is not None and labeled.label is not None
        seen.append(float(labeled.valid.float().mean()))
        changed = labeled._replace(label=torch.where(labeled.valid, labeled.label, 1))
        step(stepper, iteration, changed, unlabeled)

    step = Stepper.step
    monkeypatch.setattr(Stepper, "step", hide)
    second = semivox.train(raw, config=config, out=tmp_path / "again", work=tmp_path / "work")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert seen and all(0.5 < share < 1 for share in seen)


def test_validation_and_diagnosis_leave_them_out(raw: Path, tmp_path: Path) -> None:
    """Cases that have them are validated on ("a") and diagnosed with ("c")."""
    fold = {"labeled": ["b"], "unlabeled": ["c"], "val": ["a"], "test": []}
    for file in ("imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz"):
        (raw / file.format("c")).write_bytes((raw / file.format("a")).read_bytes())
    (tmp_path / "splits.json").write_text(
        json.dumps({"format": "semivox-splits", "version": 1, "folds": [fold]})
    )
    config = settings("dual", file=str(tmp_path / "splits.json"))
    run = semivox.train(raw, config=config, out=tmp_path / "run", work=tmp_path / "work", diagnose=True)
    table = pd.read_csv(run / "diagnosis" / "diagnosis.csv")
    assert {"dice", "ece", "purity"} <= set(table["measure"]) and np.isfinite(table["value"]).all()


def test_validation_scores_where_there_is_a_label() -> None:
    reference = np.array([0, 1, 1, IGNORE, IGNORE], np.uint8)
    assert _dice(np.array([0, 1, 0, 1, 0]), reference, 1).tolist() == [2 / 3]


def test_a_method_that_does_not_know_of_them_is_refused(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supervised, "partial_labels", False)
    with pytest.raises(UserError, match="cannot leave out voxels"):
        semivox.train(raw, config=settings("supervised"), out=tmp_path / "run", work=tmp_path / "work")


def test_scores_leave_them_out(raw: Path, tmp_path: Path) -> None:
    """The prediction is right where there is a label, and all organ where there is none."""
    (raw / "imagesTs").mkdir()
    (raw / "labelsTs").mkdir()
    for old, new in (("imagesTr/a_0000", "imagesTs/t_0000"), ("labelsTr/a", "labelsTs/t")):
        (raw / f"{new}.nii.gz").write_bytes((raw / f"{old}.nii.gz").read_bytes())
    predicted = np.where(label_of("a") == 7, 3, label_of("a")).astype(np.uint8)
    save(tmp_path / "predicted" / "t.nii.gz", predicted)
    table = semivox.evaluate(tmp_path / "predicted", data=raw, workers=0)
    assert table["dice"].tolist() == [1.0]
    assert table["fp"].tolist() == [0]
