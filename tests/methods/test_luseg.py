"""`luseg`: both variants against a walk through the voxels, and what each term trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from semivox.methods import create
from semivox.methods.base import Batch
from semivox.methods.luseg import LUSEG
from semivox.nets import NetFactory

Factory = Callable[..., Any]
Voxel = tuple[int, ...]


def unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / math.sqrt(float((vector**2).sum())))


def naive_luseg(method: Any, truth: np.ndarray, done: float) -> tuple[dict[str, float], bool]:
    """All terms with every unreliable voxel drawn, and whether A has the lower Dice loss."""
    cfg, nets = method.config, (method.net_a, method.net_b)
    z = [net.logit_map.detach().movedim(1, -1).numpy() for net in nets]
    f = [net.feature_map.detach().movedim(1, -1).numpy() for net in nets]
    p = [np.exp(own) / np.exp(own).sum(axis=-1, keepdims=True) for own in z]
    classes, count = z[0].shape[-1], len(truth)
    places: list[Voxel] = list(np.ndindex(*truth.shape))
    free: list[Voxel] = [v for v in np.ndindex(*z[0].shape[:-1]) if v[0] >= count]
    terms, dices = {}, []
    for name, own in zip("ab", p, strict=True):
        losses = []
        for c in range(1, classes):
            overlap = sum(own[v][c] * (truth[v] == c) for v in places)
            size = sum(own[v][c] ** 2 + (truth[v] == c) for v in places)
            losses.append(1 - (2 * overlap + 1e-5) / (size + 1e-5))
        dices.append(sum(losses) / len(losses))
        terms[f"sup_{name}"] = dices[-1] - sum(math.log(own[v][truth[v]]) for v in places) / len(places)

    def confident(own: np.ndarray, v: Voxel) -> int:
        return int(own[v].argmax()) if own[v].max() >= cfg.tau else 0

    differ = [v for v in places if confident(p[0], v) != confident(p[1], v)]
    errors = [(own[v][c] - (truth[v] == c)) ** 2 for own in p for v in differ for c in range(1, classes)]
    terms["cdr"] = 0.5 * sum(errors) / (len(differ) + 1e-16)

    entropy = [{v: -sum(q * math.log(q) for q in own[v]) for v in free} for own in p]
    limit = [np.percentile(list(own.values()), cfg.alpha) for own in entropy]
    unsure = [v for v in free if entropy[0][v] >= limit[0] and entropy[1][v] >= limit[1]]
    sure = [v for v in free if v not in unsure]

    def joint(v: Voxel) -> int:
        a, b = int(p[0][v].argmax()), int(p[1][v].argmax())
        if a and b:
            return a if entropy[0][v] <= entropy[1][v] else b
        return max(a, b)

    released = cfg.variant == "released"
    pseudo = 0.0
    for own in p:
        for v in sure:
            q = np.exp(own[v]) / np.exp(own[v]).sum() if released else own[v]
            pseudo -= math.log(q[joint(v)]) / len(sure)
    ramp = math.exp(-5 * (1 - done) ** 2)
    terms["pseudo"] = pseudo * (len(free) / len(sure) if released else ramp)

    loser = 1 if dices[0] <= dices[1] else 0
    prototypes = {}
    for c in range(classes):
        members = [unit(f[loser][v]) for v in sure if joint(v) == c]
        if members:
            prototypes[c] = unit(np.sum(members, axis=0))
    pull = 0.0
    for c, prototype in prototypes.items():
        distances = [math.dist(unit(f[loser][v]), prototype) for v in unsure if p[loser][v].argmax() == c]
        pull += sum(distances) / max(len(distances), 1)
    pairs = [math.dist(prototypes[c], prototypes[d]) for c, d in combinations(sorted(prototypes), 2)]
    apart = sum(pairs) / max(len(pairs), 1)
    last = apart if released else -apart if cfg.margin is None else max(0.0, cfg.margin - apart)
    terms["contrast"] = 0.1 * ramp * (pull + last)
    return terms, dices[0] <= dices[1]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "options", [{}, {"variant": "released"}, {"margin": 1.5}, {"margin": 0.1}, {"tau": 0.8, "alpha": 60}]
)
def test_against_a_walk_through_the_voxels(
    fixed_pair: Factory, step: Factory, classes: int, options: dict[str, Any]
) -> None:
    winners = set()
    for seed in range(6):
        method, labeled, unlabeled = fixed_pair(LUSEG, classes, seed=seed, pull_fraction=1.0, **options)
        losses = method.losses(labeled, unlabeled, at := step(7, 10))
        expected, a_wins = naive_luseg(method, labeled.target.numpy(), 0.7)
        assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, abs=1e-6)
        assert bool(at.notes["a_wins"]) == a_wins
        winners.add(a_wins)
    assert winners == {True, False}


def gradient(loss: Tensor, parameter: Tensor) -> Tensor | None:
    if not loss.requires_grad:
        return None
    return torch.autograd.grad(loss, parameter, retain_graph=True, allow_unused=True)[0]


def reached(loss: Tensor, parameter: Tensor) -> tuple[bool, bool]:
    """Whether the gradient of the labeled and of the unlabeled samples is other than 0."""
    found = gradient(loss, parameter)
    return (False, False) if found is None else (bool((found[:2] != 0).any()), bool((found[2:] != 0).any()))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_what_each_term_trains(fixed_pair: Factory, step: Factory, classes: int, variant: str) -> None:
    """Logits of A and B, features of A and B: (labeled, unlabeled) each."""
    no, first, second = (False, False), (True, False), (False, True)
    for seed in range(6):
        method, labeled, unlabeled = fixed_pair(LUSEG, classes, seed=seed, variant=variant, pull_fraction=1.0)
        losses = method.losses(labeled, unlabeled, at := step(9))
        maps = [
            getattr(net, f"{kind}_map")
            for kind in ("logit", "feature")
            for net in (method.net_a, method.net_b)
        ]
        trained = {name: [reached(loss, one) for one in maps] for name, loss in losses.items()}
        a_loses = not bool(at.notes["a_wins"])
        unlabeled_terms = {
            "pseudo": [second, second, no, no],
            "contrast": [no, no, second if a_loses else no, no if a_loses else second],
        }
        if variant == "released":
            unlabeled_terms = dict.fromkeys(unlabeled_terms, [no] * 4)
        assert trained == {
            "sup_a": [first, no, no, no],
            "sup_b": [no, first, no, no],
            "cdr": [first, first, no, no],
            **unlabeled_terms,
        }


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_parameters_of_real_networks(step: Factory, variant: str) -> None:
    torch.manual_seed(0)
    method = create(
        "luseg", {"variant": variant, "pull_fraction": 0.5}, NetFactory(1, 3, width=2, dropout=0.0)
    )
    image, label = torch.randn(4, 1, 16, 16, 16), torch.randint(0, 3, (2, 16, 16, 16))
    losses = method.losses(Batch(image[:2], label), Batch(image[2:], None), at := step(9))
    parameters = dict(method.named_parameters())

    def parts(loss: Tensor) -> set[str]:
        if not loss.requires_grad:
            return set()
        found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
        named = zip(parameters, found, strict=True)
        return {".".join(n.split(".")[:2]) for n, g in named if g is not None and bool((g != 0).any())}

    everything = {f"net_{k}.{part}" for k in "ab" for part in ("encoder", "decoder", "head")}
    loser = "net_b" if bool(at.notes["a_wins"]) else "net_a"
    if variant == "released":
        assert parts(losses["pseudo"]) == parts(losses["contrast"]) == set()
    else:
        assert parts(losses["pseudo"]) == everything
        assert parts(losses["contrast"]) == {f"{loser}.encoder", f"{loser}.decoder"}
    assert parts(torch.stack(list(losses.values())).sum()) == everything


def test_reliable_share(fixed_pair: Factory, step: Factory) -> None:
    """Between alpha and 2 alpha; 1 - 0.8^2 = 0.36 for independent entropies."""
    shares = []
    for seed in range(20):
        method, labeled, unlabeled = fixed_pair(LUSEG, seed=seed, labeled=1, unlabeled=8)
        with torch.no_grad():
            for index, net in enumerate((method.net_a, method.net_b)):
                net.logit_map.normal_(generator=torch.Generator().manual_seed(100 + 2 * seed + index))
        method.losses(labeled, unlabeled, at := step())
        shares.append(at.notes["reliable_share"].item())
    assert all(0.18 < share < 0.42 for share in shares)
    assert np.mean(shares) == pytest.approx(0.36, abs=0.02)


def test_nothing_reliable_and_no_candidates(fixed_pair: Factory, step: Factory) -> None:
    """Constant entropies: no voxel is below the percentile; without foreground there is one prototype."""
    method, labeled, unlabeled = fixed_pair(LUSEG, pull_fraction=1.0)
    with torch.no_grad():
        method.net_a.logit_map.zero_()
        method.net_b.logit_map.zero_()
    losses = method.losses(labeled, unlabeled, step(5))
    assert losses["pseudo"].item() == 0 and losses["contrast"].item() == 0

    for margin in (None, 1.0):
        method, labeled, unlabeled = fixed_pair(LUSEG, pull_fraction=1.0, margin=margin)
        with torch.no_grad():
            for net in (method.net_a, method.net_b):
                net.logit_map[:, 0] += 50
        losses = method.losses(labeled, unlabeled, at := step(10))
        torch.stack(list(losses.values())).sum().backward()
        assert at.notes["contrast_apart"].item() == 0
        assert losses["contrast"].item() == pytest.approx(0.1 * at.notes["contrast_pull"].item())
        assert all(bool(torch.isfinite(p.grad).all()) for p in method.parameters() if p.grad is not None)


@pytest.mark.parametrize(("labeled", "unlabeled"), [(2, 0), (0, 2), (1, 3)])
@pytest.mark.parametrize("options", [{}, {"variant": "released"}, {"margin": 1.0}])
def test_absent_streams(
    fixed_pair: Factory, step: Factory, labeled: int, unlabeled: int, options: dict[str, Any]
) -> None:
    method, first, second = fixed_pair(LUSEG, labeled=labeled, unlabeled=unlabeled, **options)
    losses = method.losses(first, second, step(5))
    zero = {name for name, loss in losses.items() if loss.item() == 0}
    on_labels = {"sup_a", "sup_b", "cdr"}
    assert zero == (set() if labeled and unlabeled else losses.keys() - on_labels if labeled else on_labels)
