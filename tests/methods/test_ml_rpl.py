"""ML-RPL: terms against a voxel loop, gradients, schedule, inference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from semivox.methods import create
from semivox.methods.base import Batch
from semivox.methods.ml_rpl import MLRPL
from semivox.nets import NetFactory

Factory = Callable[..., Any]


def naive_mutual(method: Any, first: int) -> float:
    """L_12 + L_21 over the samples from `first` on."""
    z = [logits.detach().movedim(1, -1).numpy()[first:] for logits in method.net.logit_maps]
    f = [features.detach().movedim(1, -1).numpy()[first:] for features in method.net.feature_maps]
    p = [np.exp(each) / np.exp(each).sum(axis=-1, keepdims=True) for each in z]
    total = 0.0
    for i, j in ((0, 1), (1, 0)):
        numerator, count = 0.0, 0
        for b in range(len(z[0])):
            label = p[j][b].argmax(axis=-1)
            prototypes = []
            for c in range(z[0].shape[-1]):
                mean = f[j][b][label == c].sum(axis=0) / ((label == c).sum() + 1e-6)
                prototypes.append(mean / max(np.linalg.norm(mean), 1e-12))
            for v in np.ndindex(*label.shape):
                u_i, u_j = (-sum(x * math.log(x + 1e-6) for x in own[b][v]) for own in (p[i], p[j]))
                if u_i <= u_j:
                    continue
                norm = np.linalg.norm(f[j][b][v])
                cosines = [float(f[j][b][v] @ prototype) / max(norm, 1e-12) for prototype in prototypes]
                w = np.mean([1 - (s - x) ** 2 for s, x in zip(cosines, p[j][b][v], strict=True)])
                numerator, count = numerator - w * math.log(p[i][b][v][label[v]]), count + 1
        total += numerator / (count + 1e-6)
    return total


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("on_labeled", [True, False])
def test_mutual_term(fixed_decoders: Factory, step: Factory, classes: int, on_labeled: bool) -> None:
    method, labeled, unlabeled = fixed_decoders(MLRPL, classes, mutual_on_labeled=on_labeled)
    losses = method.losses(labeled, unlabeled, step(9, 10))
    expected = naive_mutual(method, 0 if on_labeled else 2)
    assert list(losses) == ["sup_transposed", "sup_nearest", "mutual"]
    assert losses["mutual"].item() == pytest.approx(expected, abs=1e-6)


def test_equal_decoders_teach_nothing(fixed_decoders: Factory, step: Factory) -> None:
    method, labeled, unlabeled = fixed_decoders(MLRPL, 3)
    with torch.no_grad():
        method.net.logit_maps[1].copy_(method.net.logit_maps[0])
    assert method.losses(labeled, unlabeled, step(9))["mutual"].item() == 0


@pytest.mark.parametrize("on_labeled", [True, False])
def test_gradients(fixed_decoders: Factory, step: Factory, on_labeled: bool) -> None:
    """Every voxel is taught to one decoder only (the masks are disjoint), and features are not trained."""
    method, labeled, unlabeled = fixed_decoders(MLRPL, 3, mutual_on_labeled=on_labeled)
    loss = method.losses(labeled, unlabeled, step(9))["mutual"]
    maps = list(method.net.logit_maps)
    found = torch.autograd.grad(loss, [*maps, *method.net.feature_maps], allow_unused=True)
    assert found[2:] == (None, None)
    one, two = ((gradient != 0).any(dim=1) for gradient in found[:2])
    assert bool(one[2:].any()) and bool(two[2:].any()) and not bool((one & two).any())
    assert bool((one | two)[2:].all()) and bool((one | two)[:2].all()) == on_labeled
    assert bool((one | two)[:2].any()) == on_labeled


def test_real_network(step: Factory) -> None:
    """Both decoders and the encoder learn from the mutual term; the features are those after the dropout."""
    torch.manual_seed(0)
    method: Any = create("ml_rpl", {}, NetFactory(2, 3, width=4))
    labeled = Batch(torch.randn(1, 2, 32, 16, 16), torch.randint(0, 3, (1, 32, 16, 16)))
    unlabeled = Batch(torch.randn(1, 2, 32, 16, 16), None)
    loss = method.losses(labeled, unlabeled, step(5))["mutual"]
    found = torch.autograd.grad(loss, list(method.parameters()))
    trained = sum(bool((gradient != 0).any()) for gradient in found)
    assert trained == len(found)


def test_pseudo_labels_are_valid_where_they_teach(fixed_decoders: Factory, step: Factory) -> None:
    method, labeled, unlabeled = fixed_decoders(MLRPL, 3)
    found = method.pseudo_labels(torch.cat([labeled.image, unlabeled.image]))
    loss = method.losses(labeled, unlabeled, step(9))["mutual"]
    one, two = torch.autograd.grad(loss, list(method.net.logit_maps))
    assert found["transposed"].valid.equal((two != 0).any(dim=1))
    assert found["nearest"].valid.equal((one != 0).any(dim=1))
    for own, logits in zip(found.values(), method.net.logit_maps, strict=True):
        assert own.label.equal(logits.argmax(dim=1))
