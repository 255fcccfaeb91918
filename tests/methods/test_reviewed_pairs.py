"""`mcf` and `luseg` against a walk through the voxels, their self-checks, and what each term trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from gradients import reached, trained_by

from semivox.methods import create
from semivox.methods.base import Batch
from semivox.methods.luseg import LUSEG
from semivox.methods.mcf import MCF
from semivox.nets import NetFactory

Factory = Callable[..., Any]
Voxel = tuple[int, ...]
Case = tuple[dict[str, float], bool]


def voxels(net: Any) -> np.ndarray:
    """Probabilities (B, X, Y, Z, K) of a `Fixed` network."""
    powers = np.exp(net.logit_map.detach().movedim(1, -1).numpy())
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def naive_reviewed(p: list[np.ndarray], truth: np.ndarray, tau: float) -> Case:
    """The terms on labels, and whether A has the lower Dice loss; they differ from probability `tau` on."""
    places = list(np.ndindex(*truth.shape))
    foreground = range(1, p[0].shape[-1])
    terms, dices = {}, []
    for name, own in zip("ab", p, strict=True):
        losses = []
        for c in foreground:
            overlap = sum(own[v][c] * (truth[v] == c) for v in places)
            size = sum(own[v][c] ** 2 + (truth[v] == c) for v in places)
            losses.append(1 - (2 * overlap + 1e-5) / (size + 1e-5))
        dices.append(sum(losses) / len(losses))
        terms[f"sup_{name}"] = dices[-1] - sum(math.log(own[v][truth[v]]) for v in places) / len(places)

    def confident(own: np.ndarray, v: Voxel) -> int:
        return int(own[v].argmax()) if own[v].max() >= tau else 0

    differ = [v for v in places if confident(p[0], v) != confident(p[1], v)]
    errors = [(own[v][c] - (truth[v] == c)) ** 2 for own in p for v in differ for c in foreground]
    terms["cdr"] = 0.5 * sum(errors) / (len(differ) + 1e-16)
    return terms, dices[0] <= dices[1]


def naive_mcf(method: Any, truth: np.ndarray, done: float) -> Case:
    p = [voxels(method.net_a), voxels(method.net_b)]
    terms, a_teaches = naive_reviewed(p, truth, 0)
    teacher, student = p if a_teaches else p[::-1]
    squares = []
    for v in np.ndindex(*teacher.shape[:-1]):
        if v[0] >= len(truth):
            powers = [q ** (1 / 0.1) for q in teacher[v]]
            squares += [(student[v][c] - powers[c] / sum(powers)) ** 2 for c in range(len(powers))]
    terms["dcpl"] = 0.1 * math.exp(-5 * (1 - done) ** 2) * sum(squares) / len(squares)
    return terms, a_teaches


def unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / math.sqrt(float((vector**2).sum())))


def naive_luseg(method: Any, truth: np.ndarray, done: float) -> Case:
    """All terms with every unreliable voxel drawn."""
    cfg, nets = method.config, (method.net_a, method.net_b)
    f = [net.feature_map.detach().movedim(1, -1).numpy() for net in nets]
    p = [voxels(net) for net in nets]
    terms, a_wins = naive_reviewed(p, truth, cfg.tau)
    free: list[Voxel] = [v for v in np.ndindex(*p[0].shape[:-1]) if v[0] >= len(truth)]
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

    loser = 1 if a_wins else 0
    prototypes = {}
    for c in range(p[0].shape[-1]):
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
    return terms, a_wins


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("kind", "options", "naive", "note"),
    [
        (MCF, {}, naive_mcf, "a_teaches"),
        *(
            (LUSEG, {"pull_fraction": 1.0} | options, naive_luseg, "a_wins")
            for options in (
                {},
                {"variant": "released"},
                {"margin": 1.5},
                {"margin": 0.1},
                {"tau": 0.8, "alpha": 60},
            )
        ),
    ],
)
def test_against_a_walk_through_the_voxels(
    fixed_pair: Factory, step: Factory, classes: int, kind: Any, options: Any, naive: Any, note: str
) -> None:
    winners = set()
    for seed in range(6):
        method, labeled, unlabeled = fixed_pair(kind, classes, seed=seed, **options)
        losses = method.losses(labeled, unlabeled, at := step(7, 10))
        expected, a_is_better = naive(method, labeled.target.numpy(), 0.7)
        assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, abs=1e-6)
        assert bool(at.notes[note]) == a_is_better
        winners.add(a_is_better)
    assert winners == {True, False}


def test_agreeing_networks(fixed_pair: Factory, step: Factory) -> None:
    """Nothing to review; at equal Dice losses A teaches."""
    method, labeled, unlabeled = fixed_pair(MCF, 3)
    with torch.no_grad():
        method.net_b.logit_map.copy_(method.net_a.logit_map)
    losses = method.losses(labeled, unlabeled, at := step(5))
    assert losses["cdr"].item() == 0 and at.notes["cdr_share"].item() == 0 and bool(at.notes["a_teaches"])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("kind", "options"), [(MCF, {}), (LUSEG, {"pull_fraction": 1.0}), (LUSEG, {"variant": "released"})]
)
def test_what_each_term_trains(
    fixed_pair: Factory, step: Factory, classes: int, kind: Any, options: dict[str, Any]
) -> None:
    """Logits of A and B, features of A and B: (labeled, unlabeled) each."""
    no, first, second = (False, False), (True, False), (False, True)
    for seed in range(6):
        method, labeled, unlabeled = fixed_pair(kind, classes, seed=seed, **options)
        losses = method.losses(labeled, unlabeled, at := step(9))
        nets = (method.net_a, method.net_b)
        maps = [getattr(net, f"{part}_map") for part in ("logit", "feature") for net in nets]
        trained = {name: [reached(loss, one) for one in maps] for name, loss in losses.items()}
        expected = {"sup_a": [first, no, no, no], "sup_b": [no, first, no, no], "cdr": [first, first, no, no]}
        a_is_better = bool(at.notes["a_teaches" if kind is MCF else "a_wins"])
        worse = [no, second] if a_is_better else [second, no]
        if kind is MCF:
            expected["dcpl"] = [*worse, no, no]
        elif "variant" in options:
            expected |= {"pseudo": [no] * 4, "contrast": [no] * 4}
        else:
            expected |= {"pseudo": [second, second, no, no], "contrast": [no, no, *worse]}
        assert trained == expected


@pytest.mark.parametrize(
    ("name", "options"), [("mcf", {}), ("luseg", {"pull_fraction": 0.5}), ("luseg", {"variant": "released"})]
)
def test_parameters_of_real_networks(step: Factory, name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    method = create(name, options, NetFactory(1, 3, width=2, dropout=0.0))
    image, label = torch.randn(4, 1, 16, 16, 16), torch.randint(0, 3, (2, 16, 16, 16))
    losses = method.losses(Batch(image[:2], label), Batch(image[2:], None), at := step(9))
    trained = {key: trained_by(loss, method, 2) for key, loss in losses.items()}
    everything = {f"net_{k}.{part}" for k in "ab" for part in ("encoder", "decoder", "head")}
    a_is_better = bool(at.notes["a_teaches" if name == "mcf" else "a_wins"])
    worse = {part for part in everything if part.startswith("net_b" if a_is_better else "net_a")}
    if name == "mcf":
        assert trained["dcpl"] == worse
    elif "variant" in options:
        assert trained["pseudo"] == trained["contrast"] == set()
    else:
        assert trained["pseudo"] == everything
        assert trained["contrast"] == {part for part in worse if not part.endswith("head")}
    assert trained_by(torch.stack(list(losses.values())).sum(), method, 2) == everything


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
