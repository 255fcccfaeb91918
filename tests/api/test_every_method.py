"""What a user may rely on with every registered method, from scans on disk to weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import semivox
from semivox.config import Config, load_config
from semivox.methods import METHODS
from semivox.training.checkpoints import last_path, load
from semivox.training.step import Stepper

SETTINGS: dict[str, Any] = {
    "net": {"width": 2},
    "split": {"labeled": 2},
    "plan": {"spacing_mm": (2.5, 2.5, 2.5), "patch": (32, 16, 16)},
}


class CrashError(Exception):
    """Stands for a crash in the middle of a run."""


@pytest.fixture(scope="module")
def workspaces(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Prepared data: with every file in order, and with hidden label files that are not NIfTI files."""
    place = tmp_path_factory.mktemp("every method")
    config = load_config(**SETTINGS)
    workspace, split, _ = semivox.prepare(phantoms, config=config, work=place / "whole", workers=0)
    shutil.copytree(phantoms, place / "data")
    for name in split.unlabeled:
        (place / "data" / "labelsTr" / f"{name}.nii.gz").write_bytes(b"not a scan")
    other, _, _ = semivox.prepare(place / "data", config=config, work=place / "hidden", workers=0)
    return workspace.folder, other.folder


def four_steps(name: str) -> Config:
    """Settings that reach the later phases of every method."""
    train = {"iterations": 4, "workers": 0, "schedule": "poly", "checkpoint_every": 2, "diagnose_every": 9}
    options = {"labels_iterations": 0} if name == "self_training" else {}
    return load_config(method={"name": name, "options": options}, train=train, **SETTINGS)


@pytest.mark.parametrize("name", METHODS)
def test_hidden_labels_and_interruptions_change_nothing(
    name: str, workspaces: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that crashed and was started again, without readable labels of unlabeled cases, ends with the
    same weights, to the last bit, as one that ran through with every file in order and was diagnosed."""
    whole, hidden = workspaces
    draw = "semivox.reporting.diagnosis.save_diagnosis"
    monkeypatch.setattr(draw, lambda table, *_, **__: table.with_suffix(".png").touch())
    straight = semivox.train(whole, config=four_steps(name), out=tmp_path / "straight", diagnose=True)
    assert (straight / "diagnosis" / "diagnosis.png").is_file()

    step = Stepper.step

    def crash(stepper: Stepper, iteration: int, *batches: Any) -> None:
        if iteration == 3:
            raise CrashError
        step(stepper, iteration, *batches)

    with monkeypatch.context() as patch, pytest.raises(CrashError):
        patch.setattr(Stepper, "step", crash)
        semivox.train(hidden, config=four_steps(name), out=tmp_path / "resumed")
    kept = 3 if name == "self_training" else 2  # the end of a stage is saved as well
    assert load(last_path(tmp_path / "resumed")).iteration == kept
    resumed = semivox.train(hidden, config=four_steps(name), out=tmp_path / "resumed")
    assert (resumed / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
