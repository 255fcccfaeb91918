"""The default method's losses, by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from semivox.losses.soft_labels import deep_loss
from semivox.losses.supervised import onehot
from semivox.methods import create
from semivox.methods.base import Batch
from semivox.methods.self_training import SelfTraining
from semivox.nets import NetFactory

SHAPE = (16, 16, 16)


def make(classes: int = 3, **options: Any) -> SelfTraining:
    torch.manual_seed(0)
    method = create("self_training", options, NetFactory(1, classes, width=2, norm="instance", dropout=0.0))
    assert isinstance(method, SelfTraining)
    return method


def batches(classes: int = 3) -> tuple[Batch, Batch]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 1, *SHAPE, generator=generator)
    shares = (4 * torch.randn(4, classes, *SHAPE, generator=generator)).softmax(1)
    labeled = Batch(images[:2], shares[:2].argmax(1), soft=shares[:2])
    return labeled, Batch(images[2:], None, soft=shares[2:])


@pytest.mark.parametrize("classes", [2, 3])
def test_without_mixtures_it_is_the_soft_loss_of_both_streams(step: Callable[..., Any], classes: int) -> None:
    """Each sample counts a quarter; pseudo-labels 0.7, half of it where no class has more than 3/4."""
    method = make(classes, mix_probability=0.0)
    labeled, taught = batches(classes)
    found = method.losses(labeled, taught, step())
    assert labeled.soft is not None and taught.soft is not None
    weight = torch.ones(4, *SHAPE)
    for sample in range(2):
        certain = taught.soft[sample].max(dim=0).values > 0.75
        weight[2 + sample] = 0.35
        weight[2 + sample][certain] = 0.7
    scales = method.net.deep(torch.cat([labeled.image, taught.image]))
    each = deep_loss(scales, torch.cat([labeled.soft, taught.soft]), weight) / 4
    assert found["sup"].item() == pytest.approx(each[:2].sum().item(), rel=1e-5)
    assert found["pseudo"].item() == pytest.approx(each[2:].sum().item(), rel=1e-5)


def test_mixtures_take_image_label_and_weight_from_the_next_sample(
    step: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make(mix_probability=1.0)
    labeled, taught = batches()
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    plain = method._mixed

    def spy(parts: tuple[Tensor, Tensor, Tensor], at: Any) -> tuple[Tensor, Tensor, Tensor]:
        seen.extend([parts, plain(parts, at)])
        return seen[1]

    monkeypatch.setattr(method, "_mixed", spy)
    method.losses(labeled, taught, step())
    (images, shares, weight), (mixed, soft, heavy) = seen
    for sample in range(4):
        other = (sample - 1) % 4
        pasted = mixed[sample, 0] != images[sample, 0]
        places = pasted.nonzero()
        sides = places.max(dim=0).values - places.min(dim=0).values + 1
        assert int(pasted.sum()) == int(sides.prod()), "one cuboid"
        assert all(0.4 * 16 - 1 <= int(side) <= 0.75 * 16 + 1 for side in sides)
        assert torch.equal(mixed[sample, 0][pasted], images[other, 0][pasted])
        assert torch.equal(soft[sample][:, pasted], shares[other][:, pasted])
        assert torch.equal(soft[sample][:, ~pasted], shares[sample][:, ~pasted])
        assert torch.equal(heavy[sample][pasted], weight[other][pasted])


def test_voxels_that_are_not_valid_teach_nothing(step: Callable[..., Any]) -> None:
    labeled, _ = batches()
    nothing = Batch(labeled.image[:0], None)
    valid = torch.ones(2, *SHAPE, dtype=torch.bool)
    valid[:, :8] = False
    found = []
    for shift in (0, 1):
        assert labeled.soft is not None
        shares = torch.where(valid.unsqueeze(1), labeled.soft, labeled.soft.roll(shift, dims=1))
        given = labeled._replace(soft=shares, valid=valid)
        method = make()
        assert torch.equal(given.soft, labeled.soft) == (shift == 0)
        method.net.coarse_heads = torch.nn.ModuleList()  # a coarse voxel at the edge has both kinds in it
        found.append(method.losses(given, nothing, step())["sup"].item())
    assert found[0] == found[1]


def test_hard_labels_are_taken_where_there_are_no_shares(step: Callable[..., Any]) -> None:
    labeled, _ = batches()
    nothing, hard = Batch(labeled.image[:0], None), onehot(labeled.target, 3).float()
    found = [
        make().losses(labeled._replace(soft=soft), nothing, step())["sup"].item() for soft in (None, hard)
    ]
    assert found[0] == found[1]


def test_pseudo_labels_are_sharpened() -> None:
    """Squares, brought to sum 1: (0.6, 0.3, 0.1) becomes (0.36, 0.09, 0.01) / 0.46."""
    probs = torch.tensor([0.6, 0.3, 0.1]).view(1, 3, 1, 1, 1)
    expected = torch.tensor([0.36, 0.09, 0.01]) / 0.46
    torch.testing.assert_close(make().teach(probs).flatten(), expected)


def test_stages_share_the_run() -> None:
    assert make().stages(4000) == (0.65, pytest.approx(0.35))
    assert make(rounds=2).stages(4000) == (0.65, pytest.approx(0.175), pytest.approx(0.175))
    assert make(rounds=0).stages(4000) == (1.0,)


def test_short_runs_learn_from_the_labels_alone() -> None:
    assert make().stages(2500) == (0.8, pytest.approx(0.2))
    assert make().stages(2499) == make().stages(100) == (1.0,)
    assert make(labels_iterations=0).stages(10) == (0.65, pytest.approx(0.35))
    assert make(labels_share=0.9).stages(4000) == (0.9, pytest.approx(0.1))  # what was asked for is done
