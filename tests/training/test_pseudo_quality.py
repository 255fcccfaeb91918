"""Findings about pseudo-labels, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from semivox.methods.base import PseudoLabel
from semivox.training.pseudo_quality import PseudoQuality, calibration_error, confusion, reliability_bins

CLASSES = ("background", "liver", "tumour")


def row(*values: int) -> Tensor:
    return torch.tensor(values).reshape(1, len(values), 1, 1)


def sure(*labels: int) -> PseudoLabel:
    """A network that gives each label a probability of 0.8."""
    onehot = torch.nn.functional.one_hot(row(*labels), 3).movedim(-1, 1)
    return PseudoLabel.of(0.1 + 0.7 * onehot)


def table(quality: PseudoQuality) -> dict[tuple[str, str, str], float]:
    found = list(quality.findings())
    assert len({row[:3] for row in found}) == len(found)
    return {row[:3]: row[3] for row in found}


def test_overlap_agreement_and_calibration_over_two_batches() -> None:
    quality = PseudoQuality(CLASSES)
    quality.add({"a": sure(0, 1, 1, 2), "b": sure(0, 1, 0, 0)}, row(0, 0, 1, 2))
    quality.add({"a": sure(1, 0, 0, 2), "b": sure(1, 0, 0, 0)}, row(1, 1, 0, 0))
    found = table(quality)
    # a labels liver 3 times, 2 of them right; 3 voxels are liver; tumour: twice, once right, there is one
    assert found["dice", "a", "liver"] == pytest.approx(2 * 2 / 6)
    assert found["precision", "a", "liver"] == found["recall", "a", "liver"] == pytest.approx(2 / 3)
    assert found["precision", "a", "tumour"] == 0.5
    assert found["recall", "a", "tumour"] == 1
    assert found["volume", "a", "tumour"] == 2
    assert found["dice", "b", "tumour"] == found["volume", "b", "tumour"] == 0
    assert ("precision", "b", "tumour") not in found  # b labels none
    assert found["agreement", "a-b", "liver"] == pytest.approx(2 * 2 / 5)
    # a is right in 5 of 8 voxels at a confidence of 0.8, and in 3 of 6 that it or the truth calls foreground
    assert found["ece", "a", "all"] == pytest.approx(0.8 - 5 / 8)
    assert found["ece", "a", "foreground"] == pytest.approx(0.8 - 3 / 6)
    assert found["bin_share", "a", "12/15"] == 1
    assert found["bin_accuracy", "a", "12/15"] == pytest.approx(5 / 8)
    assert found["bin_confidence", "a", "12/15"] == pytest.approx(0.8)
    assert not any(measure in ("share", "purity", "coverage") for measure, _, _ in found)


def test_a_mask_has_size_purity_and_coverage() -> None:
    truth, label = row(0, 0, 0, 1, 1, 2, 2, 2), row(0, 0, 1, 1, 1, 1, 0, 2)
    valid = row(1, 1, 1, 1, 0, 1, 0, 0).bool()
    quality = PseudoQuality(CLASSES)
    quality.add({"reliable": PseudoLabel(label, valid=valid)}, truth)
    found = table(quality)
    assert found["share", "reliable", "all"] == 5 / 8
    assert found["share", "reliable", "liver"] == 3 / 8
    assert found["share", "reliable", "tumour"] == 0
    assert found["purity", "reliable", "all"] == 3 / 5
    assert found["purity", "reliable", "background"] == 1
    assert found["purity", "reliable", "liver"] == pytest.approx(1 / 3)
    assert ("purity", "reliable", "tumour") not in found
    assert found["coverage", "reliable", "background"] == 1
    assert found["coverage", "reliable", "liver"] == 1 / 2
    assert found["coverage", "reliable", "tumour"] == pytest.approx(1 / 3)
    assert found["dice", "reliable", "liver"] == pytest.approx(2 * 1 / 4)  # inside the mask
    assert not any(measure in ("ece", "agreement") for measure, _, _ in found)


def test_voxels_without_truth_are_left_out() -> None:
    """The numbers are those without these voxels, also of a label with a mask."""
    cut, whole = PseudoQuality(CLASSES), PseudoQuality(CLASSES)
    valid = torch.tensor([True, True, False, True, False, True]).reshape(1, 6, 1, 1)
    masked = PseudoLabel(row(0, 1, 2, 2, 1, 0), valid)
    whole.add(
        {"a": sure(0, 1, 1, 2, 2, 0), "b": sure(0, 1, 0, 2, 1, 2), "m": masked}, row(0, 1, 2, 2, 255, 255)
    )
    masked = PseudoLabel(masked.label[:, :4], valid[:, :4])
    cut.add({"a": sure(0, 1, 1, 2), "b": sure(0, 1, 0, 2), "m": masked}, row(0, 1, 2, 2))
    assert table(whole) == table(cut)


def test_confusion_counts_pairs_of_classes() -> None:
    truth = torch.tensor([0, 0, 1, 2, 2, 2])
    label = torch.tensor([0, 1, 1, 2, 2, 0])
    assert confusion(truth, label, 3, truth < 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    valid = torch.tensor([True, False, True, True, False, True])
    assert confusion(truth, label, 3, valid).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]


def test_bins_and_their_error_by_hand() -> None:
    # five voxels of two classes: confidences 0.9, 0.9, 0.6 (correct, correct, wrong), 1.0 and 0.7 (correct)
    first = torch.tensor([0.9, 0.1, 0.6, 1.0, 0.3])
    probs = torch.stack([first, 1 - first]).reshape(1, 2, 5, 1, 1)
    truth = torch.tensor([0, 1, 1, 0, 1]).reshape(1, 5, 1, 1)
    counts = reliability_bins(probs, truth, truth < 9, bins=2)
    np.testing.assert_allclose(counts, [[0, 5], [0, 4.1], [0, 4]], rtol=1e-6)
    assert calibration_error(counts) == pytest.approx(0.02, abs=1e-6)
    fine = reliability_bins(probs, truth, truth < 9, bins=10)
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
    counts = reliability_bins(torch.from_numpy(probs), torch.from_numpy(truth), torch.from_numpy(mask))
    assert calibration_error(counts) == pytest.approx(wanted / mask.sum())
    assert counts[0].sum() == mask.sum()


def test_no_voxel_has_no_calibration_error() -> None:
    nothing = torch.zeros(1, 1, 1, 1, dtype=torch.bool)
    counts = reliability_bins(torch.ones(1, 2, 1, 1, 1), nothing.long(), nothing)
    assert np.isnan(calibration_error(counts))
