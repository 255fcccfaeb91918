"""Predictions lie on the scan's grid, whatever its orientation and voxel size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semivox.config import PredictConfig
from semivox.errors import UserError
from semivox.inference import windows
from semivox.inference.predictor import on_working_grid, predict_case
from semivox.io.volume import Volume

CONFIG = PredictConfig()
SPACING = (1.0, 2.0, 3.0)


@pytest.fixture
def model(make_model):
    return make_model(spacing_mm=SPACING, patch=(16, 16, 16))


@pytest.fixture
def image(blocks) -> Volume:
    """A scan with three axes of different lengths, turned, on the model's voxel size."""
    affine = np.array([[0, 0, -1.0, 40], [-2.0, 0, 0, 5], [0, 3.0, 0, -60], [0, 0, 0, 1]])
    return Volume(blocks((18, 17, 20))[None].astype(np.float32), affine)


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def soft_ball(shape, affine, center_mm, radius_mm) -> np.ndarray:
    """Intensity 1 inside, 0 outside, 0.5 on the surface, falling over 3 mm."""
    world = (
        np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ affine[:3, :3].T + affine[:3, 3]
    )
    distance = np.linalg.norm(world - center_mm, axis=-1)
    return np.clip(0.5 + (radius_mm - distance) / 3, 0, 1).astype(np.float32)


@pytest.mark.parametrize("degrees", [0, 30])
@pytest.mark.parametrize("spacing", [(0.7, 0.8, 3.0), (2.5, 1.0, 1.0), (1.5, 1.5, 1.5)])
def test_other_voxel_sizes_keep_the_place(make_model, degrees, spacing):
    model = make_model(spacing_mm=(1.2, 1.2, 1.2), values=(0, 1))
    shape = tuple(round(40 / side) for side in spacing)
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees) @ np.diag([-spacing[0], spacing[1], spacing[2]])
    affine[:3, 3] = [5, 60, -80]
    center = affine[:3, :3] @ (np.array(shape) * [0.45, 0.55, 0.5]) + affine[:3, 3]
    image = soft_ball(shape, affine, center, 11)
    prediction = predict_case(model, Volume(image[None], affine), CONFIG, probabilities=True)
    expected = image > 0.5
    assert prediction.label.shape == shape
    found = prediction.label == 1
    dice = 2 * (found & expected).sum() / (found.sum() + expected.sum())
    assert dice > 0.95
    offset = (np.argwhere(found).mean(0) - np.argwhere(expected).mean(0)) * spacing
    assert np.abs(offset).max() < 0.15
    assert prediction.probs is not None
    np.testing.assert_allclose(prediction.probs.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(prediction.probs.argmax(0), prediction.label)


def test_label_is_the_same_with_and_without_probabilities(make_model):
    model = make_model(spacing_mm=(1.3, 1.1, 2.0))
    image = Volume(
        np.random.default_rng(0).uniform(0, 2, (1, 15, 21, 12)).astype(np.float32), np.diag([1.0, 2, 3, 1])
    )
    plain = predict_case(model, image, CONFIG)
    full = predict_case(model, image, CONFIG, probabilities=True)
    assert plain.probs is None
    assert full.probs is not None and full.probs.shape == (3, 15, 21, 12) and full.probs.dtype == np.float32
    np.testing.assert_array_equal(plain.label, full.label)
    np.testing.assert_array_equal(full.probs.argmax(0), full.label)
    assert len(np.unique(plain.label)) == 3


def test_members_come_from_the_same_passes_and_average_to_the_prediction(make_model, monkeypatch, image):
    model = make_model("levels_pair", spacing_mm=SPACING)
    plain = predict_case(model, image, CONFIG, probabilities=True)
    assert plain.members == {}

    monkeypatch.setattr(model.method, "predict", None)
    full = predict_case(model, image, CONFIG, probabilities=True, members=True)
    assert list(full.members) == ["right", "high"]
    np.testing.assert_array_equal(full.label, plain.label)
    np.testing.assert_allclose(full.probs, plain.probs, atol=1e-6)
    found = on_working_grid(model, image.array, CONFIG, members=True)
    torch.testing.assert_close(sum(found.members.values()) / 2, found.probs, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(full.members["right"], image.array[0])
    np.testing.assert_array_equal(full.members["high"], np.maximum(image.array[0], 1) - 1)


def test_method_with_one_member(model, image):
    prediction = predict_case(model, image, CONFIG, members=True)
    np.testing.assert_array_equal(prediction.label, image.array[0])
    assert len(prediction.members) == 1
    np.testing.assert_array_equal(*prediction.members.values(), prediction.label)


def test_wrong_number_of_channels(model, make_model):
    two = Volume(np.zeros((2, 8, 8, 8), np.float32), np.eye(4))
    with pytest.raises(UserError, match=r"number of channels(.|\n)*found: +2\n *expected: 1: MR"):
        predict_case(model, two, CONFIG)
    pair = make_model(folder="pair", channels=("T1", "FLAIR"))
    with pytest.raises(UserError, match=r"found: +1\n *expected: 2: T1, FLAIR(.|\n)*CASE_0001\.nii\.gz"):
        predict_case(pair, Volume(two.array[:1], two.affine), CONFIG)


@pytest.mark.parametrize("broken", ["model", "scan"])
def test_values_that_are_no_numbers(model, image, broken):
    if broken == "scan":
        image.array[0, 3, 3, 3] = np.nan
    else:
        model.method.levels.data.fill_(float("nan"))
    with pytest.raises(UserError, match="The model returned" if broken == "model" else "The scan holds"):
        predict_case(model, image, CONFIG)


def test_settings_reach_the_windows(model, monkeypatch, image):
    seen = {}

    def spy(image, forward, **settings):
        seen.update(settings)
        return forward(image[None])[0]

    monkeypatch.setattr(windows, "sliding_window", spy)
    config = PredictConfig(stride=(3, 4, 5), overlap=0.25, weighting="uniform", batch=7)
    predict_case(model, image, config)
    expected = {"patch": (16, 16, 16), "stride": (3, 4, 5), "weighting": "uniform", "batch": 7}
    assert expected.items() <= seen.items()


@pytest.mark.parametrize(("precision", "dtype"), [("32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_decides_the_arithmetic(model, monkeypatch, precision, dtype, image):
    monkeypatch.setattr("semivox.inference.model.prefers_bf16", lambda device: precision == "bf16")
    products = []

    def predict(image):
        products.append((torch.eye(2) @ torch.eye(2)).dtype)
        return type(model.method).predict(model.method, image)

    monkeypatch.setattr(model.method, "predict", predict)
    predict_case(model, image, CONFIG)
    assert set(products) == {dtype}
