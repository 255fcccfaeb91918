"""Which parameters each term of `dual` trains, and by how much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradients import reached, trained_by
from torch import Tensor

from semivox.losses.prediction import Prediction
from semivox.losses.pseudo_labels import foreground_label, joint_label
from semivox.losses.supervised import onehot
from semivox.losses.uncertainty import percentile
from semivox.methods import create
from semivox.methods.base import Batch
from semivox.nets import NetFactory

Factory = Callable[..., Any]


def gradients(loss: Tensor, net: Any) -> tuple[Tensor | None, Tensor | None]:
    """Gradient of the logits and of the features of a `Fixed` network."""
    parameters = (net.logit_map, net.feature_map)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return found[0], found[1]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("options", [{}, {"cr_target": "label"}, {"variant": "released"}])
def test_which_maps_and_samples_each_term_reaches(
    fixed_dual: Factory, step: Factory, classes: int, options: dict[str, Any]
) -> None:
    """Logits of A and B, features of A and B. As released UE trains A alone, EFS and PGL nothing."""
    dual, labeled, unlabeled = fixed_dual(classes, pull_fraction=1.0, **options)
    losses = dual.losses(labeled, unlabeled, step(5))
    nets = (dual.net_a, dual.net_b)
    maps = [getattr(net, f"{part}_map") for part in ("logit", "feature") for net in nets]
    no, first, second, every = (False, False), (True, False), (False, True), (True, True)
    expected = {
        "sup_a": [first, no, no, no],
        "sup_b": [no, first, no, no],
        "cr": [first, first, no, no],
        "cps": [second, second, no, no],
        "efs": [second, second, no, no],
        "ue": [every, every, no, no],
        "pgl": [no, no, second, second],
    }
    if "variant" in options:
        del expected["cps"]
        expected |= {
            "ue": [every, no, no, no],
            "cosine": [every, every, no, no],
            "efs": [no] * 4,
            "pgl": [no] * 4,
        }
    assert {name: [reached(loss, one) for one in maps] for name, loss in losses.items()} == expected


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
    everything = {f"net_{k}.{part}" for k in "ab" for part in ("encoder", "decoder", "head")}
    for term, loss in losses.items():
        expected = {part for part in everything if term[:3] != "sup" or part[4] == term[4]}
        if term == "pgl":
            expected = {part for part in everything if not part.endswith("head")}
        assert trained_by(loss, method, 2) == expected, term
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in method.parameters())


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
