"""From scans to the store: contents, hidden labels, resuming, full disks, workers that fail."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scans import Raw

from semivox.config import PlanConfig
from semivox.datasets.dataset import Dataset, open_dataset
from semivox.datasets.splits import Split
from semivox.errors import UserError
from semivox.io.volume import read_image, read_label
from semivox.preprocessing import prepare as module
from semivox.preprocessing.fingerprint import fingerprint
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.planner import make_plan
from semivox.preprocessing.prepare import Preparation
from semivox.preprocessing.resample import (
    Grid,
    label_shares,
    label_to_source,
    label_to_working_grid,
    to_working_grid,
)
from semivox.preprocessing.store import Store

SPLIT = Split(labeled=("a", "b"), unlabeled=("c", "d"), val=("e",), test=("t",))
AFFINE = np.array([[0, -1.5, 0, 3], [2.0, 0, 0, 5], [0, 0, 1, -9], [0, 0, 0, 1]])
GARBAGE = b"\x1f\x8b this is no label"

# Functions for worker processes have to live in a module that these can import.
CALLBACKS = """
import os
import numpy as np

def save(folder, name, image, label):
    import torch
    label, threads = -1 if label is None else label, torch.get_num_threads()
    np.savez(os.path.join(folder, name), image=image, label=label, threads=threads)

def die(folder, name, image, label):
    if name == "b":
        os.kill(os.getpid(), 9)
"""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Six small scans; the labels of c and d (unlabeled), and everything of t (test), are garbage."""
    raw = Raw(tmp_path / "raw", {"ball": 2, "rest": 7}, affine=AFFINE)
    for seed, name in enumerate("abcde"):
        rng = np.random.default_rng(seed)
        image = rng.normal(50, 9, (14 + seed, 17, 12)).astype(np.float32)
        label = np.zeros(image.shape, np.uint8)
        label[4:9, 5:12, 3:7], label[10:, 2:4, 8:] = 2, 7
        raw.add(name, image, label=GARBAGE if name in SPLIT.unlabeled else label)
    raw.add("t", GARBAGE, label=GARBAGE, pool="Ts")
    return raw.root


def plan_for(dataset: Dataset, **changes: Any) -> Plan:
    config = {"spacing_mm": (1.0, 1.0, 1.0), "patch": (16, 16, 16), **changes}
    return make_plan(dataset, fingerprint(dataset, SPLIT), PlanConfig.model_validate(config))


def prepare(
    dataset: Dataset, split: Split, plan: Plan, folder: Path, workers: int = 0, *told: Any
) -> list[str]:
    return Preparation(dataset, split, plan, folder).run(workers, *told)


def files(store: Store) -> dict[str, tuple[int, bytes]]:
    found = store.folder.glob("*.b2nd")
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def contents(store: Store) -> dict[str, bytes]:
    return {name: content for name, (_, content) in files(store).items()}


def test_the_store_holds_what_the_grid_makes(raw: Path, tmp_path: Path) -> None:
    dataset, store = open_dataset(raw), Store(tmp_path / "store")
    plan = plan_for(dataset)
    called: list[tuple[str, np.ndarray, np.ndarray | None]] = []
    steps: list[tuple[int, int, str]] = []
    told = lambda *case: called.append(case), lambda *step: steps.append(step)
    names = prepare(dataset, SPLIT, plan, store.folder, 0, *told)
    assert names == ["a", "b", "e", "c", "d"]
    assert steps == [(index + 1, 5, name) for index, name in enumerate(names)]
    assert [case[0] for case in called] == names
    for name, shown, shown_label in called:
        case = dataset.case(name)
        image = read_image(case.images)
        array, grid = to_working_grid(image, plan)
        assert grid.shape == (26, 28 + 2 * "abcde".index(name), 12)
        assert np.allclose(store.image(name)[:], array, atol=2e-3)
        assert np.array_equal(shown, array)
        assert np.array_equal(Grid.from_dict(store.meta(name)["grid"]).affine(), grid.affine())
        if name in "abe":
            assert case.label is not None
            raw_label = read_label(case.label, (0, 2, 7)).array
            label = label_to_working_grid(raw_label, grid)
            assert np.array_equal(store.label(name)[:], label)
            assert np.unique(label).tolist() == [0, 1, 2]
            assert np.array_equal(shown_label, label)
            assert np.array_equal(store.shares(name)[:], label_shares(raw_label, grid, 3))
            assert label[tuple(store.foreground_voxels(name).T)].all()
        else:
            assert shown_label is None
            assert not store.has_label(name) and not store.has_shares(name)
    assert not store.has_image("t")


def test_labels_that_may_be_opened_are_checked(raw: Path, tmp_path: Path) -> None:
    """The garbage of the test above is found at once where a label may be opened."""
    dataset = open_dataset(raw)
    for split in (Split(labeled=("a", "c")), Split(labeled=("a",), val=("c",))):
        with pytest.raises(UserError, match=r"labelsTr/c\.nii\.gz"):
            prepare(dataset, split, plan_for(dataset), tmp_path / "store")
    plan = plan_for(dataset)
    (raw / "labelsTr" / "b.nii.gz").unlink()
    with pytest.raises(UserError, match="labeled case b has no label file"):
        prepare(open_dataset(raw), SPLIT, plan, tmp_path / "other")


