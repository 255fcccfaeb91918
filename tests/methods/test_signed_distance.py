"""`dtc` and `sassnet`: terms against a voxel loop, gradients, who trains whom, modes, inference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from semivox.methods import create
from semivox.methods.base import Batch
from semivox.methods.dtc import DTC
from semivox.methods.sassnet import SASSNet
from semivox.nets import NetFactory

Factory = Callable[..., Any]


def outputs(method: Any) -> tuple[np.ndarray, np.ndarray]:
    """Distance maps (B, F, ...) and probabilities of the foreground classes (B, F, ...)."""
    raw = method.net.output.detach().numpy()
    half = raw.shape[1] // 2
    powers = np.exp(raw[:, half:])
    return np.tanh(raw[:, :half]), powers / (1 + powers.sum(axis=1, keepdims=True))


def distance_of(inside: np.ndarray) -> np.ndarray:
    d_in, d_out = ndimage.distance_transform_edt(inside), ndimage.distance_transform_edt(~inside)
    result = d_out / d_out.max() - d_in / d_in.max()
    result[d_in == 1] = 0
    return result


def naive(method: Any, label: np.ndarray, w: float) -> dict[str, float]:
    s, p = outputs(method)
    dice, errors, gaps = [], [], []
    for c in range(p.shape[1]):
        truth = label == c + 1
        overlap, size = (p[: len(label), c] * truth).sum(), (p[: len(label), c] ** 2).sum() + truth.sum()
        dice.append(1 - (2 * overlap + 1e-5) / (size + 1e-5))
        for b in range(len(label)):
            errors.append(((s[b, c] - distance_of(truth[b])) ** 2).mean())
    for v in np.ndindex(*s.shape):
        mask = 1 / (1 + math.exp(min(method.config.steepness * s[v], 700)))
        gaps.append((mask - p[v]) ** 2)
    return {
        "sup_dice": np.mean(dice),
        "sup_sdf": method.config.sdf_weight * np.mean(errors),
        "consistency": w * np.mean(gaps),
    }


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("options", [{}, {"steepness": 20.0, "sdf_weight": 0.7, "weight": 0.4}])
def test_terms(fixed_map: Factory, step: Factory, classes: int, options: dict[str, float]) -> None:
    method, labeled, unlabeled = fixed_map(DTC, classes, unlabeled=3, gain=0.01, **options)
    losses = method.losses(labeled, unlabeled, step(3, 10))
    expected = naive(method, labeled.label.numpy(), options.get("weight", 1.0) * math.exp(-5 * 0.7**2))
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, abs=1e-6)


def test_one_foreground_class_is_a_sigmoid(fixed_map: Factory) -> None:
    method, labeled, unlabeled = fixed_map(DTC)
    image = torch.cat([labeled.image, unlabeled.image])
    expected = torch.sigmoid(method.net.output[:, 1])
    probs = method.predict(image)
    torch.testing.assert_close(probs[:, 1], expected)
    torch.testing.assert_close(probs.sum(dim=1), torch.ones_like(expected))


@pytest.mark.parametrize(("absent", "expected"), [("skip", 0.0), ("zero", 1.0)])
def test_class_that_is_absent(fixed_map: Factory, step: Factory, absent: str, expected: float) -> None:
    """Without the class the map is left out, or pulled to 0 as in the published code."""
    method, labeled, unlabeled = fixed_map(DTC, 2, labeled=1, absent=absent)
    labeled = Batch(labeled.image, torch.zeros_like(labeled.label))
    found = method.losses(labeled, unlabeled, step())["sup_sdf"].item()
    assert found == pytest.approx(0.3 * expected * (outputs(method)[0][:1] ** 2).mean(), abs=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
def test_gradients(fixed_map: Factory, step: Factory, classes: int) -> None:
    """Which half of the output (distance, class) and which samples each term trains."""
    method, labeled, unlabeled = fixed_map(DTC, classes, gain=0.001)
    losses = method.losses(labeled, unlabeled, step(5))
    half = classes - 1

    def reached(name: str) -> list[bool]:
        (gradient,) = torch.autograd.grad(losses[name], [method.net.output], retain_graph=True)
        parts = (gradient[:2, :half], gradient[:2, half:], gradient[2:, :half], gradient[2:, half:])
        return [bool((part != 0).any()) for part in parts]

    assert reached("sup_dice") == [False, True, False, False]
    assert reached("sup_sdf") == [True, False, False, False]
    assert reached("consistency") == [True, True, True, True]


def test_away_from_the_zero_level_the_classes_learn_alone(fixed_map: Factory, step: Factory) -> None:
    method, labeled, unlabeled = fixed_map(DTC)
    with torch.no_grad():
        method.net.output[:, :1] = torch.where(method.net.output[:, :1] > 0, 0.5, -0.5)
    (gradient,) = torch.autograd.grad(
        method.losses(labeled, unlabeled, step(5))["consistency"], [method.net.output]
    )
    assert gradient[:, :1].abs().max() < 1e-12
    downhill = torch.where(method.net.output[:, :1] < 0, -1.0, 1.0)  # inside: the class logit rises
    assert torch.equal(gradient[:, 1:].sign(), downhill.double())


def test_real_network() -> None:
    method: Any = create("dtc", {}, NetFactory(2, 4, width=2)).eval()
    image = torch.randn(1, 2, 32, 16, 16)
    prediction, distance = method.outputs(image)
    assert prediction.probs.shape == (1, 4, 32, 16, 16) and distance.shape == (1, 3, 32, 16, 16)
    assert distance.abs().max() <= 1
    torch.testing.assert_close(method.predict(image), prediction.probs)


def test_pseudo_labels_of_both_heads(fixed_map: Factory) -> None:
    """A voxel belongs to the class whose distance map is lowest there, if that is below 0."""
    method, labeled, _ = fixed_map(DTC, 4)
    found = method.pseudo_labels(labeled.image)
    distance, p = outputs(method)
    for v in np.ndindex(*found["distance"].label.shape):
        s = [distance[v[0], c, *v[1:]] for c in range(3)]
        assert found["distance"].label[v].item() == (int(np.argmin(s)) + 1 if min(s) < 0 else 0)
        q = [1 - p[v[0], :, *v[1:]].sum(), *p[v[0], :, *v[1:]]]
        assert found["class"].label[v].item() == int(np.argmax(q))
    assert len(found["distance"].label.unique()) == 4


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
