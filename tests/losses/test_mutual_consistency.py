"""Sharpening and the mutual consistency of several predictions."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from semivox.losses.consistency import mutual_consistency, sharpen
from semivox.losses.prediction import Prediction


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


def test_two_classes_are_sharpened_as_published() -> None:
    _, (own,) = predictions(1, 2)
    p = own.probs.detach().numpy()
    expected = p**10 / (p**10 + (1 - p) ** 10)
    np.testing.assert_allclose(sharpen(own.log_probs, 0.1).detach().numpy(), expected, atol=1e-12)


def test_constant_maps_by_hand() -> None:
    found = mutual_consistency([constant(0.6), constant(0.4)], 0.1).item()
    assert found == pytest.approx(0.679671, abs=1e-6)


@pytest.mark.parametrize(("count", "terms"), [(2, 2), (3, 6)])
@pytest.mark.parametrize("classes", [2, 3])
def test_against_voxel_loop(count: int, terms: int, classes: int) -> None:
    leaves, found = predictions(count, classes)
    z = [leaf.detach().numpy() for leaf in leaves]
    p = [np.exp(each) / np.exp(each).sum(axis=1, keepdims=True) for each in z]
    q = [each**10 / (each**10).sum(axis=1, keepdims=True) for each in p]
    pairs, total = list(permutations(range(count), 2)), 0.0
    for i, j in pairs:
        squares = [(p[i][v] - q[j][v]) ** 2 for v in np.ndindex(*p[i].shape)]
        total += sum(squares) / len(squares)
    assert len(pairs) == terms
    assert mutual_consistency(found, 0.1).item() == pytest.approx(total, abs=1e-9)


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
