"""Pseudo-labels and how far they are trusted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from semivox.losses.prediction import Prediction, most_probable
from semivox.losses.pseudo_labels import (
    confident_foreground,
    foreground_label,
    joint_label,
    prototype_similarity,
    reliability,
)


def maps(*voxels: list[float]) -> torch.Tensor:
    """(1, K, N, 1, 1) probabilities from one list a voxel."""
    return torch.tensor(voxels, dtype=torch.float64).T.reshape(1, len(voxels[0]), len(voxels), 1, 1)


@pytest.mark.parametrize("classes", [1, 2, 3, 7])
def test_most_probable(classes: int) -> None:
    values = torch.randn(2, classes, 5, 4, 3, generator=torch.Generator().manual_seed(classes))
    best, index = most_probable(values)
    assert torch.equal(best, values.amax(dim=1)) and torch.equal(index, values.argmax(dim=1))


def test_most_probable_takes_the_first_of_a_tie() -> None:
    assert most_probable(maps([0.5, 0.5], [0.5, 0.5]))[1].flatten().tolist() == [0, 0]
    assert most_probable(maps([0.2, 0.4, 0.4]))[1].item() == 1


def test_foreground_label_binary() -> None:
    probs = maps([0.45, 0.55], [0.4, 0.6], [0.39, 0.61], [0.9, 0.1])
    assert foreground_label(probs, 0.6).flatten().tolist() == [0, 0, 1, 0]  # exceeds: 0.6 itself does not
    assert foreground_label(probs, 0.5).flatten().tolist() == [1, 1, 1, 0]


def test_foreground_label_takes_the_best_foreground_even_below_background() -> None:
    probs = maps([0.5, 0.1, 0.4], [0.2, 0.45, 0.35], [0.1, 0.2, 0.7])
    assert foreground_label(probs, 0.6).flatten().tolist() == [0, 0, 2]
    assert foreground_label(probs, 0.3).flatten().tolist() == [2, 1, 2]


def test_confident_foreground_includes_the_threshold() -> None:
    probs = maps([0.25, 0.75], [0.3, 0.7], [0.9, 0.1], [0.45, 0.55])
    prediction = Prediction(probs.log(), probs, *most_probable(probs))
    assert confident_foreground(prediction, 0.75).flatten().tolist() == [1, 0, 0, 0]
    assert confident_foreground(prediction, 0.5).flatten().tolist() == [1, 1, 0, 1]


def test_confident_foreground_multi_class() -> None:
    probs = maps([0.3, 0.1, 0.6], [0.1, 0.5, 0.4], [0.7, 0.2, 0.1])
    prediction = Prediction(probs.log(), probs, *most_probable(probs))
    assert confident_foreground(prediction, 0.6).flatten().tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("a", "b", "h_a", "h_b", "union", "lower"),
    [
        (0, 0, 0.1, 0.6, 0, 0),
        (2, 2, 0.6, 0.1, 2, 2),
        (1, 0, 0.6, 0.1, 1, 0),
        (0, 2, 0.1, 0.6, 2, 0),
        (1, 2, 0.6, 0.1, 2, 2),
        (2, 1, 0.6, 0.1, 1, 1),
        (2, 1, 0.1, 0.6, 2, 2),
        (1, 2, 0.3, 0.3, 1, 1),
        (0, 1, 0.3, 0.3, 1, 0),
    ],
)
def test_joint_label(a: int, b: int, h_a: float, h_b: float, union: int, lower: int) -> None:
    def one(value: float) -> torch.Tensor:
        return torch.tensor(value).view(1, 1, 1, 1)

    arguments = one(a), one(b), one(h_a), one(h_b)
    assert joint_label(*arguments, "union").item() == union
    assert joint_label(*arguments, "lower_entropy").item() == lower


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_features_without_direction_are_similar_to_nothing() -> None:
    features = normal(1, 3, 2, 2, 2, seed=0)
    features[:, :, 0, 0, 0] = 0
    found = prototype_similarity(features, torch.zeros(1, 2, 2, 2, dtype=torch.int64), 2)
    assert bool((found[:, :, 0, 0, 0] == 0).all()) and bool(found.isfinite().all())
    assert bool((found[:, 0] != 0).any()) and not found[:, 1].any(), "a class without voxels"
    assert prototype_similarity(features[:0], torch.zeros(0, 2, 2, 2, dtype=torch.int64), 2).numel() == 0


def test_reliability_by_hand() -> None:
    probs, similarity = torch.tensor([0.0, 1.0]), torch.tensor([0.9, 0.9])
    shape = (1, 2, 1, 1, 1)
    assert reliability(probs.view(shape), similarity.view(shape)).item() == pytest.approx(0.59)
    assert reliability(probs.view(shape), torch.tensor([-1.0, -1.0]).view(shape)).item() == 0
    assert reliability(probs.view(shape), probs.view(shape)).item() == 1
