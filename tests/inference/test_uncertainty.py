"""Entropy, views, temperature and calibration error."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from semivox.inference.calibrate import Sample, calibration_error, fit_temperature, sample
from semivox.inference.predictor import VIEWS
from semivox.inference.quality import entropy, tempered


def test_entropy_is_a_share_of_the_largest():
    probs = torch.tensor([[1.0, 1 / 3, 0.5], [0.0, 1 / 3, 0.5], [0.0, 1 / 3, 0.0]])
    expected = [0.0, 1.0, math.log(2) / math.log(3)]
    torch.testing.assert_close(entropy(probs), torch.tensor(expected))


def test_views_come_back_to_their_place():
    image = torch.zeros(1, 1, 12, 12, 12)
    image[0, 0, 4:8, 5:9, 3:7] = 1.0
    for view in VIEWS:
        changed = view.change(image)
        assert changed.shape == image.shape
        back = view.back((changed > 0.5).float())
        torch.testing.assert_close(back, image)
    moved = [view for view in VIEWS if not torch.equal(view.change(image) > 0.5, image > 0.5)]
    assert len(moved) == 2 and VIEWS[0].change(image) is image


def test_temperature_by_hand():
    probs = torch.tensor([[0.8], [0.2]])
    torch.testing.assert_close(tempered(probs, 0.5), torch.tensor([[0.64 / 0.68], [0.04 / 0.68]]))
    torch.testing.assert_close(tempered(probs, 2.0), torch.tensor([[2 / 3], [1 / 3]]))
    assert tempered(probs, 1.0) is probs


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5])
def test_temperature_is_found(true_temperature):
    rng = np.random.default_rng(0)
    honest = rng.dirichlet((0.5, 0.5, 0.5), 40_000).clip(1e-6)
    drawn = (honest.cumsum(1) > rng.random((40_000, 1))).argmax(1)
    said = honest**true_temperature  # which the temperature undoes
    voxels = Sample(said / said.sum(1, keepdims=True), drawn)
    found = fit_temperature(voxels)
    assert found == pytest.approx(true_temperature, rel=0.05)
    softened = tempered(torch.from_numpy(voxels.probs.T), found).T.numpy()
    assert calibration_error(voxels._replace(probs=softened)) < 0.01


def test_calibration_error_by_hand():
    probs = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10)
    true = np.array([0] * 8 + [1] * 2 + [1] * 3 + [0] * 7)
    assert calibration_error(Sample(probs, true)) == pytest.approx(0.5 * 0.1 + 0.5 * 0.3)


def test_sample_takes_voxels_in_question():
    probs = torch.tensor([[0.999, 0.5, 0.999, 0.2], [0.001, 0.5, 0.001, 0.8]])[:, :, None, None]
    label = np.array([0, 0, 1, 255], np.uint8)[:, None, None]  # the last is not annotated
    found = sample(probs, label, most=10)
    np.testing.assert_allclose(found.probs, [[0.5, 0.5], [0.999, 0.001]], rtol=1e-6)
    assert found.true.tolist() == [0, 1]
    assert len(sample(probs, label, most=1).true) == 1