def test_it_resumes_where_it_stopped(raw: Path, tmp_path: Path) -> None:
    dataset, store = open_dataset(raw), Store(tmp_path / "store")
    plan = plan_for(dataset)

    def stop(name: str, image: np.ndarray, label: np.ndarray | None) -> None:
        if name == "e":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, SPLIT, plan, store.folder, 0, stop)
    before = files(store)
    assert sorted(before) == [f"{name}.{kind}.b2nd" for name in "ab" for kind in ("image", "label", "shares")]
    steps: list[tuple[int, int, str]] = []
    again = prepare(dataset, SPLIT, plan, store.folder, 0, None, lambda *step: steps.append(step))
    assert again == ["e", "c", "d"]
    assert steps == [(3, 5, "e"), (4, 5, "c"), (5, 5, "d")]
    after = files(store)
    assert {name: after[name] for name in before} == before
    assert prepare(dataset, SPLIT, plan, store.folder) == []
    assert files(store) == after


def test_a_full_disk_damages_nothing(raw: Path, tmp_path: Path) -> None:
    """Writing the third case fails as on a full disk; afterwards the same call completes the store."""
    dataset, store, whole = open_dataset(raw), Store(tmp_path / "store"), Store(tmp_path / "whole")
    plan = plan_for(dataset)
    prepare(dataset, SPLIT, plan, whole.folder)
    store.folder.mkdir()
    (store.folder / f".partial-{os.getpid()}-e.label.b2nd").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"(?s)disk is full.*run the same command again") as error:
        prepare(dataset, SPLIT, plan, store.folder)
    assert error.value.path == store.folder / "e.label.b2nd"
    assert set(contents(store)) == {
        f"{name}.{kind}.b2nd" for name in "ab" for kind in ("image", "label", "shares")
    }
    assert prepare(dataset, SPLIT, plan, store.folder) == ["e", "c", "d"]
    assert contents(store) == contents(whole)


