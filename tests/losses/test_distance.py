"""Distance maps against scipy, hand-computed values and a naive loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from semivox.losses.distance import (
    boundary_distance,
    boundary_loss,
    distance_error,
    level_set_consistency,
    signed_distance,
    squared_distance,
)


def cube(side: int, grid: int) -> torch.Tensor:
    label = torch.zeros(1, grid, grid, grid, dtype=torch.int64)
    low = (grid - side) // 2
    label[:, low : low + side, low : low + side, low : low + side] = 1
    return label


def naive_map(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The definition, with scipy's distances and neighbours looked up one by one."""
    if not inside.any():
        return np.zeros(inside.shape)
    if inside.all():
        return -np.ones(inside.shape)
    d_in, d_out = ndimage.distance_transform_edt(inside), ndimage.distance_transform_edt(~inside)
    result = d_out / d_out.max() - d_in / d_in.max()
    for v in np.ndindex(*inside.shape):
        for axis in range(3):
            for offset in (-1, 1):
                w = list(v)
                w[axis] += offset
                if inside[v] and 0 <= w[axis] < inside.shape[axis] and not inside[tuple(w)]:
                    result[v] = 0
    return result


@pytest.mark.parametrize("seed", range(4))
def test_squared_distance_against_scipy(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = random.random((2, 3, 9, 5, 12)) < (0.5, 0.9, 0.99, 0.999)[seed]
    mask[..., 0, 0, 0] = False
    expected = [ndimage.distance_transform_edt(volume) ** 2 for volume in mask.reshape(-1, 9, 5, 12)]
    found = squared_distance(torch.from_numpy(mask))
    np.testing.assert_allclose(found.numpy().reshape(-1, 9, 5, 12), expected, rtol=1e-12)


def test_distances_beyond_reach_count_as_it() -> None:
    mask = torch.from_numpy(np.random.default_rng(0).random((2, 9, 11, 12)) < 0.995)
    mask[:, 0, 0, 0] = False
    spacing = (1.0, 1.5, 2.0)
    expected = np.stack([ndimage.distance_transform_edt(volume, spacing) for volume in mask])
    assert expected.max() > 4.0
    found = squared_distance(mask, spacing, reach=4.0)
    np.testing.assert_allclose(found, np.minimum(expected, 4.0) ** 2, rtol=1e-6)
    assert squared_distance(torch.ones(1, 1, 1, dtype=torch.bool), reach=3.0).item() == 9.0


def test_no_such_voxel_is_far() -> None:
    assert bool((squared_distance(torch.ones(3, 4, 5, dtype=torch.bool)) >= 2**22).all())
    assert bool((squared_distance(torch.zeros(1, 1, 1, dtype=torch.bool)) == 0).all())


def test_cubes_by_hand() -> None:
    small = signed_distance(cube(3, 7), 2)[0][0, 0]
    assert small[3, 3, 3] == -1 and small[3, 3, 2] == 0 and small[0, 0, 0] == 1
    assert small[3, 3, 1].item() == pytest.approx(0.2886751, abs=1e-6)
    assert small.sum().item() == pytest.approx(186.0872, abs=1e-3)
    large = signed_distance(cube(5, 11), 2)[0][0, 0]
    assert large[5, 5, 5] == -1 and large[5, 5, 3] == 0
    assert large[5, 5, 4].item() == pytest.approx(-0.6666667, abs=1e-6)
    assert large[5, 5, 2].item() == pytest.approx(0.1924501, abs=1e-6)
    assert large.sum().item() == pytest.approx(612.6811, abs=1e-3)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_signed_distance_against_the_definition(classes: int, seed: int) -> None:
    """Random blobs; also patches without a class, filled by one, and with a single voxel of one."""
    random = np.random.default_rng(seed)
    smooth = np.stack([ndimage.gaussian_filter(random.random((8, 7, 9)), 1.5) for _ in range(3)])
    edges = np.quantile(smooth, np.linspace(0, 1, classes + 1)[1:-1])
    label = np.concatenate([np.digitize(smooth, edges), np.zeros((1, 8, 7, 9)), np.ones((1, 8, 7, 9))])
    single = np.zeros((1, 8, 7, 9))
    single[0, 2, 3, 4] = classes - 1
    label = np.concatenate([label, single]).astype(np.int64)
    found, present, known = signed_distance(torch.from_numpy(label), classes)
    assert found.shape == (6, classes - 1, 8, 7, 9) and found.dtype == torch.float32
    for b, c in np.ndindex(6, classes - 1):
        inside = label[b] == c + 1
        np.testing.assert_allclose(found[b, c].numpy(), naive_map(inside), atol=1e-6)
        assert present[b, c].item() == inside.any()
    assert found[5, classes - 2, 2, 3, 4] == 0 and known is None
    everywhere = signed_distance(torch.from_numpy(label), classes, torch.ones(label.shape, dtype=torch.bool))
    assert torch.equal(everywhere.map, found) and torch.equal(everywhere.present, present)
    assert everywhere.known is not None and bool(everywhere.known.all())


def test_distances_are_known_where_no_unknown_voxel_is_nearer() -> None:
    """Random blobs, some voxels unknown: a known distance is the same whatever the unknown voxels are."""
    random = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(random.random((9, 8, 7)), 1.5)
    label = (smooth > np.quantile(smooth, 0.6)).astype(np.int64)
    valid = random.random(label.shape) < 0.97
    hidden = np.stack([np.where(valid, label, value) for value in (0, 1, label)])
    found = signed_distance(torch.from_numpy(hidden), 2, torch.from_numpy(np.stack([valid] * 3)))
    assert found.known is not None
    known = found.known[0, 0].numpy()
    assert 0.2 < known.mean() < 0.95 and not known[~valid].any()
    naive = []
    for value in hidden:
        d_in, d_out = (ndimage.distance_transform_edt(inside) for inside in (value == 1, value == 0))
        d_in[d_in == 1] = 0
        naive.append(d_out - d_in)
    assert np.array_equal(naive[0][known], naive[1][known])
    scaled = np.where(known, naive[0], 0)
    scaled = np.where(scaled > 0, scaled / scaled.max(), scaled / -scaled.min())
    for one in found.map:
        np.testing.assert_allclose(one[0].numpy()[known], scaled[known], atol=1e-6)
    unsure = (naive[0] != naive[1]) & valid  # what the test is about: some valid voxels are unsure
    assert unsure.any() and not known[unsure].any()


def test_distance_error_over_known_voxels() -> None:
    a, b = torch.randn(2, 2, 2, 4, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    valid = torch.tensor([[True, False], [True, True]])
    known = torch.rand(a.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    squares = [(a[v] - b[v]).item() ** 2 for v in np.ndindex(a.shape) if valid[v[:2]] and known[v]]
    assert distance_error(a, b, valid, known).item() == pytest.approx(sum(squares) / len(squares))
    assert distance_error(a, b, valid, torch.zeros_like(known)).item() == 0


def test_no_patches() -> None:
    found, present, _ = signed_distance(torch.zeros(0, 4, 4, 4, dtype=torch.int64), 3)
    assert found.shape == (0, 2, 4, 4, 4) and present.shape == (0, 2)


def test_distance_error_against_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 2, 4, 3, 2, generator=generator, dtype=torch.float64)
    valid = torch.tensor([[True, False], [True, True], [False, False]])
    squares = [(a[v] - b[v]).item() ** 2 for v in np.ndindex(3, 2, 4, 3, 2) if valid[v[0], v[1]]]
    assert distance_error(a, b, valid).item() == pytest.approx(sum(squares) / len(squares), abs=1e-9)
    assert distance_error(a, b, torch.ones_like(valid)).item() == pytest.approx(
        torch.nn.functional.mse_loss(a, b).item()
    )
    assert distance_error(a, b, torch.zeros_like(valid)).item() == 0
    assert distance_error(a[:0], b[:0], valid[:0]).item() == 0


def test_perfect_maps_disagree_on_the_inner_boundary_alone() -> None:
    label = cube(3, 7)
    distance = signed_distance(label, 2).map
    probs = torch.stack([1 - label, label], dim=1).double()
    found = level_set_consistency(probs, distance.double(), 1500.0).item()
    assert found == pytest.approx(0.25 * 26 / 343, abs=1e-9) and found == pytest.approx(0.018950, abs=1e-6)


SPACING = (1.0, 2.5, 1.2)


def test_distances_where_voxels_are_no_cubes() -> None:
    mask = np.random.default_rng(0).random((6, 7, 5)) < 0.9
    found = squared_distance(torch.from_numpy(mask), SPACING).sqrt()
    np.testing.assert_allclose(found, ndimage.distance_transform_edt(mask, sampling=SPACING), rtol=1e-6)


def test_boundary_distance_of_three_voxels_in_a_row() -> None:
    label = torch.tensor([0, 0, 1, 1, 1, 0, 2, 0]).view(1, 8, 1, 1)
    found, counted = boundary_distance(label, 4)
    assert found[0, 0].flatten().tolist() == [2, 1, 0, -1, 0, 1, 2, 3]
    assert found[0, 1].flatten().tolist() == [6, 5, 4, 3, 2, 1, 0, 1]
    assert not found[0, 2].any(), "absent"
    assert counted is None and not boundary_distance(torch.ones_like(label), 2)[0].any(), "fills the patch"
    along = boundary_distance(label.movedim(1, 2), 4, None, SPACING)[0]
    assert along[0, 0].flatten().tolist() == [5, 2.5, -1.5, -4, -1.5, 2.5, 5, 7.5]


def test_boundary_loss_by_hand() -> None:
    label = torch.tensor([0, 0, 1, 1, 1, 0]).view(1, 6, 1, 1)
    probs = torch.tensor([0.5, 0.1, 0.8, 0.9, 0.7, 0.2]).view(1, 1, 6, 1, 1)
    probs = torch.cat([1 - probs, probs], dim=1).requires_grad_(True)
    loss = boundary_loss(probs, label)
    assert loss.item() == pytest.approx((2 * 0.5 + 1 * 0.1 - 1 * 0.9 + 1 * 0.2) / 6)
    loss.backward()
    assert probs.grad is not None
    torch.testing.assert_close(probs.grad[0, 1].flatten(), torch.tensor([2.0, 1, 0, -1, 0, 1]) / 6)
    perfect = torch.stack([label != 1, label == 1], dim=1).float()
    assert boundary_loss(perfect, label).item() == pytest.approx(-1 / 6)
    assert boundary_loss(perfect[:0], label[:0]).item() == 0


def test_a_boundary_that_may_be_nearer_is_not_counted() -> None:
    """The last voxel is not known: the class may go on there, and its neighbour be a second one inside."""
    label = torch.tensor([0, 0, 1, 1, 1, 0]).view(1, 6, 1, 1)
    valid = torch.tensor([1, 1, 1, 1, 1, 0]).bool().view(1, 6, 1, 1)
    found, counted = boundary_distance(label, 2, valid)
    assert counted.flatten().tolist() == [True, True, True, True, False, False]
    assert found.flatten()[:4].tolist() == [2, 1, 0, -1]
    assert boundary_loss(torch.full((1, 2, 6, 1, 1), 0.5), label, valid).item() == pytest.approx(0.25)
