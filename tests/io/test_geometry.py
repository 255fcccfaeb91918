"""When two grids count as the same, and what trusting the image's geometry does."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scans import Raw, save

from semivox.config import PlanConfig
from semivox.datasets.declared import Classes
from semivox.datasets.splits import Split
from semivox.errors import UserError
from semivox.evaluation.evaluate import evaluate_folder
from semivox.io.geometry import displacement, same_affine
from semivox.io.volume import read_image, read_label
from semivox.preprocessing.fingerprint import fingerprint
from semivox.preprocessing.planner import make_plan
from semivox.preprocessing.prepare import Preparation
from semivox.preprocessing.store import Store

OBLIQUE = np.array([[0.0, -1.2, 0.1, 10.0], [0.7, 0.0, 0.0, -20.5], [0.05, 0.0, 2.5, 300.25], [0, 0, 0, 1]])
SHAPE = (40, 50, 30)


def test_header_rounding_is_no_difference() -> None:
    rounded = OBLIQUE.astype(np.float32).astype(float)
    rounded[:3, :3] = np.round(rounded[:3, :3], 4)
    assert same_affine(rounded, OBLIQUE, SHAPE)
    third = np.diag([0.9765625, 0.9765625, 5.0, 1.0])
    assert same_affine(np.diag([0.977, 0.977, 5.0, 1.0]), third, (512, 512, 40))


def test_half_a_voxel_a_flip_and_a_longer_axis_are_differences() -> None:
    shifted = OBLIQUE.copy()
    shifted[:3, 3] += 0.5 * OBLIQUE[:3, 0]
    stretched = OBLIQUE.copy()
    stretched[:3, 2] *= 1.01
    flipped = OBLIQUE @ np.diag([-1, 1, 1, 1])
    assert not any(same_affine(affine, OBLIQUE, SHAPE) for affine in (shifted, stretched, flipped))
    assert same_affine(stretched, OBLIQUE, (40, 50, 20))


@given(st.lists(st.floats(-0.02, 0.02), min_size=12, max_size=12), st.tuples(*[st.integers(1, 6)] * 3))
def test_displacement_is_the_largest_over_all_voxels(
    numbers: list[float], shape: tuple[int, int, int]
) -> None:
    change = np.eye(4)
    change[:3] += np.reshape(numbers, (3, 4))
    largest = 0.0
    for voxel in product(*map(range, shape)):
        moved = np.linalg.inv(OBLIQUE) @ (OBLIQUE @ change) @ (*voxel, 1)
        largest = max(largest, float(np.abs(moved[:3] - voxel).max()))
    assert displacement(OBLIQUE @ change, OBLIQUE, shape) == pytest.approx(largest, abs=1e-9)


def test_trusting_the_image_overrules_affines_but_not_shapes(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    mask = (array > 1).astype(np.uint8)
    first = save(tmp_path / "a_0000.nii.gz", array, OBLIQUE)
    second = save(tmp_path / "a_0001.nii.gz", array, np.eye(4))
    label = save(tmp_path / "a.nii.gz", mask, np.eye(4))
    with pytest.raises(UserError, match="--trust-image-geometry") as error:
        read_image([first, second])
    assert f"{displacement(np.eye(4), OBLIQUE, (5, 6, 7)):.3g} voxels away" in str(error.value)
    image = read_image([first, second], trust_image_geometry=True)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)
    with pytest.raises(UserError, match="affine differs"):
        read_label(label, (0, 1), image)
    trusted = read_label(label, (0, 1), image, trust_image_geometry=True)
    np.testing.assert_array_equal(trusted.array, mask)
    np.testing.assert_array_equal(trusted.affine, image.affine)
    small = save(tmp_path / "b.nii.gz", mask[:-1], OBLIQUE)
    with pytest.raises(UserError, match="shape differs"):
        read_label(small, (0, 1), image, trust_image_geometry=True)


@pytest.mark.real
def test_a_real_mask_that_lost_its_affine(real_data: Path, tmp_path: Path) -> None:
    """It holds the tumor of its neighbor, voxel by voxel, under an identity affine; a box of it is read."""
    source = real_data / "formats" / "brats_case"
    tumor = np.asarray(nib.load(source / "seg-BraTS23_1.nii.gz").dataobj) > 0
    inside = np.argwhere(tumor)
    sides = -(-(np.ptp(inside, axis=0) + 7) // 3) * 3  # whole voxels of 3 mm
    box = tuple(slice(low, low + side) for low, side in zip(inside.min(axis=0) - 3, sides, strict=True))
    raw = Raw(tmp_path, {"core": 1, "edema": 2, "enhancing": 4}, ("T1c",))
    files = [nib.load(source / f"{name}.nii.gz").slicer[box] for name in ("t1c", "seg-BraTS23_1_mapped")]
    raw.add("a", files[0], label=files[1])
    dataset, split = raw.open(), Split(labeled=("a",))
    config = PlanConfig(trust_image_geometry=True, spacing_mm=(3, 3, 3), crop="none")
    plan = make_plan(dataset, fingerprint(dataset, split, trust_image_geometry=True), config)
    assert plan.trust_image_geometry
    assert plan.fingerprint["class_volumes_ml"]["enhancing"]["max"] > 1
    Preparation(dataset, split, plan, tmp_path / "store").run(0)
    label = Store(tmp_path / "store").label("a")[:]
    true = tumor[box][::-1, ::-1]  # LPS to RAS
    place = (np.argwhere(label > 0).mean(0) + 0.5) * 3, np.argwhere(true).mean(0) + 0.5
    assert np.abs(place[0] - place[1]).max() < 1


def test_scores_of_a_reference_without_geometry_use_the_voxel_size_of_the_prediction(tmp_path: Path) -> None:
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:5, 2:5, 2:5] = 1
    save(tmp_path / "out" / "a.nii.gz", np.roll(label, 1, axis=0), np.diag([3.0, 1.0, 1.0, 1.0]))
    references = {"a": save(tmp_path / "a.nii.gz", label, np.eye(4))}
    classes = Classes(("background", "x"), (0, 1))
    with pytest.raises(UserError, match="--trust-image-geometry"):
        evaluate_folder(tmp_path / "out", references, classes, tmp_path / "out", workers=0)
    table = evaluate_folder(
        tmp_path / "out", references, classes, tmp_path / "out", workers=0, trust_image_geometry=True
    )
    assert table["dice"][0] == pytest.approx(2 / 3)
    assert table["hd95_mm"][0] == pytest.approx(3.0)
