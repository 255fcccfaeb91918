"""`dual`: the sheet's self-checks, empty sets, notes, host reads and inference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from semivox.losses.prediction import Prediction
from semivox.losses.pseudo_labels import joint_label
from semivox.losses.supervised import nll
from semivox.methods import create
from semivox.methods.base import Batch
from semivox.methods.dual import Dual
from semivox.nets import NetFactory

Factory = Callable[..., Any]


def values(losses: dict[str, Tensor]) -> dict[str, float]:
    return {name: loss.item() for name, loss in losses.items()}


def test_unsupervised_ramp(fixed_dual: Factory, step: Factory) -> None:
    plain, labeled, unlabeled = fixed_dual(2)
    ramped, _, _ = fixed_dual(2, unsup_ramp="sigmoid", ramp_fraction=0.5)
    full = values(plain.losses(labeled, unlabeled, step(2, 10)))
    part = values(ramped.losses(labeled, unlabeled, step(2, 10)))
    weight = math.exp(-5 * (1 - 0.4) ** 2)
    for name in full:
        factor = weight if name in ("cr", "cps", "efs", "ue") else 1.0
        assert part[name] == pytest.approx(factor * full[name]), name
    assert values(ramped.losses(labeled, unlabeled, step(5, 10))) == pytest.approx(
        values(plain.losses(labeled, unlabeled, step(5, 10)))
    )


def test_identical_networks(step: Factory) -> None:
    """In eval mode M is empty and, with T = 1, D = 0: UE is then the mean -log of the largest probability."""
    torch.manual_seed(0)
    options = {"nets": ("vnet", "vnet"), "temperature": 1.0, "tau": 0.0}
    method = create("dual", {"ue_reading": "term"} | options, NetFactory(1, 3, width=2))
    method.net_b.load_state_dict(method.net_a.state_dict())
    method.eval()
    image = torch.randn(4, 1, 16, 16, 16)
    label = torch.randint(0, 3, (2, 16, 16, 16))
    at = step()
    losses = method.losses(Batch(image[:2], label), Batch(image[2:], None), at)
    assert at.notes["cr_share"].item() == 0 and losses["cr"].item() == 0
    expected = -2 * torch.log_softmax(method.net_a(image), dim=1).amax(dim=1).mean()
    torch.testing.assert_close(losses["ue"], expected)
    torch.testing.assert_close(losses["sup_a"], losses["sup_b"])


@pytest.mark.parametrize("normalise", ["total", "mean"])
def test_alpha_100_ignores_nothing(fixed_dual: Factory, step: Factory, normalise: str) -> None:
    dual, labeled, unlabeled = fixed_dual(3, alpha=100, efs_normalise=normalise)
    at = step()
    losses = dual.losses(labeled, unlabeled, at)
    a, b = Prediction.of(dual.net_a.logit_map[2:]), Prediction.of(dual.net_b.logit_map[2:])
    target = joint_label(a.label, b.label, a.entropy(), b.entropy(), "union")
    plain = nll(a.log_probs, target).mean() + nll(b.log_probs, target).mean()
    torch.testing.assert_close(losses["efs"], plain)
    assert at.notes["efs_valid_share"].item() == 1


def constant_entropy(dual: Dual, gain: float) -> None:
    """Logits whose entropy is the same everywhere, of changing class; a large gain makes it 0."""
    for seed, net in enumerate((dual.net_a, dual.net_b)):
        with torch.no_grad():
            label = (
                torch.rand(net.logit_map[:, :1].shape, generator=torch.Generator().manual_seed(seed)) < 0.5
            )
            net.logit_map.copy_(gain * torch.cat([~label, label], dim=1).double())


@pytest.mark.parametrize("gain", [1.0, 1000.0])
@pytest.mark.parametrize("alpha", [0, 30, 70])
def test_constant_entropy(fixed_dual: Factory, step: Factory, gain: float, alpha: float) -> None:
    """Nothing is ignored, R is where both agree, no NaN."""
    dual, labeled, unlabeled = fixed_dual(2, alpha=alpha, pull_fraction=1.0)
    constant_entropy(dual, gain)
    at = step(5)
    losses = dual.losses(labeled, unlabeled, at)
    torch.stack(list(losses.values())).sum().backward()
    a, b = (net.logit_map[2:].argmax(dim=1) for net in (dual.net_a, dual.net_b))
    assert at.notes["efs_valid_share"].item() == 1
    assert at.notes["reliable_0"].item() == ((a == 0) & (b == 0)).sum()
    assert at.notes["reliable_1"].item() == ((a == 1) & (b == 1)).sum()
    assert all(bool(torch.isfinite(value)) for value in losses.values())
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in dual.parameters())


def test_networks_that_never_agree(fixed_dual: Factory, step: Factory) -> None:
    """R is empty: PGL is 0, both classes are skipped, and so is CPS if uncertain voxels are excluded."""
    dual, labeled, unlabeled = fixed_dual(2, exclude_uncertain=True)
    with torch.no_grad():
        dual.net_b.logit_map.copy_(-dual.net_a.logit_map)
    at = step(5)
    losses = dual.losses(labeled, unlabeled, at)
    torch.stack(list(losses.values())).sum().backward()
    assert losses["pgl"].item() == 0 and losses["cps"].item() == 0
    assert at.notes["pgl_skipped_classes"].item() == 2
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in dual.parameters())


def test_class_absent_from_the_reliable_set(fixed_dual: Factory, step: Factory) -> None:
    dual, labeled, unlabeled = fixed_dual(3, pull_fraction=1.0)
    with torch.no_grad():
        dual.net_a.logit_map[:, 2] -= 100
    at = step(5)
    loss = dual.losses(labeled, unlabeled, at)["pgl"]
    assert at.notes["reliable_2"].item() == 0 and at.notes["pgl_skipped_classes"].item() == 1
    assert math.isfinite(loss.item()) and loss.item() != 0


def test_labels_are_required_of_the_labeled_stream(fixed_dual: Factory, step: Factory) -> None:
    dual, labeled, unlabeled = fixed_dual(2)
    with pytest.raises(ValueError, match="without a label"):
        dual.losses(Batch(labeled.image, None), unlabeled, step())


def test_notes_are_detached_scalars(fixed_dual: Factory, step: Factory) -> None:
    dual, labeled, unlabeled = fixed_dual(3)
    losses = dual.losses(labeled, unlabeled, at := step())
    assert {"threshold_a", "threshold_b", "cr_share", "efs_valid_share", "reliable_0", "reliable_2"} <= set(
        at.notes
    )
    assert {"pgl_skipped_classes", "pgl_pull_a", "pgl_apart_b", "weight_pgl", "weight_unsup"} <= set(at.notes)
    assert all(note.shape == () and not note.requires_grad for note in at.notes.values())
    raw = sum(at.notes[f"pgl_pull_{k}"].item() - at.notes[f"pgl_apart_{k}"].item() for k in "ab")
    assert losses["pgl"].item() == pytest.approx(at.notes["weight_pgl"].item() * raw, rel=1e-6)


def test_one_joint_forward_a_network(step: Factory) -> None:
    method = create("dual", {}, NetFactory(1, 2, width=2))
    sizes: list[int] = []
    for net in (method.net_a, method.net_b):
        net.encoder.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    label = torch.zeros(2, 16, 16, 16, dtype=torch.int64)
    method.losses(
        Batch(torch.randn(2, 1, 16, 16, 16), label), Batch(torch.randn(1, 1, 16, 16, 16), None), step()
    )
    assert sizes == [3, 3]


def test_same_seed_same_losses_and_seed_matters_only_to_pgl(fixed_dual: Factory, step: Factory) -> None:
    dual, labeled, unlabeled = fixed_dual(2, pull_fraction=0.3)
    first, again, other = (values(dual.losses(labeled, unlabeled, step(5, seed=seed))) for seed in (0, 0, 1))
    assert first == again
    assert {name for name in first if first[name] != other[name]} == {"pgl"}


def test_members_go_by_their_networks() -> None:
    image = torch.randn(1, 2, 16, 32, 16)
    method = create("dual", {}, NetFactory(2, 3, width=2)).eval()
    members = method.predict_members(image)
    for name, net in (("resnet34", method.net_a), ("vnet", method.net_b)):
        torch.testing.assert_close(members[name], torch.softmax(net(image), dim=1))
    same = create("dual", {"nets": ["vnet", "vnet"]}, NetFactory(2, 3, width=2)).eval()
    assert list(same.predict_members(image)) == ["vnet_a", "vnet_b"]
