"""The default method from phantoms on disk: its stages, its pseudo-labels, its control."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import semivox
from semivox.config import PredictConfig, load_config, overridden
from semivox.errors import UserError
from semivox.inference.model import load_model
from semivox.losses.schedules import Stage
from semivox.methods.base import Method
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.store import Store
from semivox.training import runs
from semivox.training.checkpoints import last_path, load
from semivox.training.loop import FitResult
from semivox.training.step import Stepper
from semivox.training.validation import Teacher

CONFIG = load_config(
    method={"name": "self_training", "options": {"labels_iterations": 0}},
    net={"width": 2},
    split={"labeled": 2},
    plan={"spacing_mm": (2.5, 2.5, 2.5), "patch": (16, 16, 16), "stem": (1, 1, 1)},
    train={"iterations": 6, "workers": 0, "checkpoint_every": 2, "precision": "32"},
)
NO_PICTURES = ("semivox.reporting.planes.draw_sheet", lambda *_, **__: None)


@pytest.fixture(scope="module")
def place(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the workspace of all runs."""
    return tmp_path_factory.mktemp("self training")


@pytest.fixture(scope="module")
def seen() -> list[tuple[int, int, bool]]:
    """Labeled and unlabeled patches of each step of `whole`, and whether the latter had pseudo-labels."""
    return []


@pytest.fixture(scope="module")
def whole(phantoms: Path, place: Path, seen: list[tuple[int, int, bool]]) -> Path:
    """A run that nothing interrupted."""
    step = Stepper.step

    def spy(stepper: Stepper, iteration: int, labeled: Any, unlabeled: Any) -> None:
        seen.append((len(labeled.image), len(unlabeled.image), unlabeled.soft is not None))
        step(stepper, iteration, labeled, unlabeled)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "step", spy)
        return semivox.train(phantoms, config=CONFIG, out=place / "whole", work=place / "work")


def pseudo(run: Path, stage: int = 1) -> dict[str, np.ndarray]:
    names = yaml.safe_load((run / "splits.json").read_text())["folds"][0]["unlabeled"]
    store = Store(run / "pseudo" / f"round{stage}")
    return {name: np.asarray(store.shares(name)[:]) for name in names}


def test_pseudo_labels_are_made_once_and_taught(whole: Path, seen: list[tuple[int, int, bool]]) -> None:
    """4 of 6 iterations see labels alone; the others see labels and pseudo-labels of the averages then."""
    assert seen == [(2, 0, False)] * 4 + [(2, 2, True)] * 2
    table = pd.read_csv(whole / "pseudo" / "cases.csv")
    assert sorted(table["case"]) == sorted(pseudo(whole)) and set(table["iteration"]) == {4}
    assert table["certainty"].between(0, 1).all() and "agreement" not in table
    assert table["left_out"].isna().all()
    for row in table.to_dict("records"):
        shares = pseudo(whole)[row["case"]]
        assert shares.dtype == np.uint8 and shares.shape[0] == 2
        assert shares.astype(int).sum(axis=0).max() <= 256  # two roundings of 255 parts
        volumes = [value for column, value in row.items() if column.startswith("voxels_")]
        assert volumes == pytest.approx([part.sum() / 255 for part in shares])


def test_pseudo_labels_can_be_looked_at(whole: Path) -> None:
    with Image.open(whole / "pseudo" / "cases.png") as picture:
        assert picture.width > 500 and picture.height > 200


def test_the_model_has_the_averaged_weights(whole: Path) -> None:
    state, kept = load(last_path(whole)), load_model(whole).method.state_dict()
    name = next(name for name in kept if name.startswith("net.") and kept[name].dim() == 5)
    assert torch.allclose(kept[name], state.average[name], atol=1e-6)
    assert not torch.equal(state.average[name], state.weights[name])


