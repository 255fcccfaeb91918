"""Phantoms: repeatable, exactly labeled, varied, and not solvable by a threshold."""

from __future__ import annotations

import json
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from semivox.datasets.phantom import make_phantoms, phantom
from semivox.datasets.phantom_shapes import Space, orient
from semivox.errors import UserError

SMALL = (24, 24, 18)
Scans = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def scans() -> Scans:
    return [phantom(0, index) for index in range(8)]


@pytest.fixture(scope="module")
def small_scans() -> Scans:
    return [phantom(5, index, shape=SMALL) for index in range(45)]


def contrast(image: np.ndarray, label: np.ndarray) -> float:
    """1 - (median of a shell two voxels outside the label) / (median inside)."""
    shell = ndimage.binary_dilation(label > 0, iterations=3) & ~ndimage.binary_dilation(label > 0)
    return float(1 - np.median(image[shell]) / np.median(image[label > 0]))


def best_threshold_dice(image: np.ndarray, label: np.ndarray) -> float:
    smooth = ndimage.gaussian_filter(image, 1.0)
    return max(
        2 * np.sum((smooth > cut) & (label > 0)) / (np.sum(smooth > cut) + np.sum(label > 0))
        for cut in np.percentile(smooth, np.arange(50, 99))
    )


def test_same_seed_same_scan_and_other_seed_or_index_another() -> None:
    first, again = phantom(3, 1, shape=SMALL), phantom(3, 1, shape=SMALL)
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)
    for seed, index in ((4, 1), (3, 2)):
        other_label = phantom(seed, index, shape=SMALL)[1]
        assert other_label.shape != first[1].shape or np.mean(other_label != first[1]) > 0.005


def test_types_and_ranges(scans: Scans) -> None:
    for image, label, affine in scans:
        assert image.dtype == np.float32 and label.dtype == np.uint8 and affine.dtype == np.float64
        assert image.shape == label.shape and affine.shape == (4, 4)
        assert image.min() >= 0 and image.max() < 32000 and np.array_equal(image, np.rint(image))
        assert set(np.unique(label)) == {0, 1}


def test_target_is_one_piece_of_plausible_size(scans: Scans, small_scans: Scans) -> None:
    for _, label, _ in [*scans, *small_scans]:
        assert ndimage.label(label)[1] == 1
        assert 0.03 < np.mean(label > 0) < 0.20


def test_label_lies_on_the_image(scans: Scans) -> None:
    """Moved by two voxels, the label takes in other tissue: its inside becomes less uniform."""
    for axis in range(3):
        for step in (-2, 2):
            growth = [
                image[np.roll(label, step, axis) > 0].std() / image[label > 0].std()
                for image, label, _ in scans
            ]
            assert min(growth) > 1.0
            assert np.mean(growth) > 1.15


def test_contrast_goes_from_weak_to_clear(small_scans: Scans) -> None:
    values = [contrast(image, label) for image, label, _ in small_scans]
    assert min(values) > 0.08
    assert np.percentile(values, 10) < 0.35 < 0.47 < np.percentile(values, 90)
    brightness = [np.median(image[label > 0]) for image, label, _ in small_scans]
    assert max(brightness) / min(brightness) > 4


def test_a_threshold_does_not_find_the_target(scans: Scans) -> None:
    dice = [best_threshold_dice(image, label) for image, label, _ in scans]
    assert max(dice) < 0.85 and np.mean(dice) < 0.65


def test_two_classes_are_the_one_class_divided() -> None:
    for index in range(2):
        image, label, affine = phantom(0, index)
        image_2, label_2, affine_2 = phantom(0, index, classes=2)
        assert np.array_equal(image, image_2) and np.array_equal(affine, affine_2)
        assert np.array_equal(label, label_2 > 0)
        assert np.mean(label_2 == 1) > 3 * np.mean(label_2 == 2) > 0.006
    with pytest.raises(ValueError, match="1 or 2"):
        phantom(0, 0, classes=3)


