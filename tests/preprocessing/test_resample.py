"""The working grid and the way back: 48 orientations, oblique scans, crops, resampling, normalisation."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from itertools import permutations, product
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from semivox.errors import UserError
from semivox.io.volume import Volume
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.resample import (
    Grid,
    label_to_source,
    label_to_working_grid,
    map_to_source,
    normalise,
    probs_to_source,
    resample,
    to_working_grid,
)

ORIENTATIONS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]
SPACINGS = {"isotropic": (1.5, 1.5, 1.5), "anisotropic": (0.5, 1.25, 4.0)}


def plan(spacing: Any = (1.0, 1.0, 1.0), crop: str = "none", channels: int = 1, how: str = "none") -> Plan:
    figures = {"mean": 50.0, "std": 20.0, "p005": 0.0, "p995": 100.0}
    values = {
        "dataset": "D", "channels": [f"c{i}" for i in range(channels)], "spacing_mm": spacing,
        "class_names": ["background", "a", "b", "c"], "class_values": [0, 1, 2, 3], "patch": [16, 16, 16],
        "normalisation": [how] * channels, "crop": crop, "intensity": [figures] * channels,
    }  # fmt: skip
    return Plan.model_validate(values)


def affine_of(order: tuple[int, ...], signs: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """Source axis i runs along world axis order[i]; `spacing` is by world axis."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, world in enumerate(order):
        affine[world, axis] = signs[axis] * spacing[world]
    affine[:3, 3] = (-31.5, 12.25, 7.0)
    return affine


