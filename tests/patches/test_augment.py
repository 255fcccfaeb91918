"""Augmentation: uniform over the symmetries, the same for image and label, mild, repeatable."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import get_track_meta
from scipy.ndimage import map_coordinates

from semivox.patches.augment import Augmentation, MonaiIntensity, deform, lateral_classes
from semivox.patches.deformation import Deformation, random_center, resized
from semivox.patches.intensity import vary


def patch(shape: tuple[int, int, int], channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """An image whose values name their voxels, and a label that follows from it."""
    count = int(np.prod(shape))
    image = np.stack([np.arange(count) + 1000 * c for c in range(channels)]).reshape(channels, *shape)
    return image.astype(np.float32), (image[0] % 7 == 0).astype(np.uint8)


# The symmetries of a square: those that keep x, the others that keep an oblong's shape, the rest.
X_STAYS = [lambda i, j, n, m: (i, j), lambda i, j, n, m: (i, m - 1 - j)]
OBLONG = [*X_STAYS, lambda i, j, n, m: (n - 1 - i, j), lambda i, j, n, m: (n - 1 - i, m - 1 - j)]
SQUARE = [*OBLONG, lambda i, j, n, m: (j, i), lambda i, j, n, m: (m - 1 - j, i),
          lambda i, j, n, m: (j, n - 1 - i), lambda i, j, n, m: (n - 1 - j, n - 1 - i)]  # fmt: skip


def moved(array: np.ndarray, index: Callable[..., tuple[int, int]]) -> bytes:
    """The array (X, Y, Z) after one symmetry, by explicit index arithmetic."""
    n, m, _ = array.shape
    return b"".join(array[index(i, j, n, m)].tobytes() for i in range(n) for j in range(m))


def test_crop_changes_nothing() -> None:
    image, label = patch((4, 4, 3))
    out, out_label = Augmentation("crop")(image, label, np.random.default_rng(0))
    assert np.array_equal(out, image) and np.array_equal(out_label, label)


@pytest.mark.parametrize(
    ("preset", "shape", "flip", "maps", "chi_squared"),
    [
        ("rotflip", (4, 4, 3), True, SQUARE, 24.3),
        ("rotflip", (4, 6, 3), True, OBLONG, 16.3),
        ("rotflip", (4, 4, 3), False, X_STAYS, 10.8),
        ("rotflip", (4, 6, 3), False, X_STAYS, 10.8),
        ("strong", (6, 6, 4), True, OBLONG, 16.3),
        ("strong", (6, 6, 4), False, X_STAYS, 10.8),
    ],
)
def test_turns_and_mirrorings_are_as_likely_as_each_other(
    monkeypatch: pytest.MonkeyPatch, preset: Any, shape: Any, flip: bool, maps: list[Any], chi_squared: float
) -> None:
    """With `strong` the label alone shows them: the image's values change."""
    monkeypatch.setattr("semivox.patches.augment._DEFORMED", 0.0)
    image, label = patch(shape, channels=2)
    augment, rng, each = Augmentation(preset, flip_left_right=flip), np.random.default_rng(0), 100
    seen: Counter[bytes] = Counter()
    for _ in range(each * len(maps)):
        out, out_label = augment(image, label, rng)
        assert out_label is not None
        if preset == "rotflip":
            assert out.shape == image.shape and np.array_equal(out[1], out[0] + 1000)
            assert np.array_equal(out_label, out[0] % 7 == 0)
        seen[(out[0] if preset == "rotflip" else out_label).tobytes()] += 1
    assert set(seen) == {moved(image[0] if preset == "rotflip" else label, index) for index in maps}
    assert sum((count - each) ** 2 / each for count in seen.values()) < chi_squared


@pytest.mark.parametrize("preset", ["rotflip", "intensity", "strong"])
def test_same_random_numbers_same_result_also_after_pickling(preset: str) -> None:
    image, label = patch((6, 6, 4))
    augment = Augmentation(preset)  # type: ignore[arg-type]
    copy = pickle.loads(pickle.dumps(augment))
    different = 0
    for seed in range(10):
        before = image.copy()
        one, one_label = augment(image, label, np.random.default_rng(seed))
        assert np.array_equal(image, before)
        augment(image, label, np.random.default_rng(seed + 100))
        other, other_label = copy(image, label, np.random.default_rng(seed))
        assert np.array_equal(one, other) and np.array_equal(one_label, other_label)
        assert one.dtype == np.float32 and one_label is not None and one_label.dtype == np.uint8
        different += not np.array_equal(one, image)
    assert different >= 5


