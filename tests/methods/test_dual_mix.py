"""`dual` beyond the paper: warm-up on labels, Dice against pseudo-labels, mixtures of patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from semivox.methods import create
from semivox.methods.base import Batch, Step
from semivox.methods.dual import Dual
from semivox.nets import NetFactory
from semivox.nets.network import Segmenter

Factory = Callable[..., Any]
SHAPE = (16, 16, 32)
CLASSES = 3


class Recorded(Segmenter):
    """Logits that are a fixed function of the image; remembers what it was given."""

    def __init__(self, seed: int) -> None:
        torch.nn.Module.__init__(self)
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn(CLASSES, generator=generator).double())
        self.bias = torch.nn.Parameter(torch.randn(CLASSES, generator=generator).double())
        self.seen: list[Tensor] = []

    def features(self, image: Tensor) -> Tensor:
        self.seen.append(image.detach().clone())
        return image.double().expand(-1, 4, -1, -1, -1)

    def head(self, features: Tensor) -> Tensor:
        return torch.einsum("bxyz,k->bkxyz", features[:, 0], self.weight) + self.bias.view(1, -1, 1, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))


def make(**options: object) -> tuple[Dual, Batch, Batch]:
    dual = Dual(Dual.Config.model_validate({"ue_reading": "term"} | options))
    networks = {name: Recorded(seed) for seed, name in enumerate(dual.config.nets, start=1)}
    dual.build(lambda name, **_: networks[name])  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(4, 1, *SHAPE, generator=generator)
    label = torch.randint(0, CLASSES, (2, *SHAPE), generator=generator)
    return dual, Batch(image[:2], label), Batch(image[2:], None)


def naive_probs(images: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    powers = np.exp(images * weight[:, None, None, None] + bias[:, None, None, None])
    return powers / powers.sum(axis=1, keepdims=True)


def test_warm_up_sees_labels_only(step: Callable[..., Step]) -> None:
    dual, labeled, unlabeled = make(warmup_fraction=0.5)
    losses = dual.losses(labeled, unlabeled, step(4, 10))
    assert all(losses[name].item() == 0 for name in ("cr", "ue", "cps", "efs", "pgl"))
    assert torch.equal(dual.net_a.seen[0], labeled.image) and len(dual.net_a.seen) == 1  # type: ignore[union-attr,arg-type]
    after = dual.losses(labeled, unlabeled, step(5, 10))
    assert all(after[name].item() != 0 for name in ("cps", "efs"))


def test_ramp_begins_after_the_warm_up(step: Callable[..., Step]) -> None:
    options = {"unsup_ramp": "sigmoid", "ramp_fraction": 0.5, "unsup_weight": 0.8}
    dual, labeled, unlabeled = make(warmup_fraction=0.4, **options)
    for iteration, expected in ((4, 0.8 * np.exp(-5)), (9, 0.8)):
        at = step(iteration, 10)
        dual.losses(labeled, unlabeled, at)
        assert at.notes["weight_unsup"].item() == pytest.approx(expected, rel=1e-5)


def test_warm_up_with_mixtures_takes_pasted_labeled_patches(step: Callable[..., Step]) -> None:
    dual, labeled, unlabeled = make(warmup_fraction=0.5, mix="paste")
    dual.losses(labeled, unlabeled, step(0, 10))
    seen = dual.net_a.seen[0]  # type: ignore[index]
    assert torch.equal(seen[:2], labeled.image)
    first, second = labeled.image
    assert torch.equal(seen[2] + seen[3], first + second) and not torch.equal(seen[2], first)
    assert all(bool(((seen[i] == first) | (seen[i] == second)).all()) for i in (2, 3))


def test_a_single_labeled_patch_has_none_to_mix_with(step: Callable[..., Step]) -> None:
    dual, labeled, unlabeled = make(warmup_fraction=0.5, mix="paste")
    single = Batch(labeled.image[:1], labeled.target[:1])
    dual.losses(single, unlabeled, step(0, 10))
    assert torch.equal(dual.net_a.seen[0], single.image)  # type: ignore[index]


@pytest.mark.parametrize("pseudo_dice", [False, True])
def test_terms_on_mixtures_equal_a_naive_computation(step: Callable[..., Step], pseudo_dice: bool) -> None:
    """The truth stands where a labeled patch was pasted, the network's word on the whole patch elsewhere.

    Dice beside the cross-entropy of EFS does not take part in its factor N / N_valid.
    """
    dual, labeled, unlabeled = make(mix="paste", pseudo_dice=pseudo_dice, tau_p=0.4, alpha=60)
    losses = dual.losses(labeled, unlabeled, step(5, 10))
    whole, batch = (dual.net_a.seen[index].double().numpy() for index in (0, 1))  # type: ignore[index]
    assert np.array_equal(whole, unlabeled.image.double().numpy())
    truth = labeled.target.numpy()
    known = batch[2:, 0] == labeled.image.double().numpy()[:, 0]
    assert not np.any(known[0] & known[1]) and np.all(known[0] | known[1])
    assert min(known[0].sum(), known[1].sum()) == 10 * 10 * 21

    weights = [(net.weight.detach().numpy(), net.bias.detach().numpy()) for net in (dual.net_a, dual.net_b)]
    cps, efs, dice = 0.0, 0.0, 0.0
    said, entropies, thresholds, students = [], [], [], []
    for weight, bias in weights:
        raw = naive_probs(whole, weight, bias)
        entropy = -(raw * np.log(raw)).sum(1)
        thresholds.append(np.percentile(entropy, 60))
        onehot = np.moveaxis(np.eye(CLASSES)[truth], -1, 1)
        said.append(np.where(known[:, None], onehot, raw))
        entropies.append(np.where(known, 0.0, entropy))
        students.append(naive_probs(batch[2:], weight, bias))
    valid = (entropies[0] <= thresholds[0]) | (entropies[1] <= thresholds[1])
    labels = [probs.argmax(1) for probs in said]
    surer = np.where(entropies[0] <= entropies[1], labels[0], labels[1])
    both = (labels[0] > 0) & (labels[1] > 0)
    target = np.where(both, surer, np.maximum(labels[0], labels[1]))
    for student, other in ((0, 1), (1, 0)):
        foreground = said[other][:, 1:]
        taught = np.where(foreground.max(1) > 0.4, foreground.argmax(1) + 1, 0)
        cps += naive(students[student], taught, np.ones_like(known), pseudo_dice)
        efs += naive(students[student], target, valid, False)
        dice += naive(students[student], target, valid, pseudo_dice) - naive(
            students[student], target, valid, False
        )
    assert losses["cps"].item() == pytest.approx(cps, rel=1e-5)
    assert losses["efs"].item() == pytest.approx(efs * valid.size / valid.sum() + dice, rel=1e-5)


def naive(probs: np.ndarray, label: np.ndarray, valid: np.ndarray, dice: bool) -> float:
    picked = np.take_along_axis(probs, label[:, None], 1)[:, 0]
    loss = -np.log(picked)[valid].mean()
    if dice:
        parts = []
        for index in range(1, CLASSES):
            p, y = probs[:, index][valid], (label == index)[valid]
            parts.append(1 - (2 * (p * y).sum() + 1e-5) / ((p**2).sum() + y.sum() + 1e-5))
        loss += np.mean(parts)
    return float(loss)


def test_teaching_carries_no_gradient(step: Callable[..., Step]) -> None:
    dual, labeled, unlabeled = make(mix="paste")
    for view in dual.views(labeled, unlabeled, step(5, 10))[1:]:
        values = (*vars(view.teaching.prediction).values(), view.teaching.entropy, view.teaching.own_entropy)
        assert not any(value.requires_grad for value in values)
    losses = dual.losses(labeled, unlabeled, step(5, 10))
    for name in ("cps", "efs", "ue"):
        found = torch.autograd.grad(losses[name], list(dual.parameters()), retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in found)


@pytest.mark.parametrize("mix", ["none", "paste"])
def test_averages_teach_if_asked_for(step: Callable[..., Step], mix: str) -> None:
    """Averages that say another class everywhere are what CPS teaches, with and without mixtures."""
    dual, labeled, unlabeled = make(mix=mix, teacher_decay=0.5, tau_p=0.1)
    own = [p.detach().clone() for p in dual.parameters() if p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(dual.teachers.parameters(), own, strict=True))
    for teacher in dual.teachers:
        teacher.bias.data[1] = 99.0
    losses = dual.losses(labeled, unlabeled, step(5, 10))
    views = dual.views(labeled, unlabeled, step(5, 10))[1:]
    share = [(one.teaching.prediction.label == 1).double().mean().item() for one in views]
    assert all(value == 1 if mix == "none" else 0.6 < value < 0.9 for value in share)
    for name in ("cps", "efs", "ue"):
        trained = [p for p in dual.parameters() if p.requires_grad]
        found = torch.autograd.grad(losses[name], trained, retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in found)
    assert dual.pseudo_labels(unlabeled.image)["a"].label.eq(1).all()


def test_averages_move_by_their_decay(step: Callable[..., Step]) -> None:
    dual, _, _ = make(teacher_decay=0.75)
    before = dual.teachers[0].weight.clone()
    dual.net_a.weight.data += 1.0
    dual.after_step(step(0, 10))  # the first step: a copy
    assert torch.allclose(dual.teachers[0].weight, before + 1)
    dual.net_a.weight.data += 1.0
    dual.after_step(step(9, 10))
    assert torch.allclose(dual.teachers[0].weight, before + 1.25)


@pytest.mark.parametrize(("labeled", "unlabeled"), [(2, 2), (1, 3), (2, 0), (0, 2)])
@pytest.mark.parametrize("iteration", [0, 9])
def test_real_networks_with_everything_on(
    step: Callable[..., Step], labeled: int, unlabeled: int, iteration: int
) -> None:
    torch.manual_seed(0)
    options = {"mix": "paste", "pseudo_dice": True, "warmup_fraction": 0.5}
    method = create("dual", options, NetFactory(1, 2, width=2))
    image = torch.randn(labeled + unlabeled, 1, 32, 16, 16)
    label = torch.randint(0, 2, (labeled, 32, 16, 16)) if labeled else None
    losses = method.losses(Batch(image[:labeled], label), Batch(image[labeled:], None), step(iteration, 10))
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in method.parameters() if p.grad is not None)
    assert all(module.training for module in method.modules())
