"""Runs whose last part is trained on whole scans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import semivox
import semivox.training.validation as validation
from semivox.config import Config, TrainConfig, overridden
from semivox.errors import UserError
from semivox.inference.model import load_model
from semivox.io.geometry import Triple
from semivox.training.estimate import Costs

PATCH, FINAL = (16, 16, 16), (48, 32, 48)


@pytest.fixture
def config(quick: Config) -> Config:
    train = {"iterations": 4, "final_share": 0.5, "validate_every": 1}
    return overridden(quick, {"plan": {"patch": PATCH, "final_patch": FINAL}, "train": train})


@pytest.fixture
def train(phantoms: Path, tmp_path: Path) -> Callable[[Config], Path]:
    return lambda config: semivox.train(phantoms, config=config, out=tmp_path / "run", work=tmp_path / "work")


def test_windows_are_as_large_as_the_patches_of_the_weights(
    train: Callable[[Config], Path], config: Config, phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, covered = [], validation.covered

    def spy(*arguments: Any, **settings: Any) -> Any:
        used.append(settings["patch"])
        return covered(*arguments, **settings)

    monkeypatch.setattr(validation, "covered", spy)
    run = train(config)
    assert used == [PATCH] * 2 + [FINAL] * 2  # one validation case, four times
    assert load_model(run).plan.patch == FINAL
    assert yaml.safe_load((run / "plans.json").read_text())["patch"] == list(PATCH)
    assert len(semivox.predict(run, phantoms / "imagesTs", run / "test")) == 2


def test_the_best_weights_keep_the_patches_that_they_have_seen(
    train: Callable[[Config], Path], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation is made to like the second of four iterations most."""
    scores = iter([0.1, 0.9, 0.5, 0.6])
    monkeypatch.setattr("semivox.training.runs.make_validator", lambda *_: lambda *_: {"dice": next(scores)})
    run = train(overridden(config, {"train": {"selection": "val"}}))
    assert pd.read_csv(run / "logs" / "metrics.csv")["val_dice"].tolist() == [0.1, 0.9, 0.5, 0.6]
    assert load_model(run).plan.patch == PATCH


@pytest.mark.parametrize(("best", "patch"), [(2, PATCH), (5, FINAL)])
def test_a_finished_run_gets_a_final_part(
    phantoms: Path, tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch, best: int, patch: Triple
) -> None:
    """Weights from before the extension have seen no final patch, wherever the longer schedule has them."""
    scores = iter([0.9 if iteration == best else 0.1 for iteration in range(1, 7)])
    monkeypatch.setattr("semivox.training.runs.make_validator", lambda *_: lambda *_: {"dice": next(scores)})
    for iterations, share, extend in ((4, 0.0, False), (6, 0.9, True)):
        train = {"iterations": iterations, "final_share": share, "selection": "val"}
        longer = overridden(config, {"train": train})
        run = semivox.train(
            phantoms, config=longer, out=tmp_path / "run", work=tmp_path / "work", extend=extend
        )
    assert load_model(run).plan.patch == patch
    assert f"(iteration {best})" in yaml.safe_load((run / "model.yaml").read_text())["checkpoint"]


def test_a_budget_counts_both_parts(
    train: Callable[[Config], Path], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe(_method: object, _loaders: object, settings: TrainConfig, **_: object) -> Costs:
        return Costs(step_s={0.0: 0.1, 1.0: 0.3}[settings.final_share])

    monkeypatch.setattr("semivox.training.runs.probe", probe)
    budget = {"budget_s": 12.0, "validate_every": None, "checkpoint_every": None, "final_share": 0.25}
    run = train(
        overridden(config, {"train": budget, "split": {"val": 0}, "method": {"name": "supervised_matched"}})
    )
    iterations = yaml.safe_load((run / "config.yaml").read_text())["train"]["iterations"]
    assert 60 <= iterations <= 67  # (12 s - 2 s of start-up) / (3/4 * 0.1 s + 1/4 * 0.3 s)


def test_final_patches_without_room_are_refused_before_the_run(
    train: Callable[[Config], Path], config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe(_method: object, make_loaders: Any, *_: object, **__: object) -> Costs:
        batch = next(iter(make_loaders(0, 0, 1)["labeled"]))
        assert tuple(batch["image"].shape[2:]) == FINAL
        raise UserError("The device ran out of memory")

    monkeypatch.setattr("semivox.training.runs.probe", probe)
    with pytest.raises(UserError, match="memory"):
        train(config)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_finished_run_stays_as_it_is_where_a_final_part_has_no_room(
    train: Callable[[Config], Path],
    phantoms: Path,
    tmp_path: Path,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def probe(*_: object, **__: object) -> Costs:
        raise UserError("The device ran out of memory")

    run = train(overridden(config, {"train": {"final_share": 0.0}}))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    longer = overridden(config, {"train": {"iterations": 6}})
    monkeypatch.setattr("semivox.training.runs.probe", probe)
    with pytest.raises(UserError, match="memory"):
        semivox.train(phantoms, config=longer, out=run, work=tmp_path / "work", extend=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
