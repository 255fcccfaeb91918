"""Pseudo-labels and how far they are trusted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
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
    reliable_cross_entropy,
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


def cosine(a: Any, b: Any) -> float:
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))


def naive_similarity(features: Tensor, label: Tensor, classes: int) -> np.ndarray:
    f, t = features.movedim(1, -1).numpy(), label.numpy()
    found = np.zeros((*t.shape, classes))
    for b in range(len(t)):
        for c in range(classes):
            members = [f[b][v] for v in np.ndindex(*t.shape[1:]) if t[b][v] == c]
            if members:
                prototype = sum(members) / (len(members) + 1e-6)
                for v in np.ndindex(*t.shape[1:]):
                    found[(b, *v, c)] = cosine(f[b][v], prototype)
    return found


@pytest.mark.parametrize("classes", [2, 4])
def test_similarity_against_voxel_loop(classes: int) -> None:
    features = normal(2, 5, 4, 3, 2, seed=0)
    label = torch.randint(0, classes - 1, (2, 4, 3, 2), generator=torch.Generator().manual_seed(1))
    label[0, 0] = classes - 1  # the second sample lacks that class
    found = prototype_similarity(features, label, classes)
    expected = naive_similarity(features, label, classes)
    np.testing.assert_allclose(found.movedim(1, -1).numpy(), expected, atol=1e-6)
    assert bool((found[1, classes - 1] == 0).all())


def test_features_without_direction_are_similar_to_nothing() -> None:
    features = normal(1, 3, 2, 2, 2, seed=0)
    features[:, :, 0, 0, 0] = 0
    found = prototype_similarity(features, torch.zeros(1, 2, 2, 2, dtype=torch.int64), 2)
    assert bool((found[:, :, 0, 0, 0] == 0).all()) and bool(found.isfinite().all())
    assert prototype_similarity(features[:0], torch.zeros(0, 2, 2, 2, dtype=torch.int64), 2).numel() == 0


def test_reliability_by_hand() -> None:
    probs, similarity = torch.tensor([0.0, 1.0]), torch.tensor([0.9, 0.9])
    shape = (1, 2, 1, 1, 1)
    assert reliability(probs.view(shape), similarity.view(shape)).item() == pytest.approx(0.59)
    assert reliability(probs.view(shape), torch.tensor([-1.0, -1.0]).view(shape)).item() == 0
    assert reliability(probs.view(shape), probs.view(shape)).item() == 1


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_against_voxel_loop(classes: int, seed: int) -> None:
    z_i, z_j = normal(2, classes, 4, 3, 2, seed=seed), normal(2, classes, 4, 3, 2, seed=seed + 10)
    features = normal(2, 5, 4, 3, 2, seed=seed + 20).relu()
    student, teacher = Prediction.of(z_i), Prediction.of(z_j)
    similarity = naive_similarity(features, z_j.argmax(1), classes)

    def softmax(z: Tensor, v: tuple[int, ...]) -> list[float]:
        powers = [math.exp(z[v[0], c, v[1], v[2], v[3]].item()) for c in range(classes)]
        return [power / sum(powers) for power in powers]

    total, count = 0.0, 0
    for v in np.ndindex(2, 4, 3, 2):
        p_i, p_j = softmax(z_i, v), softmax(z_j, v)
        u_i, u_j = (-sum(p * math.log(p + 1e-6) for p in ps) for ps in (p_i, p_j))
        if u_i > u_j:
            w = sum(1 - (similarity[(*v, c)] - p_j[c]) ** 2 for c in range(classes)) / classes
            total, count = total - w * math.log(p_i[int(np.argmax(p_j))]), count + 1
    assert 0 < count < 48
    found = reliable_cross_entropy(student, teacher, features).item()
    assert found == pytest.approx(total / (count + 1e-6), abs=1e-6)


def test_gradient_reaches_the_student_where_the_teacher_is_surer() -> None:
    z_i, z_j = normal(2, 3, 4, 3, 2, seed=0).requires_grad_(), normal(2, 3, 4, 3, 2, seed=1).requires_grad_()
    features = normal(2, 5, 4, 3, 2, seed=2).requires_grad_()
    student, teacher = Prediction.of(z_i), Prediction.of(z_j)
    reliable_cross_entropy(student, teacher, features).backward()
    assert z_j.grad is None and features.grad is None and z_i.grad is not None
    taught = z_i.grad.abs().sum(dim=1) > 0
    assert torch.equal(taught, student.entropy() > teacher.entropy())


def test_equal_predictions_and_empty_batches_teach_nothing() -> None:
    own, features = Prediction.of(normal(2, 2, 4, 3, 2, seed=0)), normal(2, 5, 4, 3, 2, seed=1)
    assert reliable_cross_entropy(own, own, features).item() == 0
    assert reliable_cross_entropy(own[:0], own[:0], features[:0]).item() == 0