def test_intensity_turns_the_label_with_the_image_and_leaves_its_values() -> None:
    image, label = patch((6, 6, 4))
    for seed in range(20):
        _, turned = Augmentation("rotflip")(image, label, np.random.default_rng(seed))
        _, changed = Augmentation("intensity")(image, label, np.random.default_rng(seed))
        assert np.array_equal(turned, changed)


def test_intensity_changes_most_patches_but_mildly() -> None:
    rng = np.random.default_rng(0)
    image = np.kron(rng.standard_normal((1, 3, 3, 3)), np.ones((1, 8, 8, 8))).astype(np.float32)
    augment, rotflip = Augmentation("intensity"), Augmentation("rotflip")
    changed = 0
    for seed in range(40):
        out, label = augment(image, None, np.random.default_rng(seed))
        same_pose, _ = rotflip(image, None, np.random.default_rng(seed))
        assert label is None and np.isfinite(out).all()
        assert np.corrcoef(out.ravel(), same_pose.ravel())[0, 1] > 0.85
        assert abs(out.mean() - image.mean()) < 0.2 * image.std()
        assert 0.7 < out.std() / image.std() < 1.25
        changed += not np.allclose(out, same_pose, atol=1e-4)
    assert 24 <= changed <= 38


def test_intensity_strength_follows_the_scale_of_each_channel() -> None:
    rng = np.random.default_rng(1)
    image = rng.standard_normal((2, 8, 8, 4)).astype(np.float32)
    scale = np.array([700.0, 0.02], np.float32).reshape(2, 1, 1, 1)
    shift = np.array([300.0, -1.0], np.float32).reshape(2, 1, 1, 1)
    augment = Augmentation("intensity")
    for seed in range(10):
        plain, _ = augment(image, None, np.random.default_rng(seed))
        scaled, _ = augment(image * scale + shift, None, np.random.default_rng(seed))
        assert np.allclose((scaled - shift) / scale, plain, atol=2e-3)


def test_intensity_of_a_constant_patch_is_finite() -> None:
    image = np.full((1, 8, 8, 8), 3.0, np.float32)
    for seed in range(20):
        out, _ = Augmentation("intensity")(image, None, np.random.default_rng(seed))
        assert np.isfinite(out).all()


@pytest.mark.parametrize(
    ("shape", "change"),
    [
        ((112, 112, 80), lambda image, rng: Augmentation("intensity")(image, None, rng)[0]),
        ((96, 80, 48), vary),
        ((64, 48, 48), lambda image, rng: deform(image, None, rng, (1, 1, 1))[0]),
    ],
)
def test_the_number_of_threads_changes_nothing(shape: tuple[int, ...], change: Callable[..., Any]) -> None:
    """Large enough that PyTorch divides the work where it is allowed to."""
    image = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    for seed in (0, 3, 5, 9):
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(change(image.copy(), np.random.default_rng(seed)))
            assert torch.get_num_threads() == threads
        assert np.array_equal(*results)


def test_monai_keeps_its_global_setting() -> None:
    before = get_track_meta()
    Augmentation("intensity")(np.zeros((1, 4, 4, 4), np.float32), None, np.random.default_rng(0))
    assert get_track_meta() == before


def test_strong_deforms_half_of_the_patches_and_stays_finite() -> None:
    x, y, z = np.meshgrid(*map(np.arange, (24, 24, 16)), indexing="ij")
    label = ((x - 12) ** 2 + (y - 9) ** 2 + (z - 8) ** 2 < 40).astype(np.uint8)
    image = (3 * label + np.random.default_rng(0).normal(size=label.shape))[None].astype(np.float32)
    augment, deformed = Augmentation("strong", spacing_mm=(1, 1, 3)), 0
    for seed in range(60):
        out, out_label = augment(image, label, np.random.default_rng(seed))
        assert out.shape == image.shape and out.dtype == np.float32 and np.isfinite(out).all()
        assert out_label is not None and set(np.unique(out_label)) == {0, 1}
        assert out[0][out_label == 1].mean() > out[0][out_label == 0].mean() + 0.5
        deformed += not any(np.array_equal(out_label, label[::i, ::j]) for i in (1, -1) for j in (1, -1))
    assert 20 <= deformed <= 40


