"""CrossMatch: perturbed features, strong views, all terms against NumPy, threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from semivox.losses.mixing import volume_boxes
from semivox.methods import create
from semivox.methods.base import Batch
from semivox.methods.strong_views import shade_and_blur
from semivox.nets import NetFactory

Factory = Callable[..., Any]
SHAPE = (32, 16, 16)


class Passes(NamedTuple):
    """What went through the parts of the network, pass by pass."""

    images: list[Tensor]
    encoded: list[list[Tensor]]
    decoded: list[list[Tensor]]
    logits: list[Tensor]
    head_training: list[bool]


def build(
    classes: int = 3, *, labeled: int = 2, unlabeled: int = 4, dropout: float = 0.0, **options: Any
) -> tuple[Any, Batch, Batch, Passes]:
    """A method with hooks, and patches of a bright box on noise."""
    torch.manual_seed(0)
    method: Any = create("cross_match", options, NetFactory(1, classes, width=4, dropout=dropout))
    with torch.no_grad():
        method.net.head[1].weight.mul_(3)
    passes = Passes([], [], [], [], [])
    net = method.net
    net.encoder.register_forward_hook(lambda _, x, __: passes.images.append(x[0]))
    net.encoder.register_forward_hook(lambda _, __, maps: passes.encoded.append(maps))
    net.decoder.register_forward_hook(lambda _, x, __: passes.decoded.append(x[0]))
    net.head.register_forward_hook(lambda _, __, z: passes.logits.append(z))
    net.head[0].register_forward_hook(lambda m, *_: passes.head_training.append(m.training))
    image = torch.randn(labeled + unlabeled, 1, *SHAPE)
    label = torch.randint(0, classes, (labeled, *SHAPE))
    return method, Batch(image[:labeled], label), Batch(image[labeled:], None), passes


def boxes_of(seed: int, count: int) -> list[np.ndarray]:
    """The cuboids of both strong views, which are drawn first."""
    draws = torch.Generator().manual_seed(seed)
    return [volume_boxes(count, SHAPE, draws).numpy() for _ in range(2)]


def dice(probs: np.ndarray, label: np.ndarray, mask: np.ndarray) -> float:
    """Mean over the foreground classes."""
    losses = []
    for c in range(1, probs.shape[1]):
        p, y = probs[:, c] * mask, (label == c) * mask
        losses.append(1 - (2 * (p * y).sum() + 1e-5) / ((p**2).sum() + (y**2).sum() + 1e-5))
    return float(np.mean(losses))


@pytest.mark.parametrize(("classes", "unlabeled"), [(2, 4), (3, 4), (3, 3), (3, 1)])
def test_against_numpy(step: Factory, naive: Any, classes: int, unlabeled: int) -> None:
    options = {"threshold_start": 0.6, "threshold_end": 0.9, "eta": 0.2, "image_weight": 0.7}
    method, first, second, passes = build(classes, unlabeled=unlabeled, **options)
    n = (unlabeled + 1) // 2
    seed, boxes = 0, boxes_of(0, n)
    while not all(box.any() for box in boxes):
        boxes = boxes_of(seed := seed + 1, n)
    losses = method.losses(first, second, at := step(8, 10, seed=seed))

    limit = 0.6 + 0.3 * naive.ramp(0.8 * 14 / 17)
    plain, other, changed = (naive.softmax(naive.numpy(z)) for z in passes.logits)
    own, clean, weak, strong = np.split(plain, [2, 2 + n, 2 + 2 * n])
    others = np.split(other, 3)
    one, two, two_weak, two_strong = np.split(changed, 4)

    def d(student: np.ndarray, teacher: np.ndarray, partner: np.ndarray, box: np.ndarray | bool) -> float:
        label = np.where(box, partner.argmax(axis=1), teacher.argmax(axis=1))
        sure = np.where(box, partner.max(axis=1), teacher.max(axis=1)) >= limit
        assert 0.02 < sure.mean() < 0.98
        return dice(student, label, sure)

    ip = (d(one, clean, others[0], boxes[0]) + d(two, clean, others[0], boxes[1])) / 2
    tkd = np.mean(
        [d(p, clean, others[0], False) for p in (weak, strong)]
        + [d(p, clean, others[0], boxes[1]) for p in (two_weak, two_strong)]
    )
    dkd = (d(two_weak, weak, others[1], boxes[1]) + d(two_strong, strong, others[2], boxes[1])) / 2
    expected = {
        "sup": naive.ce_dice(own, first.label.numpy(), 1) / 2,
        "ip": 0.7 * ip / 2,
        "tkd": 0.8 * tkd / 2,
        "dkd": 0.2 * dkd / 2,
    }
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-4)
    assert at.notes["confident_share"].item() == pytest.approx((clean.max(axis=1) >= limit).mean(), abs=1e-4)


def test_published_weights() -> None:
    """(L_x + 0.25 L_s1 + 0.25 L_s2 + 0.7 tkd + 0.3 dkd) / 2."""
    config = create("cross_match", {}, NetFactory(1, 2, width=2)).config
    assert (config.image_weight, config.eta) == (0.5, 0.3)  # type: ignore[attr-defined]
    assert (config.drop_weak, config.drop_strong) == (0.25, 0.75)  # type: ignore[attr-defined]


def test_channels_of_all_levels_are_dropped_of_unlabeled_patches_alone(step: Factory) -> None:
    method, labeled, unlabeled, passes = build(dropout=0.0)
    method.losses(labeled, unlabeled, step())
    dropped: dict[str, list[float]] = {"weak": [], "strong": []}
    for images, encoded, decoded, plain in zip(
        passes.images, passes.encoded, passes.decoded, (2, 0, 2), strict=True
    ):
        total, rest = len(images), len(images) - plain
        assert len(encoded) == len(decoded) == 5
        for before, after in zip(encoded, decoded, strict=True):
            assert len(after) == total + 2 * rest and torch.equal(after[:total], before)
            for name, drop, copy in (("weak", 0.25, 0), ("strong", 0.75, 1)):
                copied = after[total + copy * rest : total + (copy + 1) * rest]
                gone = (copied == 0).flatten(2).all(dim=2)
                kept = (before[plain:] / (1 - drop)) * ~gone[..., None, None, None]
                torch.testing.assert_close(copied, kept)
                dropped[name].append(gone.float().mean().item())
    assert np.mean(dropped["weak"]) == pytest.approx(0.25, abs=0.08)
    assert np.mean(dropped["strong"]) == pytest.approx(0.75, abs=0.08)


def test_strong_views_have_the_intensities_and_a_cuboid_of_the_partner(step: Factory) -> None:
    method, labeled, unlabeled, passes = build(labeled=1)
    method.losses(labeled, unlabeled, step(seed=4))
    draws = torch.Generator().manual_seed(4)
    boxes = [volume_boxes(2, SHAPE, draws) for _ in range(2)]
    image, partner = unlabeled.image[:2], unlabeled.image[2:]
    views = []
    for box in boxes:
        other, own = shade_and_blur(partner, draws), shade_and_blur(image, draws)
        views.append(torch.where(box.unsqueeze(1), other, own))
    assert any(bool(box.any()) for box in boxes) and not torch.equal(*views)
    assert torch.equal(passes.images[0], torch.cat([labeled.image, image]))
    assert torch.equal(passes.images[1], partner)
    assert torch.equal(passes.images[2], torch.cat(views))


def test_labels_carry_no_gradient_and_the_head_drops_nothing(step: Factory) -> None:
    method, labeled, unlabeled, passes = build(dropout=0.5)
    losses = method.losses(labeled, unlabeled, step())
    assert [z.requires_grad for z in passes.logits] == [True, False, True]
    assert passes.head_training == [False] * 3 and method.net.head[0].training
    taught = losses["ip"] + losses["tkd"] + losses["dkd"]
    plain, changed = torch.autograd.grad(taught, [passes.logits[0], passes.logits[2]], retain_graph=True)
    assert bool((plain[:4] == 0).all())  # labeled patches, and the clean labels of the unlabeled ones
    for part in (plain[4:6], plain[6:], *changed.split(2)):
        assert bool((part != 0).any())
    sum(losses.values()).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in method.parameters())


def test_nothing_is_taught_where_nothing_is_confident(step: Factory) -> None:
    method, labeled, unlabeled, _ = build()
    with torch.no_grad():
        method.net.head[1].weight.zero_()  # three equal probabilities
    losses = method.losses(labeled, unlabeled, at := step())
    assert {name for name, loss in losses.items() if loss.item() == 0} == {"ip", "tkd", "dkd"}
    assert at.notes["confident_share"].item() == 0
