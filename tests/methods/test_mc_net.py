"""MC-Net and MC-Net+: terms against plain numpy, gradients, schedule, inference."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

from semivox.methods import create
from semivox.methods.base import Batch
from semivox.methods.mc_net import MCNet, MCNetPlus
from semivox.nets import NetFactory

Factory = Callable[..., Any]


def naive(method: Any, label: np.ndarray, count: int, w: float) -> dict[str, float]:
    z = [logits.detach().numpy() for logits in method.net.logit_maps]
    p = [np.exp(each) / np.exp(each).sum(axis=1, keepdims=True) for each in z]
    terms = {}
    for kind, own in zip(("transposed", *method.others), p, strict=True):
        dice = []
        for c in range(1, own.shape[1]):
            truth = label == c
            overlap, size = (own[:count, c] * truth).sum(), own[:count, c].sum() + truth.sum()
            dice.append(1 - (2 * overlap + 1e-8) / (size + 1e-8))
        rows = np.moveaxis(own[:count], 1, -1).reshape(-1, own.shape[1])
        entropy = -np.log(rows[np.arange(len(rows)), label[:count].ravel()]).mean()
        loss = np.mean(dice) + method.config.ce_weight * entropy
        terms[f"sup_{kind}"] = method.config.sup_weight * loss
    power = 1 / method.config.temperature
    q = [each**power / (each**power).sum(axis=1, keepdims=True) for each in p]
    terms["consistency"] = w * sum(((p[i] - q[j]) ** 2).mean() for i, j in permutations(range(len(p)), 2))
    return terms


@pytest.mark.parametrize("kind", [MCNet, MCNetPlus])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.5, "sup_weight": 0.2, "weight": 0.3}, {"ce_weight": 1.5}]
)
def test_terms(
    fixed_decoders: Factory, step: Factory, kind: type[MCNet], classes: int, options: dict[str, float]
) -> None:
    method, labeled, unlabeled = fixed_decoders(kind, classes, unlabeled=3, **options)
    losses = method.losses(labeled, unlabeled, step(3, 15))
    w = options.get("weight", 1.0) * np.exp(-5 * (1 - 0.2 / 0.4) ** 2)
    expected = naive(method, labeled.label.numpy(), 2, w)
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("kind", [MCNet, MCNetPlus])
@pytest.mark.parametrize("detached", [False, True])
def test_gradients(fixed_decoders: Factory, step: Factory, kind: type[MCNet], detached: bool) -> None:
    """Each Dice term trains its decoder on labeled patches, the consistency all of them on all patches."""
    method, labeled, unlabeled = fixed_decoders(kind, 3, detach_targets=detached)
    losses = method.losses(labeled, unlabeled, step(5))
    maps = list(method.net.logit_maps)
    for own, name in enumerate(list(losses)[:-1]):
        found = torch.autograd.grad(losses[name], maps, retain_graph=True, allow_unused=True)
        assert [index for index, gradient in enumerate(found) if gradient is not None] == [own]
        assert bool(found[own][:2].any()) and not bool(found[own][2:].any())
    found = torch.autograd.grad(losses["consistency"], maps, retain_graph=True)
    assert all(bool((gradient.flatten(1) != 0).any(dim=1).all()) for gradient in found)


@pytest.mark.parametrize("name", ["mc_net", "mc_net_plus"])
def test_real_network(step: Factory, name: str) -> None:
    torch.manual_seed(0)
    method: Any = create(name, {}, NetFactory(2, 3, width=2, dropout=0.0))
    labeled = Batch(torch.randn(1, 2, 32, 16, 16), torch.randint(0, 3, (1, 32, 16, 16)))
    unlabeled = Batch(torch.randn(1, 2, 32, 16, 16), None)
    loss = method.losses(labeled, unlabeled, step(5))["consistency"]
    found = torch.autograd.grad(loss, list(method.parameters()))
    assert all(bool((gradient != 0).any()) for gradient in found)


@pytest.mark.parametrize(("name", "kinds"), [("mc_net", 2), ("mc_net_plus", 3)])
def test_inference_takes_the_first_decoder_or_the_mean(name: str, kinds: int) -> None:
    image = torch.randn(1, 1, 16, 16, 32)
    first: Any = create(name, {}, NetFactory(1, 2, width=2)).eval()
    mean: Any = create(name, {"prediction": "mean"}, NetFactory(1, 2, width=2)).eval()
    mean.load_state_dict(first.state_dict())
    outputs = [torch.softmax(output.logits, dim=1) for output in first.net(image)]
    torch.testing.assert_close(first.predict(image), outputs[0])
    assert list(first.predict_members(image)) == ["transposed", "trilinear", "nearest"][:kinds]
    torch.testing.assert_close(mean.predict(image), sum(outputs) / kinds)
    assert list(mean.predict_members(image)) == ["transposed", "trilinear", "nearest"][:kinds]
    assert not torch.allclose(outputs[0], mean.predict(image))


def test_pseudo_labels_of_each_decoder(fixed_decoders: Factory) -> None:
    method, labeled, _ = fixed_decoders(MCNetPlus, 3)
    found = method.pseudo_labels(labeled.image)
    assert list(found) == ["transposed", "trilinear", "nearest"]
    for own, logits in zip(found.values(), method.net.logit_maps, strict=True):
        assert own.label.equal(logits.argmax(dim=1)) and own.valid is None
