"""`dual` as its public code computes it, against NumPy, and which network each term trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

Factory = Callable[..., Any]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def log_loss(probs: np.ndarray, label: np.ndarray) -> np.ndarray:
    return -np.log(np.take_along_axis(probs, label[:, None], axis=1)[:, 0])


def test_terms_against_numpy(fixed_dual: Factory, step: Factory) -> None:
    dual, labeled, unlabeled = fixed_dual(2, variant="released")
    losses = dual.losses(labeled, unlabeled, step(9, 10))
    assert list(losses) == ["sup_a", "sup_b", "cr", "ue", "cosine", "efs", "pgl"]
    a, b = (softmax(net.logit_map.detach().numpy()) for net in (dual.net_a, dual.net_b))
    truth, count = labeled.label.numpy(), len(labeled.image)

    sure_a, sure_b = a[:count, 1] >= 0.6, b[:count, 1] >= 0.6
    error = (a[:count, 1] - truth) ** 2 + (b[:count, 1] - truth) ** 2
    assert losses["cr"].item() == pytest.approx(0.5 * error[sure_a != sure_b].mean())

    divergence = (b * (np.log(b) - np.log(a))).sum(axis=1)
    taught = np.exp(-divergence) * log_loss(a, b.argmax(axis=1))
    assert losses["ue"].item() == pytest.approx(taught.mean() + divergence.mean())

    lengths = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    assert losses["cosine"].item() == pytest.approx((1 - (a * b).sum(axis=1) / lengths).mean())

    union = (a[count:].argmax(axis=1) | b[count:].argmax(axis=1)).astype(int)
    twice = [log_loss(softmax(own[count:]), union).mean() for own in (a, b)]
    assert losses["efs"].item() == pytest.approx(sum(twice))

    apart = []
    for net in (dual.net_a, dual.net_b):
        features = np.moveaxis(net.feature_map.detach().numpy()[count:], 1, -1)
        unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
        means = [unit[union == c].mean(axis=0) for c in (0, 1)]
        apart.append(
            np.linalg.norm(means[0] / np.linalg.norm(means[0]) - means[1] / np.linalg.norm(means[1]))
        )
    ramp = np.exp(-5 * (1 - 36 / 40) ** 2)
    assert losses["pgl"].item() == pytest.approx(0.1 * ramp * np.mean(apart))


def test_which_network_learns_from_which_term(fixed_dual: Factory, step: Factory) -> None:
    """UE trains A alone; the entropy filter and the contrast train nothing."""
    dual, labeled, unlabeled = fixed_dual(2, variant="released")
    losses = dual.losses(labeled, unlabeled, step(9, 10))
    maps = [dual.net_a.logit_map, dual.net_b.logit_map]
    reached = {
        name: [
            grad is not None for grad in torch.autograd.grad(loss, maps, retain_graph=True, allow_unused=True)
        ]
        for name, loss in losses.items()
        if loss.requires_grad
    }
    assert reached == {
        "sup_a": [True, False],
        "sup_b": [False, True],
        "cr": [True, True],
        "ue": [True, False],
        "cosine": [True, True],
    }
