from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from semivox.losses.supervised import (
    cross_entropy,
    cross_entropy_dice,
    dice_loss,
    masked_mean,
    mean,
    nll,
    onehot,
)


def random_case(classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 4, 3, 2, generator=generator, dtype=torch.float64) * 2
    return torch.log_softmax(logits, dim=1), torch.randint(0, classes, (2, 4, 3, 2), generator=generator)


def naive_dice(
    probs: np.ndarray, label: np.ndarray, background: bool, power: int = 2, smooth: float = 1e-5
) -> float:
    losses = []
    for c in range(0 if background else 1, probs.shape[1]):
        overlap = squares = size = 0.0
        for b, x, y, z in np.ndindex(*label.shape):
            p, t = probs[b, c, x, y, z], float(label[b, x, y, z] == c)
            overlap, squares, size = overlap + p * t, squares + p**power, size + t * t
        losses.append(1 - (2 * overlap + smooth) / (squares + size + smooth))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("background", [False, True])
def test_dice_against_voxel_loop(classes: int, background: bool) -> None:
    log_probs, label = random_case(classes)
    expected = naive_dice(log_probs.exp().numpy(), label.numpy(), background)
    assert dice_loss(log_probs.exp(), label, background=background).item() == pytest.approx(
        expected, abs=1e-6
    )


@pytest.mark.parametrize("classes", [2, 4])
def test_dice_with_plain_denominator_against_voxel_loop(classes: int) -> None:
    log_probs, label = random_case(classes)
    expected = naive_dice(log_probs.exp().numpy(), label.numpy(), False, power=1, smooth=1e-8)
    found = dice_loss(log_probs.exp(), label, squared=False, smooth=1e-8).item()
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("squared", "smooth", "expected"), [(True, 1e-5, 0.499999), (False, 1e-8, 0.666667)])
def test_dice_of_an_undecided_prediction(squared: bool, smooth: float, expected: float) -> None:
    """p = 0.5 on 8 voxels, 2 of them foreground."""
    probs, label = torch.full((1, 2, 2, 2, 2), 0.5, dtype=torch.float64), torch.zeros(1, 2, 2, 2, dtype=int)
    label[0, 0, 0] = 1
    assert dice_loss(probs, label, squared=squared, smooth=smooth).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_cross_entropy_against_voxel_loop_and_torch(classes: int) -> None:
    log_probs, label = random_case(classes)
    values = [-log_probs[b, label[b, x, y, z], x, y, z].item() for b, x, y, z in np.ndindex(*label.shape)]
    expected = sum(values) / len(values)
    assert cross_entropy(log_probs, label).item() == pytest.approx(expected, abs=1e-9)
    assert cross_entropy(log_probs, label).item() == pytest.approx(F.nll_loss(log_probs, label).item())
    assert nll(log_probs, label).flatten().tolist() == pytest.approx(values)
    both = cross_entropy_dice(log_probs, log_probs.exp(), label)
    torch.testing.assert_close(both, cross_entropy(log_probs, label) + dice_loss(log_probs.exp(), label))
    every = cross_entropy_dice(log_probs, log_probs.exp(), label, background=True)
    expected += naive_dice(log_probs.exp().numpy(), label.numpy(), True)
    assert every.item() == pytest.approx(expected, abs=1e-9)


def test_perfect_and_absent() -> None:
    label = torch.zeros(1, 4, 4, 4, dtype=torch.int64)
    certain = onehot(label, 2).double()
    assert dice_loss(certain, label).item() == pytest.approx(0)  # no foreground anywhere
    assert dice_loss(certain.flip(1), label).item() == pytest.approx(1, abs=1e-5)  # all foreground, none true


def test_empty_batch_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(2, 3, 4, 4, 4, requires_grad=True)
    log_probs = torch.log_softmax(logits, dim=1)[:0]
    loss = cross_entropy_dice(log_probs, log_probs.exp(), torch.zeros(0, 4, 4, 4, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and bool((logits.grad == 0).all())


def test_onehot() -> None:
    label = torch.tensor([[0, 2], [1, 1]])
    assert torch.equal(onehot(label, 3), F.one_hot(label, 3).permute(0, 2, 1).bool())
    assert onehot(torch.zeros(2, 4, 5, 6, dtype=torch.int64), 3).shape == (2, 3, 4, 5, 6)


def test_means_over_nothing() -> None:
    values = torch.ones(3, requires_grad=True)
    none = masked_mean(values, torch.zeros(3, dtype=torch.bool))
    none.backward()
    assert none.item() == 0 and values.grad is not None and values.grad.tolist() == [0, 0, 0]
    assert mean(values[:0]).item() == 0
    picked = masked_mean(torch.tensor([1.0, 5.0, 3.0]), torch.tensor([True, False, True]))
    assert picked.item() == 2 and math.isclose(mean(torch.tensor([True, False])).item(), 0.5)
