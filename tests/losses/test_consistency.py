"""Differences between predictions against loops over the voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from semivox.losses.consistency import (
    kl_divergence,
    mean_log_probs,
    mean_squared_error,
    mutual_consistency,
    pair_distance,
    rectified_consistency,
    rectified_cross_entropy,
    sharpen,
    squared_error,
    symmetric_kl,
    tempered_divergence,
)
from semivox.losses.prediction import Prediction
from semivox.losses.supervised import mean


def taught(student: Prediction, teacher: Prediction, temperature: float) -> torch.Tensor:
    """mean(exp(-D) CE) + mean(D), as `dual` adds them up."""
    divergence = tempered_divergence(student, teacher, temperature)
    return rectified_cross_entropy(student, teacher, divergence) + mean(divergence)


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
    to_truth = pair_distance(Prediction.of(p), Prediction.of(p), "mse", label) / 2
    assert to_truth.flatten().tolist() == pytest.approx(to_label, abs=1e-9)
    assert kl_divergence(p, q).flatten().tolist() == pytest.approx(kl, abs=1e-9)
    assert symmetric_kl(p, q).flatten().tolist() == pytest.approx(symmetric, abs=1e-9)


def test_nothing_reaches_the_teacher_and_the_weight_carries_gradient() -> None:
    student_logits, teacher_logits = (torch.randn(1, 3, 2, 2, 2, dtype=torch.float64) for _ in range(2))
    student_logits.requires_grad_()
    teacher_logits.requires_grad_()
    taught(Prediction.of(student_logits), Prediction.of(teacher_logits), 0.5).backward()
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
        lambda s: taught(Prediction.of(s), Prediction.of(teacher), 0.5),
        lambda s: symmetric_kl(torch.log_softmax(s, 1), teacher).sum(),
    ):
        assert torch.autograd.gradcheck(function, torch.randn_like(teacher).requires_grad_())


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([300.0, -300.0]).view(1, 2, 1, 1, 1).requires_grad_()
    loss = taught(Prediction.of(logits), Prediction.of(-logits.detach()), 0.1)
    loss.backward()
    assert math.isfinite(loss.item())
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())


def test_empty_batch() -> None:
    empty = Prediction.of(log_softmax(0))[:0]
    assert taught(empty, empty, 0.5).item() == 0


def predictions(count: int, classes: int, gain: float = 1.0) -> tuple[list[Tensor], list[Prediction]]:
    generator = torch.Generator().manual_seed(count)
    logits = [
        gain * torch.randn(2, classes, 3, 2, 2, generator=generator, dtype=torch.float64)
        for _ in range(count)
    ]
    leaves = [z.requires_grad_() for z in logits]
    return leaves, [Prediction.of(z) for z in leaves]


def constant(p: float) -> Prediction:
    log_probs = torch.tensor([1 - p, p], dtype=torch.float64).log().view(1, 2, 1, 1, 1)
    return Prediction.of(log_probs.expand(2, 2, 3, 2, 2))


def test_sharpened_values_by_hand() -> None:
    for p, expected in (
        (0.4, 0.01704593),
        (0.5, 0.5),
        (0.51, 0.59870048),
        (0.6, 0.98295407),
        (0.7, 0.99979100),
    ):
        assert sharpen(constant(p).log_probs, 0.1)[0, 1, 0, 0, 0].item() == pytest.approx(expected, abs=5e-9)


def test_constant_maps_by_hand() -> None:
    found = mutual_consistency([constant(0.6), constant(0.4)], 0.1).item()
    assert found == pytest.approx(0.679671, abs=1e-6)


def test_gradient_through_the_sharpened_form() -> None:
    """Detached targets leave the gradient through p_i alone; the full one is right numerically too."""
    leaves, found = predictions(2, 2, gain=0.2)
    for detached in (False, True):
        gradients = torch.autograd.grad(
            mutual_consistency(found, 0.5, detach_targets=detached), leaves, retain_graph=True
        )
        p, q = [own.probs for own in found], [sharpen(own.log_probs, 0.5) for own in found]
        for i, j in ((0, 1), (1, 0)):
            loss = (p[i] - q[j].detach()).square().mean()
            if not detached:
                loss = loss + (p[j].detach() - q[i]).square().mean()
            (expected,) = torch.autograd.grad(loss, leaves[i], retain_graph=True)
            torch.testing.assert_close(gradients[i], expected)
    assert torch.autograd.gradcheck(
        lambda a, b: mutual_consistency([Prediction.of(a), Prediction.of(b)], 0.5), tuple(leaves)
    )


def test_extreme_and_empty() -> None:
    z = torch.tensor([300.0, -300.0]).view(1, 2, 1, 1, 1).requires_grad_()
    own = Prediction.of(z)
    loss = mutual_consistency([own, Prediction.of(-z)], 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(2) and z.grad is not None and bool(z.grad.isfinite().all())
    assert mutual_consistency([own[:0], own[:0]], 0.1).item() == 0


def two_class(p: float) -> Tensor:
    """Log-probabilities of one voxel, `p` for class 1."""
    return torch.tensor([1 - p, p], dtype=torch.float64).log().view(1, 2, 1, 1, 1)


def test_four_scales_by_hand() -> None:
    """Class-1 probabilities 0.9, 0.8, 0.6, 0.3: one voxel, so that the weight cancels."""
    scales = [two_class(p) for p in (0.9, 0.8, 0.6, 0.3)]
    average = mean_log_probs(scales)
    assert average.exp().flatten().tolist() == pytest.approx([0.35, 0.65])
    losses = [rectified_consistency(s, average).item() for s in scales]
    assert losses == pytest.approx([0.289443, 0.083400, 0.007792, 0.382472], abs=1e-6)
    assert sum(losses) / 4 == pytest.approx(0.190777, abs=1e-6)
    reverse = [rectified_consistency(s, average, "to_average").item() for s in scales]
    squares = [(0.65 - p) ** 2 for p in (0.9, 0.8, 0.6, 0.3)]
    assert [r - s for r, s in zip(reverse, squares, strict=True)] == pytest.approx(
        [0.167604, 0.054188, 0.005387, 0.253246], abs=1e-6
    )


def test_equal_scales_and_no_voxels_give_zero() -> None:
    scales = [two_class(0.7)] * 4
    assert rectified_consistency(scales[0], mean_log_probs(scales)).item() == pytest.approx(0, abs=1e-12)
    empty = two_class(0.7)[:0]
    assert rectified_consistency(empty, mean_log_probs([empty] * 4)).item() == 0


def test_nothing_is_detached() -> None:
    logits = torch.randn(4, 1, 2, 1, 2, 1, dtype=torch.float64, requires_grad=True)

    def loss(values: Tensor) -> Tensor:
        scales = list(torch.log_softmax(values, dim=2))
        return rectified_consistency(scales[0], mean_log_probs(scales))

    assert torch.autograd.gradcheck(loss, logits)
    (gradient,) = torch.autograd.grad(loss(logits), logits)
    assert bool((gradient[1:] != 0).all()), "the average carries gradient to the other scales"


@pytest.mark.parametrize("gap", [103.0, 104.0, 1000.0])
def test_far_apart_logits_stay_finite(gap: float) -> None:
    """The logarithm of a softmax is -inf from a gap of 104 on in float32."""
    logits = torch.zeros(4, 1, 2, 1, 1, 1)
    logits[:, :, 1] = gap
    logits[0] = -logits[0]
    logits.requires_grad_()
    assert bool(torch.isinf(torch.softmax(logits, dim=2).log()).any()) == (gap >= 104)
    scales = list(torch.log_softmax(logits, dim=2))
    loss = sum(rectified_consistency(s, mean_log_probs(scales)) for s in scales)
    loss.backward()
    assert math.isfinite(loss.item()) and bool(torch.isfinite(logits.grad).all())
    same = mean_log_probs([scales[1]] * 4)
    torch.testing.assert_close(same, scales[1])