def test_strong_changes_intensities_more_than_the_mild_preset() -> None:
    rng = np.random.default_rng(0)
    image = np.kron(rng.standard_normal((1, 3, 3, 3)), np.ones((1, 8, 8, 8))).astype(np.float32)
    view, mild = MonaiIntensity("strong"), Augmentation("intensity")
    distances: dict[str, list[float]] = {"strong": [], "mild": []}
    for seed in range(40):
        strong = view(image, np.random.default_rng(seed))
        assert strong.shape == image.shape and np.isfinite(strong).all()
        assert np.corrcoef(strong.ravel(), image.ravel())[0, 1] > 0.75
        changed, _ = mild(image, None, np.random.default_rng(seed))
        pose, _ = Augmentation("rotflip")(image, None, np.random.default_rng(seed))
        distances["strong"].append(float(np.abs(strong - image).mean()))
        distances["mild"].append(float(np.abs(changed - pose).mean()))
    assert np.mean(distances["strong"]) > 1.4 * np.mean(distances["mild"])


@pytest.mark.parametrize(
    ("name", "lateral"),
    [("left kidney", True), ("KidneyRight", True), ("Left_Atrium", True), ("hippocampus_L", True),
     ("lung-r", True), ("R hemisphere", True), ("lh_cortex", True), ("caudate.RT", True), ("liver", False),
     ("spinal", False), ("Anterior", False), ("lrp", False), ("tumor", False), ("L1", False)],
)  # fmt: skip
def test_classes_of_one_side_are_known_by_their_names(name: str, lateral: bool) -> None:
    assert lateral_classes(["background", name]) == ((name,) if lateral else ())


def test_affine_is_a_rotation_in_mm_times_one_scale() -> None:
    spacing = (0.5, 0.5, 3.0)
    change = Deformation(spacing, scaled=1.0, rotated=1.0)
    for seed in range(50):
        matrix = change.affine(np.random.default_rng(seed))
        in_mm = np.diag(spacing) @ matrix @ np.diag(1 / np.array(spacing))
        scale = np.cbrt(np.linalg.det(in_mm))
        assert 1 / 1.3 <= scale <= 1 / 0.75
        np.testing.assert_allclose(in_mm @ in_mm.T, scale**2 * np.eye(3), atol=1e-12)
        tilt = np.arccos(np.clip(in_mm[2, 2] / scale, -1, 1))
        assert tilt <= 2 * np.deg2rad(15) / 6, "thick slices are hardly tilted"


def test_probabilities_of_the_parts() -> None:
    never = Deformation(rotated=0.0, scaled=0.0, bent=0.0)
    np.testing.assert_array_equal(never.affine(np.random.default_rng(0)), np.eye(3))
    drawn = [Deformation().affine(np.random.default_rng(seed)) for seed in range(1000)]
    scaled = np.mean([abs(np.linalg.det(matrix) - 1) > 1e-6 for matrix in drawn])
    still = np.mean([np.allclose(matrix, np.eye(3)) for matrix in drawn])
    assert abs(scaled - 0.5) < 0.05 and abs(still - 0.4**3 * 0.5) < 0.02


def test_bending_is_smooth_and_as_long_in_mm_along_every_axis() -> None:
    spacing = (1.0, 1.0, 4.0)
    bent, straight = (Deformation(spacing, rotated=0, scaled=0, bent=share) for share in (1.0, 0.0))
    lengths = []
    for seed in range(60):
        places = [
            change.draw((32, 32, 8), np.random.default_rng(seed)).places() for change in (bent, straight)
        ]
        offsets = (places[0] - places[1]) * np.array(spacing).reshape(3, 1, 1, 1)
        lengths.append(offsets.std(axis=(1, 2, 3)))
        steps = np.stack([np.stack(np.gradient(part, *spacing)) for part in offsets])
        jacobian = np.moveaxis(steps + np.eye(3).reshape(3, 3, 1, 1, 1), (0, 1), (-2, -1))
        assert (np.linalg.det(jacobian) > 0).mean() > 0.995, "space hardly ever folds"
    x, y, z = np.mean(lengths, axis=0)
    assert 0.2 < x < 1.2 and x == pytest.approx(y, rel=0.2) and x == pytest.approx(z, rel=0.25)


