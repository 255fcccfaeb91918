"""Deformation: the same for image and label, smooth, without folds, in mm, whatever the number of threads."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from semivox.patches import deform as module
from semivox.patches.deform import CONTROL, MAX_ANGLE, SCALE, deform, random_affine, random_offsets

ISOTROPIC = np.ones(3)


def test_affine_is_a_rotation_in_mm_times_one_scale() -> None:
    spacing = np.array([0.5, 0.5, 3.0])
    for seed in range(50):
        matrix = random_affine(np.random.default_rng(seed), spacing)
        in_mm = np.diag(spacing) @ matrix @ np.diag(1 / spacing)
        scale = np.cbrt(np.linalg.det(in_mm))
        assert 1 / SCALE[1] <= scale <= 1 / SCALE[0]
        np.testing.assert_allclose(in_mm @ in_mm.T, scale**2 * np.eye(3), atol=1e-12)
        tilt = np.arccos(np.clip(in_mm[2, 2] / scale, -1, 1))
        assert tilt <= 2 * MAX_ANGLE / 6, "thick slices are hardly tilted"


def test_offsets_agree_with_naive_splines() -> None:
    def spline(t: float) -> float:
        """The cubic B-spline as the fourfold convolution of a box, by its recursion."""

        def basis(order: int, x: float) -> float:
            if order == 0:
                return float(0 <= x < 1)
            return (x * basis(order - 1, x) + (order + 1 - x) * basis(order - 1, x - 1)) / order

        return basis(3, t + 2)

    shape = (18, 5, 33)
    found = random_offsets(shape, np.random.default_rng(0), ISOTROPIC)
    rng = np.random.default_rng(0)
    count = [-(-side // CONTROL) + 3 for side in shape]
    control = rng.normal(0, rng.uniform(0, 2), (3, *count))
    for voxel in ((0, 0, 0), (17, 4, 32), (9, 2, 16), (16, 1, 31)):
        expected = np.zeros(3)
        for k in product(*map(range, count)):
            expected += control[(slice(None), *k)] * np.prod(
                [spline(v / CONTROL + 1 - i) for v, i in zip(voxel, k, strict=True)]
            )
        np.testing.assert_allclose(found[(slice(None), *voxel)], expected, atol=1e-5)


def test_nothing_folds_even_with_the_largest_offsets() -> None:
    class Extreme:
        def uniform(self, *_: float) -> float:
            return 100.0

        def normal(self, *arguments: object) -> np.ndarray:
            return np.random.default_rng(3).normal(0, 100, arguments[2])  # type: ignore[call-overload]

    offsets = random_offsets((50, 50, 50), Extreme(), ISOTROPIC)  # type: ignore[arg-type]
    assert np.abs(offsets).max() > 3
    jacobian = np.stack([np.stack(np.gradient(part)) for part in offsets]) + np.eye(3).reshape(3, 3, 1, 1, 1)
    assert np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1))).min() > 0


def test_offsets_are_as_long_in_mm_along_thick_slices() -> None:
    fine = random_offsets((40, 40, 40), np.random.default_rng(1), ISOTROPIC)
    thick = random_offsets((40, 40, 40), np.random.default_rng(1), np.array([1.0, 1.0, 5.0]))
    np.testing.assert_allclose(thick[:2], fine[:2])
    np.testing.assert_allclose(thick[2] * 5, fine[2], atol=1e-6)


def test_image_and_label_move_together() -> None:
    x, y, z = np.meshgrid(*map(np.arange, (40, 36, 20)), indexing="ij")
    ball = (x - 22) ** 2 + (y - 15) ** 2 + 3 * (z - 9) ** 2 < 100
    smooth = np.clip(6 - np.sqrt((x - 22) ** 2 + (y - 15) ** 2 + 3 * (z - 9) ** 2) + 4.5, 0, 1)[None]
    moved = 0
    for seed in range(10):
        image, label = deform(
            smooth.astype(np.float32), ball.astype(np.uint8), np.random.default_rng(seed), (1, 1, 1)
        )
        assert image.shape == (1, 40, 36, 20) and image.dtype == np.float32
        assert label is not None and label.dtype == np.uint8 and set(np.unique(label)) <= {0, 1}
        overlap = 2 * ((image[0] > 0.5) & (label == 1)).sum() / ((image[0] > 0.5).sum() + label.sum())
        assert overlap > 0.95
        moved += (label != ball).sum() > 100
    assert moved >= 8


def test_no_rotation_no_scale_no_offsets_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "random_affine", lambda rng, spacing: np.eye(3))
    monkeypatch.setattr(
        module, "random_offsets", lambda shape, rng, spacing: np.zeros((3, *shape), np.float32)
    )
    image = np.random.default_rng(0).normal(size=(2, 9, 16, 1)).astype(np.float32)
    label = np.random.default_rng(1).integers(0, 4, (9, 16, 1)).astype(np.uint8)
    same, same_label = deform(image, label, np.random.default_rng(0), (1, 1, 1))
    np.testing.assert_allclose(same, image, atol=1e-5)
    np.testing.assert_array_equal(same_label, label)


def test_number_of_threads_does_not_matter() -> None:
    image = np.random.default_rng(0).standard_normal((1, 64, 48, 48)).astype(np.float32)
    for seed in range(4):
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(deform(image, None, np.random.default_rng(seed), (1, 1, 1))[0])
        assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])