def oblique(spacing: tuple[float, ...], degrees: float = 25) -> np.ndarray:
    angle, second = np.deg2rad(degrees), np.deg2rad(degrees / 2)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(second), -np.sin(second)], [0, np.sin(second), np.cos(second)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt @ np.diag(spacing)
    affine[:3, 3] = (40, -80, 15)
    return affine


def random_image(shape: tuple[int, ...] = (5, 6, 7), channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(channels, *shape)).astype(np.float32)


def onehot(label: np.ndarray, classes: int = 4) -> np.ndarray:
    return (label == np.arange(classes).reshape(-1, 1, 1, 1)).astype(np.float32)


def places(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """World mm of all voxel centres, (3, X, Y, Z)."""
    index = np.stack([*np.meshgrid(*map(np.arange, shape), indexing="ij"), np.ones(shape)])
    return np.einsum("ij,jxyz->ixyz", affine, index)[:3]


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
@pytest.mark.parametrize("kind", SPACINGS)
def test_all_orientations_go_there_and_back(
    kind: str, order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    spacing = SPACINGS[kind]
    image = Volume(random_image(), affine_of(order, signs, spacing))
    label = np.random.default_rng(1).integers(0, 4, (5, 6, 7)).astype(np.uint8)
    array, grid = to_working_grid(image, plan(spacing))
    canonical = nib.as_closest_canonical(nib.Nifti1Image(image.array[0], image.affine))
    assert np.array_equal(array[0], np.asarray(canonical.dataobj))
    assert np.allclose(grid.affine(), canonical.affine)
    there = label_to_working_grid(label, grid)
    assert np.array_equal(label_to_source(onehot(there), grid), label)
    assert np.array_equal(map_to_source(array[0], grid), image.array[0])
    finer, resampled = to_working_grid(image, plan((0.9 * spacing[0], spacing[1] / 2, 0.7 * spacing[2])))
    assert finer.shape == (1, *map(round, np.multiply(canonical.shape, (1 / 0.9, 2, 1 / 0.7))))
    for corner in product((0, -1), repeat=3):
        marked = np.zeros((5, 6, 7), np.uint8)
        marked[corner] = 2
        back = label_to_source(onehot(label_to_working_grid(marked, resampled)), resampled)
        assert back[corner] == 2
        assert np.count_nonzero(back) <= 2


@pytest.mark.parametrize("kind", SPACINGS)
@pytest.mark.parametrize("target", [(1.0, 1.0, 1.0), (0.8, 2.0, 3.0), (1.1, 2.5, 5.0)])
@pytest.mark.parametrize("frame", ["LPS", "PIR", "oblique"])
def test_world_positions_are_kept(kind: str, target: tuple[float, float, float], frame: str) -> None:
    """Each voxel holds its own place in mm: interpolation of a linear function is exact."""
    spacing, shape = SPACINGS[kind], (21, 18, 25)
    if frame == "oblique":
        affine = oblique(spacing)
    else:
        codes = nib.orientations.axcodes2ornt(frame)
        order = tuple(int(axis) for axis in codes[:, 0])
        affine = affine_of(order, tuple(int(sign) for sign in codes[:, 1]), spacing)
    source = places(affine, shape)
    offset = source.mean(axis=(1, 2, 3), keepdims=True)
    image = Volume((source - offset).astype(np.float32), affine)
    array, grid = to_working_grid(image, plan(target, channels=3))
    inner = tuple(slice(n // 3, n - n // 3) for n in grid.shape)
    planned = places(grid.affine(), grid.shape)
    error = array + offset - planned
    assert np.abs(error[(slice(None), *inner)]).max() < 1e-4
    back = probs_to_source((planned - offset).astype(np.float32), grid) + offset - source
    inner = tuple(slice(n // 3, n - n // 3) for n in shape)
    assert np.abs(back[(slice(None), *inner)]).max() < 1e-4
    edges = [
        grid.affine() @ (*(np.array(corner) * grid.shape - 0.5), 1) for corner in product((0, 1), repeat=3)
    ]
    wanted = [affine @ (*(np.array(corner) * shape - 0.5), 1) for corner in product((0, 1), repeat=3)]
    assert np.allclose(sorted(map(tuple, np.round(edges, 6))), sorted(map(tuple, np.round(wanted, 6))))


def test_oblique_scans_are_permuted_and_never_rotated() -> None:
    image = Volume(random_image(), oblique((1, 1, 2), 44)[:, [1, 0, 2, 3]] @ np.diag([-1, 1, 1, 1]))
    array, grid = to_working_grid(image, plan((1, 1, 2)))
    assert (grid.axes, grid.flips) == ((1, 0, 2), (False, True, False))
    assert np.array_equal(array[0], image.array[0].transpose(1, 0, 2)[:, ::-1])


def test_spacing_within_a_thousandth_is_left_alone() -> None:
    image = Volume(random_image((1200, 2, 2)), np.eye(4))
    same, _ = to_working_grid(image, plan((1.0009, 0.9995, 1.0)))
    assert np.array_equal(same, image.array)
    assert to_working_grid(image, plan((1.002, 1, 1)))[0].shape == (1, 1198, 2, 2)


@pytest.mark.parametrize("shape", [(1, 9, 4), (1, 1, 1), (3, 2, 11)])
@pytest.mark.parametrize("target", [(0.4, 3.0, 1.0), (2.0, 50.0, 50.0)])
def test_thin_and_odd_shapes(shape: tuple[int, ...], target: tuple[float, float, float]) -> None:
    image = Volume(random_image(shape, channels=2), np.diag([2.0, 1.0, 1.0, 1.0]))
    array, grid = to_working_grid(image, plan(target, channels=2))
    size = (2.0, 1.0, 1.0)
    assert grid.shape == tuple(max(1, round(n * s / t)) for n, s, t in zip(shape, size, target, strict=True))
    label = np.ones(shape, np.uint8)
    assert (label_to_working_grid(label, grid) == 1).all()
    assert probs_to_source(array, grid).shape == (2, *shape)
    assert np.isfinite(array).all()


def test_a_scan_in_metres_taken_for_millimetres_is_refused() -> None:
    image = Volume(random_image((200, 300, 40)), np.diag([0.0009, 0.0009, 0.003, 1.0]))
    with pytest.raises(UserError, match="smaller than a voxel of the working grid") as error:
        to_working_grid(image, plan((1, 1, 1)))
    assert error.value.found == "0.18 x 0.27 x 0.12 mm"


def interpolation(old: int, new: int) -> np.ndarray:
    """Edge-to-edge linear interpolation of one axis as a matrix, written down voxel by voxel."""
    matrix = np.zeros((new, old))
    for row in range(new):
        place = min(max((row + 0.5) * old / new - 0.5, 0), old - 1)
        low = int(place)
        high = min(low + 1, old - 1)
        matrix[row, low] += 1 - (place - low)
        matrix[row, high] += place - low
    return matrix


def test_refinement_agrees_with_a_naive_second_implementation() -> None:
    label = np.random.default_rng(3).integers(0, 4, (5, 4, 6)).astype(np.uint8)
    image = Volume(random_image((5, 4, 6)), np.eye(4))
    array, grid = to_working_grid(image, plan((0.7, 0.45, 1.0)))
    matrices = [interpolation(old, new) for old, new in zip((5, 4, 6), grid.shape, strict=True)]
    assert grid.shape == (7, 9, 6)
    assert np.allclose(array[0], np.einsum("ai,bj,ck,ijk", *matrices, image.array[0]), atol=1e-6)
    shares = np.einsum("ai,bj,ck,nijk->nabc", *matrices, onehot(label))
    decided = np.sort(shares, axis=0)[-1] - np.sort(shares, axis=0)[-2] > 1e-5
    assert np.array_equal(label_to_working_grid(label, grid)[decided], shares.argmax(0)[decided])
    assert decided.mean() > 0.7


def test_ties_go_to_the_lower_class() -> None:
    _, grid = to_working_grid(Volume(random_image((2, 2, 2)), np.eye(4)), plan((2.0, 1.0, 1.0)))
    for first, second in ((0, 3), (3, 0), (2, 1), (1, 2)):
        label = np.full((2, 2, 2), first, np.uint8)
        label[1] = second
        assert (label_to_working_grid(label, grid) == min(first, second)).all()
    _, grid = to_working_grid(Volume(random_image((10, 7, 3)), np.eye(4)), plan((10.0, 0.7, 1.0)))
    label = np.repeat([2, 1], 5).astype(np.uint8)[:, None, None] * np.ones((10, 7, 3), np.uint8)
    assert grid.shape == (1, 10, 3)
    assert (label_to_working_grid(label, grid) == 1).all()
    shared = np.full((4, 2, 2, 2), 0.35, np.float32)
    shared[:2] = 0.1, 0.2
    _, grid = to_working_grid(Volume(random_image((3, 3, 3)), np.eye(4)), plan((1.5, 1.5, 1.5)))
    assert (label_to_source(shared, grid) == 2).all()


def test_coarsening_neither_aliases_nor_blurs_too_much() -> None:
    stripes = np.tile(np.array([1, -1], np.float32), 15)[:, None, None] * np.ones((30, 3, 3), np.float32)
    assert np.abs(resample(stripes, (10, 3, 3))[1:-1]).max() < 0.05
    bar = np.zeros((16, 3, 3), np.float32)
    bar[6:10] = 1
    assert np.allclose(resample(bar, (8, 3, 3))[:, 1, 1], [0, 0, 0, 1, 1, 0, 0, 0], atol=0.06)
    slope = np.arange(40, dtype=np.float32)[:, None, None] * np.ones((40, 2, 2), np.float32)
    assert np.allclose(resample(slope, (10, 2, 2))[2:-2, 0, 0], np.arange(1.5, 40, 4)[2:-2], atol=1e-4)
    assert np.allclose(resample(np.full((9, 9, 9), 7, np.float32), (4, 20, 2)), 7)


def framed(order: tuple[int, ...] = (2, 0, 1), signs: tuple[int, ...] = (-1, 1, -1)) -> Volume:
    """Two channels that are constant around an uneven box."""
    image = np.full((2, 12, 13, 14), -5, np.float32)
    image[0, 2:9, 1:12, 4:10] = random_image((7, 11, 6))[0]
    image[1, 3:10, 3:8, 5:11] = random_image((7, 5, 6))[0] + 9
    return Volume(image, affine_of(order, signs, (1.0, 2.0, 3.0)))


@pytest.mark.parametrize("target", [(1.0, 2.0, 3.0), (1.3, 1.1, 2.0)])
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS[::7])
def test_crop_is_the_box_around_both_channels(
    target: tuple[float, float, float], order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    image = framed(order, signs)
    array, grid = to_working_grid(image, plan(target, crop="foreground", channels=2))
    box = image.array[:, 2:10, 1:12, 4:11]
    assert sorted(grid.crop_shape) == [7, 8, 11]
    if target == (1.0, 2.0, 3.0):
        assert np.array_equal(np.sort(array, axis=None), np.sort(box, axis=None))
    label = np.zeros((12, 13, 14), np.uint8)
    label[4:7, 4:7, 6:9] = 3
    label[0, 0, 0] = 1  # outside the crop, hence lost
    there = label_to_working_grid(label, grid)
    assert there.shape == grid.shape
    assert np.unique(there).tolist() == [0, 3]
    probs = probs_to_source(onehot(there), grid)
    outside = np.ones((12, 13, 14), bool)
    outside[2:10, 1:12, 4:11] = False
    assert (probs[0][outside] == 1).all()
    assert (probs[1:, outside] == 0).all()
    assert np.allclose(probs.sum(0), 1, atol=1e-5)
    back = label_to_source(onehot(there), grid)
    assert (back[outside] == 0).all()
    assert (back[5, 5, 7], back[0, 0, 0]) == (3, 0)
    assert (map_to_source(array[0], grid, outside=-1)[outside] == -1).all()
    inside = places(image.affine, (12, 13, 14))[:, 2:10, 1:12, 4:11].reshape(3, -1)
    ends = product(*((-0.5, n - 0.5) for n in grid.shape))
    corners = np.array([grid.affine() @ (*end, 1) for end in ends])[:, :3]
    assert (inside.min(1) > corners.min(0)).all()
    assert (inside.max(1) < corners.max(0)).all()
    assert np.allclose(corners.max(0) - corners.min(0), np.add(np.ptp(inside, axis=1), (1, 2, 3)))


def test_a_constant_scan_is_not_cropped_away() -> None:
    image = Volume(np.zeros((1, 3, 4, 5), np.float32), np.eye(4))
    assert to_working_grid(image, plan(crop="foreground"))[1].shape == (3, 4, 5)


@pytest.mark.parametrize("tensor", [False, True])
def test_label_to_source_is_the_argmax_of_probs_to_source(tensor: bool) -> None:
    _, grid = to_working_grid(framed(), plan((1.3, 1.1, 4.0), crop="foreground", channels=2))
    logits = np.random.default_rng(5).normal(size=(5, *grid.shape))
    probs: Any = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
    if tensor:
        probs = torch.from_numpy(probs).to(torch.bfloat16).requires_grad_()
    assert np.array_equal(label_to_source(probs, grid), probs_to_source(probs, grid).argmax(0))
    assert len(np.unique(label_to_source(probs, grid))) == 5


def test_label_to_source_does_not_hold_all_classes() -> None:
    _, grid = to_working_grid(Volume(random_image((64, 64, 64)), np.eye(4)), plan((2, 2, 2)))
    probs = np.random.default_rng(0).random((20, *grid.shape), np.float32)
    tracemalloc.start()
    label_to_source(probs, grid)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 4 * 64**3


def test_results_do_not_share_memory_with_the_scan() -> None:
    image = Volume(random_image(), np.eye(4))
    before, label = image.array.copy(), np.ones((5, 6, 7), np.uint8)
    array, grid = to_working_grid(image, plan())
    array += 1
    there = label_to_working_grid(label, grid)
    there[:] = 0
    to_working_grid(image, plan(how="ct"))
    probs = onehot(np.random.default_rng(0).integers(0, 4, grid.shape))
    kept = probs.copy()
    label_to_source(probs, grid)
    probs_to_source(probs, grid)[:] = 9
    assert np.array_equal(probs, kept)
    assert np.array_equal(image.array, before)
    assert label.all()
    assert array.flags.c_contiguous and there.flags.c_contiguous


def test_grids_travel_as_plain_data() -> None:
    _, grid = to_working_grid(framed(), plan((1.3, 1.1, 4.0), crop="foreground", channels=2))
    probs = random_image(grid.shape, channels=3)
    for copy in (pickle.loads(pickle.dumps(grid)), Grid.from_dict(json.loads(json.dumps(grid.as_dict())))):
        assert np.array_equal(probs_to_source(probs, copy), probs_to_source(probs, grid))
        assert np.array_equal(copy.affine(), grid.affine())


def test_arrays_of_another_shape_are_refused() -> None:
    _, grid = to_working_grid(Volume(random_image(), np.eye(4)), plan())
    with pytest.raises(ValueError, match="shape"):
        label_to_working_grid(np.zeros((7, 6, 5), np.uint8), grid)


def test_normalisations() -> None:
    image = Volume(random_image((8, 8, 8)) * 40 + 30, np.eye(4))
    image.array[0, :, :4] = 0
    raw = image.array[0].astype(float)
    hows = ("zscore", "zscore_nonzero", "ct")
    made = {how: to_working_grid(image, plan(how=how))[0][0] for how in hows}
    assert np.allclose(made["zscore"], (raw - raw.mean()) / raw.std(), atol=1e-5)
    chosen = raw[raw != 0]
    wanted = np.where(raw != 0, (raw - chosen.mean()) / chosen.std(), 0)
    assert np.allclose(made["zscore_nonzero"], wanted, atol=1e-5)
    assert np.allclose(made["ct"], (raw.clip(0, 100) - 50) / 20, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1e-30, 7.3, 1.7e6, -1e30])
@pytest.mark.parametrize("how", ["none", "zscore", "zscore_nonzero", "ct"])
def test_constant_scans_stay_finite(how: str, value: float) -> None:
    values = np.full((4, 5, 6), value, np.float32)
    normalise(values, how, {"mean": value, "std": 0.0, "p005": value, "p995": value})
    assert (values == (np.float32(value) if how == "none" else 0)).all()


def test_normalisation_comes_from_the_scan_before_resampling() -> None:
    image = Volume(random_image((9, 9, 9)) * 3 + 8, np.eye(4))
    array, grid = to_working_grid(image, plan((2, 2, 2), how="zscore"))
    raw = image.array[0].astype(float)
    wanted = resample(((raw - raw.mean()) / raw.std()).astype(np.float32), grid.shape)
    assert np.allclose(array[0], wanted, atol=1e-5)
