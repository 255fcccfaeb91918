"""Hidden labels: on the right voxels, from unlabeled cases only, and nowhere on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semivox.config import PlanConfig
from semivox.datasets.dataset import Dataset, open_dataset
from semivox.datasets.splits import Split
from semivox.preprocessing.fingerprint import fingerprint
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.planner import make_plan
from semivox.preprocessing.prepare import Preparation
from semivox.preprocessing.store import Store
from semivox.training.diagnosis import HiddenPatches, read_hidden_patches

Prepared = tuple[Dataset, Split, Plan, Store]


@pytest.fixture
def prepared(phantoms: Path, tmp_path: Path) -> Prepared:
    dataset = open_dataset(phantoms)
    names = tuple(case.name for case in dataset.pool("train"))
    split = Split(labeled=names[:1], unlabeled=names[1:5], val=names[5:])
    config = PlanConfig(spacing_mm=(2.5, 2.5, 2.5), patch=(16, 16, 16))
    plan = make_plan(dataset, fingerprint(dataset, split), config)
    Preparation(dataset, split, plan, tmp_path / "store").run(0)
    return dataset, split, plan, Store(tmp_path / "store")


def read(prepared: Prepared, count: int) -> HiddenPatches:
    dataset, split, plan, store = prepared
    return read_hidden_patches(dataset, split, plan, store, count)


def test_patches_are_those_of_a_store_that_knows_the_labels(prepared: Prepared, tmp_path: Path) -> None:
    """Every patch is found in the volume of its case, image and label at the same place."""
    dataset, split, plan, store = prepared
    before = sorted(store.folder.iterdir())
    found = read(prepared, 6)
    assert sorted(store.folder.iterdir()) == before
    assert not any(store.has_label(name) for name in split.unlabeled)
    assert found.cases == (*split.unlabeled, *split.unlabeled[:2])
    assert found.image.shape == (6, 1, 16, 16, 16) and found.label.shape == (6, 16, 16, 16)
    assert found.label.amax() == 2

    open_split = split.model_copy(update={"labeled": split.labeled + split.unlabeled, "unlabeled": ()})
    Preparation(dataset, open_split, plan, tmp_path / "open").run(0)
    known = Store(tmp_path / "open")
    for name, image, label in zip(found.cases, found.image.numpy(), found.label.numpy(), strict=True):
        volume, truth = known.image(name)[:], known.label(name)[:]
        windows = np.lib.stride_tricks.sliding_window_view(volume[0], (16, 16, 16))
        places = np.argwhere((windows == image[0]).all(axis=(3, 4, 5)))
        assert len(places) == 1
        part = tuple(slice(start, start + 16) for start in places[0])
        np.testing.assert_array_equal(label, truth[part])


def test_patches_are_always_the_same_and_every_other_shows_foreground(prepared: Prepared) -> None:
    found, again = read(prepared, 8), read(prepared, 8)
    assert found.image.equal(again.image) and found.label.equal(again.label)
    assert bool((found.label[1::2] > 0).flatten(1).any(dim=1).all())


def test_fewer_patches_than_cases_are_spread_over_the_list(prepared: Prepared) -> None:
    assert read(prepared, 2).cases == (prepared[1].unlabeled[0], prepared[1].unlabeled[2])
