"""Every term of `dual` against a second implementation that walks through the voxels in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

READINGS = [
    {},
    {"cr_mask": "or"},
    {"cr_distance": "kl"},
    {"cr_target": "label"},
    {"cr_target": "label", "cr_distance": "kl", "cr_mask": "or"},
    {"tau": 0.8, "beta": 0.3},
    {"tau_p": 0.4},
    {"exclude_uncertain": True},
    {"alpha": 15},
    {"alpha": 30},
    {"alpha": 100},
    {"efs_target": "lower_entropy"},
    {"efs_normalise": "mean"},
    {"temperature": 1.0},
    {"temperature": 0.1},
    {"prototype_term": "attract"},
    {"prototype_term": "none"},
    {"lambda_max": 0.5},
    {"unsup_ramp": "sigmoid", "ramp_fraction": 0.4},
    {"unsup_ramp": "sigmoid", "unsup_weight": 0.3},
    {"ue_reading": "weight"},
    {"ue_reading": "weight", "ue_on": "unlabeled"},
    {"ue_reading": "weight", "exclude_uncertain": True, "efs_normalise": "mean"},
    {"ue_on": "unlabeled"},
    {"ue_on": "unlabeled", "exclude_uncertain": True},
    {"pgl_percentile": "batch"},
    {"percentile_by": "class"},
    {"percentile_by": "class", "alpha": 30, "exclude_uncertain": True},
]


class Net:
    """One network's voxels: logits, probabilities, label and entropy of each."""

    def __init__(self, net: Any) -> None:
        self.z = net.logit_map.detach().movedim(1, -1).numpy()
        self.f = net.feature_map.detach().movedim(1, -1).numpy()

    def p(self, v: tuple[int, ...], temperature: float = 1.0) -> list[float]:
        powers = [math.exp(z / temperature) for z in self.z[v]]
        return [power / sum(powers) for power in powers]

    def label(self, v: tuple[int, ...]) -> int:
        return int(np.argmax(self.z[v]))

    def entropy(self, v: tuple[int, ...]) -> float:
        return -sum(p * math.log(p) for p in self.p(v))

    def ce(self, v: tuple[int, ...], label: int) -> float:
        return -math.log(self.p(v)[label])

    def unit(self, v: tuple[int, ...]) -> np.ndarray:
        return self.f[v] / math.sqrt(sum(value**2 for value in self.f[v]))


