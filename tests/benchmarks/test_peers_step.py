"""The naive peer of a step of `dual` computes what ours does: same weights and batch, no dropout.

In double precision: in single precision the gradient through batch statistics of few voxels is so
ill-conditioned that it differs from the exact one by 1e-3 of its length in both.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from peers.dual_step import DualStep
from peers.plain_nets import copy_weights
from semivox.methods import create
from semivox.methods.base import Batch, Step
from semivox.nets import NetFactory

SHAPE = (32, 32, 16)


def both(classes: int, seed: int) -> tuple[Any, DualStep, Batch, Batch, Step]:
    """Ours in channels-last, the peer with the same weights, and a batch with shapes in it."""
    torch.manual_seed(seed)
    ours = create(
        "dual", {"pull_fraction": 1.0, "ue_reading": "term"}, NetFactory(1, classes, width=4, dropout=0.0)
    )
    ours = ours.double().to(memory_format=torch.channels_last_3d)
    label = torch.zeros(2, *SHAPE, dtype=torch.int64)
    for index in range(1, classes):
        label[:, 4 * index : 4 * index + 8, 8:30, 5:12] = index
    image = torch.randn(4, 1, *SHAPE, dtype=torch.float64)
    image[:2] += label.unsqueeze(1)
    layout = image.clone(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        for net in (ours.net_a, ours.net_b):  # each class is predicted somewhere
            net.head[1].bias -= net(layout).mean(dim=(0, 2, 3, 4))
    peer = DualStep(in_channels=1, classes=classes, width=4, dropout=0.0, pull_fraction=1.0)
    copy_weights(ours.net_a, peer.net_a.double())
    copy_weights(ours.net_b, peer.net_b.double())
    step = Step(7, 10, torch.Generator().manual_seed(0))
    return ours, peer, Batch(layout[:2], label), Batch(layout[2:], None), step


@pytest.mark.parametrize(("classes", "seed"), [(2, 0), (4, 1)])
def test_every_term_and_the_gradient(classes: int, seed: int) -> None:
    """Terms to a relative 1e-9; all gradients together to 1e-9 of their length."""
    ours, peer, labeled, unlabeled, step = both(classes, seed)
    found = ours.losses(labeled, unlabeled, step)
    expected = peer.losses(labeled.image.contiguous(), labeled.target, unlabeled.image.contiguous(), 0.7)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(value.item()) > 1e-3, f"{name} says nothing here"
        assert found[name].item() == pytest.approx(value.item(), rel=1e-9, abs=0), name
    assert step.notes["cr_share"] > 0.05 and 0.5 < step.notes["efs_valid_share"] < 1
    assert sum(step.notes[f"reliable_{index}"].item() > 20 for index in range(classes)) >= 2

    torch.stack(list(found.values())).sum().backward()
    sum(expected.values(), torch.zeros(())).backward()
    gradients = [
        torch.cat([parameter.grad.flatten() for net in nets for parameter in net.parameters()])
        for nets in ((ours.net_a, ours.net_b), (peer.net_a, peer.net_b))
    ]
    assert (gradients[0] - gradients[1]).norm() < 1e-9 * gradients[1].norm()


def test_the_whole_step_moves_the_weights_alike() -> None:
    ours, peer, labeled, unlabeled, step = both(2, 0)
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    before = [parameter.detach().clone() for parameter in peer.net_a.parameters()]
    torch.stack(list(ours.losses(labeled, unlabeled, step).values())).sum().backward()
    optimizer.step()
    peer.step(labeled.image.contiguous(), labeled.target, unlabeled.image.contiguous(), 0.7)
    for own, other, start in zip(ours.net_a.parameters(), peer.net_a.parameters(), before, strict=True):
        moved = (other - start).norm()
        assert moved > 0
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)
    for own, other in zip(ours.net_b.buffers(), peer.net_b.buffers(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)
