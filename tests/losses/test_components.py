"""The largest component of each class."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from semivox.losses.components import Neighbours, largest_components


def flood(mask: np.ndarray, neighbours: int) -> np.ndarray:
    """The largest component, found by walking from voxel to voxel; the first of several as large."""
    reach = {6: 1, 18: 2, 26: 3}[neighbours]
    steps = [s for s in product((-1, 0, 1), repeat=3) if 0 < sum(map(abs, s)) <= reach]
    left = {tuple(v) for v in np.argwhere(mask).tolist()}
    best: set[tuple[int, ...]] = set()
    for start in sorted(left):
        if start not in left:
            continue
        left.discard(start)
        found, border = {start}, [start]
        while border:
            voxel = border.pop()
            for step in steps:
                other = tuple(a + b for a, b in zip(voxel, step, strict=True))
                if other in left:
                    left.discard(other)
                    found.add(other)
                    border.append(other)
        if len(found) > len(best):
            best = found
    kept = np.zeros_like(mask)
    for voxel in best:
        kept[voxel] = True
    return kept


@pytest.mark.parametrize("neighbours", [6, 18, 26])
@pytest.mark.parametrize("classes", [2, 4])
def test_against_a_flood_fill(neighbours: Neighbours, classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    label = torch.randint(0, classes, (3, 6, 7, 5), generator=generator)
    label *= torch.rand(label.shape, generator=generator) < (0.35 if neighbours > 6 else 0.6)
    kept = largest_components(label, classes, neighbours)
    for before, after in zip(label.numpy(), kept.numpy(), strict=True):
        for index in range(1, classes):
            np.testing.assert_array_equal(after == index, flood(before == index, neighbours))
    assert kept.dtype == torch.int64 and int((kept != label).sum()) > 0


def test_diagonal_neighbours() -> None:
    label = torch.zeros(1, 4, 4, 4, dtype=torch.int64)
    label[0, 0, 0, 0] = label[0, 0, 0, 1] = 1  # two voxels
    label[0, 1, 1, 1] = 1  # an edge away
    label[0, 2, 2, 2] = 1  # a corner away from that
    sizes = [int((largest_components(label, 2, n) > 0).sum()) for n in (6, 18, 26)]
    assert sizes == [2, 3, 4]


def test_nothing_to_keep() -> None:
    empty = torch.zeros(2, 3, 3, 3, dtype=torch.int64)
    assert torch.equal(largest_components(empty, 3), empty)
    assert largest_components(empty[:0], 3).shape == (0, 3, 3, 3)
    assert torch.equal(largest_components(empty + 1, 3), empty + 1)
