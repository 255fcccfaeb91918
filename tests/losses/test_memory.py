"""Rows of voxels by class, the best of them, and their weighted cosine distance."""

from __future__ import annotations

import math

import pytest
import torch

from semivox.losses.memory import Rows, best_rows, draw_rows, take_rows, weighted_cosine_distance


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rows_are_of_their_class_and_different() -> None:
    label = torch.randint(0, 3, (2, 6, 5, 4), generator=seeded())
    rows = draw_rows(label, 3, 20, seeded(1))
    assert rows.voxel.shape == rows.chosen.shape == (3, 20) and rows.chosen.all()
    for c in range(3):
        assert (label.flatten()[rows.voxel[c]] == c).all()
        assert len(set(rows.voxel[c].tolist())) == 20
    assert not torch.equal(rows.voxel, draw_rows(label, 3, 20, seeded(2)).voxel)
    assert torch.equal(rows.voxel, draw_rows(label, 3, 20, seeded(1)).voxel)


def test_small_and_absent_classes() -> None:
    label = torch.zeros(2, 3, 3, 3, dtype=torch.int64)
    label[1, 0, 0, 1:] = 2
    rows = draw_rows(label, 4, 7, seeded())
    assert rows.chosen.sum(dim=1).tolist() == [7, 0, 2, 0]
    assert set(rows.voxel[2].tolist()) == {28, 29}  # repeated, so that no other class is among them
    assert set(rows.voxel[2][rows.chosen[2]].tolist()) == {28, 29}
    everything = draw_rows(label, 4, 10_000, seeded())
    assert everything.voxel.shape == (4, 54)
    assert sorted(everything.voxel[0][everything.chosen[0]].tolist()) == [
        n for n in range(54) if n not in (28, 29)
    ]


def test_draw_is_uniform() -> None:
    label = torch.tensor([0, 1, 1, 1, 1, 0, 1, 1]).view(1, 2, 2, 2)
    generator = seeded()
    counts = torch.zeros(8)
    for _ in range(3000):
        counts[draw_rows(label, 2, 2, generator).voxel[1]] += 1
    assert counts[[0, 5]].sum() == 0 and counts.sum() == 6000
    assert counts[counts > 0].min() > 900 and counts.max() < 1100


def test_take_rows() -> None:
    features = torch.randn(2, 3, 4, 2, 5)
    voxel = torch.tensor([[0, 41, 79], [40, 7, 39]])
    found = take_rows(features, Rows(voxel, voxel > -1))
    assert found.shape == (2, 3, 3)
    flat = features.movedim(1, -1).reshape(-1, 3)
    for c in range(2):
        for row in range(3):
            assert torch.equal(found[c, row], flat[voxel[c, row]])
    last = features.contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(take_rows(last, Rows(voxel, voxel > -1)), found)


def test_best_rows() -> None:
    rows = torch.arange(12.0).view(2, 6, 1)
    score = torch.tensor([[3.0, 1, 9, 7, 5, 2], [0, 1, 2, 3, 4, 5]])
    valid = torch.tensor([[True, True, False, True, True, True], [False, False, True, False, False, False]])
    found, filled = best_rows(rows, score, valid, 3)
    assert found.squeeze(2).tolist() == [[3, 4, 0], [8, 0, 0]]
    assert filled.tolist() == [[True, True, True], [True, False, False]]
    found, filled = best_rows(rows, score, valid, 8)
    assert found.shape == (2, 8, 1) and filled.sum(dim=1).tolist() == [5, 1]
    assert not found[~filled].any()


def test_weighted_cosine_distance_against_loops() -> None:
    rows, others = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
    weights, other_weights = torch.rand(2, 5, dtype=torch.float64), torch.rand(2, 4, dtype=torch.float64)
    weights[0, 2] = other_weights[1, 0] = 0
    found = weighted_cosine_distance(rows, weights, others, other_weights)
    for c in range(2):
        m, n = float(weights[c].sum()), float(other_weights[c].sum())
        total = 0.0
        for x, a in zip(rows[c].tolist(), weights[c].tolist(), strict=True):
            for y, b in zip(others[c].tolist(), other_weights[c].tolist(), strict=True):
                cosine = sum(i * j for i, j in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y))
                total += (a / m) * (b / n) * (1 - cosine)
        assert found[c].item() == pytest.approx(total, abs=1e-6)


def test_equal_and_opposite_features() -> None:
    rows, weights = torch.tensor([3.0, 4.0]).expand(1, 5, 2), torch.rand(1, 5)
    assert weighted_cosine_distance(rows, weights, 2 * rows, weights).item() == pytest.approx(0, abs=1e-6)
    assert weighted_cosine_distance(rows, weights, -rows, weights).item() == pytest.approx(2, abs=1e-6)
    assert math.isfinite(weighted_cosine_distance(rows, 0 * weights, rows, 0 * weights).item())
