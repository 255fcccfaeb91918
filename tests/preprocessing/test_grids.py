"""Working grid and patch: averages by hand, fidelity by a naive computation, known spacings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from semivox.config import PlanConfig
from semivox.datasets.dataset import Dataset
from semivox.io.geometry import Triple
from semivox.io.volume import IGNORE
from semivox.preprocessing.averaging import FACTORS, average, fidelity, largest_share
from semivox.preprocessing.fingerprint import CaseFingerprint, Fingerprint
from semivox.preprocessing.grids import GPU_VOXELS, network_strides, strides_for, whole_patch
from semivox.preprocessing.plan import HALVINGS, Plan
from semivox.preprocessing.planner import make_plan
from semivox.preprocessing.resample import Grid, label_shares, label_to_working_grid


def ball(shape: Triple, radius: float, spacing: tuple[float, float, float] = (1, 1, 1)) -> np.ndarray:
    axes = [spacing[a] * (np.arange(side) - (side - 1) / 2) for a, side in enumerate(shape)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return np.asarray(x**2 + y**2 + z**2 <= radius**2)


def grid_of(old: Triple, new: Triple) -> Grid:
    return Grid(old, np.eye(4), (0, 1, 2), (False, False, False), (0, 0, 0), old, new)


def measured(
    shape: Triple, spacing: tuple[float, float, float], masks: dict[str, np.ndarray], **changes: Any
) -> Fingerprint:
    values = dict.fromkeys(("mean", "std", "p005", "p050", "p500", "p950", "p995"), 1.0)
    case = CaseFingerprint("a", shape, spacing, 0.0, shape, (values,), dict.fromkeys(masks, 1.0), None)
    kept = {name: fidelity(mask, spacing) for name, mask in masks.items()}
    pieces = {name: largest_share(mask) for name, mask in masks.items()}
    return Fingerprint((replace(case, fidelity=kept, pieces=pieces, **changes),), None)


def plan_of(found: Fingerprint, **settings: Any) -> Plan:
    names = list(found.cases[0].fidelity or {})
    labels = ("background", *names), tuple(range(len(names) + 1))
    dataset = Dataset("D", Path(), ("MR",), *labels, ())
    return make_plan(dataset, found, PlanConfig.model_validate(settings))


def test_averages_by_hand() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0]).reshape(5, 1, 1)
    assert average(values, (5, 1, 1)).ravel().tolist() == [1, 2, 4, 8, 16]
    # each of two voxels covers 2.5 old ones
    assert average(values, (2, 1, 1)).ravel() == pytest.approx([(1 + 2 + 2) / 2.5, (2 + 8 + 16) / 2.5])
    assert average(values, (1, 1, 1)).ravel() == pytest.approx([31 / 5])
    assert average(values[:2], (4, 1, 1)).ravel() == pytest.approx([1, 1.25, 1.75, 2])


@pytest.mark.parametrize("new", [(3, 4, 5), (2, 7, 1), (5, 5, 5)])
def test_averages_agree_with_sums_over_fine_pieces(new: Triple) -> None:
    """Each old voxel is divided into as many pieces as there are new ones, and the pieces are counted."""
    values = np.random.default_rng(0).random((5, 7, 9)).astype(np.float32)
    fine = values
    for axis, side in enumerate(new):
        fine = np.repeat(fine, side, axis=axis)
        old = values.shape[axis]
        fine = fine.reshape(*fine.shape[:axis], side, old, *fine.shape[axis + 1 :]).mean(axis=axis + 1)
    np.testing.assert_allclose(average(values, new), fine, atol=1e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.8, 3.2)])
def test_fidelity_agrees_with_a_naive_computation(spacing: tuple[float, float, float]) -> None:
    """Voxels are merged by whole numbers; slices that are thicker than the grid stay."""
    mask = ball((40, 36, 24), 12.0, spacing)
    found = dict(zip(FACTORS, fidelity(mask, spacing), strict=True))
    assert found[1.0] == 1.0
    margin = np.ceil(16 * min(spacing) / np.array(spacing)).astype(int)
    (box,) = ndimage.find_objects(mask.astype(int))
    for factor in (2.0, 4.0):
        steps = [max(1, round(factor * min(spacing) / side)) for side in spacing]
        part = np.pad(mask[box], [(m, m) for m in margin])
        part = part[tuple(slice(side // step * step) for side, step in zip(part.shape, steps, strict=True))]
        pairs = [n for side, step in zip(part.shape, steps, strict=True) for n in (side // step, step)]
        means = part.reshape(pairs).mean(axis=(1, 3, 5))
        places = [(np.arange(side) + 0.5) / step - 0.5 for side, step in zip(part.shape, steps, strict=True)]
        grid = np.meshgrid(*places, indexing="ij")
        back = ndimage.map_coordinates(means, grid, order=1, mode="nearest") > 0.5
        dice = 2 * (back & part).sum() / (back.sum() + part.sum())
        assert found[factor] == pytest.approx(dice, abs=0.01)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_largest_share() -> None:
    mask = np.zeros((9, 9, 9), bool)
    assert largest_share(mask) == 1.0
    mask[:2, :2, :2] = mask[2, 2, 2] = True  # touches at a corner
    assert largest_share(mask) == 1.0
    mask[7, 7, 7] = True
    assert largest_share(mask) == pytest.approx(0.9)


def test_shares_by_hand_and_voxels_to_ignore() -> None:
    label = np.zeros((4, 2, 2), np.uint8)
    label[0] = 1
    label[1, 0] = 2
    label[2, 0], label[2, 1, 0], label[3] = IGNORE, 1, IGNORE  # of eight voxels two are known, one is class 1
    found = label_shares(label, grid_of((4, 2, 2), (2, 1, 1)), 3)
    assert found.dtype == np.uint8
    assert found[:, :, 0, 0].tolist() == [[round(255 / 2), round(255 / 2)], [round(255 / 4), 0]]


def test_the_largest_share_is_the_class_of_published_methods() -> None:
    """Wherever it is clear; where shares are nearly equal, averages and interpolation may differ."""
    label = ball((30, 28, 26), 9).astype(np.uint8) + ball((30, 28, 26), 4)
    grid = grid_of((30, 28, 26), (15, 14, 13))
    shares = label_shares(label, grid, 3) / 255
    whole = np.concatenate([1 - shares.sum(axis=0, keepdims=True), shares])
    first, second = np.sort(whole, axis=0)[:-3:-1]
    clear = first - second > 0.3
    assert clear.mean() > 0.9
    assert np.array_equal(whole.argmax(axis=0)[clear], label_to_working_grid(label, grid)[clear])


def test_a_large_organ_takes_a_coarse_grid_and_a_thin_one_stays_fine() -> None:
    shape = (96, 96, 96)
    thick = ball(shape, 40)
    tube = np.zeros(shape, bool)
    tube[46:49, 46:49, 5:90] = True
    coarse, fine = (
        plan_of(measured(shape, (1, 1, 1), {"organ": thick})),
        plan_of(measured(shape, (1, 1, 1), {"organ": thick, "vessel": tube})),
    )
    assert coarse.grid == "measured" and coarse.stem == (2, 2, 2) and min(coarse.spacing_mm) >= 1.5
    assert (fine.spacing_mm, fine.stem) == ((1, 1, 1), (1, 1, 1))
    assert fine.one_piece == (True, True) and "vessel" in fine.reasons["spacing_mm"]
    rows = {row["spacing_mm"][0]: row for row in coarse.grids}
    assert [row["chosen"] for row in coarse.grids].count(True) == 1
    chosen = next(row for row in coarse.grids if row["chosen"])
    assert chosen is rows[3.0] and chosen["fidelity"]["organ"] >= 0.975
    assert rows[4.0]["voxels"] == [24] * 3, "fewer than 32 features along the scan would not pay"
    assert np.divide(chosen["spacing_mm"], coarse.stem).tolist() == list(coarse.spacing_mm)


def test_more_fidelity_means_a_finer_grid() -> None:
    found = measured((96, 96, 96), (1, 1, 1), {"organ": ball((96, 96, 96), 40)})
    plan, exact = plan_of(found), plan_of(found, fidelity=0.9999)
    assert exact.spacing_mm < plan.spacing_mm and exact.fidelity == 0.9999


def test_thick_slices_stay_until_pixels_are_as_large() -> None:
    shape, spacing = (160, 160, 20), (0.8, 0.8, 6.5)
    plan = plan_of(measured(shape, spacing, {"tumor": ball(shape, 25, spacing)}))
    assert plan.spacing_mm[2] == 6.5 and plan.stem[2] == 1 and plan.stem[0] == 2
    assert plan.strides[0][2] == 1 and plan.strides[0][:2] == (2, 2)
    assert plan.patch[2] >= 20 and all(s % d == 0 for s, d in zip(plan.patch, plan.divisor, strict=True))


def test_a_large_scan_is_held_as_far_as_the_limit_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, spacing = (512, 512, 400), (0.8, 0.8, 1.0)
    tube = np.zeros((60, 60, 60), bool)
    tube[28:31, 28:31] = True
    found = measured(shape, spacing, {"vessel": tube})
    for limit in (64**3, GPU_VOXELS):
        monkeypatch.setattr("semivox.preprocessing.planner.feature_limit", lambda memory, n=limit: (n, "it"))
        plan = plan_of(found)
        assert plan.spacing_mm == spacing
        assert 0.4 * limit < np.prod(plan.patch) <= limit
        assert plan.patch[0] == plan.patch[1] and 0.6 < plan.patch[2] / plan.patch[0] < 1.1
    assert len(plan.strides) == 4


def test_what_is_given_wins() -> None:
    found = measured((96, 96, 96), (1, 1, 1), {"organ": ball((96, 96, 96), 40)})
    given = plan_of(found, spacing_mm=(0.5, 0.5, 2.0), patch=(64, 64, 16), stem=(2, 2, 1))
    assert (given.spacing_mm, given.patch, given.stem) == ((0.5, 0.5, 2.0), (64, 64, 16), (2, 2, 1))
    assert given.grid == "given" and given.grids == ()
    source = plan_of(found, grid="source")
    assert (source.grid, source.spacing_mm, source.stem) == ("source", (1, 1, 1), (1, 1, 1))
    patch = plan_of(found, patch=(32, 48, 16))
    assert patch.grid == "measured" and patch.patch == (32, 48, 16)


def test_strides_follow_spacing_and_size() -> None:
    assert network_strides((48, 48, 40), (1, 1, 1)) == ((2, 2, 2),) * 3
    assert network_strides((64, 64, 64), (1, 1, 1)) == ((2, 2, 2),) * 4
    assert network_strides((48, 48, 12), (1, 1, 4)) == ((2, 2, 1), (2, 2, 1), (2, 2, 2))
    assert network_strides((48, 48, 24), (2.5, 2.5, 2.5)) == ((2, 2, 2), (2, 2, 2), (2, 2, 1))
    assert network_strides((4, 4, 4), (1, 1, 1)) == ((1, 1, 1),)
    assert strides_for((64, 48, 16), (2, 2, 1), (1, 1, 1)) == ((1, 1, 2), (2, 2, 2), (2, 2, 1))
    assert strides_for((65, 48, 16), (2, 2, 1), (1, 1, 1)) == HALVINGS


def test_patches_hold_nearly_all_scans_and_suit_every_network_where_cheap() -> None:
    shapes = np.array([[60.0, 40, 24]] * 40 + [[200, 200, 200]])
    patch, strides, share = whole_patch(shapes, (2.5, 2.5, 2.5), (2, 2, 2), 64**3)
    assert (patch, share) == ((128, 80, 48), 1)
    plan = plan_of(measured((38, 54, 40), (1, 1, 1), {"thin": ball((38, 54, 40), 4)}))
    assert (plan.patch, plan.divisor) == ((40, 56, 40), (8, 8, 8))
    assert plan.fitted().patch == (48, 64, 48) and plan.fitted((8, 4, 1)) is plan
    assert "multiples of 16 x 16 x 16" in plan.fitted().reasons["patch"]
    assert strides == ((2, 2, 2), (2, 2, 2), (2, 2, 1))


def test_cases_of_other_voxel_sizes_count_at_the_same_millimetres() -> None:
    """The second case is the first at half the voxel side: what 2 mm keep is read off its own curve."""
    shape = (64, 64, 64)
    one = measured(shape, (1, 1, 1), {"organ": ball(shape, 20)}).cases[0]
    other = measured((128,) * 3, (0.5, 0.5, 0.5), {"organ": ball((128,) * 3, 20, (0.5,) * 3)}).cases[0]
    plan = plan_of(Fingerprint((one, one, other), None))
    assert plan.grids[2]["spacing_mm"] == [2.0, 2.0, 2.0]
    assert one.fidelity is not None
    assert plan.grids[2]["fidelity"]["organ"] == pytest.approx(one.fidelity["organ"][2], abs=2e-3)