def naive_dual(dual: Any, truth: np.ndarray, count: int, done: float) -> dict[str, float]:
    """All terms of the sheet; every uncertain voxel is pulled."""
    cfg, a, b = dual.config, Net(dual.net_a), Net(dual.net_b)
    nets, classes = (a, b), a.z.shape[-1]
    everything = list(np.ndindex(*a.z.shape[:-1]))
    labeled, unlabeled = everything[: truth.size], everything[truth.size :]
    assert all(v[0] < count for v in labeled) and all(v[0] >= count for v in unlabeled)
    terms: dict[str, float] = {}

    for name, net in zip("ab", nets, strict=True):  # 1
        ce = sum(net.ce(v, truth[v]) for v in labeled) / len(labeled)
        dices = []
        for c in range(1, classes):
            overlap = sum(net.p(v)[c] * (truth[v] == c) for v in labeled)
            size = sum(net.p(v)[c] ** 2 + (truth[v] == c) for v in labeled)
            dices.append(1 - (2 * overlap + 1e-5) / (size + 1e-5))
        terms[f"sup_{name}"] = ce + sum(dices) / len(dices)

    def confident(net: Net, v: tuple[int, ...]) -> int:  # 2
        return net.label(v) if net.label(v) > 0 and max(net.p(v)) >= cfg.tau else 0

    def difference(p: list[float], q: list[float]) -> float:
        if cfg.cr_distance == "mse":
            return sum((p[c] - q[c]) ** 2 for c in range(1, classes))
        return sum((p[c] - q[c]) * (math.log(p[c]) - math.log(q[c])) for c in range(classes)) / 2

    def to_truth(net: Net, v: tuple[int, ...]) -> float:
        onehot = [float(c == truth[v]) for c in range(classes)]
        return difference(net.p(v), onehot) if cfg.cr_distance == "mse" else net.ce(v, truth[v])

    distances = []
    for v in labeled:
        g_a, g_b = confident(a, v), confident(b, v)
        if (g_a != g_b) if cfg.cr_mask == "xor" else (g_a > 0 or g_b > 0):
            mutual = cfg.cr_target == "mutual"
            distances.append(difference(a.p(v), b.p(v)) if mutual else to_truth(a, v) + to_truth(b, v))
    ramp = 1.0 if cfg.unsup_ramp == "none" else math.exp(-5 * (1 - min(done / cfg.ramp_fraction, 1)) ** 2)
    terms["cr"] = ramp * cfg.beta * sum(distances) / (len(distances) + 1e-16)

    w = ramp * cfg.unsup_weight
    eps = 1e-12  # a threshold that is itself a voxel's entropy must not depend on rounding

    def certain(voxels: list[tuple[int, ...]]) -> list[dict[tuple[int, ...], bool]]:
        """Where each network's entropy is at most its percentile over `voxels`, or those of its class."""
        found = []
        for net in nets:
            limits = [float(np.percentile([net.entropy(v) for v in voxels], cfg.alpha))] * classes
            if cfg.percentile_by == "class":
                by_class = [[net.entropy(v) for v in voxels if net.label(v) == c] for c in range(classes)]
                limits = [np.percentile(own or [0.0], cfg.alpha, method="higher") for own in by_class]
            found.append({v: net.entropy(v) <= limits[net.label(v)] + eps for v in unlabeled})
        return found

    low = certain(unlabeled)
    sure = certain(everything) if cfg.pgl_percentile == "batch" else low
    reliable = [v for v in unlabeled if a.label(v) == b.label(v) and sure[0][v] and sure[1][v]]
    uncertain = [v for v in unlabeled if v not in reliable]
    taught = reliable if cfg.exclude_uncertain else unlabeled

    def divergence(student: Net, teacher: Net, v: tuple[int, ...]) -> float:
        q, p = teacher.p(v, cfg.temperature), student.p(v)
        return sum(q[c] * (math.log(q[c]) - math.log(p[c])) for c in range(classes) if q[c] > 0)

    def rectified(student: Net, v: tuple[int, ...], label: int) -> float:
        """Cross-entropy of a pseudo-label, in the reading in which UE weighs it."""
        other = b if student is a else a
        weight = math.exp(-divergence(student, other, v)) if cfg.ue_reading == "weight" else 1.0
        return weight * student.ce(v, label)

    def pseudo(net: Net, v: tuple[int, ...]) -> int:  # 3
        best = 1 + int(np.argmax(net.p(v)[1:]))
        return best if net.p(v)[best] > cfg.tau_p else 0

    cps = [rectified(a, v, pseudo(b, v)) + rectified(b, v, pseudo(a, v)) for v in taught]
    terms["cps"] = w * sum(cps) / max(len(cps), 1)

    efs = []  # 4
    for v in taught:
        if not low[0][v] and not low[1][v]:
            continue
        labels = a.label(v), b.label(v)
        surer = labels[0] if a.entropy(v) <= b.entropy(v) else labels[1]
        target = surer
        if cfg.efs_target == "union" and 0 in labels:
            target = max(labels)
        efs.append(rectified(a, v, target) + rectified(b, v, target))
    factor = len(unlabeled) / len(efs) if cfg.efs_normalise == "total" else 1.0
    terms["efs"] = w * factor * sum(efs) / len(efs)

    ue = 0.0  # 5
    for student, teacher in ((a, b), (b, a)):
        voxels = labeled + taught if cfg.ue_on == "all" else taught
        for v in voxels:
            d = divergence(student, teacher, v)
            term = math.exp(-d) * student.ce(v, teacher.label(v)) if cfg.ue_reading == "term" else 0.0
            ue += (term + d) / len(voxels)
    terms["ue"] = w * ue

    pgl = 0.0  # 6
    sign = {"repel": -1, "attract": 1, "none": 0}[cfg.prototype_term]
    for net in nets:
        prototypes = {}
        for c in range(classes):
            members = [net.unit(v) for v in reliable if a.label(v) == c]
            if members:
                mean = sum(members) / len(members)
                prototypes[c] = mean / np.linalg.norm(mean)
        for c, prototype in prototypes.items():
            far = [math.dist(net.unit(v), prototype) for v in uncertain if net.label(v) == c]
            pgl += sum(far) / max(len(far), 1)
        pairs = [math.dist(prototypes[c], prototypes[d]) for c, d in product(prototypes, repeat=2) if c < d]
        pgl += sign * sum(pairs) / max(len(pairs), 1)
    terms["pgl"] = cfg.lambda_max * math.exp(-5 * (1 - done) ** 2) * pgl
    return terms


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "options", READINGS, ids=lambda options: ",".join(map(str, options.values())) or "default"
)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_term_against_voxel_loop(
    fixed_dual: Callable[..., Any], step: Callable[..., Any], classes: int, options: dict[str, Any], seed: int
) -> None:
    dual, labeled, unlabeled = fixed_dual(classes, seed=seed, pull_fraction=1.0, **options)
    losses = dual.losses(labeled, unlabeled, step(iteration=3, total=10))
    expected = naive_dual(dual, labeled.label.numpy(), len(labeled.image), done=0.3)
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, abs=1e-6)
    assert all(abs(value) > 1e-4 for value in expected.values()), "a degenerate case tests nothing"


