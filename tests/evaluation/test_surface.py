"""Surfaces and distances against medpy and against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from semivox.evaluation.surface import surface, surface_distances, union_box
from semivox.losses.components import largest_component


def blobs(seed: int, shape: tuple[int, int, int] = (9, 8, 7)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.0)
    return noise > np.quantile(noise, 0.7)


def test_surface_of_a_cube_is_its_shell_also_at_the_border() -> None:
    cube = np.zeros((7, 7, 7), bool)
    cube[1:6, 1:6, 1:6] = True
    shell = cube.copy()
    shell[2:5, 2:5, 2:5] = False
    np.testing.assert_array_equal(surface(cube), shell)
    assert surface(np.ones((4, 4, 4), bool)).sum() == 64 - 8


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_surface_is_mask_without_its_erosion(seed: int) -> None:
    mask = blobs(seed)
    np.testing.assert_array_equal(surface(mask), mask & ~ndimage.binary_erosion(mask))


@pytest.mark.parametrize("dense", [0, 10**6], ids=["tree", "transform"])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 0.7, 3.0)])
@pytest.mark.parametrize("seed", range(8))
def test_distances_equal_brute_force_with_and_without_margin(
    seed: int, spacing: tuple[float, ...], dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = blobs(seed), blobs(seed + 1)
    pairs = cdist(np.argwhere(surface(first)) * spacing, np.argwhere(surface(second)) * spacing)
    monkeypatch.setattr("semivox.evaluation.surface._DENSE", dense)
    for one, other in ((first, second), [np.pad(mask, 2) for mask in (first, second)]):
        (found,) = surface_distances(one, other, spacing)
        np.testing.assert_allclose(found.to_reference, pairs.min(axis=1), atol=1e-12)
        np.testing.assert_allclose(found.to_prediction, pairs.min(axis=0), atol=1e-12)


def test_union_box() -> None:
    one, other = np.zeros((2, 6, 6, 6), bool)
    assert union_box(one, other) is None
    one[1, 2, 3] = other[4, 2, 0] = True
    assert union_box(one, other) == (slice(1, 5), slice(2, 3), slice(0, 4))


def test_largest_component_joins_corners() -> None:
    mask = np.zeros((6, 6, 6), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True  # one 26-connected component of 3 voxels
    mask[5, 4:6, 5] = True
    kept = largest_component(mask)
    assert np.argwhere(kept).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert not largest_component(np.zeros((3, 3, 3), bool)).any()


GANTRY = np.eye(4)
GANTRY[1, 2] = np.tan(np.deg2rad(25))  # slices shifted to the front by the tilt
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]]) * (0.5, 0.7, 3.0)


@pytest.mark.parametrize(
    "grid", [GANTRY, OBLIQUE, -OBLIQUE[:, [2, 0, 1, 3]]], ids=["sheared", "turned", "mirrored"]
)
@pytest.mark.parametrize("dense", [0, 10**6], ids=["tree", "transform"])
@pytest.mark.parametrize("seed", range(3))
def test_distances_follow_the_full_affine(
    seed: int, dense: int, grid: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = blobs(seed), blobs(seed + 1)
    places = [np.argwhere(surface(mask)) @ grid[:3, :3].T for mask in (first, second)]
    monkeypatch.setattr("semivox.evaluation.surface._DENSE", dense)
    (found,) = surface_distances(first, second, grid)
    np.testing.assert_allclose(found.to_reference, cdist(*places).min(axis=1), atol=1e-6)
    np.testing.assert_allclose(found.to_prediction, cdist(*places).min(axis=0), atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 0, 0), (1, 1, 1)])
def test_degenerate_arrays(shape: tuple[int, int, int]) -> None:
    mask = np.ones(shape, bool)
    np.testing.assert_array_equal(largest_component(mask), mask)
    np.testing.assert_array_equal(surface(mask), mask)
