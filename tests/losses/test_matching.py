from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from semivox.losses.matching import cosines, partners, weighted_prototypes


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_prototypes_against_voxel_loop() -> None:
    features, weights = draw(0, 2, 5, 7), draw(1, 2, 3, 7).abs()
    weights[1, 2] = 0
    found = weighted_prototypes(features, weights)
    for b in range(2):
        for c in range(3):
            total = sum(features[b, :, v].numpy() * weights[b, c, v].item() for v in range(7))
            share = sum(weights[b, c, v].item() for v in range(7)) + 1e-5
            np.testing.assert_allclose(found[b, c].numpy(), total / share, atol=1e-12)
    assert bool((found[1, 2] == 0).all())


def test_cosines_against_voxel_loop() -> None:
    features, prototypes = draw(0, 2, 5, 7), draw(1, 2, 3, 5)
    found = cosines(features, prototypes)
    for b in range(2):
        for c in range(3):
            for v in range(7):
                f, p = features[b, :, v].numpy(), prototypes[b, c].numpy()
                expected = float(f @ p) / math.sqrt(float(f @ f)) / math.sqrt(float(p @ p))
                assert found[b, c, v].item() == pytest.approx(expected, abs=1e-12)


def test_nothing_to_compare_scores_zero_with_finite_gradients() -> None:
    """Features after a ReLU may be zero vectors, and an absent class has a zero prototype."""
    features, prototypes = draw(0, 1, 4, 3), draw(1, 1, 2, 4)
    features[0, :, 1], prototypes[0, 1] = 0, 0
    features.requires_grad_()
    prototypes.requires_grad_()
    found = cosines(features, prototypes)
    assert bool((found[0, :, 1] == 0).all() and (found[0, 1] == 0).all())
    found.sum().backward()
    assert bool(torch.isfinite(features.grad).all() and torch.isfinite(prototypes.grad).all())


def test_gradients_numerically() -> None:
    features, weights = draw(0, 1, 3, 5).requires_grad_(), draw(1, 1, 2, 5).abs().requires_grad_()
    others = draw(2, 1, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, w, o: cosines(o, weighted_prototypes(f, w)), (features, weights, others)
    )


@pytest.mark.parametrize(
    ("have", "count", "expected"), [(2, 2, [0, 1]), (2, 5, [0, 1, 0, 1, 0]), (3, 2, [0, 1]), (1, 3, [0] * 3)]
)
def test_partners(have: int, count: int, expected: list[int]) -> None:
    assert partners(torch.arange(have), count).tolist() == expected