def test_resampling_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    image, shares = rng.normal(size=(2, 20, 18, 9)).astype(np.float32), rng.random((1, 20, 18, 9))
    motion = Deformation((1, 1, 2), bent=1.0).draw((12, 14, 10), rng)
    places = motion.places()
    center = (11.0, 3.5, 6.0)  # beyond the border, too
    points = places + np.array(center).reshape(3, 1, 1, 1)
    warp = motion.at(center, (20, 18, 9))
    moved, maps = warp.sample(image[:, *warp.box], shares[:, *warp.box].astype(np.float32))
    assert moved.shape == (2, 12, 14, 10) and maps.shape == (1, 12, 14, 10)
    for found, channel in zip(moved, image, strict=True):
        np.testing.assert_allclose(
            found, map_coordinates(channel, points, order=1, mode="nearest"), atol=1e-4
        )
    outside = map_coordinates(np.pad(shares[0], 1), points + 1, order=1, mode="constant")
    inside = ((points >= -1) & (points <= np.reshape((20, 18, 9), (3, 1, 1, 1)))).all(axis=0)
    np.testing.assert_allclose(maps[0][inside], outside[inside], atol=1e-4)
    assert not maps[0][~inside].any() and (~inside).any()


@pytest.mark.parametrize("corners", [True, False])
def test_resizing_agrees_with_pytorch(corners: bool) -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 5, 4, 9)).astype(np.float32))
    for shape in ((7, 4, 3), (20, 11, 30), (5, 4, 9)):
        expected = torch.nn.functional.interpolate(
            values[None], shape, mode="trilinear", align_corners=corners
        )[0]
        torch.testing.assert_close(resized(values, shape, corners=corners), expected, atol=1e-5, rtol=0)


def test_centers_stay_near_the_scan() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([random_center((100, 40, 20), (50, 50, 20), rng) for _ in range(2000)])
    assert drawn.min(axis=0) == pytest.approx([49.5 - 28, 19.5 - 3, 9.5 - 1.2], abs=0.1)
    assert drawn.max(axis=0) == pytest.approx([49.5 + 28, 19.5 + 3, 9.5 + 1.2], abs=0.1)
    assert random_center((100, 40, 20), (50, 50, 20), rng, (70, 0, 10)) == pytest.approx([70, 16.5, 10])


def test_a_labelled_ball_stays_on_the_bright_ball() -> None:
    """Also where rotation, scale, bending and shift come together, in voxels that are not cubes."""
    x, y, z = np.indices((44, 40, 24)).astype(float)
    distance = np.sqrt((x - 22) ** 2 + (y - 18) ** 2 + (1.5 * (z - 11)) ** 2)
    soft = np.clip(10.5 - distance, 0, 1)[None].astype(np.float32)
    change = Deformation((1, 1, 1.5), bent=1.0)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        motion, center = change.draw((40, 40, 24), rng), random_center((44, 40, 24), (40, 40, 24), rng)
        warp = motion.at(center, (44, 40, 24))
        image, shares = warp.sample(soft[:, *warp.box] * 5 - 2, soft[:, *warp.box])
        np.testing.assert_allclose(image * 0.2 + 0.4, shares, atol=1e-4)
        volume = shares.sum() / soft.sum()
        assert 0.35 < volume < 2.6


def test_vary_changes_most_patches_and_keeps_the_anatomy() -> None:
    rng = np.random.default_rng(0)
    image = np.kron(rng.standard_normal((2, 4, 4, 3)), np.ones((1, 8, 8, 8))).astype(np.float32)
    changed = 0
    for seed in range(60):
        out = vary(image.copy(), np.random.default_rng(seed))
        assert out.shape == image.shape and out.dtype == np.float32 and np.isfinite(out).all()
        for before, after in zip(image, out, strict=True):
            assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.7
            changed += not np.allclose(before, after, atol=1e-4)
        again = vary(image.copy(), np.random.default_rng(seed))
        assert np.array_equal(out, again)
    assert 90 < changed < 120
    flat = np.full((1, 8, 8, 8), 3.0, np.float32)
    assert all(np.isfinite(vary(flat.copy(), np.random.default_rng(seed))).all() for seed in range(30))


def test_only_the_preset_full_deforms_while_it_reads() -> None:
    assert Augmentation("strong").deformation is None
    assert Augmentation("full", spacing_mm=(1, 1, 2)).deformation == Deformation((1, 1, 2))


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
    still = {"rotated": 0.0, "scaled": 0.0, "bent": 0.0}
    monkeypatch.setattr("semivox.patches.augment._STRONG", still)
    image = np.random.default_rng(0).normal(size=(2, 9, 16, 1)).astype(np.float32)
    label = np.random.default_rng(1).integers(0, 4, (9, 16, 1)).astype(np.uint8)
    same, same_label = deform(image, label, np.random.default_rng(0), (1, 1, 1))
    np.testing.assert_allclose(same, image, atol=1e-5)
    np.testing.assert_array_equal(same_label, label)
