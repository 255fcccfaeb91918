"""What belongs to semivox in a folder, and which settings a run resumes with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from semivox.config import Config, load_config
from semivox.errors import UserError
from semivox.manifest import Manifest
from semivox.run import Run

MADE_FROM: dict[str, Any] = {
    "dataset": "heart in /a",
    "split": {"a": "labeled", "b": "unlabeled"},
    "plan": {"patch": [16, 16, 16]},
    "files": {"imagesTr/a.nii.gz": "1", "labelsTr/a.nii.gz": "2"},
}


@pytest.fixture
def budgeted(tmp_path: Path) -> Run:
    """A run of 60 iterations that a budget of 12 s has found."""
    run = Run(tmp_path / "run")
    run.start(asked(iterations=60, budget_s=12.0), MADE_FROM)
    return run


def asked(**train: object) -> Config:
    return load_config(train=train)


def test_a_run_with_a_budget_resumes_with_the_same_or_is_extended_by_iterations(budgeted: Run) -> None:
    assert budgeted.resume_config(asked(budget_s=12.0)).train.iterations == 60
    longer = asked(iterations=90)
    assert budgeted.resume_config(longer, MADE_FROM, extend=True) == longer


def test_settings_of_another_version_are_named_with_their_file(budgeted: Run) -> None:
    budgeted.config_file.write_text("train: {final_share: 0.5}\n")
    with pytest.raises(UserError, match=r"train\.final_share") as raised:
        budgeted.resume_config(asked())
    assert raised.value.path == budgeted.config_file


@pytest.mark.parametrize(
    ("train", "extend"),
    [
        ({"iterations": 90}, False),
        ({"iterations": 50}, True),
        ({"iterations": 90, "lr": 0.5}, True),
        ({"iterations": 90, "budget_s": 20.0}, True),
    ],
)
def test_anything_else_is_another_run(budgeted: Run, train: dict[str, float], extend: bool) -> None:
    with pytest.raises(UserError, match=r"train\.iterations: 60 stored|train\.budget_s"):
        budgeted.resume_config(asked(**train), extend=extend)


@pytest.mark.parametrize(
    "train",
    [
        {"workers": 7, "device": "cpu", "precision": "32"},
        {"log_every": 3, "checkpoint_every": 5, "validate_every": 2, "diagnose_every": 9},
    ],
)
def test_what_cannot_change_the_result_is_taken_as_asked(budgeted: Run, train: dict[str, Any]) -> None:
    """Also a preset's name, and settings of split and plan that lead to the same ones."""
    config = load_config(
        train={"budget_s": 12.0, **train}, plan={"patch": (16, 16, 16)}, split={"labeled": 1}
    )
    resumed = budgeted.resume_config(config.model_copy(update={"preset": "lite"}), MADE_FROM)
    assert resumed.train == config.train.model_copy(update={"iterations": 60})


def test_a_run_without_a_list_of_its_files_is_left_alone(tmp_path: Path) -> None:
    for name in ("config.yaml", "model.safetensors", "model.yaml"):
        (tmp_path / name).write_text("old")
    (tmp_path / "run_report.json").write_text('{"train": {"semivox": "0.1.0"}}')
    for fresh in (False, True):
        with pytest.raises(UserError, match="did not write"):
            Run(tmp_path).check(asked(), fresh=fresh)
        with pytest.raises(UserError, match="A file stands where a folder is needed"):
            Run(tmp_path / "config.yaml").check(asked(), fresh=fresh)
    assert (tmp_path / "config.yaml").read_text() == "old"


