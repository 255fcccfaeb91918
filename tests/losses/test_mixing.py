"""Cuboid masks, pairs of patches, and the losses on the parts of a mixture."""

from __future__ import annotations

import math

import pytest
import torch

from semivox.losses.mixing import cuboid_mask, halves, linear_dice_of_samples, paste, region_loss
from semivox.losses.prediction import Prediction


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("shape", "sides"),
    [((112, 112, 80), (74, 74, 53)), ((96, 96, 96), (64, 64, 64)), ((32, 48, 16), (21, 32, 10))],
)
def test_size_of_the_cuboid(shape: tuple[int, ...], sides: tuple[int, ...]) -> None:
    """Published: 74 x 74 x 53 of the left atrium's patch, 28.921 %; 64^3 of 96^3, 29.630 %."""
    mask = cuboid_mask(shape, 2 / 3, seeded())
    assert mask.shape == shape and mask.dtype == torch.bool
    assert int((~mask).sum()) == math.prod(sides)
    inside = (~mask).nonzero()
    assert tuple((inside.amax(dim=0) - inside.amin(dim=0) + 1).tolist()) == sides  # as many voxels as its box
    if shape == (112, 112, 80):
        assert int((~mask).sum()) == 290_228
        assert (~mask).float().mean().item() == pytest.approx(0.28921, abs=1e-5)


def test_position_of_the_cuboid() -> None:
    """First voxels 0..P - size - 1, each as often; an axis that is full or one voxel short begins at 0."""
    generator = seeded()
    firsts = torch.stack(
        [(~cuboid_mask((9, 12, 5), 2 / 3, generator)).nonzero().amin(dim=0) for _ in range(3000)]
    )
    for axis, places in enumerate((3, 4, 2)):
        counts = firsts[:, axis].bincount()
        assert len(counts) == places
        assert counts.min() > 0.85 * 3000 / places
    assert not cuboid_mask((4, 4, 4), 1.0, generator).any()
    assert cuboid_mask((4, 4, 4), 0.1, generator).all()


def test_same_generator_same_cuboid() -> None:
    assert torch.equal(cuboid_mask((8, 8, 8), 0.5, seeded(3)), cuboid_mask((8, 8, 8), 0.5, seeded(3)))


def test_paste() -> None:
    mask = torch.tensor([True, False]).view(2, 1, 1).expand(2, 2, 2)
    mixed = paste(torch.full((3, 4, 2, 2, 2), 5.0), torch.full((3, 4, 2, 2, 2), 7.0), mask)
    assert (mixed[:, :, 0] == 5).all() and (mixed[:, :, 1] == 7).all()


@pytest.mark.parametrize(
    ("number", "count", "first", "second"),
    [
        (4, 2, [0, 1], [2, 3]),
        (2, 1, [0], [1]),
        (3, 2, [0, 1], [2, 0]),
        (1, 1, [0], [0]),
        (1, 2, [0, 0], [0, 0]),
        (2, 2, [0, 1], [0, 1]),
        (3, 3, [0, 1, 2], [0, 1, 2]),
    ],
)
def test_halves(number: int, count: int, first: list[int], second: list[int]) -> None:
    values = torch.arange(number).view(-1, 1, 1, 1)
    a, b = halves(values, count)
    assert a.flatten().tolist() == first and b.flatten().tolist() == second


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("masked", [True, False])
def test_losses_against_a_walk_through_the_voxels(classes: int, masked: bool) -> None:
    shape = (2, 4, 3, 5)
    logits = torch.randn(shape[0], classes, *shape[1:], generator=seeded(), dtype=torch.float64)
    label = torch.randint(0, classes, shape, generator=seeded(1))
    mask = cuboid_mask(shape[1:], 0.7, seeded(2))
    prediction = Prediction.of(logits)
    p = torch.softmax(logits, dim=1)

    dices, entropies = [], []
    for b in range(shape[0]):
        for c in range(classes):
            overlap = size = 0.0
            for x, y, z in torch.cartesian_prod(*map(torch.arange, shape[1:])).tolist():
                if masked and not mask[x, y, z]:
                    continue
                truth = float(label[b, x, y, z] == c)
                overlap += p[b, c, x, y, z].item() * truth
                size += p[b, c, x, y, z].item() + truth
                if truth:
                    entropies.append(-math.log(p[b, c, x, y, z].item()))
            dices.append(1 - (2 * overlap + 1e-5) / (size + 1e-5))
    dice, entropy = sum(dices) / len(dices), sum(entropies) / len(entropies)

    region = mask if masked else None
    assert linear_dice_of_samples(prediction.probs, label, region).item() == pytest.approx(dice, abs=1e-6)
    assert region_loss(prediction, label, region).item() == pytest.approx((dice + entropy) / 2, abs=1e-6)


def test_each_region_has_its_own_base() -> None:
    """A prediction of 0.5: cross-entropy log 2 in both parts, so 0.5 (1 + 0.5) log 2 = 0.519860 in all."""
    mask = cuboid_mask((6, 6, 6), 0.5, seeded())
    prediction = Prediction.of(torch.zeros(2, 2, 6, 6, 6, dtype=torch.float64))
    label = torch.randint(0, 2, (2, 6, 6, 6), generator=seeded())

    def entropy(region: torch.Tensor) -> float:
        dice = linear_dice_of_samples(prediction.probs, label, region)
        return (region_loss(prediction, label, region) - 0.5 * dice).item()

    assert entropy(mask) == pytest.approx(0.5 * 0.693147, abs=1e-6)
    assert entropy(mask) + 0.5 * entropy(~mask) == pytest.approx(0.519860, abs=1e-6)


def test_empty_batches_and_regions() -> None:
    nothing = Prediction.of(torch.zeros(0, 2, 4, 4, 4))
    label = torch.zeros(0, 4, 4, 4, dtype=torch.int64)
    assert region_loss(nothing, label, torch.ones(4, 4, 4, dtype=torch.bool)).item() == 0
    some = Prediction.of(torch.zeros(1, 2, 4, 4, 4))
    label = torch.zeros(1, 4, 4, 4, dtype=torch.int64)
    assert region_loss(some, label, torch.zeros(4, 4, 4, dtype=torch.bool)).item() == 0
