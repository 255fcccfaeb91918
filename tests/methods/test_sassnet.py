"""SASSNet: terms, who trains whom, modes, the discriminator's step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from semivox.methods import create
from semivox.methods.base import Batch
from semivox.methods.dtc import DTC
from semivox.methods.sassnet import SASSNet
from semivox.nets import NetFactory

Factory = Callable[..., Any]


def make(classes: int = 2, channels: int = 1, **options: object) -> tuple[Any, Batch, Batch]:
    torch.manual_seed(0)
    method = create("sassnet", options, NetFactory(channels, classes, width=2))
    image = torch.randn(4, channels, 32, 16, 16)
    label = torch.zeros(2, 32, 16, 16, dtype=torch.int64)
    for index in range(1, classes):
        label[:, 4 * index : 4 * index + 4, 3:9, 5:12] = index
    return method, Batch(image[:2], label), Batch(image[2:], None)


class MeanDiscriminator(nn.Module):
    """Logits from the means of map and image, with two weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[3.0, -2.0], [0.5, 1.5]], dtype=torch.float64))

    def forward(self, distance: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        means = torch.stack([distance.flatten(1).mean(1), image.double().flatten(1).mean(1)], dim=1)
        return means @ self.weight


@pytest.mark.parametrize("classes", [2, 3])
def test_adversarial_and_discriminator_by_hand(fixed_map: Factory, step: Factory, classes: int) -> None:
    method, labeled, unlabeled = fixed_map(SASSNet, classes, labeled=2, unlabeled=3)
    method.discriminator = MeanDiscriminator()
    labeled, unlabeled = (Batch(torch.randn_like(batch.image), batch.label) for batch in (labeled, unlabeled))
    distance = torch.tanh(method.net.output[:, : classes - 1]).flatten(1).mean(1).tolist()
    image = torch.cat([labeled.image, unlabeled.image]).flatten(1).mean(1).tolist()

    def ce(sample: int, target: int) -> float:
        s, x = distance[sample], image[sample]
        logits = [3.0 * s + 0.5 * x, -2.0 * s + 1.5 * x]
        return math.log(sum(math.exp(z) for z in logits)) - logits[target]

    losses = method.losses(labeled, unlabeled, step(3, 10))
    weight = 0.01 * math.exp(-5 * 0.7**2)
    expected = weight * sum(ce(sample, 1) for sample in (2, 3, 4)) / 3
    assert losses["adversarial"].item() == pytest.approx(expected, abs=1e-8)
    critic = method.critic_losses(labeled, unlabeled, step(3, 10))
    expected = sum(ce(sample, int(sample < 2)) for sample in range(5)) / 5
    assert critic["discriminator"].item() == pytest.approx(expected, abs=1e-6)


def test_supervised_terms_are_those_of_dtc(fixed_map: Factory, step: Factory) -> None:
    found = {}
    for kind in (SASSNet, DTC):
        method, labeled, unlabeled = fixed_map(kind, 3)
        if kind is SASSNet:
            method.discriminator = MeanDiscriminator()
        losses = method.losses(labeled, unlabeled, step())
        found[kind] = {name: loss.item() for name, loss in losses.items() if name.startswith("sup")}
    assert found[SASSNet] == found[DTC] and len(found[DTC]) == 2


def test_adversarial_term_trains_the_maps_of_unlabeled_patches(fixed_map: Factory, step: Factory) -> None:
    method, labeled, unlabeled = fixed_map(SASSNet, 3)
    method.discriminator = MeanDiscriminator()
    loss = method.losses(labeled, unlabeled, step(5))["adversarial"]
    found = torch.autograd.grad(loss, [method.net.output])[0]
    assert bool((found[2:, :2] != 0).all())
    assert not bool(found[:2].any()) and not bool(found[:, 2:].any())


@pytest.mark.parametrize(("classes", "channels"), [(2, 1), (3, 2)])
def test_networks_and_discriminator_are_trained_apart(step: Factory, classes: int, channels: int) -> None:
    method, labeled, unlabeled = make(classes, channels)
    loss = method.losses(labeled, unlabeled, step(5))["adversarial"]
    loss.backward()
    assert all(parameter.grad is None for parameter in method.discriminator.parameters())
    maps = classes - 1  # the half of the head that gives the distance maps
    for name, parameter in method.net.named_parameters():
        if name == "head.1.weight":
            assert bool((parameter.grad[:maps] != 0).any()) and not bool(parameter.grad[maps:].any())
        else:
            assert bool((parameter.grad != 0).any()), name
    method.zero_grad()
    method.critic_losses(labeled, unlabeled, step(5))["discriminator"].backward()
    assert all(parameter.grad is None for parameter in method.net.parameters())
    assert all(bool((parameter.grad != 0).any()) for parameter in method.discriminator.parameters())


def test_modes(step: Factory) -> None:
    """The networks' step: network trains, D evaluates. D's step: the other way round. Then as before."""
    method, labeled, unlabeled = make()
    seen: list[tuple[bool, bool]] = []
    for part in (method.net, method.discriminator):
        part.register_forward_pre_hook(
            lambda *_: seen.append((method.net.training, method.discriminator.training))
        )
    statistics = method.net.encoder.levels[0][1].running_mean
    before = statistics.clone()
    method.losses(labeled, unlabeled, step())
    assert seen == [(True, True), (True, False)] and not torch.equal(statistics, before)
    seen.clear()
    before = statistics.clone()
    method.critic_losses(labeled, unlabeled, step())
    assert seen == [(False, True), (True, True)] and torch.equal(statistics, before)
    assert all(module.training for module in method.modules())
    assert all(parameter.requires_grad for parameter in method.parameters())
    method.eval()
    method.critic_losses(labeled, unlabeled, step())
    assert not any(module.training for module in method.modules())


def test_discriminator_learns_to_tell(step: Factory) -> None:
    """Labeled and unlabeled images that differ in brightness are told apart after a few steps."""
    method, labeled, unlabeled = make()
    unlabeled = Batch(unlabeled.image + 2, None)
    groups = method.critic_parameters()
    assert (groups[0]["lr"], groups[0]["betas"]) == (1e-4, (0.9, 0.99))
    optimiser = torch.optim.Adam(groups[0]["params"], lr=3e-3)
    history = []
    for _ in range(25):
        optimiser.zero_grad()
        loss = method.critic_losses(labeled, unlabeled, step())["discriminator"]
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert history[0] == pytest.approx(math.log(2), abs=0.2)
    assert sum(history[-5:]) / 5 < 0.3


def test_inference_needs_the_network_alone() -> None:
    method, labeled, _ = make(3)
    method.eval()
    before = method.predict(labeled.image)
    nn.init.zeros_(method.discriminator.verdict.weight)
    assert before.shape == (2, 3, 32, 16, 16) and torch.equal(method.predict(labeled.image), before)
