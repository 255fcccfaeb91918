"""CPCL: published schedule, terms against NumPy, what trains what in both variants."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gradients import trained_by

from semivox.methods import create
from semivox.methods.base import Batch
from semivox.nets import NetFactory

Factory = Callable[..., Any]


def naive_cycle(
    naive: Any, method: Any, labeled: np.ndarray, label: np.ndarray, unlabeled: np.ndarray, released: bool
) -> tuple[float, float]:
    """L2U and U2L with loops over samples and classes."""
    p, q = naive.probs(method.net, labeled), naive.probs(method.teacher, unlabeled)
    f_l = naive.enlarge(naive.levels(method.net, labeled)[1], 2)
    f_u = naive.enlarge(naive.levels(method.teacher, unlabeled)[1], 2)
    classes = p.shape[1]

    def prototypes(features: np.ndarray, weights: np.ndarray, member: np.ndarray) -> list[np.ndarray]:
        found = []
        for c in range(classes):
            w = weights[c] * (member == c)
            found.append((features * w).sum(axis=(1, 2, 3)) / (w.sum() + 1e-5))
        return found

    def scores(features: np.ndarray, against: list[np.ndarray]) -> np.ndarray:
        channels = []
        for prototype in against:
            inner = np.einsum("d,dxyz->xyz", prototype, features)
            lengths = np.linalg.norm(features, axis=0) * max(float(np.linalg.norm(prototype)), 1e-8)
            channels.append(20 * inner / lengths)
        return naive.softmax(np.stack(channels)[None])[0]

    n_l, n_u = len(labeled), len(unlabeled)
    of_l = [prototypes(f_l[b], p[b], label[b]) for b in range(n_l)]
    of_u = [prototypes(f_u[b], q[b], q[b].argmax(axis=0)) for b in range(n_u)]
    forward = np.mean([(scores(f_u[b], of_l[b % n_l]) - q[b]) ** 2 for b in range(n_u)])
    errors = []
    for b in range(n_l):
        k = scores(f_l[b], of_u[b % n_u])
        if released:
            k = naive.softmax(k[None])[0]
        errors.append(-np.log(np.take_along_axis(k, label[b][None], axis=0)))
    return float(forward), float(np.mean(errors))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("labeled", "unlabeled"), [(2, 2), (1, 3), (3, 1)])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_against_numpy(
    tiny: Factory, step: Factory, naive: Any, classes: int, labeled: int, unlabeled: int, variant: str
) -> None:
    method, first, second = tiny(
        "cpcl", classes, labeled=labeled, unlabeled=unlabeled, channels=2, variant=variant, stability=True
    )
    losses = method.losses(first, second, step(3, 10))
    image_l, image_u, label = naive.numpy(first.image), naive.numpy(second.image), first.label.numpy()
    image = np.concatenate([image_l, image_u])
    noise = naive.noise(image.shape, torch.Generator().manual_seed(0))
    difference = naive.logits(method.teacher, image + noise) - naive.logits(method.net, image)
    forward, backward = naive_cycle(naive, method, image_l, label, image_u, variant == "released")
    weight = 0.1 * naive.ramp(0.5)
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(
        {
            "sup": naive.ce_dice(naive.probs(method.net, image_l), label, 0),
            "stability": weight * float((difference**2).mean()),
            "l2u": weight * forward,
            "u2l": 10 * weight * backward,
        },
        abs=1e-6,
        rel=1e-6,
    )
    assert forward > 1e-3 and backward > 0.1


@pytest.mark.parametrize(
    ("options", "on"),
    [
        ({}, False),
        ({"stability": True}, True),
        ({"variant": "released"}, True),
        ({"variant": "released", "stability": False}, False),
    ],
)
def test_stability(tiny: Factory, step: Factory, options: dict[str, Any], on: bool) -> None:
    method, labeled, unlabeled = tiny("cpcl", **options)
    assert ("stability" in method.losses(labeled, unlabeled, step())) == on


@pytest.fixture
def real_method(step: Factory) -> Callable[[str], tuple[Any, dict[str, torch.Tensor]]]:
    def make(variant: str) -> tuple[Any, dict[str, torch.Tensor]]:
        torch.manual_seed(0)
        method = create(
            "cpcl", {"variant": variant, "stability": True}, NetFactory(1, 3, width=2, dropout=0.0)
        )
        image, label = torch.randn(4, 1, 16, 16, 16), torch.randint(0, 3, (2, 16, 16, 16))
        with torch.no_grad():
            method.teacher.head[1].bias += 0.1 * torch.randn(3)
        return method, method.losses(Batch(image[:2], label), Batch(image[2:], None), step(6, 10))

    return make


def test_what_the_terms_train(real_method: Factory) -> None:
    """L2U reaches the head, through the weights of the prototypes; U2L what lies before the features."""
    method, losses = real_method("paper")
    everything = {name for name, _ in method.net.named_parameters()}
    after = {n for n in everything if n.startswith(("head.", "decoder.stages.3.", "decoder.ups.3."))}
    assert after and trained_by(losses["sup"], method.net) == everything
    assert trained_by(losses["stability"], method.net) == everything
    assert trained_by(losses["l2u"], method.net) == everything
    assert trained_by(losses["u2l"], method.net) == everything - after
    assert "decoder.stages.2.3.weight" in trained_by(losses["u2l"], method.net)
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())


def test_released_prototype_terms_train_nothing(real_method: Factory) -> None:
    method, losses = real_method("released")
    assert not losses["l2u"].requires_grad and not losses["u2l"].requires_grad
    assert losses["l2u"].item() > 0 and losses["u2l"].item() > 0
    assert trained_by(losses["stability"], method.net) == {name for name, _ in method.net.named_parameters()}


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_each_term_reaches_its_samples(tiny: Factory, step: Factory, variant: str) -> None:
    """Neither cycle term comes through the student's view of the unlabeled patches; stability does."""
    method, labeled, unlabeled = tiny("cpcl", variant=variant, stability=True)
    maps: list[list[torch.Tensor]] = []
    pyramid = method.net.pyramid
    method.net.pyramid = lambda image: maps.append(pyramid(image)) or maps[-1]
    losses = method.losses(labeled, unlabeled, step(5))

    def gradient(term: str, level: int) -> torch.Tensor:
        return torch.autograd.grad(losses[term], maps[0][level], retain_graph=True)[0]

    assert all(bool((half != 0).any()) for half in gradient("stability", 0).split(2))
    if variant == "paper":
        for term in ("l2u", "u2l"):
            first, second = gradient(term, 1).split(2)
            assert bool((first != 0).any()) and bool((second == 0).all())