def test_affines_cover_thick_oblique_flipped_and_permuted(small_scans: Scans) -> None:
    thick, oblique, codes = set(), 0, set()
    for image, _, affine in small_scans:
        assert np.linalg.det(affine[:3, :3]) != 0
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        field_of_view = np.sort(spacing * image.shape)
        assert np.allclose(field_of_view, [57.6, 76.8, 76.8], rtol=0.07)
        thick.add(round(spacing.max() / spacing.min()))
        oblique += np.count_nonzero(np.abs(affine[:3, :3]) > 1e-6) > 3
        codes.add("".join(nib.aff2axcodes(affine)))
    assert thick == {1, 2, 3}
    assert 6 < oblique < 24
    assert {"RAS", "LPS"} < codes and any(code[2] not in "SI" for code in codes)


def test_affine_undoes_flips_and_permutations() -> None:
    original = np.arange(6 * 5 * 4, dtype=np.float32).reshape(6, 5, 4)
    for seed in range(40):
        space = Space((6, 5, 4), 1.5, np.random.default_rng(seed))
        image, label, affine = orient(space, original, original.astype(np.uint8), 2)
        back = nib.as_closest_canonical(nib.Nifti1Image(image, affine))
        assert np.array_equal(back.get_fdata(), original)
        assert np.allclose(back.header.get_zooms(), (1.5, 1.5, 3.0))
        assert np.array_equal(image.astype(np.uint8), label)


def test_data_set_layout(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    folder = make_phantoms(
        tmp_path / "set", train=2, test=1, classes=2, shape=SMALL, seed=7, progress=lambda *a: seen.append(a)
    )
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == [
        "dataset.json",
        "imagesTr/phantom_000_0000.nii.gz",
        "imagesTr/phantom_001_0000.nii.gz",
        "imagesTs/phantom_002_0000.nii.gz",
        "labelsTr/phantom_000.nii.gz",
        "labelsTr/phantom_001.nii.gz",
        "labelsTs/phantom_002.nii.gz",
    ]
    index = json.loads((folder / "dataset.json").read_text())
    assert index["channel_names"] == {"0": "MR"} and index["file_ending"] == ".nii.gz"
    assert index["labels"] == {"background": 0, "body": 1, "veins": 2} and index["numTraining"] == 2
    assert [entry[:2] for entry in seen] == [(1, 3), (2, 3), (3, 3)]
    image, label, affine = phantom(7, 2, classes=2, shape=SMALL)
    stored = nib.load(folder / "imagesTs/phantom_002_0000.nii.gz")
    stored_label = nib.load(folder / "labelsTs/phantom_002.nii.gz")
    assert np.array_equal(np.asarray(stored.dataobj), image)
    assert np.array_equal(np.asarray(stored_label.dataobj), label)
    assert stored_label.get_data_dtype() == np.uint8
    for scan in (stored, stored_label):
        assert np.allclose(scan.affine, affine, atol=1e-4)
        assert np.allclose(scan.header.get_qform(), affine, atol=1e-3)


def test_same_bytes_at_another_time_and_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def content(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }

    options = {"train": 2, "test": 1, "shape": SMALL, "seed": 1}
    first = make_phantoms(tmp_path / "a", **options)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1e6)
    second = make_phantoms(tmp_path / "b", **options)
    assert content(first) == content(second)

    expected = content(first)
    kept = second / "imagesTr/phantom_000_0000.nii.gz"
    assert kept.read_bytes()[3:8] == bytes(5), "the gzip header names a file or a time"
    changed_at = kept.stat().st_mtime_ns
    (second / "labelsTr/phantom_001.nii.gz").unlink()
    (second / "imagesTs/phantom_002_0000.nii.gz").unlink()
    make_phantoms(second, **options)
    assert content(second) == expected
    assert kept.stat().st_mtime_ns == changed_at


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    make_phantoms(tmp_path, train=1, test=0, shape=SMALL)
    with pytest.raises(UserError, match="another data set"):
        make_phantoms(tmp_path, train=1, test=0, shape=SMALL, seed=1)
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(UserError, match="another data set"):
        make_phantoms(tmp_path, train=1, test=0, shape=SMALL)
