"""From a folder of scans to scores: what a user gets from each verb."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

import semivox
from semivox.config import Config, load_config, overridden
from semivox.errors import UserError
from semivox.inference.model import load_model
from semivox.training.estimate import Costs
from semivox.training.loop import FitResult
from semivox.training.runs import batch_sizes
from shell import passes, run


@pytest.fixture(scope="module")
def finished(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps, with predictions and scores in `test/`."""
    place = tmp_path_factory.mktemp("whole way")
    config = load_config(
        method={"name": "dual"},
        net={"width": 2},
        split={"labeled": 2, "val": 1},
        plan={"spacing_mm": (2.5, 2.5, 2.5), "patch": (16, 16, 16)},
        train={"iterations": 4, "workers": 0, "schedule": "poly", "validate_every": 2, "checkpoint_every": 2},
    )
    run = semivox.train(phantoms, config=config, out=place / "run", work=place / "work")
    semivox.predict(run, phantoms / "imagesTs", run / "test")
    semivox.evaluate(run / "test", data=phantoms, workers=0)
    return run


def test_the_run_folder_is_complete(finished: Path) -> None:
    for name in (
        "config.yaml", "env.json", "splits.json", "plans.json", "run_report.json", "model.safetensors",
        "model.yaml", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "logs/metrics.csv",
    ):  # fmt: skip
        assert (finished / name).is_file(), name
    report = json.loads((finished / "run_report.json").read_text())["train"]
    assert report["iterations"] == 4
    assert report["checkpoint"] == "last"
    assert len(report["labeled"]) == 2


def test_the_workspace_shows_what_was_prepared(finished: Path) -> None:
    work = finished.parent / "work"
    assert len(list((work / "overlays").glob("*.png"))) == 6
    split = json.loads((work / "splits.json").read_text())["folds"][0]
    assert [len(split[role]) for role in ("labeled", "unlabeled", "val", "test")] == [2, 3, 1, 2]


def test_predictions_lie_on_the_source_grid(finished: Path, phantoms: Path) -> None:
    for source in sorted((phantoms / "imagesTs").glob("*.nii.gz")):
        image = nib.load(source)
        found = nib.load(finished / "test" / source.name.replace("_0000", ""))
        assert found.shape == image.shape
        np.testing.assert_allclose(found.affine, image.affine, atol=1e-4)
        assert set(np.unique(np.asarray(found.dataobj))) <= {0, 1, 2}


def test_scores_are_written_for_each_case_and_class(finished: Path) -> None:
    table = pd.read_csv(finished / "test" / "metrics.csv")
    assert len(table) == 4
    summary = json.loads((finished / "test" / "summary.json").read_text())
    assert {"foreground_mean", "mean", "metric_per_case"} <= set(summary)
    assert summary["foreground_mean"]["Dice"] == pytest.approx(table["dice"].mean(), nan_ok=True)