@pytest.mark.parametrize("shape", [(1, 3), (3, 1)])
def test_unequal_streams(
    fixed_dual: Callable[..., Any], step: Callable[..., Any], shape: tuple[int, int]
) -> None:
    dual, labeled, unlabeled = fixed_dual(3, labeled=shape[0], unlabeled=shape[1], pull_fraction=1.0)
    losses = dual.losses(labeled, unlabeled, step(iteration=3, total=10))
    expected = naive_dual(dual, labeled.label.numpy(), shape[0], done=0.3)
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, abs=1e-6)


def test_readings_differ(fixed_dual: Callable[..., Any], step: Callable[..., Any]) -> None:
    """None is an alias of the default; of `pgl_percentile` the next test shows it."""

    def values(options: dict[str, Any]) -> dict[str, float]:
        dual, labeled, unlabeled = fixed_dual(3, pull_fraction=1.0, **options)
        return {name: loss.item() for name, loss in dual.losses(labeled, unlabeled, step(3)).items()}

    for options in READINGS[1:]:
        if "pgl_percentile" not in options:
            assert values(options) != pytest.approx(values({}), rel=1e-3), options


def test_certain_labeled_voxels_lower_the_percentile_of_the_batch(
    fixed_dual: Callable[..., Any], step: Callable[..., Any]
) -> None:
    """They count for the reliable set of PGL only, and not by default."""
    found = {}
    for name in ("unlabeled", "batch"):
        dual, labeled, unlabeled = fixed_dual(3, pgl_percentile=name)
        with torch.no_grad():
            for net in (dual.net_a, dual.net_b):
                net.logit_map[:2] *= 100
        losses = dual.losses(labeled, unlabeled, at := step(3))
        found[name] = losses["efs"].item(), sum(at.notes[f"reliable_{c}"].item() for c in range(3))
    assert found["batch"][0] == found["unlabeled"][0] and 0 < found["batch"][1] < found["unlabeled"][1]


@pytest.mark.parametrize("term", ["cr", "cps", "efs", "ue", "pgl"])
def test_switches(fixed_dual: Callable[..., Any], step: Callable[..., Any], term: str) -> None:
    dual, labeled, unlabeled = fixed_dual(2)
    everything = dual.losses(labeled, unlabeled, step())
    assert list(everything) == ["sup_a", "sup_b", "cr", "ue", "cps", "efs", "pgl"]
    dual, labeled, unlabeled = fixed_dual(2, **{term: False})
    rest = dual.losses(labeled, unlabeled, step())
    assert {name: loss.item() for name, loss in rest.items()} == {
        name: loss.item() for name, loss in everything.items() if name != term
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def log_loss(probs: np.ndarray, label: np.ndarray) -> np.ndarray:
    return -np.log(np.take_along_axis(probs, label[:, None], axis=1)[:, 0])


def test_released_terms_against_numpy(fixed_dual: Callable[..., Any], step: Callable[..., Any]) -> None:
    dual, labeled, unlabeled = fixed_dual(2, variant="released")
    losses = dual.losses(labeled, unlabeled, step(9, 10))
    assert list(losses) == ["sup_a", "sup_b", "cr", "ue", "cosine", "efs", "pgl"]
    a, b = (softmax(net.logit_map.detach().numpy()) for net in (dual.net_a, dual.net_b))
    truth, count = labeled.label.numpy(), len(labeled.image)

    sure_a, sure_b = a[:count, 1] >= 0.6, b[:count, 1] >= 0.6
    error = (a[:count, 1] - truth) ** 2 + (b[:count, 1] - truth) ** 2
    assert losses["cr"].item() == pytest.approx(0.5 * error[sure_a != sure_b].mean())

    divergence = (b * (np.log(b) - np.log(a))).sum(axis=1)
    taught = np.exp(-divergence) * log_loss(a, b.argmax(axis=1))
    assert losses["ue"].item() == pytest.approx(taught.mean() + divergence.mean())

    lengths = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    assert losses["cosine"].item() == pytest.approx((1 - (a * b).sum(axis=1) / lengths).mean())

    union = (a[count:].argmax(axis=1) | b[count:].argmax(axis=1)).astype(int)
    twice = [log_loss(softmax(own[count:]), union).mean() for own in (a, b)]
    assert losses["efs"].item() == pytest.approx(sum(twice))

    apart = []
    for net in (dual.net_a, dual.net_b):
        features = np.moveaxis(net.feature_map.detach().numpy()[count:], 1, -1)
        unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
        means = [unit[union == c].mean(axis=0) for c in (0, 1)]
        apart.append(
            np.linalg.norm(means[0] / np.linalg.norm(means[0]) - means[1] / np.linalg.norm(means[1]))
        )
    ramp = np.exp(-5 * (1 - 36 / 40) ** 2)
    assert losses["pgl"].item() == pytest.approx(0.1 * ramp * np.mean(apart))
