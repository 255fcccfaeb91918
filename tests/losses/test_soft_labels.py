"""Losses against shares of classes, compared with loops over the voxels."""

from __future__ import annotations

import math

import pytest
import torch

from semivox.losses.soft_labels import deep_loss, sharpened, soft_cross_entropy_dice


def naive(logits: torch.Tensor, shares: torch.Tensor, weight: torch.Tensor) -> list[float]:
    batch, classes = logits.shape[:2]
    result = []
    for b in range(batch):
        p = logits[b].double().softmax(0).flatten(1)
        y, w = shares[b].double().flatten(1), weight[b].double().flatten()
        entropy = sum(
            -float(w[v]) * float(y[k, v]) * math.log(float(p[k, v]))
            for k in range(classes)
            for v in range(len(w))
        )
        dice = []
        for k in range(1, classes):
            overlap = sum(float(w[v] * p[k, v] * y[k, v]) for v in range(len(w)))
            size = sum(float(w[v] * (p[k, v] + y[k, v])) for v in range(len(w)))
            dice.append(1 - (2 * overlap + 1) / (size + 1))
        result.append(entropy / (float(weight.sum()) / batch) + sum(dice) / len(dice))
    return result


@pytest.mark.parametrize("classes", [2, 3])
def test_cross_entropy_and_dice_of_shares(classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 3, 4, 2, generator=generator)
    shares = torch.rand(2, classes, 3, 4, 2, generator=generator).softmax(1)
    weight = torch.rand(2, 3, 4, 2, generator=generator)
    weight[0, 0] = 0
    found = soft_cross_entropy_dice(logits, shares, weight)
    assert found.tolist() == pytest.approx(naive(logits, shares, weight), rel=1e-5)


def test_a_voxel_of_weight_0_teaches_nothing() -> None:
    logits = torch.randn(1, 2, 2, 2, 2, requires_grad=True)
    shares = torch.rand(1, 2, 2, 2, 2).softmax(1)
    weight = torch.ones(1, 2, 2, 2)
    weight[0, 1, 1, 1] = 0
    soft_cross_entropy_dice(logits, shares, weight).sum().backward()
    assert logits.grad is not None
    assert torch.all(logits.grad[0, :, 1, 1, 1] == 0) and torch.all(logits.grad[0, :, 0, 0, 0] != 0)


def test_deep_supervision_weighs_scales_1_half_quarter() -> None:
    fine, coarse = torch.randn(2, 2, 4, 4, 4), torch.randn(2, 2, 2, 2, 2)
    shares, weight = torch.rand(2, 2, 4, 4, 4).softmax(1), torch.rand(2, 4, 4, 4)
    light = weight.view(2, 2, 2, 2, 2, 2, 2).mean(dim=(2, 4, 6))
    pooled = (shares * weight[:, None]).view(2, 2, 2, 2, 2, 2, 2, 2).mean(dim=(3, 5, 7)) / light[:, None]
    expected = soft_cross_entropy_dice(fine, shares, weight) + 0.5 * soft_cross_entropy_dice(
        coarse, pooled, light
    )
    assert torch.allclose(deep_loss([fine, coarse], shares, weight), expected / 1.5, rtol=1e-5)


def test_sharpening_squares_the_odds() -> None:
    probs = torch.tensor([0.8, 0.2]).view(1, 2, 1, 1, 1)
    assert sharpened(probs, 0.5).flatten().tolist() == pytest.approx([0.64 / 0.68, 0.04 / 0.68])
    assert sharpened(probs, 1.0).flatten().tolist() == pytest.approx([0.8, 0.2])