def test_a_store_of_another_plan_is_made_anew(
    raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset, store, whole = open_dataset(raw), Store(tmp_path / "store"), Store(tmp_path / "whole")
    plan = plan_for(dataset)
    prepare(dataset, SPLIT, plan, store.folder)
    figures = ({"mean": 1.0, "std": 2.0, "p005": 3.0, "p995": 4.0},)
    same = plan.model_copy(update={"patch": (32, 16, 16), "reasons": {}, "intensity": figures})
    assert prepare(dataset, SPLIT, same, store.folder) == []
    ct = plan_for(dataset, normalisation="ct")
    plans = [plan_for(dataset, spacing_mm=(1.0, 1.0, 2.0)), ct, ct.model_copy(update={"intensity": figures})]
    for other, name in zip(plans, ("spacing_mm", "normalisation", "intensity"), strict=True):
        assert len(prepare(dataset, SPLIT, other, store.folder)) == 5
        assert name in caplog.text
    assert store.has_shares("a")
    prepare(dataset, SPLIT, plan_for(dataset, spacing_mm=None, grid="source"), store.folder)
    assert not store.has_shares("a"), "those of another plan"
    fewer = Split(labeled=("a",))
    prepare(dataset, fewer, plan, store.folder)
    prepare(dataset, fewer, plan, whole.folder)
    assert contents(store) == contents(whole)


def callback(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    (folder / "worker_callbacks.py").write_text(CALLBACKS)
    monkeypatch.syspath_prepend(folder)
    return partial(getattr(import_module("worker_callbacks"), name), folder)


def test_workers_make_the_same_store(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, alone, shared = open_dataset(raw), Store(tmp_path / "alone"), Store(tmp_path / "shared")
    plan = plan_for(dataset)
    prepare(dataset, SPLIT, plan, alone.folder)
    seen: list[int] = []
    save = callback("save", tmp_path, monkeypatch)
    names = prepare(dataset, SPLIT, plan, shared.folder, 2, save, lambda done, *_: seen.append(done))
    assert names == ["a", "b", "e", "c", "d"]
    assert seen == [1, 2, 3, 4, 5]
    assert contents(shared) == contents(alone)
    for name in names:
        with np.load(tmp_path / f"{name}.npz") as picture:
            assert np.allclose(picture["image"], shared.image(name)[:], atol=2e-3)
            assert (picture["label"].ndim == 3) == (name in "abe")
            assert picture["threads"] == 1


def test_a_worker_that_dies_and_a_bad_file_are_explained(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, store = open_dataset(raw), Store(tmp_path / "store")
    plan = plan_for(dataset, spacing_mm=None, grid="source")  # nothing is resampled: workers start quickly
    broken = raw / "imagesTr" / "e_0000.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:900])
    with pytest.raises(UserError, match=r"2 of 5 cases failed \(preparing\)") as error:
        prepare(dataset, SPLIT, plan, store.folder, 1, callback("die", tmp_path, monkeypatch))
    for text in (
        "b: A worker process died while preparing b",
        "e: The file cannot be read as NIfTI: ",
        f"({broken})",
    ):
        assert text in str(error.value.found)
    assert store.has_label("a") and all(store.has_image(name) for name in "acd")
    broken.write_bytes(whole)
    assert prepare(dataset, SPLIT, plan, store.folder) == ["b", "e"]


def test_workers_are_as_many_as_memory_allows(
    raw: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_for(open_dataset(raw))
    ranges = {"voxels": {"max": 512 * 512 * 400}, "spacing_mm": {"median": [0.8, 0.8, 1.5]}}
    large = plan.model_copy(update={"fingerprint": ranges})
    memory = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 16 * 2**30 // 4096}
    monkeypatch.setattr(os, "sysconf", memory.__getitem__)
    assert module._affordable(8, plan) == 8
    assert module._affordable(8, large) == 2
    assert "2 workers instead of 8" in caplog.text
    assert (module._affordable(0, large), module._affordable(1, large)) == (0, 1)
    assert module._affordable(8, plan.model_copy(update={"fingerprint": {}})) == 8


@pytest.mark.real
def test_left_atria_with_an_uneven_crop(real_data: Path, tmp_path: Path) -> None:
    """Three scans with constant borders of different widths, brought to twice the voxel size and back."""
    source, raw = real_data / "la2018", tmp_path / "raw"
    names = [case.name for case in open_dataset(source).pool("train")][:3]
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    (raw / "dataset.json").write_text((source / "dataset.json").read_text())
    for width, name in enumerate(names, start=1):
        (raw / "labelsTr" / f"{name}.nii.gz").symlink_to(source / "labelsTr" / f"{name}.nii.gz")
        image = read_image([source / "imagesTr" / f"{name}_0000.nii.gz"])
        framed = np.full_like(image.array[0], image.array.min() - 1)
        inner = (slice(width, -3 * width), slice(2, -5), slice(0, -width))
        framed[inner] = image.array[0][inner]
        nib.save(nib.Nifti1Image(framed, image.affine), raw / "imagesTr" / f"{name}_0000.nii.gz")
    dataset, store = open_dataset(raw), Store(tmp_path / "store")
    split = Split(labeled=tuple(names[:2]), val=(names[2],))
    config = {"spacing_mm": (1.25, 1.25, 1.25), "crop": "foreground"}
    plan = make_plan(dataset, fingerprint(dataset, split), PlanConfig.model_validate(config))
    prepare(dataset, split, plan, store.folder)
    for width, name in enumerate(names, start=1):
        case = dataset.case(name)
        assert case.label is not None
        label = read_label(case.label, dataset.class_values)
        x, y, z = label.array.shape
        image = store.image(name)[:]
        assert image.shape[1:] == (round((x - 4 * width) / 2), round((y - 7) / 2), round((z - width) / 2))
        assert abs(float(image.mean())) < 0.1
        assert 0.8 < float(image.std()) < 1.1
        grid = Grid.from_dict(store.meta(name)["grid"])
        stored = store.label(name)[:]
        there = nib.affines.apply_affine(grid.affine(), np.argwhere(stored))
        before = nib.affines.apply_affine(label.affine, np.argwhere(label.array))
        assert np.abs(there.mean(0) - before.mean(0)).max() < 0.2
        volume = np.count_nonzero(stored) * abs(np.linalg.det(grid.affine()))
        assert volume == pytest.approx(np.count_nonzero(label.array) * 0.625**3, rel=0.03)
        back = label_to_source(np.stack([stored == 0, stored == 1]).astype(np.float32), grid)
        assert 2 * np.sum(back & label.array) / (np.sum(back) + np.sum(label.array)) > 0.96


@pytest.mark.real
def test_hippocampus_labels_come_back_unchanged(real_data: Path, tmp_path: Path) -> None:
    dataset, store = open_dataset(real_data / "hippocampus"), Store(tmp_path / "store")
    names = tuple(case.name for case in dataset.pool("train")[:5])
    split = Split(labeled=names[:2], unlabeled=names[2:4], val=names[4:])
    plan = make_plan(dataset, fingerprint(dataset, split), PlanConfig.model_validate({}))
    assert set(prepare(dataset, split, plan, store.folder)) == set(names)
    for name in (*split.labeled, *split.val):
        case = dataset.case(name)
        assert case.label is not None
        label = read_label(case.label, dataset.class_values).array
        classes = np.arange(3).reshape(3, 1, 1, 1)
        grid = Grid.from_dict(store.meta(name)["grid"])
        back = label_to_source((store.label(name)[:] == classes).astype(np.float32), grid)
        assert np.array_equal(back, label)
        assert abs(float(store.image(name)[:].mean())) < 1e-3
    assert not store.has_label(names[2])
