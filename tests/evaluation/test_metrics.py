"""Scores of one case: hand-computed cubes, medpy on real masks, the rows of failures."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from medpy.metric import binary as medpy
from scipy import ndimage

from semivox.errors import UserError
from semivox.evaluation.metrics import DISTANCES, PUBLISHED_SCORES, SCORES, case_metrics

SPACING = (0.5, 0.5, 2.0)
SHAPE = (6, 8, 10)
DIAGONAL_MM = math.sqrt(3**2 + 4**2 + 20**2)
DIAGONAL_VOX = math.sqrt(36 + 64 + 100)


def cube(shape: tuple[int, ...], start: int, stop: int) -> np.ndarray:
    label = np.zeros(shape, np.uint8)
    label[start:stop, start:stop, start:stop] = 1
    return label


def test_small_cube_in_large_cube() -> None:
    small, large = cube((9, 9, 9), 3, 6), cube((9, 9, 9), 2, 7)
    (row,) = case_metrics(small, large, 2, (1, 1, 1))
    assert row["dice"] == pytest.approx(0.355263, abs=5e-7)
    assert row["jaccard"] == pytest.approx(0.216, abs=5e-7)
    assert row["hd95_vox"] == row["hd95_mm"] == pytest.approx(1.732051, abs=5e-7)
    assert row["asd_vox"] == pytest.approx(1.0, abs=5e-7)
    assert row["assd_vox"] == pytest.approx(1.167485, abs=5e-7)
    assert (row["tp"], row["fp"], row["fn"], row["tn"]) == (27, 0, 98, 729 - 125)
    assert case_metrics(large, small, 2, (1, 1, 1))[0]["asd_vox"] == pytest.approx(1.211919, abs=5e-7)


def test_nsd_counts_both_surfaces_within_the_tolerance() -> None:
    small, large = cube((9, 9, 9), 3, 6), cube((9, 9, 9), 2, 7)
    # All 26 voxels of the small surface are 1 voxel away; of the large one's 98 those over faces (54) are.
    for spacing, tolerance, share in ((1.0, 1.0, 80 / 124), (0.1, 0.1, 80 / 124), (1.0, 0.99, 0), (1, 2, 1)):
        (row,) = case_metrics(small, large, 2, (spacing,) * 3, nsd_tolerance_mm=tolerance)
        assert row["nsd"] == pytest.approx(share)


def test_volumes_in_ml_and_classes_apart() -> None:
    reference, prediction = np.zeros((2, 10, 10, 10), np.uint8)
    reference[:5], prediction[:4], prediction[9] = 1, 1, 2
    first, second = case_metrics(prediction, reference, 3, (2.0, 2.0, 5.0))
    assert (first["class"], first["status"]) == (1, "ok")
    assert first["volume_ref_ml"] == pytest.approx(500 * 0.02)
    assert first["volume_pred_ml"] == pytest.approx(400 * 0.02)
    assert first["dice"] == pytest.approx(800 / 900)
    assert (second["class"], second["status"]) == (2, "false_alarm")


def test_sheared_grids_by_hand() -> None:
    """Slices 2 mm apart, each 1.5 mm further to the front than the last; a voxel still has 2 mm3."""
    affine = np.array([[1, 0, 0, 9], [0, 1, 1.5, 9], [0, 0, 2, 9], [0, 0, 0, 1.0]])
    one, two = np.zeros((2, 5, 6, 7), np.uint8)
    one[2, 2, 2], two[2, 3, 4] = 1, 1  # the step (0, 1, 2) is (0, 1 + 2 * 1.5, 2 * 2) mm
    (row,) = case_metrics(two, one, 2, affine)
    assert row["volume_ref_ml"] == row["volume_pred_ml"] == pytest.approx(0.002)
    for name in ("hd95", "asd", "assd"):
        assert row[f"{name}_mm"] == pytest.approx(math.hypot(4, 4))
        assert row[f"{name}_vox"] == pytest.approx(math.hypot(1, 2))
    for tolerance, share in ((5.6, 0), (5.7, 1)):
        assert case_metrics(two, one, 2, affine, nsd_tolerance_mm=tolerance)[0]["nsd"] == share
    (missed,) = case_metrics(0 * one, one, 2, affine)
    assert missed["hd95_mm_penalised"] == pytest.approx(math.hypot(5, 6 + 7 * 1.5, 7 * 2))
    assert missed["hd95_vox_penalised"] == pytest.approx(math.hypot(5, 6, 7))
    turned = np.diag([1.0, 1, 1, 1])
    turned[:2, :2] = [[0.6, -0.8], [0.8, 0.6]]  # a rotation changes nothing
    assert case_metrics(two, one, 2, turned)[0]["hd95_mm"] == pytest.approx(math.hypot(1, 2))


@pytest.mark.parametrize(
    ("prediction", "reference", "status", "overlap", "penalty"),
    [
        (0, 1, "missed", 0.0, (DIAGONAL_MM, DIAGONAL_VOX)),
        (1, 0, "false_alarm", 0.0, (DIAGONAL_MM, DIAGONAL_VOX)),
        (0, 0, "absent", math.nan, (math.nan, math.nan)),
        (None, 1, "missing", 0.0, (DIAGONAL_MM, DIAGONAL_VOX)),
        (None, 0, "missing", 0.0, (DIAGONAL_MM, DIAGONAL_VOX)),
    ],
)
def test_failures(
    prediction: int | None, reference: int, status: str, overlap: float, penalty: tuple[float, float]
) -> None:
    image = cube(SHAPE, 1, 4)
    found = None if prediction is None else image * np.uint8(prediction)
    pair = found, image * np.uint8(reference)
    (row,) = case_metrics(*pair, 2, SPACING, lcc=True)
    assert row["status"] == status
    for suffix in ("", "_lcc"):
        for name in ("dice", "jaccard", "nsd"):
            assert row[name + suffix] == pytest.approx(overlap, nan_ok=True)
        for name in DISTANCES:
            assert math.isnan(row[name + suffix])
            expected = penalty[0] if name.endswith("mm") else penalty[1]
            assert row[f"{name}_penalised{suffix}"] == pytest.approx(expected, nan_ok=True)
    assert math.isnan(row["volume_pred_ml"]) == (prediction is None)
    assert row["volume_ref_ml"] == pytest.approx(reference * 27 * 0.5 / 1000)
    assert row["tp"] + row["fp"] + row["fn"] + row["tn"] == image.size
    (zeroed,) = case_metrics(*pair, 2, SPACING, profile="published")
    assert [zeroed[name] for name in PUBLISHED_SCORES] == [0, 0, 0, 0]
    assert zeroed["zeroed"] is True and zeroed["status"] == status


def test_penalised_is_the_distance_where_there_is_one() -> None:
    (row,) = case_metrics(cube(SHAPE, 1, 4), cube(SHAPE, 2, 5), 2, SPACING)
    assert row["status"] == "ok"
    for name in DISTANCES:
        assert row[f"{name}_penalised"] == row[name] > 0
    assert set(SCORES) <= set(row)


def test_largest_component_has_columns_of_its_own() -> None:
    reference = cube((12, 12, 12), 1, 6)
    prediction = reference.copy()
    prediction[10, 10, 10] = 1
    (row,) = case_metrics(prediction, reference, 2, (1, 1, 1), lcc=True)
    assert row["dice"] == pytest.approx(250 / 251)
    assert row["dice_lcc"] == 1
    assert row["asd_mm"] > row["asd_mm_lcc"] == 0
    assert row["volume_pred_ml"] == pytest.approx(0.126)
    assert row["volume_pred_ml_lcc"] == pytest.approx(0.125)


def test_published_profile_measures_in_voxels_only() -> None:
    (row,) = case_metrics(cube(SHAPE, 1, 4), cube(SHAPE, 2, 5), 2, SPACING, profile="published")
    (ours,) = case_metrics(cube(SHAPE, 1, 4), cube(SHAPE, 2, 5), 2, SPACING)
    assert {name: row[name] for name in PUBLISHED_SCORES} == {name: ours[name] for name in PUBLISHED_SCORES}
    assert row["zeroed"] is False
    assert not [name for name in row if "_mm" in name]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), SPACING])
def test_memory_is_at_most_twelve_bytes_a_voxel_of_the_box(spacing: tuple[float, ...]) -> None:
    """Two balls that fill their box, in an array eight times as large."""
    grid = np.indices((160, 160, 160)) - 80
    balls = [
        (np.square(grid - np.reshape(shift, (3, 1, 1, 1))).sum(0) < 38**2) for shift in ((0, 0, 0), (2, 1, 0))
    ]
    del grid
    prediction, reference = (ball.astype(np.uint8) for ball in balls)
    case_metrics(prediction[60:80], reference[60:80], 2, spacing)  # whatever is imported or kept once
    tracemalloc.start()
    (row,) = case_metrics(prediction, reference, 2, spacing)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert row["status"] == "ok"
    masks = 2 * prediction.size  # of one class, on the whole arrays
    assert peak - masks < 12 * 77 * 76 * 75


def test_different_shapes_are_refused() -> None:
    with pytest.raises(UserError, match=r"\(6, 8, 9\)"):
        case_metrics(np.zeros((6, 8, 9), np.uint8), cube(SHAPE, 1, 4), 2, SPACING)


def real_pairs(real_data: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Predictions made of real left atria: shifted, eroded with an island, and another patient's."""
    folder = real_data / "la2018" / "labelsTr"
    paths = sorted(folder.glob("*.nii.gz"))[:2]
    first, other = (np.asarray(nib.load(path).dataobj)[::2, ::2, 6:] > 0 for path in paths)
    yield np.roll(first, (2, -1, 1), (0, 1, 2)), first
    eroded = ndimage.binary_erosion(first, iterations=1)
    eroded[3:6, 4:9, 70:] = True
    yield eroded, first
    common = tuple(slice(0, min(sides)) for sides in zip(first.shape, other.shape, strict=True))
    yield other[common], first[common]


@pytest.mark.real
def test_equal_to_medpy_on_real_masks(real_data: Path) -> None:
    isotropic, anisotropic = (0.625,) * 3, (0.6, 0.8, 2.5)
    for prediction, reference in real_pairs(real_data):
        labels = prediction.astype(np.uint8), reference.astype(np.uint8)
        (first,), (second,) = (case_metrics(*labels, 2, spacing) for spacing in (isotropic, anisotropic))
        assert first["dice"] == pytest.approx(medpy.dc(prediction, reference), abs=1e-6)
        assert first["jaccard"] == pytest.approx(medpy.jc(prediction, reference), abs=1e-6)
        for row, unit, steps in (
            (first, "mm", isotropic),
            (second, "mm", anisotropic),
            (second, "vox", None),
        ):
            assert row[f"hd95_{unit}"] == pytest.approx(medpy.hd95(prediction, reference, steps), abs=1e-6)
            assert row[f"asd_{unit}"] == pytest.approx(medpy.asd(prediction, reference, steps), abs=1e-6)
        for name in ("hd95_vox", "asd_vox", "assd_vox"):
            assert first[name] == pytest.approx(second[name], abs=1e-6)
