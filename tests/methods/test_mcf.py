"""`mcf` against a walk through the voxels, its self-checks, and what each term trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from semivox.losses.consistency import sharpen
from semivox.methods import create
from semivox.methods.base import Batch
from semivox.methods.cost import count_parameters
from semivox.methods.mcf import MCF
from semivox.nets import NetFactory

Factory = Callable[..., Any]


def voxels(net: Any) -> np.ndarray:
    """Probabilities (B, X, Y, Z, K) of a `Fixed` network."""
    powers = np.exp(net.logit_map.detach().movedim(1, -1).numpy())
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def naive_mcf(method: MCF, truth: np.ndarray, done: float) -> tuple[dict[str, float], bool]:
    """All terms, and whether A teaches."""
    p = [voxels(method.net_a), voxels(method.net_b)]
    classes, count = p[0].shape[-1], len(truth)
    places = list(np.ndindex(*truth.shape))
    terms, dices = {}, []
    for name, own in zip("ab", p, strict=True):
        losses = []
        for c in range(1, classes):
            overlap = sum(own[v][c] * (truth[v] == c) for v in places)
            size = sum(own[v][c] ** 2 + (truth[v] == c) for v in places)
            losses.append(1 - (2 * overlap + 1e-5) / (size + 1e-5))
        dices.append(sum(losses) / len(losses))
        terms[f"sup_{name}"] = dices[-1] - sum(math.log(own[v][truth[v]]) for v in places) / len(places)
    differ = [v for v in places if p[0][v].argmax() != p[1][v].argmax()]
    errors = [(own[v][c] - (truth[v] == c)) ** 2 for own in p for v in differ for c in range(1, classes)]
    terms["cdr"] = 0.5 * sum(errors) / (len(differ) + 1e-16)
    a_teaches = dices[0] <= dices[1]
    teacher, student = (p[0], p[1]) if a_teaches else (p[1], p[0])
    squares = []
    for v in np.ndindex(*teacher.shape[:-1]):
        if v[0] >= count:
            powers = [q ** (1 / 0.1) for q in teacher[v]]
            squares += [(student[v][c] - powers[c] / sum(powers)) ** 2 for c in range(classes)]
    terms["dcpl"] = 0.1 * math.exp(-5 * (1 - done) ** 2) * sum(squares) / len(squares)
    return terms, a_teaches


@pytest.mark.parametrize("classes", [2, 3])
def test_against_a_walk_through_the_voxels(fixed_pair: Factory, step: Factory, classes: int) -> None:
    teachers = set()
    for seed in range(6):
        method, labeled, unlabeled = fixed_pair(MCF, classes, seed=seed)
        losses = method.losses(labeled, unlabeled, at := step(7, 10))
        expected, a_teaches = naive_mcf(method, labeled.target.numpy(), 0.7)
        assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, abs=1e-6)
        assert bool(at.notes["a_teaches"]) == a_teaches
        teachers.add(a_teaches)
    assert teachers == {True, False}


def test_sharpening() -> None:
    probs = torch.tensor([0.6, 0.4], dtype=torch.float64).view(1, 2, 1, 1, 1)
    assert sharpen(probs.log(), 0.1).flatten().tolist() == pytest.approx([0.982954, 0.017046], abs=1e-6)
    assert sharpen(probs.log(), 1.0).flatten().tolist() == pytest.approx([0.6, 0.4])
    three = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).view(1, 3, 1, 1, 1)
    powers = np.array([0.5, 0.3, 0.2]) ** 2
    assert sharpen(three.log(), 0.5).flatten().tolist() == pytest.approx(powers / powers.sum())


def test_ramp(fixed_pair: Factory, step: Factory) -> None:
    method, labeled, unlabeled = fixed_pair(MCF)
    method.losses(labeled, unlabeled, at := step(3000, 6000))
    assert at.notes["weight_dcpl"].item() == pytest.approx(0.028650, abs=1e-6)


def test_size() -> None:
    assert count_parameters(create("mcf", {}, NetFactory(1, 2))) == 27_379_220


def test_agreeing_networks(fixed_pair: Factory, step: Factory) -> None:
    """Nothing to review; at equal Dice losses A teaches."""
    method, labeled, unlabeled = fixed_pair(MCF, 3)
    with torch.no_grad():
        method.net_b.logit_map.copy_(method.net_a.logit_map)
    losses = method.losses(labeled, unlabeled, at := step(5))
    assert losses["cdr"].item() == 0 and at.notes["cdr_share"].item() == 0 and bool(at.notes["a_teaches"])


def reached(loss: Tensor, net: Any) -> list[bool]:
    """Whether the gradient of the labeled and of the unlabeled logits is other than 0."""
    found = torch.autograd.grad(loss, net.logit_map, retain_graph=True, allow_unused=True)[0]
    return [
        found is not None and bool((half != 0).any())
        for half in (found.split(2) if found is not None else (0, 0))
    ]


@pytest.mark.parametrize("classes", [2, 3])
def test_what_each_term_trains(fixed_pair: Factory, step: Factory, classes: int) -> None:
    for seed in range(6):
        method, labeled, unlabeled = fixed_pair(MCF, classes, seed=seed)
        losses = method.losses(labeled, unlabeled, at := step(9))
        trained = {
            name: reached(loss, method.net_a) + reached(loss, method.net_b) for name, loss in losses.items()
        }
        a_learns = not bool(at.notes["a_teaches"])
        assert trained == {
            "sup_a": [True, False, False, False],
            "sup_b": [False, False, True, False],
            "cdr": [True, False, True, False],
            "dcpl": [False, a_learns, False, not a_learns],
        }


def test_parameters_of_real_networks(step: Factory) -> None:
    torch.manual_seed(0)
    method = create("mcf", {}, NetFactory(1, 3, width=2, dropout=0.0))
    image, label = torch.randn(4, 1, 16, 16, 16), torch.randint(0, 3, (2, 16, 16, 16))
    losses = method.losses(Batch(image[:2], label), Batch(image[2:], None), at := step(9))
    parameters = dict(method.named_parameters())
    found = torch.autograd.grad(losses["dcpl"], list(parameters.values()), allow_unused=True)
    trained = {n for n, g in zip(parameters, found, strict=True) if g is not None and bool((g != 0).any())}
    learner = "net_b" if bool(at.notes["a_teaches"]) else "net_a"
    assert {".".join(name.split(".")[:2]) for name in trained} == {
        f"{learner}.{part}" for part in ("encoder", "decoder", "head")
    }


@pytest.mark.parametrize(("labeled", "unlabeled"), [(2, 0), (0, 2), (1, 3)])
def test_absent_streams(fixed_pair: Factory, step: Factory, labeled: int, unlabeled: int) -> None:
    method, first, second = fixed_pair(MCF, labeled=labeled, unlabeled=unlabeled)
    losses = method.losses(first, second, step(5))
    zero = {name for name, loss in losses.items() if loss.item() == 0}
    assert zero == (set() if labeled and unlabeled else {"dcpl"} if labeled else {"sup_a", "sup_b", "cdr"})
