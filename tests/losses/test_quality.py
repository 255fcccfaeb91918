"""Counts and calibration against naive loops and hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semivox.losses.quality import calibration_error, confusion, reliability_bins


def test_confusion_counts_pairs_of_classes() -> None:
    truth = torch.tensor([0, 0, 1, 2, 2, 2])
    label = torch.tensor([0, 1, 1, 2, 2, 0])
    assert confusion(truth, label, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    valid = torch.tensor([True, False, True, True, False, True])
    assert confusion(truth, label, 3, valid).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]


def test_bins_and_their_error_by_hand() -> None:
    # five voxels of two classes: confidences 0.9, 0.9, 0.6 (correct, correct, wrong), 1.0 and 0.7 (correct)
    first = torch.tensor([0.9, 0.1, 0.6, 1.0, 0.3])
    probs = torch.stack([first, 1 - first]).reshape(1, 2, 5, 1, 1)
    truth = torch.tensor([0, 1, 1, 0, 1]).reshape(1, 5, 1, 1)
    counts = reliability_bins(probs, truth, bins=2)
    np.testing.assert_allclose(counts, [[0, 5], [0, 4.1], [0, 4]], rtol=1e-6)
    assert calibration_error(counts) == pytest.approx(0.02, abs=1e-6)
    fine = reliability_bins(probs, truth, bins=10)
    assert fine[0].tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 2, 1]  # (0.5, 0.6], (0.6, 0.7], (0.8, 0.9], (0.9, 1]
    assert calibration_error(fine) == pytest.approx((0.6 + 0.3 + 0.2 + 0.0) / 5, abs=1e-6)


def test_calibration_error_equals_a_loop_over_voxels() -> None:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet((1, 1, 1), size=(2, 4, 3, 5)).transpose(0, 4, 1, 2, 3)
    truth = rng.integers(0, 3, (2, 4, 3, 5))
    mask = rng.random(truth.shape) < 0.6
    bins: dict[int, list[tuple[float, bool]]] = {}
    for place in np.argwhere(mask):
        b, x, y, z = place
        voxel = probs[b, :, x, y, z]
        bins.setdefault(int(np.ceil(voxel.max() * 15)), []).append(
            (voxel.max(), int(voxel.argmax()) == truth[b, x, y, z])
        )
    wanted = sum(abs(sum(hit for _, hit in own) - sum(sure for sure, _ in own)) for own in bins.values())
    counts = reliability_bins(torch.from_numpy(probs), torch.from_numpy(truth), 15, torch.from_numpy(mask))
    assert calibration_error(counts) == pytest.approx(wanted / mask.sum())
    assert counts[0].sum() == mask.sum()


def test_no_voxel_has_no_calibration_error() -> None:
    nothing = torch.zeros(1, 1, 1, 1, dtype=torch.bool)
    counts = reliability_bins(torch.ones(1, 2, 1, 1, 1), nothing.long(), 15, nothing)
    assert np.isnan(calibration_error(counts))