@pytest.mark.parametrize("crash", [1, 4, "teaching", 5])
def test_killed_in_any_stage_and_resumed_equals_uninterrupted(
    phantoms: Path, place: Path, whole: Path, crash: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CrashError(Exception):
        """Stands for a kill."""

    def train() -> Path:
        return semivox.train(phantoms, config=CONFIG, out=place / f"killed {crash}", work=place / "work")

    monkeypatch.setattr(*NO_PICTURES)
    step, write, written = Stepper.step, Store.write_shares, []

    def dying_step(stepper: Stepper, iteration: int, *batches: Any) -> None:
        if iteration == crash:
            raise CrashError
        step(stepper, iteration, *batches)

    def dying_write(store: Store, name: str, shares: Any) -> None:
        if crash == "teaching" and written:
            raise CrashError
        written.append(name)
        write(store, name, shares)

    with monkeypatch.context() as patch, pytest.raises(CrashError):
        patch.setattr(Stepper, "step", dying_step)
        patch.setattr(Store, "write_shares", dying_write)
        train()
    killed = train()
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    tables = [pd.read_csv(run / "pseudo" / "cases.csv") for run in (killed, whole)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_fresh_forgets_the_pseudo_labels(phantoms: Path, place: Path, whole: Path, tmp_path: Path) -> None:
    """Else those of the old weights would teach again, as they were made at the same iteration."""
    run = shutil.copytree(whole, tmp_path / "run")
    config = overridden(CONFIG, {"method": {"options": {"rounds": 0}}})
    semivox.train(phantoms, config=config, out=run, work=place / "work", fresh=True)
    assert not (run / "pseudo").exists()


def test_labels_only_is_self_training_without_rounds(phantoms: Path, place: Path) -> None:
    weights = []
    for name, options in (("labels_only", {}), ("self_training", {"rounds": 0})):
        changed = overridden(
            CONFIG, {"method": {"name": name, "options": options}, "train": {"iterations": 3}}
        )
        run = semivox.train(phantoms, config=changed, out=place / name, work=place / "work")
        assert not (run / "pseudo").exists()
        weights.append((run / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_without_unlabeled_scans_the_labels_alone_train(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same call again leaves the run as it is; options that matter without pseudo-labels count."""
    given = {"method": {"options": {"rounds": 2, "boundary_weight": 0.5}}, "split": {"labeled": 6}}
    everything = overridden(CONFIG, {**given, "train": {"iterations": 1}})
    where = {"config": everything, "out": tmp_path / "run", "work": tmp_path / "work"}
    run = semivox.train(phantoms, **where)
    assert yaml.safe_load((run / "config.yaml").read_text())["method"] == {
        "name": "labels_only", "options": {"boundary_weight": 0.5}, "batch": None,
    }  # fmt: skip
    assert "labels_only" in capsys.readouterr().err
    weights = (run / "model.safetensors").stat().st_mtime_ns
    assert semivox.train(phantoms, **where) == run
    assert (run / "model.safetensors").stat().st_mtime_ns == weights
    with pytest.raises(UserError, match=r"train\.lr"):
        semivox.train(phantoms, **where | {"config": overridden(everything, {"train": {"lr": 0.5}})})


def test_two_rounds_agree_or_not(phantoms: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*NO_PICTURES)
    options = {"rounds": 2, "labels_share": 0.5, "labels_iterations": 0}
    two = overridden(CONFIG, {"method": {"options": options}, "train": {"iterations": 4}})
    run = semivox.train(phantoms, config=two, out=place / "two", work=place / "work")
    table = pd.read_csv(run / "pseudo" / "cases.csv").set_index(["round", "case"])
    first, second = pseudo(run, 1), pseudo(run, 2)
    assert len(table) == 2 * len(first) and table.loc[1, "agreement"].isna().all()
    for name, shares in second.items():
        a, b = (one.astype(float).sum(axis=0) for one in (first[name], shares))
        expected = 2 * np.minimum(a, b).sum() / max(a.sum() + b.sum(), 1)
        assert table.loc[(2, name), "agreement"] == pytest.approx(expected)


class Fixed(Method):
    """Predicts what it is told to."""

    probs: torch.Tensor

    def predict(self, image: torch.Tensor) -> torch.Tensor:
        return self.probs[None]


def test_far_pieces_of_a_class_of_one_piece_are_not_taught(tmp_path: Path) -> None:
    """Class a forms one piece, class b two: of a, the small piece goes, its soft edge too."""
    probs = torch.zeros(3, 16, 16, 16)
    probs[1, 2:8, 2:8, 2:8], probs[1, 12:14, 12:14, 12:14], probs[1, 8, 2:8, 2:8] = 0.9, 0.8, 0.4
    probs[2, 2:4, 12:15, 2:4], probs[2, 12:14, 2:4, 2:4] = 0.7, 0.7
    probs[0] = 1 - probs[1:].sum(0)
    method = Fixed(Fixed.Config())
    method.probs = probs
    store = Store(tmp_path / "store")
    store.write_image("x", np.zeros((1, 16, 16, 16), np.float32), {})
    plan = Plan(
        dataset="d", channels=("MR",), class_names=("background", "a", "b"), class_values=(0, 1, 2),
        spacing_mm=(1.0, 1.0, 1.0), patch=(16, 16, 16), normalisation=("none",), crop="none",
        intensity=({"mean": 0.0, "std": 1.0, "p005": 0.0, "p995": 0.0},), one_piece=(True, False),
    )  # fmt: skip
    drawn: list[tuple[str, str, int]] = []

    def draw(path: Path, samples: Any, captions: Any) -> None:
        ((sample,), (caption,)) = samples, captions
        drawn.append((path.name, caption, int((sample.label == 1).sum())))

    teach = Teacher(store, ["x"], plan, PredictConfig(), tmp_path / "pseudo", draw)
    teach(method, torch.device("cpu"), Stage(1, 3, 9))
    a, b = np.asarray(Store(tmp_path / "pseudo" / "round1").shares("x")[:])
    assert a[2:8, 2:8, 2:8].min() == round(255 * 0.9) and a[8, 4, 4] == round(255 * 0.4)
    assert a[11:, 11:, 11:].max() == 0
    assert b[2, 12, 2] == b[12, 2, 2] == round(255 * 0.7)
    row = pd.read_csv(tmp_path / "pseudo" / "cases.csv").iloc[0]
    assert row["voxels_a"] == pytest.approx(a.sum() / 255)
    volumes = f"a {a.sum() / 255e3:.3g} mL\nb {b.sum() / 255e3:.3g} mL"
    assert drawn == [("cases.png", f"x\ncertainty {row['certainty']:.2f}\n{volumes}", 6**3)]
    # Told again it does nothing; a longer run that begins the stage later makes them anew.
    method.probs = probs.roll(1, dims=1)
    teach(method, torch.device("cpu"), Stage(1, 3, 9))
    assert np.array_equal(a, np.asarray(Store(tmp_path / "pseudo" / "round1").shares("x")[:])[0])
    teach(method, torch.device("cpu"), Stage(1, 5, 14))
    assert np.array_equal(
        np.roll(a, 1, 0), np.asarray(Store(tmp_path / "pseudo" / "round1").shares("x")[:])[0]
    )
    assert pd.read_csv(tmp_path / "pseudo" / "cases.csv")["iteration"].tolist() == [5]


def test_a_step_of_every_stage_counts_for_a_budget(
    phantoms: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.1 s a step on labels alone, 0.3 s with pseudo-labels: 0.17 s in the mean of 0.65 and 0.35."""

    def probe(*arguments: Any, stage: Stage, **others: Any) -> Any:
        return runs.Costs(step_s=0.3 if stage.index else 0.1)

    monkeypatch.setattr(runs, "probe", probe)
    monkeypatch.setattr(runs, "fit", lambda method, loaders, config, *_, **__: FitResult(0, 0.0, None))
    budget = {"budget_s": 30.0, "validate_every": None, "checkpoint_every": None}
    short = overridden(CONFIG, {"train": budget})
    run = semivox.train(phantoms, config=short, out=place / "budget", work=place / "work")
    iterations = yaml.safe_load((run / "config.yaml").read_text())["train"]["iterations"]
    assert 130 <= iterations <= 28 / 0.17
