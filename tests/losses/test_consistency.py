from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from semivox.losses.consistency import (
    kl_divergence,
    mean_squared_error,
    rectified_cross_entropy,
    squared_error,
    squared_error_to_label,
    symmetric_kl,
)
from semivox.losses.prediction import Prediction


def log_softmax(seed: int, classes: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(
        torch.randn(2, classes, 3, 2, 2, generator=generator, dtype=torch.float64), dim=1
    )


def voxels(tensor: torch.Tensor) -> np.ndarray:
    """(B, K, X, Y, Z) -> (N, K)."""
    return tensor.detach().movedim(1, -1).flatten(0, -2).numpy()


@pytest.mark.parametrize("classes", [2, 3])
def test_distances_against_voxel_loop(classes: int) -> None:
    p, q = log_softmax(0, classes), log_softmax(1, classes)
    label = torch.randint(0, classes, (2, 3, 2, 2), generator=torch.Generator().manual_seed(2))
    square, every, to_label, kl, symmetric = [], [], [], [], []
    for a, b, c in zip(np.exp(voxels(p)), np.exp(voxels(q)), label.flatten().tolist(), strict=True):
        square.append(sum((a[i] - b[i]) ** 2 for i in range(1, classes)))
        every.append(sum((a[i] - b[i]) ** 2 for i in range(classes)) / classes)
        to_label.append(sum((a[i] - (i == c)) ** 2 for i in range(1, classes)))
        forward = sum(a[i] * math.log(a[i] / b[i]) for i in range(classes))
        backward = sum(b[i] * math.log(b[i] / a[i]) for i in range(classes))
        kl.append(forward)
        symmetric.append((forward + backward) / 2)
    assert squared_error(p.exp(), q.exp()).flatten().tolist() == pytest.approx(square, abs=1e-9)
    assert mean_squared_error(p.exp(), q.exp()).flatten().tolist() == pytest.approx(every, abs=1e-9)
    assert squared_error_to_label(p.exp(), label).flatten().tolist() == pytest.approx(to_label, abs=1e-9)
    assert kl_divergence(p, q).flatten().tolist() == pytest.approx(kl, abs=1e-9)
    assert symmetric_kl(p, q).flatten().tolist() == pytest.approx(symmetric, abs=1e-9)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("classes", [2, 3])
def test_rectified_cross_entropy_against_voxel_loop(classes: int, temperature: float) -> None:
    student, teacher = Prediction.of(log_softmax(3, classes)), Prediction.of(log_softmax(4, classes))
    weighted, divergences = [], []
    for s, t in zip(voxels(student.log_probs), voxels(teacher.log_probs), strict=True):
        powers = [math.exp(value / temperature) for value in t]
        q = [power / sum(powers) for power in powers]
        divergence = sum(q[c] * (math.log(q[c]) - s[c]) for c in range(classes))
        weighted.append(math.exp(-divergence) * -s[q.index(max(q))])
        divergences.append(divergence)
    expected = sum(weighted) / len(weighted) + sum(divergences) / len(divergences)
    assert rectified_cross_entropy(student, teacher, temperature).item() == pytest.approx(expected, abs=1e-9)


def test_rectified_cross_entropy_of_equal_networks_is_their_cross_entropy() -> None:
    """With T = 1 D vanishes and the weight is 1."""
    log_probs = log_softmax(5)
    expected = -log_probs.amax(dim=1).mean()
    prediction = Prediction.of(log_probs)
    torch.testing.assert_close(rectified_cross_entropy(prediction, prediction, 1.0), expected)


def test_nothing_reaches_the_teacher_and_the_weight_carries_gradient() -> None:
    student_logits, teacher_logits = (torch.randn(1, 3, 2, 2, 2, dtype=torch.float64) for _ in range(2))
    student_logits.requires_grad_()
    teacher_logits.requires_grad_()
    rectified_cross_entropy(Prediction.of(student_logits), Prediction.of(teacher_logits), 0.5).backward()
    assert teacher_logits.grad is None
    with torch.no_grad():
        q = torch.softmax(teacher_logits / 0.5, dim=1)
        p = torch.softmax(student_logits, dim=1)
        divergence = (q * (q.log() - p.log())).sum(dim=1, keepdim=True)
        target = torch.zeros_like(p).scatter(1, q.argmax(dim=1, keepdim=True), 1.0)
        error = -(target * p.log()).sum(dim=1, keepdim=True)
        weight = torch.exp(-divergence)
        through_cross_entropy = weight * (p - target)
        through_weight = -weight * error * (p - q)
        expected = (through_cross_entropy + through_weight + (p - q)) / divergence.numel()
    assert through_weight.abs().max() > 1e-3
    torch.testing.assert_close(student_logits.grad, expected)


def test_gradients_numerically() -> None:
    teacher = log_softmax(7)
    for function in (
        lambda s: rectified_cross_entropy(Prediction.of(s), Prediction.of(teacher), 0.5),
        lambda s: symmetric_kl(torch.log_softmax(s, 1), teacher).sum(),
    ):
        assert torch.autograd.gradcheck(function, torch.randn_like(teacher).requires_grad_())


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([300.0, -300.0]).view(1, 2, 1, 1, 1).requires_grad_()
    loss = rectified_cross_entropy(Prediction.of(logits), Prediction.of(-logits.detach()), 0.1)
    loss.backward()
    assert math.isfinite(loss.item())
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())


def test_empty_batch() -> None:
    empty = Prediction.of(log_softmax(0))[:0]
    assert rectified_cross_entropy(empty, empty, 0.5).item() == 0
