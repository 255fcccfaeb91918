"""Calibration on prepared cases, and what `predict` makes of it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import yaml

from semivox.config import PredictConfig
from semivox.errors import UserError
from semivox.inference.calibrate import calibrate
from semivox.inference.model import join, load_model
from semivox.inference.postprocess import Rule
from semivox.inference.predict import predict_files
from semivox.inference.predictor import on_working_grid, predict_case
from semivox.inference.quality import FIGURES, Calibration
from semivox.io.volume import Volume, read_image
from semivox.preprocessing.store import Store

CONFIG = PredictConfig(overlap=0.5)
SPACING = (1.0, 2.0, 3.0)


@pytest.fixture
def store(tmp_path, blocks) -> Store:
    """Eight cases with noise; class 1 has a false speck in each, which the largest piece leaves out."""
    store = Store(tmp_path / "store")
    for case in range(8):
        label = blocks((20, 18, 17))
        label[0, 0, 0] = 0
        noise = np.random.default_rng(case).normal(0, 0.05 + 0.03 * case, label.shape)
        image = label.astype(np.float32)
        image[15:17, 13:15, 13:15] = 1.0
        store.write_image(f"case{case}", (image + noise)[None].astype(np.float32), {})
        store.write_label(f"case{case}", label)
    return store


def test_calibration_of_known_cases(store, make_model):
    model = make_model(sharpness=4.0)
    names = [f"case{case}" for case in range(8)]
    found = calibrate(model, store, names[:2], names[2:], CONFIG)
    assert found.temperature < 1  # flatter than right: the cases are easier than the model says
    assert found.measured["ece_after"] < found.measured["ece_before"]
    assert found.postprocess["part 7"].largest or found.postprocess["part 7"].minimum_ml > 0
    assert set(found.figures) == set(FIGURES)
    assert len(found.dice) == 6 == len(found.figures["soft_dice"])
    assert found.cases == tuple(names[2:])
    label = np.asarray(store.label("case0")[:])
    assert found.volumes[1].mean == pytest.approx(math.log(np.count_nonzero(label == 2) * 6 / 1000))
    assert calibrate(model, store, names, [], CONFIG).dice == ()


def add(folder, **entries) -> None:
    file = folder / "model.yaml"
    meta = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**meta, "calibration": Calibration(**entries).model_dump(mode="json")}))


def test_predict_applies_what_helped(make_model, tmp_path, blocks):
    plain = make_model()
    add(tmp_path / "run", temperature=0.5, postprocess={"part 7": Rule(largest=True)})
    model = load_model(tmp_path / "run", device="cpu")
    assert model.digest != plain.digest
    image = Volume(blocks((20, 18, 17))[None].astype(np.float32), np.diag([*SPACING, 1.0]))
    before, after = (predict_case(one, image, CONFIG, probabilities=True) for one in (plain, model))
    assert before.label[0, 0, 0] == 1 and after.label[0, 0, 0] == 0
    changed = np.argwhere(before.label != after.label)
    np.testing.assert_array_equal(changed, [[0, 0, 0]])
    squared = before.probs**2
    np.testing.assert_allclose(after.probs, squared / squared.sum(0), atol=1e-5)
    raw = predict_case(model, image, CONFIG.model_copy(update={"postprocess": False}))
    np.testing.assert_array_equal(raw.label, before.label)


def test_uncertainty_and_quality_beside_the_predictions(make_model, save_scan, tmp_path, blocks):
    model, names = make_model(sharpness=4.0), ("good", "vague", "worse", "fine", "empty")
    for name, shift in zip(names, (0.0, 0.3, 0.4, 0.05, -5.0), strict=True):
        save_scan(tmp_path / "scans" / f"{name}.nii.gz", blocks() + shift)
    usual = dict.fromkeys(FIGURES, (0.0,) * 9) | {"soft_dice": np.linspace(0.5, 0.95, 9).tolist()}
    usual["volume"] = np.linspace(0, -6, 9).tolist()
    volumes = ({"mean": 0.0, "sd": 1.0, "always": True},) * 2
    add(tmp_path / "run", dice=np.linspace(0.5, 0.95, 9).tolist(), figures=usual, volumes=volumes)
    model, out = load_model(tmp_path / "run", device="cpu"), tmp_path / "out"
    predict_files(model, tmp_path / "scans", out, CONFIG, save_uncertainty=True, flag_share=0.4)
    table = pd.read_csv(out / "quality.csv", keep_default_na=False, na_values={"low": ""}).set_index("case")
    assert table.index[:2].tolist() == ["empty", "worse"] and set(table.index) == set(names)
    assert table["flag"].tolist() == ["look", "look", "", "", ""]
    assert "no part 7 found" in table["reasons"]["empty"] and not table["reasons"]["good"]
    assert (table["low"] <= table["predicted_dice"]).all() and (table["high"] <= 1).all()
    good, vague = (read_image([out / f"{name}_uncertainty.nii.gz"]) for name in ("good", "vague"))
    assert good.array.shape[1:] == blocks().shape and good.array.min() >= 0 and vague.array.max() <= 1
    assert vague.array.mean() > good.array.mean()
    assert not list(out.glob("*_disagreement.nii.gz"))  # one network, one view
    before = {file: file.stat().st_mtime_ns for file in out.glob("*.nii.gz")}
    predict_files(model, tmp_path / "scans", out, CONFIG, save_uncertainty=True)
    assert {file: file.stat().st_mtime_ns for file in out.glob("*.nii.gz")} == before
    assert pd.read_csv(out / "quality.csv")["flag"].eq("look").sum() == 1  # a fifth of 5


def test_without_a_predicted_dice_the_vaguest_outlines_are_looked_at(make_model, save_scan, tmp_path, blocks):
    for name, shift in (("good", 0.0), ("vague", 0.3)):
        save_scan(tmp_path / "scans" / f"{name}.nii.gz", blocks() + shift)
    predict_files(make_model(sharpness=4.0), tmp_path / "scans", tmp_path / "out", CONFIG, flag_share=0.5)
    table = pd.read_csv(tmp_path / "out" / "quality.csv", keep_default_na=False).set_index("case")
    assert table["predicted_dice"].eq("").all()
    assert table["reasons"].to_dict() == {"vague": "outlines are uncertain", "good": ""}


def test_test_time_augmentation_averages_over_views(make_model, blocks):
    model = make_model(sharpness=4.0)
    image = Volume(blocks((20, 18, 17))[None].astype(np.float32), np.diag([*SPACING, 1.0]))
    alone = predict_case(model, image, CONFIG, uncertainty=True)
    seen = predict_case(model, image, CONFIG.model_copy(update={"tta": True}), uncertainty=True)
    assert np.mean(alone.label != seen.label) < 0.02
    assert seen.quality.figures["agreement"] < alone.quality.figures["agreement"] - 0.01
    assert alone.disagreement is None and seen.disagreement.max() > 0.01


def binary_entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p) + (1 - p) * np.log(1 - p)) / np.log(2)


@pytest.mark.parametrize("kind", ["networks", "runs"])
def test_disagreement_is_the_mutual_information(make_model, tmp_path, save_scan, blocks, kind):
    """H(mean p) - mean H(p), of two networks of one method or of two runs; also written to a file."""
    one = make_model("levels_pair" if kind == "networks" else "levels", values=(0, 1), sharpness=2.0)
    if kind == "runs":
        one = join([one, make_model(folder="other", values=(0, 1), sharpness=0.5)], ["a", "b"])
    volume = Volume(np.minimum(blocks((16, 16, 16)), 1)[None] + 0.3, np.diag([*SPACING, 1.0]))
    found = predict_case(one, volume, CONFIG, uncertainty=True)
    members = on_working_grid(one, volume.array.astype(np.float32), CONFIG, members=True).members
    parts = [np.clip(probs[1].double().numpy(), 1e-9, 1 - 1e-9) for probs in members.values()]
    expected = binary_entropy(np.mean(parts, 0)) - np.mean([binary_entropy(part) for part in parts], 0)
    assert len(parts) == 2 and expected.max() > 0.05
    np.testing.assert_allclose(found.disagreement, expected, atol=2e-4)
    scan = save_scan(tmp_path / "scans" / "a.nii.gz", volume.array[0], volume.affine)
    predict_files(one, scan, tmp_path / "out", CONFIG, save_uncertainty=True)
    stored = read_image([tmp_path / "out" / "a_disagreement.nii.gz"]).array[0]
    np.testing.assert_allclose(stored, found.disagreement, atol=1e-3)


@pytest.mark.parametrize("patch", [(16, 16, 16), (32, 16, 16)])
def test_runs_are_averaged_whatever_their_patches(make_model, blocks, patch):
    models = [make_model(folder="a", sharpness=2.0), make_model(folder="b", sharpness=20.0, patch=patch)]
    image = Volume(blocks((20, 18, 17))[None].astype(np.float32) + 0.3, np.diag([*SPACING, 1.0]))
    both = join(models, ["a", "b"])
    found = [predict_case(one, image, CONFIG, probabilities=True, members=True) for one in (*models, both)]
    np.testing.assert_allclose(found[2].probs, (found[0].probs + found[1].probs) / 2, atol=1e-5)
    assert set(found[2].members) == {"levels_1", "levels_2"}
    assert join(models[:1], ["a"]) is models[0]
    assert both.digest not in {one.digest for one in models}


def test_runs_that_do_not_fit_are_refused_by_name(make_model):
    first, other = make_model(folder="a"), make_model(folder="b", spacing_mm=(1.0, 1.0, 1.0))
    with pytest.raises(UserError, match=r"spacing_mm: \[1.0, 1.0, 1.0\] in runs/b"):
        join([first, other], ["runs/a", "runs/b"])
    with pytest.raises(UserError, match="class_names"):
        join([first, make_model(folder="c", values=(0, 7))], ["runs/a", "runs/c"])


def test_calibrations_of_folds_are_pooled(make_model, tmp_path):
    values = ((0.5, Rule(largest=True)), (2.0, Rule(largest=True)), (1.0, Rule(fill=True)))
    models = []
    for index, (temperature, rule) in enumerate(values):
        make_model(folder=f"fold{index}")
        figures = {"soft_dice": (0.1 * index, 0.2)}
        add(tmp_path / f"fold{index}", temperature=temperature, postprocess={"part 7": rule}, figures=figures,
            dice=(0.5, 0.6))  # fmt: skip
        models.append(load_model(tmp_path / f"fold{index}", device="cpu"))
    found = join(models, range(3)).calibration
    assert found.temperature == pytest.approx(1.0)
    assert found.postprocess == {"part 7": Rule(largest=True)}
    assert found.figures["soft_dice"] == (0.0, 0.2, 0.1, 0.2, 0.2, 0.2)
    assert len(found.dice) == 6 and found.cases == ()


def test_a_case_that_validated_several_runs_counts_once():
    runs = [
        Calibration(
            cases=("a", "b"), figures={"volume": (-1.0, -3.0), "connected": (1.0, 1.0)}, dice=(0.5, 0.7)
        ),
        Calibration(cases=("b", "c"), figures={"volume": (-1.0, -4.0)}, dice=(0.9, 0.4)),
    ]
    found = Calibration.pooled(runs)
    assert found.cases == ("a", "b", "c")
    assert found.figures == {"volume": (-1.0, -2.0, -4.0)}
    assert found.dice == pytest.approx((0.5, 0.8, 0.4))
