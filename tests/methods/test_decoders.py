"""`mc_net`, `mc_net_plus` and `ml_rpl`: terms against plain numpy, gradients, inference."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

from semivox.methods import create
from semivox.methods.base import Batch
from semivox.methods.mc_net import MCNet, MCNetPlus
from semivox.methods.ml_rpl import MLRPL
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


@pytest.mark.parametrize("name", ["mc_net", "mc_net_plus", "ml_rpl"])
def test_the_term_between_decoders_trains_all_of_a_real_network(step: Factory, name: str) -> None:
    torch.manual_seed(0)
    method = create(name, {}, NetFactory(2, 3, width=4))
    labeled = Batch(torch.randn(1, 2, 32, 16, 16), torch.randint(0, 3, (1, 32, 16, 16)))
    unlabeled = Batch(torch.randn(1, 2, 32, 16, 16), None)
    *_, loss = method.losses(labeled, unlabeled, step(5)).values()
    found = torch.autograd.grad(loss, list(method.parameters()))
    assert all(bool((gradient != 0).any()) for gradient in found)


@pytest.mark.parametrize(
    ("name", "others"),
    [("mc_net", ["trilinear"]), ("mc_net_plus", ["trilinear", "nearest"]), ("ml_rpl", ["nearest"])],
)
def test_inference_takes_the_first_decoder_or_the_mean(name: str, others: list[str]) -> None:
    image = torch.randn(1, 1, 16, 16, 32)
    first: Any = create(name, {}, NetFactory(1, 2, width=2)).eval()
    mean: Any = create(name, {"prediction": "mean"}, NetFactory(1, 2, width=2)).eval()
    mean.load_state_dict(first.state_dict())
    outputs = [torch.softmax(output.logits, dim=1) for output in first.net(image)]
    torch.testing.assert_close(first.predict(image), outputs[0])
    torch.testing.assert_close(mean.predict(image), sum(outputs) / len(outputs))
    assert not torch.allclose(outputs[0], mean.predict(image))
    for method in (first, mean):
        assert list(method.predict_members(image)) == ["transposed", *others]


def test_pseudo_labels_of_each_decoder(fixed_decoders: Factory) -> None:
    method, labeled, _ = fixed_decoders(MCNetPlus, 3)
    found = method.pseudo_labels(labeled.image)
    assert list(found) == ["transposed", "trilinear", "nearest"]
    for own, logits in zip(found.values(), method.net.logit_maps, strict=True):
        assert own.label.equal(logits.argmax(dim=1)) and own.valid is None


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
def test_each_voxel_teaches_one_decoder(fixed_decoders: Factory, step: Factory, on_labeled: bool) -> None:
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


def test_pseudo_labels_are_valid_where_they_teach(fixed_decoders: Factory, step: Factory) -> None:
    method, labeled, unlabeled = fixed_decoders(MLRPL, 3)
    found = method.pseudo_labels(torch.cat([labeled.image, unlabeled.image]))
    loss = method.losses(labeled, unlabeled, step(9))["mutual"]
    one, two = torch.autograd.grad(loss, list(method.net.logit_maps))
    assert found["transposed"].valid.equal((two != 0).any(dim=1))
    assert found["nearest"].valid.equal((one != 0).any(dim=1))
    for own, logits in zip(found.values(), method.net.logit_maps, strict=True):
        assert own.label.equal(logits.argmax(dim=1))
