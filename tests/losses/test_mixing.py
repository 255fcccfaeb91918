"""Cuboid masks, pairs of patches, and the losses on the parts of a mixture."""

from __future__ import annotations

import math

import pytest
import torch

from semivox.losses.mixing import (
    box_masks,
    cuboid_mask,
    cutmix_boxes,
    halves,
    paste,
    region_loss,
    volume_boxes,
)
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


def test_empty_batches_and_regions() -> None:
    nothing = Prediction.of(torch.zeros(0, 2, 4, 4, 4))
    label = torch.zeros(0, 4, 4, 4, dtype=torch.int64)
    assert region_loss(nothing, label, torch.ones(4, 4, 4, dtype=torch.bool)).item() == 0
    some = Prediction.of(torch.zeros(1, 2, 4, 4, 4))
    label = torch.zeros(1, 4, 4, 4, dtype=torch.int64)
    assert region_loss(some, label, torch.zeros(4, 4, 4, dtype=torch.bool)).item() == 0


def test_boxes_of_voxels() -> None:
    first, stop = (
        torch.tensor([[0, 1, 2], [3, 0, 0], [-2, 1, 1]]),
        torch.tensor([[2, 3, 3], [3, 9, 9], [1, 2, 9]]),
    )
    found = box_masks((4, 3, 3), first, stop)
    expected = torch.zeros(3, 4, 3, 3, dtype=torch.bool)
    expected[0, 0:2, 1:3, 2:3] = True
    expected[2, 0:1, 1:2, 1:3] = True
    assert torch.equal(found, expected)


def extent(mask: torch.Tensor) -> list[tuple[int, int]]:
    """First voxel of a box, and the one after its last, along each axis; the box is full."""
    place = mask.nonzero()
    ends = list(zip(place.amin(dim=0).tolist(), (place.amax(dim=0) + 1).tolist(), strict=True))
    assert int(mask.sum()) == math.prod(stop - first for first, stop in ends)
    return ends


def test_cutmix_boxes() -> None:
    """Sides sqrt(1 - l) of the patch's, one l ~ Beta(4, 4) for all; each at its place, cut off outside."""
    shape = (40, 32, 24)
    masks, draws = cutmix_boxes(3, shape, seeded(5)), seeded(5)
    share = math.sqrt(1 - sorted(torch.rand(7, generator=draws).tolist())[3])
    for mask, place in zip(masks, torch.rand((3, 3), generator=draws).tolist(), strict=True):
        expected = torch.zeros(shape, dtype=torch.bool)
        box = []
        for side, draw in zip(shape, place, strict=True):
            half, center = int(side * share) // 2, side // 8 + int(draw * (side - side // 8))
            box.append(slice(max(center - half, 0), min(center + half, side)))
        expected[tuple(box)] = True
        assert torch.equal(mask, expected)
    shares = [1 - sorted(torch.rand(7, generator=draws).tolist())[3] for _ in range(3000)]
    assert sum(shares) / 3000 == pytest.approx(0.5, abs=0.01)  # Beta(4, 4): mean 1/2, variance 1/36
    assert torch.tensor(shares).var().item() == pytest.approx(1 / 36, rel=0.08)


def test_volume_boxes() -> None:
    """In half of the samples 2 to 40 % of the volume, somewhere inside."""
    shape = (60, 40, 50)
    masks = volume_boxes(2000, shape, seeded())
    used = masks.flatten(1).any(dim=1)
    assert used.float().mean().item() == pytest.approx(0.5, abs=0.03)
    ends = torch.tensor([extent(mask) for mask in masks[used]])
    sides = (ends[..., 1] - ends[..., 0]) / torch.tensor(shape)
    share = masks[used].float().flatten(1).mean(dim=1)
    assert 0.012 < share.min() < 0.03 and 0.36 < share.max() <= 0.4
    assert share.mean().item() == pytest.approx(0.2, abs=0.015)  # 0.21 before it is rounded down to voxels
    ratio = sides[:, 1] / sides[:, 0]  # r^(2/3)
    assert 0.3 ** (2 / 3) * 0.85 < ratio.min() < 0.6 and 2.0 < ratio.max() < 0.3 ** (-2 / 3) * 1.15
    assert bool((ends[..., 0] >= 0).all()) and bool((ends[..., 1] <= torch.tensor(shape)).all())
    assert bool((ends[..., 0].amin(dim=0) == 0).all())
