"""Which parameters each term of `dual` trains, and by how much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from semivox.losses.prediction import Prediction
from semivox.losses.pseudo_labels import foreground_label, joint_label
from semivox.losses.supervised import onehot
from semivox.losses.uncertainty import percentile
from semivox.methods import create
from semivox.methods.base import Batch
from semivox.nets import NetFactory

Factory = Callable[..., Any]
TERMS = ("sup_a", "sup_b", "cr", "cps", "efs", "ue", "pgl")


def gradients(loss: Tensor, net: Any) -> tuple[Tensor | None, Tensor | None]:
    """Gradient of the logits and of the features of a `Fixed` network."""
    parameters = (net.logit_map, net.feature_map)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return found[0], found[1]


def nonzero(gradient: Tensor | None) -> bool:
    return gradient is not None and bool((gradient != 0).any())


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("target", ["mutual", "label"])
def test_which_maps_each_term_reaches(fixed_dual: Factory, step: Factory, classes: int, target: str) -> None:
    dual, labeled, unlabeled = fixed_dual(classes, pull_fraction=1.0, cr_target=target)
    losses = dual.losses(labeled, unlabeled, step(5))
    reached = {
        name: [nonzero(g) for net in (dual.net_a, dual.net_b) for g in gradients(losses[name], net)]
        for name in TERMS
    }
    both_logits, both_features = [True, False, True, False], [False, True, False, True]
    assert reached == {
        "sup_a": [True, False, False, False],
        "sup_b": [False, False, True, False],
        "cr": both_logits,
        "cps": both_logits,
        "efs": both_logits,
        "ue": both_logits,
        "pgl": both_features,
    }


@pytest.mark.parametrize(("term", "trained"), [("sup_a", 0), ("cr", 0), ("cps", 1), ("efs", 1), ("pgl", 1)])
def test_which_stream_each_term_reaches(fixed_dual: Factory, step: Factory, term: str, trained: int) -> None:
    """0: the labeled samples only, 1: the unlabeled ones only."""
    dual, labeled, unlabeled = fixed_dual(2, pull_fraction=1.0)
    loss = dual.losses(labeled, unlabeled, step(5))[term]
    for net in (dual.net_a, dual.net_b):
        logits, features = gradients(loss, net)
        gradient = features if term == "pgl" else logits
        if gradient is None:
            assert term == "sup_a" and net is dual.net_b
            continue
        halves = gradient[:2], gradient[2:]
        assert nonzero(halves[trained]) and not nonzero(halves[1 - trained])


def test_ue_reaches_the_whole_batch(fixed_dual: Factory, step: Factory) -> None:
    dual, labeled, unlabeled = fixed_dual(2)
    logits, _ = gradients(dual.losses(labeled, unlabeled, step())["ue"], dual.net_a)
    assert logits is not None and nonzero(logits[:2]) and nonzero(logits[2:])


@pytest.mark.parametrize("classes", [2, 3])
def test_cps_gradient_is_that_of_the_others_label_alone(
    fixed_dual: Factory, step: Factory, classes: int
) -> None:
    """d CE(z_A, y_B) / d z_A = (p_A - onehot(y_B)) / N, and nothing comes through the label y_B."""
    dual, labeled, unlabeled = fixed_dual(classes)
    loss = dual.losses(labeled, unlabeled, step())["cps"]
    for own, other in ((dual.net_a, dual.net_b), (dual.net_b, dual.net_a)):
        logits, _ = gradients(loss, own)
        with torch.no_grad():
            p = torch.softmax(own.logit_map[2:], dim=1)
            label = foreground_label(torch.softmax(other.logit_map[2:], dim=1), 0.6)
            expected = (p - onehot(label, classes).double()) / label.numel()
        torch.testing.assert_close(logits[2:], expected)


@pytest.mark.parametrize("classes", [2, 3])
def test_efs_gradient_ignores_voxels_uncertain_to_both(
    fixed_dual: Factory, step: Factory, classes: int
) -> None:
    dual, labeled, unlabeled = fixed_dual(classes, alpha=40)
    logits, _ = gradients(dual.losses(labeled, unlabeled, step())["efs"], dual.net_a)
    a, b = Prediction.of(dual.net_a.logit_map[2:]), Prediction.of(dual.net_b.logit_map[2:])
    h_a, h_b = a.entropy(), b.entropy()
    valid = ~((h_a > percentile(h_a, 40)) & (h_b > percentile(h_b, 40)))
    target = joint_label(a.label, b.label, h_a, h_b, "union")
    expected = (a.probs - onehot(target, classes).double()) * valid.unsqueeze(1)
    expected = expected * valid.numel() / valid.sum() ** 2
    assert 0 < valid.sum() < valid.numel()
    torch.testing.assert_close(logits[2:], expected.detach())


def test_cr_gradient_pulls_the_networks_towards_each_other(fixed_dual: Factory, step: Factory) -> None:
    dual, labeled, unlabeled = fixed_dual(2)
    losses = dual.losses(labeled, unlabeled, step())
    before = losses["cr"].item()
    grad_a, grad_b = (gradients(losses["cr"], net)[0] for net in (dual.net_a, dual.net_b))
    with torch.no_grad():
        dual.net_a.logit_map -= grad_a
    only_a = dual.losses(labeled, unlabeled, step())["cr"].item()
    with torch.no_grad():
        dual.net_b.logit_map -= grad_b
    both = dual.losses(labeled, unlabeled, step())["cr"].item()
    assert both < only_a < before


@pytest.mark.parametrize(("reading", "grows"), [("repel", True), ("attract", False)])
def test_prototypes_move_as_the_reading_says(
    fixed_dual: Factory, step: Factory, reading: str, grows: bool
) -> None:
    dual, labeled, unlabeled = fixed_dual(2, prototype_term=reading, pull_fraction=1e-9, lambda_max=1.0)
    first = step(10)
    loss = dual.losses(labeled, unlabeled, first)["pgl"]
    _, features = gradients(loss, dual.net_a)
    with torch.no_grad():
        dual.net_a.feature_map -= 0.1 * features
    second = step(10)
    dual.losses(labeled, unlabeled, second)
    assert (second.notes["pgl_apart_a"] > first.notes["pgl_apart_a"]).item() == grows


@pytest.mark.parametrize("classes", [2, 3])
def test_parameters_of_real_networks(step: Factory, classes: int) -> None:
    """Each term alone trains both networks, except that PGL stops before the heads and "sup" has one each."""
    torch.manual_seed(0)
    method = create("dual", {"tau": 0.4, "pull_fraction": 0.5}, NetFactory(1, classes, width=2, dropout=0.0))
    labeled = Batch(torch.randn(2, 1, 16, 16, 16), torch.randint(0, classes, (2, 16, 16, 16)))
    unlabeled = Batch(torch.randn(2, 1, 16, 16, 16), None)
    losses = method.losses(labeled, unlabeled, step(9))
    parameters = dict(method.named_parameters())
    for term in TERMS:
        found = torch.autograd.grad(
            losses[term], list(parameters.values()), retain_graph=True, allow_unused=True
        )
        trained = {name for name, gradient in zip(parameters, found, strict=True) if nonzero(gradient)}
        for net in ("net_a", "net_b"):
            expected = not (term == "sup_a" and net == "net_b") and not (term == "sup_b" and net == "net_a")
            assert any(name.startswith(f"{net}.encoder") for name in trained) == expected, (term, net)
            assert any(name.startswith(f"{net}.decoder") for name in trained) == expected, (term, net)
            head = expected and term != "pgl"
            assert (f"{net}.head.1.weight" in trained) == (f"{net}.head.1.bias" in trained) == head, (
                term,
                net,
            )
    total = torch.stack(list(losses.values())).sum()
    found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in found)


def test_features_are_taken_before_the_heads_dropout(step: Factory) -> None:
    """With everything but PGL off, a head that drops nearly all channels changes nothing."""
    off = {"cr": False, "cps": False, "efs": False, "ue": False}
    values = []
    for dropout in (0.0, 0.9):
        torch.manual_seed(0)
        method = create(
            "dual", {**off, "nets": ("resnet34", "resnet34")}, NetFactory(1, 2, width=4, dropout=dropout)
        )
        seen: list[Tensor] = []
        for net in (method.net_a, method.net_b):
            net.head.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        image = torch.randn(4, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
        label = torch.zeros(2, 16, 16, 16, dtype=torch.int64)
        method.losses(Batch(image[:2], label), Batch(image[2:], None), step(9))
        values.append(seen)
    for first, second in zip(*values, strict=True):
        torch.testing.assert_close(first, second)