def test_a_run_moves_without_its_workspace(finished: Path, phantoms: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(finished, moved)
    source = next((phantoms / "imagesTs").glob("*.nii.gz"))
    prediction = semivox.predict_image(moved, nib.load(source), probabilities=True, members=True)
    stored = nib.load(finished / "test" / source.name.replace("_0000", ""))
    np.testing.assert_array_equal(prediction.label, np.asarray(stored.dataobj))
    assert prediction.probs is not None
    np.testing.assert_allclose(prediction.probs.sum(0), 1, atol=1e-3)
    assert set(prediction.members) == {"resnet34", "vnet"}


def test_the_same_call_again_changes_nothing(finished: Path, phantoms: Path) -> None:
    config = load_config(file=finished / "config.yaml")
    before = (finished / "model.safetensors").stat().st_mtime_ns
    semivox.train(phantoms, config=config, out=finished, work=finished.parent / "work")
    assert (finished / "model.safetensors").stat().st_mtime_ns == before


def test_other_settings_in_the_same_folder_are_refused(finished: Path, phantoms: Path) -> None:
    config = overridden(load_config(file=finished / "config.yaml"), {"train": {"lr": 0.5}})
    with pytest.raises(UserError, match=r"(?s)train\.lr.*--fresh"):
        semivox.train(phantoms, config=config, out=finished, work=finished.parent / "work")


def test_a_run_is_extended_on_the_longer_schedule(finished: Path, phantoms: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    config = overridden(load_config(file=run / "config.yaml"), {"train": {"iterations": 6}})
    again = {"config": config, "out": run, "work": finished.parent / "work"}
    with pytest.raises(UserError, match=r"train\.iterations"):
        semivox.train(phantoms, **again)
    semivox.train(phantoms, **again, extend=True)
    report = json.loads((run / "run_report.json").read_text())
    assert (report["extend"]["iterations_before"], report["train"]["iterations"]) == (4, 6)
    assert pd.read_csv(run / "logs" / "metrics.csv")["iteration"].is_monotonic_increasing
    assert yaml.safe_load((run / "config.yaml").read_text())["train"]["iterations"] == 6
    assert (run / "model.safetensors").read_bytes() != (finished / "model.safetensors").read_bytes()
    shorter = {**again, "config": overridden(config, {"train": {"iterations": 5}})}
    with pytest.raises(UserError, match=r"train\.iterations"):
        semivox.train(phantoms, **shorter, extend=True)


def test_patches_a_step_of_one_method(quick: Config) -> None:
    asked = overridden(quick, {"method": {"batch": (1, 3)}})
    assert batch_sizes(asked) == (1, 3)
    assert batch_sizes(overridden(asked, {"train": {"batch_unlabeled": 0}})) == (1, 0)
    assert batch_sizes(quick) == (2, 2)
    other = load_config(preset="la-8-lite", method={"name": "supervised"})
    assert (load_config(preset="la-8-lite").method.batch, other.method.batch) == ((1, 2), None)


@pytest.fixture
def tiny(quick: Config) -> Config:
    """No validation, so no report."""
    return overridden(quick, {"split": {"val": 0}, "train": {"iterations": 1}})


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace for the runs of `tiny` on the phantoms as they are."""
    return tmp_path_factory.mktemp("tiny") / "work"


def test_seeds_decide_the_weights(phantoms: Path, tiny: Config, work: Path, tmp_path: Path) -> None:
    weights = []
    for index, seed in enumerate((0, 0, 1)):
        config = overridden(tiny, {"train": {"seed": seed}})
        run = semivox.train(phantoms, config=config, out=tmp_path / str(index), work=work)
        weights.append((run / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_selection_by_validation_uses_the_best_checkpoint(
    finished: Path, phantoms: Path, quick: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semivox.api.runs.report_after_training", lambda *_: None)
    config = overridden(quick, {"train": {"selection": "val"}})
    run = semivox.train(phantoms, config=config, out=tmp_path / "run", work=finished.parent / "work")
    report = json.loads((run / "run_report.json").read_text())["train"]
    assert report["checkpoint"].startswith("best on validation cases")
    table = pd.read_csv(run / "logs" / "metrics.csv")
    assert report["best"]["dice"] == pytest.approx(table["val_dice"].max())


def test_a_budget_is_found_once_and_kept(
    phantoms: Path, tiny: Config, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semivox.training.runs.probe", lambda *_, **__: Costs(step_s=0.15))
    monkeypatch.setattr("semivox.training.runs.fit", lambda *_, **__: FitResult(0, 0.0, None))
    budget = {"budget_s": 12.0, "validate_every": None, "checkpoint_every": None}
    config = overridden(tiny, {"train": budget, "method": {"name": "supervised_matched"}})
    run = semivox.train(phantoms, config=config, out=tmp_path / "run", work=work)
    stored = yaml.safe_load((run / "config.yaml").read_text())["train"]
    assert 60 <= stored["iterations"] <= 67  # (12 s - 2 s of start-up) / 0.15 s
    semivox.train(phantoms, config=config, out=run, work=work)  # the same request: no contradiction


def test_no_labels_at_all_is_explained(phantoms: Path, tiny: Config, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(phantoms, copy)
    shutil.rmtree(copy / "labelsTr")
    with pytest.raises(UserError, match="label"):
        semivox.train(copy, config=tiny, out=tmp_path / "run", work=tmp_path / "work")


def test_a_patch_larger_than_the_scans_is_padded(phantoms: Path, tiny: Config, tmp_path: Path) -> None:
    config = overridden(tiny, {"plan": {"patch": (48, 48, 48)}})
    run = semivox.train(phantoms, config=config, out=tmp_path / "run", work=tmp_path / "work")
    assert len(semivox.predict(run, phantoms / "imagesTs", tmp_path / "out")) == 2


def test_names_with_spaces_and_unicode(phantoms: Path, tiny: Config, tmp_path: Path) -> None:
    copy = tmp_path / "Größe und Lage"
    shutil.copytree(phantoms, copy)
    for folder, suffix in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        first = sorted((copy / folder).iterdir())[0]
        first.rename(copy / folder / f"Ärztin Žofie 1{suffix}")
    run = semivox.train(copy, config=tiny, out=tmp_path / "run", work=tmp_path / "work")
    assert (tmp_path / "work" / "overlays" / "Ärztin Žofie 1.png").is_file()
    source = copy / "imagesTr" / "Ärztin Žofie 1_0000.nii.gz"
    (written,) = semivox.predict(run, source, tmp_path / "out")
    assert written.name == "Ärztin Žofie 1.nii.gz"


def test_init_starts_from_the_weights_of_a_run(finished: Path, phantoms: Path, tmp_path: Path) -> None:
    """Through the command, with steps too small to change a weight; other networks are refused by name."""
    narrow = ("--set", "net.width=2", "--set", "train.workers=0", "--set", "train.lr=1e-30")
    where = ("-d", phantoms, "--work", finished.parent / "work", "--labeled", 2, "--val", 1)
    plan = ("--set", "plan.spacing_mm=[2.5,2.5,2.5]", "--set", "plan.patch=[16,16,16]")
    again = ("train", *where, *plan, *narrow, "--iterations", 1, "--init", finished, "-o", tmp_path / "new")
    passes(*again, "--method", "dual", "--set", "train.weight_decay=0")
    old, new = (load_file(run / "model.safetensors") for run in (finished, tmp_path / "new"))
    learned = [name for name in old if "running_" not in name and not name.endswith("_tracked")]
    assert learned and all(torch.equal(old[name], new[name]) for name in learned)
    other = run(*again, "--fresh", "--method", "supervised")
    assert other.exit_code == 1 and "use --method and settings of that run" in str(other.exception)


def test_init_is_checked_before_a_scan_is_read_and_before_fresh_deletes(
    finished: Path, phantoms: Path, tmp_path: Path
) -> None:
    where = {"work": tmp_path / "work", "out": finished, "fresh": True}
    weights = (finished / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="no trained model"):
        semivox.train(phantoms, config={"train": {"init": str(tmp_path / "none")}}, **where)
    assert not (tmp_path / "work").exists()
    with pytest.raises(UserError, match="--fresh would delete the run to start from"):
        semivox.train(phantoms, config={"train": {"init": str(finished)}, "split": {"labeled": 2}}, **where)
    refused = run("train", "-d", phantoms, "--budget", "30m", "--iterations", 5)
    assert "leave out --iterations" in str(refused.exception)
    with pytest.raises(UserError, match="run folder is the data set itself"):
        semivox.train(phantoms, out=phantoms, work=tmp_path / "work")
    with pytest.raises(UserError, match="fresh and extend contradict"):
        semivox.train(phantoms, extend=True, **where)
    assert (finished / "model.safetensors").read_bytes() == weights


def test_a_stride_asks_for_windows_of_the_patch(finished: Path) -> None:
    model = load_model(finished)
    whole = model.settings(window="whole")
    assert (whole.window, whole.stride) == ("whole", None)
    assert model.settings(stride=(4, 4, 4), overlap=None).window == "patch"
    with pytest.raises(UserError, match="overlap"):
        model.settings(overlap=1.5)
