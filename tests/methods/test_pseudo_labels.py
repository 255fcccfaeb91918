"""The labels that a diagnosis shows are those that the losses teach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semivox.methods.base import Batch, PairMethod, PseudoLabel, SingleMethod, TeacherMethod
from semivox.methods.bcp import BCP
from semivox.methods.dual import Dual
from semivox.methods.luseg import LUSEG
from semivox.nets import NetFactory

Factory = Callable[..., Any]
IMAGE = torch.randn(2, 1, 16, 16, 32, generator=torch.Generator().manual_seed(0))


def built(method: Any, dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    method.build(NetFactory(in_channels=1, num_classes=3, width=2, dropout=dropout))
    return method


def same(found: PseudoLabel, net: nn.Module) -> bool:
    probs = torch.softmax(net(IMAGE), dim=1)
    assert found.probs is not None and found.valid is None
    return torch.allclose(found.probs, probs) and found.label.equal(probs.argmax(dim=1))


def cross_entropy(logits: Tensor, label: Tensor, where: Tensor | None = None) -> Tensor:
    values = nn.functional.cross_entropy(logits, label, reduction="none")
    return values.mean() if where is None else values[where].mean()


@pytest.mark.parametrize("rule", ["union", "lower_entropy"])
def test_dual_shows_what_it_teaches(fixed_dual: Factory, step: Factory, rule: str) -> None:
    dual, labeled, unlabeled = fixed_dual(3, labeled=0, efs_target=rule, efs_normalise="mean")
    losses, found = dual.losses(labeled, unlabeled, at := step()), dual.pseudo_labels(unlabeled.image)
    assert list(found) == ["a", "b", "cps_a", "cps_b", "joint", "filtered", "reliable"]
    a, b = dual.net_a.logit_map, dual.net_b.logit_map
    assert found["a"].label.equal(a.argmax(dim=1)) and found["b"].label.equal(b.argmax(dim=1))
    cps = cross_entropy(a, found["cps_b"].label) + cross_entropy(b, found["cps_a"].label)
    assert losses["cps"].item() == pytest.approx(cps.item())
    label, valid = found["filtered"].label, found["filtered"].valid
    assert label.equal(found["joint"].label) and 0 < valid.float().mean() < 1
    efs = cross_entropy(a, label, valid) + cross_entropy(b, label, valid)
    assert losses["efs"].item() == pytest.approx(efs.item())
    reliable = found["reliable"].label[found["reliable"].valid]
    assert [int((reliable == k).sum()) for k in range(3)] == [
        int(at.notes[f"reliable_{k}"]) for k in range(3)
    ]


def test_bcp_shows_the_cleaned_label() -> None:
    method = built(BCP(BCP.Config()))
    with torch.no_grad():  # every class somewhere
        method.teacher.head[1].bias.sub_(method.teacher(IMAGE).mean(dim=(0, 2, 3, 4)))
    found = method.pseudo_labels(IMAGE)
    assert list(found) == ["student", "teacher", "taught"]
    assert found["taught"].label.equal(method.config.taught(method.teacher, IMAGE))
    assert not found["taught"].label.equal(found["teacher"].label)  # noise has many components


def test_luseg_shows_the_common_label_where_it_is_taught(step: Factory) -> None:
    method = built(LUSEG(LUSEG.Config(alpha=60.0)))
    losses = method.losses(Batch(IMAGE[:0], None), Batch(IMAGE, None), step(iteration=10, total=10))
    found = method.pseudo_labels(IMAGE)
    assert list(found) == ["a", "b", "taught"]
    label, valid = found["taught"].label, found["taught"].valid
    taught = cross_entropy(method.net_a(IMAGE), label, valid) + cross_entropy(
        method.net_b(IMAGE), label, valid
    )
    assert losses["pseudo"].item() == pytest.approx(taught.item(), rel=1e-5)


def test_mixing_dual_shows_labels_without_dropout() -> None:
    dual = built(Dual(Dual.Config(mix="paste")), dropout=0.5)
    first, second = dual.pseudo_labels(IMAGE), dual.pseudo_labels(IMAGE)
    assert first["a"].probs.equal(second["a"].probs)
    noisy = built(Dual(Dual.Config()), dropout=0.5)
    assert not noisy.pseudo_labels(IMAGE)["a"].probs.equal(noisy.pseudo_labels(IMAGE)["a"].probs)


def test_two_networks_are_a_and_b() -> None:
    method = built(PairMethod(PairMethod.Config()))
    found = method.pseudo_labels(IMAGE)
    assert list(found) == ["a", "b"]
    assert same(found["a"], method.net_a) and same(found["b"], method.net_b)


def test_one_network_goes_by_its_name() -> None:
    method = built(SingleMethod(SingleMethod.Config()))
    found = method.pseudo_labels(IMAGE)
    assert list(found) == ["vnet"] and same(found["vnet"], method.net)


def test_a_teacher_is_shown_beside_its_student() -> None:
    method = built(TeacherMethod(TeacherMethod.Config()))
    with torch.no_grad():
        method.teacher.head[1].bias.add_(torch.tensor([0.0, 0.0, 5.0]))
    found = method.pseudo_labels(IMAGE)
    assert list(found) == ["student", "teacher"]
    assert same(found["student"], method.net) and same(found["teacher"], method.teacher)
    assert not same(found["student"], method.teacher)