def test_gradients_numerically(tiny: Factory, step: Factory) -> None:
    """What is held constant (teacher, its labels) stays so under a small change of the student."""
    method, labeled, unlabeled = tiny("cpcl", 3, gain=2.0)
    weight = method.net.levels[1].weight
    for term in ("l2u", "u2l"):
        loss = method.losses(labeled, unlabeled, step(5))[term]
        (gradient,) = torch.autograd.grad(loss, weight)
        moved = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[2, 0] += sign * 1e-5
                moved.append(method.losses(labeled, unlabeled, step(5))[term].item())
                weight[2, 0] -= sign * 1e-5
        assert gradient[2].item() == pytest.approx((moved[0] - moved[1]) / 2e-5, rel=1e-5)
        assert gradient[2].item() != 0


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_absent_class(tiny: Factory, step: Factory, variant: str) -> None:
    """A class in neither patch has a zero prototype and a neutral score."""
    method, labeled, unlabeled = tiny("cpcl", 3, variant=variant)
    with torch.no_grad():
        method.teacher.head.bias[2] = -100
    losses = method.losses(Batch(labeled.image, torch.zeros_like(labeled.label)), unlabeled, step(5))
    sum(losses.values()).backward()
    assert all(math.isfinite(loss.item()) for loss in losses.values())
    gradients = [p.grad for p in method.net.parameters() if p.grad is not None]
    assert gradients and all(bool(torch.isfinite(g).all()) for g in gradients)


@pytest.mark.parametrize("net", ["vnet", "resnet34", "unet3d"])
def test_any_network(step: Factory, net: str) -> None:
    method = create("cpcl", {"net": net}, NetFactory(2, 3, width=2))
    image = torch.randn(4, 2, 32, 16, 16)
    labeled = Batch(image[:2], torch.randint(0, 3, (2, 32, 16, 16)))
    losses = method.losses(labeled, Batch(image[2:], None), step(5))
    assert all(math.isfinite(loss.item()) and loss.item() > 0 for loss in losses.values())
