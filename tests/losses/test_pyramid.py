from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from semivox.losses.pyramid import mean_log_probs, rectified_consistency


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


@pytest.mark.parametrize("kl", ["from_average", "to_average"])
@pytest.mark.parametrize("classes", [2, 3])
def test_against_voxel_loop(classes: int, kl: str) -> None:
    generator = torch.Generator().manual_seed(0)
    scales = [
        torch.log_softmax(torch.randn(2, classes, 3, 2, 2, generator=generator, dtype=torch.float64), dim=1)
        for _ in range(4)
    ]
    average = mean_log_probs(scales)
    p = [s.exp().movedim(1, -1).reshape(-1, classes).numpy() for s in scales]
    m = sum(p) / 4
    np.testing.assert_allclose(average.exp().movedim(1, -1).reshape(-1, classes).numpy(), m, atol=1e-12)
    for scale, q in zip(scales, p, strict=True):
        errors, weights, divergences = [], [], []
        for v in range(len(q)):
            first, second = (m[v], q[v]) if kl == "from_average" else (q[v], m[v])
            d = sum(first[c] * math.log(first[c] / second[c]) for c in range(classes))
            divergences.append(d)
            weights.append(math.exp(-d))
            errors += [weights[-1] * (m[v][c] - q[v][c]) ** 2 for c in range(classes)]
        expected = np.mean(errors) / (np.mean(weights) + 1e-8) + np.mean(divergences)
        assert rectified_consistency(scale, average, kl).item() == pytest.approx(expected, abs=1e-9)


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
