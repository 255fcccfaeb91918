"""URPC: published sizes and schedule, terms against NumPy, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from semivox.methods import create
from semivox.methods.base import Batch
from semivox.nets import NetFactory

Factory = Callable[..., Any]


@pytest.mark.parametrize(
    ("options", "norm", "expected"),
    [
        ({}, "batch", "instance"),
        ({"norm": "group"}, "batch", "group"),
        ({"net": "vnet"}, "batch", "batch"),
        ({"net": "vnet"}, "group", "group"),
        ({"net": "vnet", "norm": "instance"}, "batch", "instance"),
    ],
)
def test_normalisation(options: dict[str, Any], norm: str, expected: str) -> None:
    assert create("urpc", options, NetFactory(1, 2, width=2, norm=norm)).net.norm == expected


@pytest.mark.parametrize("net", ["unet3d", "vnet"])
def test_channels_of_a_level_are_dropped_once(net: str) -> None:
    method = create("urpc", {"net": net}, NetFactory(1, 2, width=2))
    found = [head[0].p for head in method.heads.heads]
    assert found == pytest.approx([0, 0, 0] if net == "unet3d" else [0.2, 0.3, 0.5])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kl", ["from_average", "to_average"])
def test_against_numpy(tiny: Factory, step: Factory, naive: Any, classes: int, kl: str) -> None:
    method, labeled, unlabeled = tiny("urpc", classes, channels=2, kl=kl)
    losses = method.losses(labeled, unlabeled, step(5, 10))
    image = naive.numpy(torch.cat([labeled.image, unlabeled.image]))
    maps = naive.levels(method.net, image)
    scales = [naive.softmax(naive.conv(maps[0], method.net.head))]
    for level, head in enumerate(method.heads.heads, start=1):
        scales.append(naive.softmax(naive.enlarge(naive.conv(maps[level], head[1]), 2**level)))
    sup = sum(naive.ce_dice(p[:2], labeled.label.numpy(), 0) for p in scales) / 4
    average = sum(p[2:] for p in scales) / 4
    total = 0.0
    for p in (p[2:] for p in scales):
        first, second = (average, p) if kl == "from_average" else (p, average)
        divergence = (first * np.log(first / second)).sum(axis=1, keepdims=True)
        weight = np.exp(-divergence)
        total += ((average - p) ** 2 * weight).mean() / (weight.mean() + 1e-8) + divergence.mean()
    assert losses["sup"].item() == pytest.approx(sup, abs=1e-9)
    expected = 0.1 * naive.ramp(0.5) * total / 4
    assert losses["pyramid"].item() == pytest.approx(expected, abs=1e-9) and expected > 1e-4


@pytest.mark.parametrize("net", ["unet3d", "vnet"])
@pytest.mark.parametrize("term", ["sup", "pyramid"])
def test_each_term_trains_everything(step: Factory, net: str, term: str) -> None:
    """In float64: a bias before an instance normalisation changes nothing, and has a gradient of zero."""
    torch.manual_seed(0)
    options = {"net": net, "norm": "none"}
    method = create("urpc", options, NetFactory(1, 3, width=2, dropout=0.0)).double()
    image = torch.randn(4, 1, 16, 16, 32, dtype=torch.float64)
    labeled = Batch(image[:2], torch.randint(0, 3, (2, 16, 16, 32)))
    method.losses(labeled, Batch(image[2:], None), step(5))[term].backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


def test_terms_reach_their_samples(tiny: Factory, step: Factory) -> None:
    """Only labeled patches are supervised, only unlabeled ones made consistent, at all four levels."""
    method, labeled, unlabeled = tiny("urpc")
    maps: list[list[torch.Tensor]] = []
    pyramid = method.net.pyramid
    method.net.pyramid = lambda image: maps.append(pyramid(image)) or maps[-1]
    losses = method.losses(labeled, unlabeled, step(5))
    for name, trained in (("sup", 0), ("pyramid", 1)):
        for gradient in torch.autograd.grad(losses[name], maps[0], retain_graph=True):
            halves = gradient.split(2)
            assert bool((halves[trained] != 0).any()) and bool((halves[1 - trained] == 0).all())


def test_sure_and_contrary_scales_stay_finite(tiny: Factory, step: Factory) -> None:
    method, labeled, unlabeled = tiny("urpc")
    method.float()
    with torch.no_grad():
        method.net.head.bias.copy_(torch.tensor([300.0, -300.0]))
        method.heads.heads[1][1].bias.copy_(torch.tensor([-300.0, 300.0]))
    losses = method.losses(
        Batch(labeled.image.float(), labeled.label), Batch(unlabeled.image.float(), None), step(5)
    )
    sum(losses.values()).backward()
    assert all(math.isfinite(loss.item()) for loss in losses.values())
    assert all(bool(torch.isfinite(p.grad).all()) for p in method.parameters())


def test_the_finest_scale_predicts() -> None:
    method = create("urpc", {}, NetFactory(2, 3, width=2)).eval()
    image = torch.randn(1, 2, 16, 32, 16)
    with torch.no_grad():
        for parameter in method.heads.parameters():
            parameter.fill_(torch.nan)
        torch.testing.assert_close(method.predict(image), torch.softmax(method.net(image), dim=1))
    assert list(method.predict_members(image)) == ["unet3d"]