def test_validation_matters_where_it_chooses_the_result(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.start(asked(selection="val", validate_every=10))
    with pytest.raises(UserError, match=r"train\.validate_every: 10 stored, 5 asked"):
        run.resume_config(asked(selection="val", validate_every=5))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"files": {**MADE_FROM["files"], "labelsTr/a.nii.gz": "3"}}, r"found: +labelsTr/a\.nii\.gz has"),
        ({"files": {"imagesTr/a.nii.gz": "1"}}, r"labelsTr/a\.nii\.gz is gone"),
        ({"split": {"a": "labeled", "b": "unlabeled", "c": "val"}}, "c: unused before, val now"),
        ({"plan": {"patch": [32, 16, 16]}}, r"patch: \[16, 16, 16\] before, \[32, 16, 16\] now"),
        ({"dataset": "liver in /b", "files": {}}, "made from heart in /a, not from liver in /b"),
    ],
)
def test_other_data_are_refused_by_name(budgeted: Run, change: dict[str, Any], text: str) -> None:
    config = asked(budget_s=12.0)
    with pytest.raises(UserError, match=rf"(?s)begun with other data.*{text}.*--fresh"):
        budgeted.resume_config(config, {**MADE_FROM, **change})
    assert budgeted.resume_config(config, {**MADE_FROM, "dataset": "heart in /moved"}).train.iterations == 60


def test_only_own_files_are_overwritten_and_deleted(tmp_path: Path) -> None:
    mine = ("logs/thesis.txt", "checkpoints/other.pt", "notes.txt")
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    run = Run(tmp_path)
    run.start(asked(), MADE_FROM)
    with pytest.raises(RuntimeError), run.manifest.adopting("logs", "checkpoints"):
        (tmp_path / "logs/tensorboard").mkdir()
        for name in ("logs/metrics.csv", "logs/tensorboard/events.1", "checkpoints/last.ckpt"):
            (tmp_path / name).write_text("")
        raise RuntimeError
    run.manifest.remove()
    left = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(left) == sorted(mine)
    assert not (tmp_path / "logs/tensorboard").exists()


@pytest.mark.parametrize("name", ["config.yaml", "splits.json", "model.safetensors", "checkpoints/last.ckpt"])
def test_a_folder_with_foreign_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    run = Run(tmp_path)
    run.manifest.remove()
    for call in (run.resume_config, run.start):
        with pytest.raises(UserError, match=rf"(?s)did not write.*{name}.*another folder"):
            call(asked())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


def test_edits_are_noticed(tmp_path: Path) -> None:
    manifest, path = Manifest(tmp_path), tmp_path / "plans.json"
    manifest.claim("plans.json")
    path.write_text("own")
    assert not manifest.is_edited("plans.json"), "killed before it was signed"
    manifest.sign("plans.json")
    assert not manifest.is_edited("plans.json") and not manifest.is_edited("absent.json")
    path.write_text("edited")
    assert manifest.is_edited("plans.json") and manifest.owns("plans.json")
    (tmp_path / "foreign.json").write_text("")
    assert manifest.is_edited("foreign.json") and not manifest.owns("foreign.json")


def test_a_manifest_cannot_delete_outside_its_folder(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside.txt", tmp_path / "run"
    outside.write_text("mine")
    manifest = Manifest(folder)
    manifest.update(files={"../outside.txt": None, str(outside): None, "a.txt": None})
    (folder / "a.txt").touch()
    manifest.remove()
    assert outside.exists() and not (folder / "a.txt").exists()


def test_each_verb_keeps_its_newest_entry(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    for number in (1, 2):
        manifest.report("plan", number=number)
    manifest.report("train", labeled=3)
    content = manifest.read()
    assert (content["plan"]["number"], content["train"]["labeled"]) == (2, 3)


def test_what_was_made_with_older_weights_is_not_current(tmp_path: Path) -> None:
    run, weights = Run(tmp_path), tmp_path / "model.safetensors"
    assert not run.is_current("report.html")
    for file, seconds in ((tmp_path / "report.html", 100), (weights, 100)):
        file.touch()
        os.utime(file, (seconds, seconds))
    assert run.is_current("report.html")
    os.utime(weights, (101, 101))
    assert not run.is_current("report.html")
