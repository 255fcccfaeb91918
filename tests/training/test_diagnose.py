"""`train --diagnose`: the same weights, labels that are only looked at, and a report that says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import semivox
from semivox.config import load_config, overridden
from semivox.errors import UserError

CONFIG = load_config(
    method={"name": "dual"},
    net={"width": 2},
    split={"labeled": 2},
    plan={"spacing_mm": (2.5, 2.5, 2.5), "patch": (16, 16, 16)},
    train={"iterations": 3, "workers": 0, "precision": "32", "device": "cpu", "diagnose_every": 2},
)
SUPERVISED = overridden(CONFIG, {"method": {"name": "supervised"}, "train": {"iterations": 1}})


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace for all runs on the phantoms as they are."""
    return tmp_path_factory.mktemp("diagnose") / "work"


@pytest.fixture(scope="module")
def diagnosed(phantoms: Path, work: Path) -> Path:
    return semivox.train(phantoms, config=CONFIG, out=work.parent / "run", work=work, diagnose=True)


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def table(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "diagnosis" / "diagnosis.csv")


def test_weights_do_not_depend_on_the_diagnosis(
    phantoms: Path, work: Path, diagnosed: Path, tmp_path: Path
) -> None:
    plain = semivox.train(phantoms, config=CONFIG, out=tmp_path / "run", work=work)
    assert weights(plain) == weights(diagnosed)
    assert not (plain / "diagnosis").exists()


def test_hidden_labels_change_what_is_measured_but_nothing_that_is_trained(
    phantoms: Path, diagnosed: Path, tmp_path: Path
) -> None:
    copy, work = tmp_path / "data", tmp_path / "work"
    shutil.copytree(phantoms, copy)
    for name in json.loads((diagnosed / "splits.json").read_text())["folds"][0]["unlabeled"]:
        path = copy / "labelsTr" / f"{name}.nii.gz"
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.roll(np.asarray(image.dataobj), 5, axis=0), image.affine), path)
    changed = semivox.train(copy, config=CONFIG, out=tmp_path / "run", work=work, diagnose=True)
    assert weights(changed) == weights(diagnosed)
    assert len(list((work / "store").glob("*.label.b2nd"))) == 2  # of the labeled cases
    tables = [table(run).set_index(["iteration", "of", "part"]) for run in (diagnosed, changed)]
    a, b = (found.loc[found["measure"] == "gradient", "value"] for found in tables)
    pd.testing.assert_series_equal(a, b, check_exact=True)
    a, b = (found.loc[found["measure"] == "recall", "value"] for found in tables)
    assert (a != b).any()


def test_what_is_written(diagnosed: Path) -> None:
    found = table(diagnosed)
    assert sorted(set(found["iteration"])) == [0, 2, 3]
    assert (diagnosed / "diagnosis" / "diagnosis.png").stat().st_size > 10_000
    names = {"a", "b", "cps_a", "cps_b", "joint", "filtered", "reliable", "prediction"}
    assert set(found.loc[found["measure"] == "dice", "of"]) == names
    gradients = found[found["measure"] == "gradient"]
    assert set(gradients["part"]) == {"net_a", "net_b"}
    assert set(gradients["of"]) == {"sup_a", "sup_b", "cr", "ue", "cps", "efs", "pgl", "sum"}
    assert set(gradients.loc[gradients["of"] == "sup_a", "part"]) == {"net_a"}
    assert found.loc[~found["measure"].isin(["gradient", "volume"]), "value"].between(0, 1).all()
    report = json.loads((diagnosed / "run_report.json").read_text())["train"]
    assert report["diagnosed"] is True
    assert report["diagnosis"] == "labels of unlabeled cases were opened for diagnosis, never for training"


def test_a_supervised_run_is_diagnosed_and_fresh_forgets_it(
    phantoms: Path, work: Path, tmp_path: Path
) -> None:
    run = semivox.train(phantoms, config=SUPERVISED, out=tmp_path / "run", work=work, diagnose=True)
    found = table(run)
    assert sorted(set(found["iteration"])) == [0, 1]
    assert set(found.loc[found["measure"] == "dice", "of"]) == {"vnet", "prediction"}

    semivox.train(phantoms, config=SUPERVISED, out=run, work=work, fresh=True)
    assert not (run / "diagnosis").exists()
    assert "diagnosed" not in json.loads((run / "run_report.json").read_text())["train"]
    with pytest.raises(UserError, match=r"(?s)finished, and was not diagnosed.*--fresh"):
        semivox.train(phantoms, config=SUPERVISED, out=run, work=work, diagnose=True)


def test_without_hidden_label_files_it_says_so(phantoms: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(phantoms, copy)
    for path in sorted((copy / "labelsTr").iterdir())[2:]:
        path.unlink()
    with pytest.raises(UserError, match=r"(?s)no unlabeled case has a label file.*4 unlabeled"):
        semivox.train(copy, config=CONFIG, out=tmp_path / "run", work=tmp_path / "work", diagnose=True)
    assert not (tmp_path / "run").exists()
