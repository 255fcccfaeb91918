"""Predictions exported as labels of an nnU-Net data set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import semivox
from semivox.config import PlanConfig, SplitConfig
from semivox.datasets.dataset import open_dataset
from semivox.datasets.splits import make_split, save_splits
from semivox.errors import UserError
from semivox.inference.model import save_model
from semivox.io.volume import read_image, read_label
from semivox.methods import create
from semivox.nets import NetFactory
from semivox.preprocessing.fingerprint import fingerprint
from semivox.preprocessing.planner import make_plan


@pytest.fixture(scope="module")
def source(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training phantoms with label values 0, 3, 7, as a data set of their own."""
    folder = tmp_path_factory.mktemp("source")
    dataset = open_dataset(phantoms)
    for case in dataset.pool("train"):
        image = nib.load(case.images[0])
        (folder / "imagesTr").mkdir(exist_ok=True)
        (folder / "labelsTr").mkdir(exist_ok=True)
        nib.save(image, folder / "imagesTr" / case.images[0].name)
        assert case.label is not None
        values = np.array([0, 3, 7], np.uint8)[np.asarray(nib.load(case.label).dataobj)]
        nib.save(nib.Nifti1Image(values, image.affine), folder / "labelsTr" / f"{case.name}.nii.gz")
    meta = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 3, "b": 7}}
    (folder / "dataset.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture(scope="module")
def run(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model and a split: all that a run folder needs here."""
    folder, dataset = tmp_path_factory.mktemp("run"), open_dataset(source)
    split = make_split(dataset, SplitConfig(labeled=2, val=1))
    settings = PlanConfig(spacing_mm=(2.5, 2.5, 2.5), patch=(16, 16, 16))
    plan = make_plan(dataset, fingerprint(dataset, split), settings)
    net = {"in_channels": 1, "num_classes": 3, "width": 2}
    torch.manual_seed(0)
    method = create("supervised", {}, NetFactory(**net))
    save_model(method, folder, method_name="supervised", options={}, net=net, plan=plan)
    save_splits(folder / "splits.json", [split])
    return folder


def test_real_labels_stay_and_unlabeled_cases_get_predictions(
    source: Path, run: Path, tmp_path: Path
) -> None:
    split = json.loads((run / "splits.json").read_text())["folds"][0]
    hidden = [source / "labelsTr" / f"{name}.nii.gz" for name in split["unlabeled"]]
    kept = {path: path.read_bytes() for path in hidden}
    for path in hidden:
        path.write_bytes(b"not to be opened")
    try:
        made = semivox.pseudo_label(run, source, tmp_path / "out")
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
    meta = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert meta["labels"] == {"background": 0, "a": 1, "b": 2}
    assert meta["pseudo_labels"] == split["unlabeled"]
    assert meta["real_labels"] == [*split["labeled"], *split["val"]]
    assert meta["numTraining"] == len(made.pool("train")) == 6
    folds = json.loads((tmp_path / "out" / "splits_final.json").read_text())
    assert folds == [{"train": [*split["labeled"], *split["unlabeled"]], "val": split["val"]}]
    original = open_dataset(source)
    for case in made.cases:
        assert case.label is not None
        image = read_image(case.images)
        found = read_label(case.label, (0, 1, 2), like=image).array
        before = original.case(case.name)
        assert case.images[0].read_bytes() == before.images[0].read_bytes()
        assert before.label is not None
        if case.name in meta["real_labels"]:
            np.testing.assert_array_equal(found, read_label(before.label, (0, 3, 7)).array)
        else:
            predicted = tmp_path / "out" / "predictions" / f"{case.name}.nii.gz"
            np.testing.assert_array_equal(found, read_label(predicted, (0, 3, 7)).array)


def test_another_data_set_is_refused(phantoms: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trained on another data set"):
        semivox.pseudo_label(run, phantoms, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_data_set_itself_is_not_overwritten(source: Path, run: Path) -> None:
    before = (source / "dataset.json").read_bytes()
    with pytest.raises(UserError, match="the data set itself"):
        semivox.pseudo_label(run, source, source)
    assert (source / "dataset.json").read_bytes() == before


def test_another_data_set_is_not_overwritten(source: Path, run: Path, tmp_path: Path) -> None:
    """A copy of the data set with all its labels, as it may lie in `nnUNet_raw`."""
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="holds another data set"):
        semivox.pseudo_label(run, source, copy)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_pseudo_labels_of_another_model_are_replaced_on_request(
    source: Path, run: Path, tmp_path: Path
) -> None:
    semivox.pseudo_label(run, source, tmp_path)
    changed = {"window": "patch", "overlap": 0.25}
    with pytest.raises(UserError, match="exists already"):
        semivox.pseudo_label(run, source, tmp_path, config=changed)
    semivox.pseudo_label(run, source, tmp_path, config=changed, overwrite=True)
    made = json.loads((tmp_path / "predictions" / "predict.json").read_text())["cases"]
    assert {case["settings"]["overlap"] for case in made.values()} == {0.25}
