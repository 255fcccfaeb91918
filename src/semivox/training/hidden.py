"""Labels of unlabeled cases, for a diagnosis only; they never reach a store or a loader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semivox.errors import UserError
from semivox.io.volume import Volume, read_label
from semivox.patches.loaders import cut, random_start, start_around
from semivox.preprocessing.resample import Grid, label_to_plan_grid
from semivox.preprocessing.store import sample_foreground

if TYPE_CHECKING:
    from semivox.datasets.dataset import Dataset
    from semivox.datasets.splits import Split
    from semivox.preprocessing.plan import Plan
    from semivox.preprocessing.store import Store

_CANDIDATES = 10_000  # foreground voxels that a patch may be centred on


@dataclass(frozen=True)
class HiddenPatches:
    """Fixed patches of unlabeled cases with the labels that training does not see.

    Attributes:
        cases: the case of each patch.
        image: (N, C, X, Y, Z) float32.
        label: (N, X, Y, Z) int64 class indices, `IGNORE` where there is none.
    """

    cases: tuple[str, ...]
    image: Tensor
    label: Tensor


def require_hidden_labels(dataset: Dataset, split: Split) -> tuple[str, ...]:
    """Names of the unlabeled cases that have a label file, in the order of the split; none is opened.

    Raises:
        UserError: no unlabeled case has one.
    """
    names = tuple(name for name in split.unlabeled if dataset.case(name).label is not None)
    if not names:
        raise UserError(
            "There is nothing to diagnose with: no unlabeled case has a label file",
            found=f"{len(split.unlabeled)} unlabeled cases, none with a label file",
            expected="label files of some cases that training takes as unlabeled, to compare with",
            do="train without --diagnose, or hide some labels from training with --labeled N",
        )
    return names


def read_hidden_patches(
    dataset: Dataset, split: Split, plan: Plan, store: Store, count: int
) -> HiddenPatches:
    """Cut `count` patches from unlabeled cases that have a label file, always the same ones.

    The cases are spread evenly over the list, each gives as many patches as the others (or one more). Half
    of the patches lie anywhere, as in training, half are centred on a foreground voxel, all classes alike.

    Args:
        dataset: the cases.
        split: the one that hides the labels.
        plan: patch size and grid.
        store: holds the images; nothing is written to it.
        count: patches.

    Raises:
        UserError: no unlabeled case has a label file, or one of them cannot be used.
    """
    names = require_hidden_labels(dataset, split)
    cases = min(count, len(names))
    chosen = [names[index * len(names) // cases] for index in range(cases)]
    labels = {name: _label_on_grid(dataset, plan, store, name) for name in chosen}
    order = [chosen[index % cases] for index in range(count)]
    rng = np.random.default_rng(0)
    images, truths = [], []
    for index, name in enumerate(order):
        label = labels[name]
        start = random_start(label.shape, plan.patch, rng)
        foreground = sample_foreground(label, _CANDIDATES)
        if index % 2 and len(foreground):
            start = start_around(foreground[int(rng.integers(len(foreground)))], label.shape, plan.patch)
        images.append(cut(store.image(name), start, plan.patch).astype(np.float32, copy=False))
        truths.append(cut(label, start, plan.patch))
    image, truth = torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(truths)).long()
    return HiddenPatches(tuple(order), image, truth)


def _label_on_grid(dataset: Dataset, plan: Plan, store: Store, name: str) -> NDArray[np.uint8]:
    path = dataset.case(name).label
    assert path is not None
    grid = Grid.from_dict(store.meta(name)["grid"])
    scan = Volume(np.broadcast_to(np.float32(0), grid.source_shape), grid.source_affine)  # only its geometry
    label = read_label(
        path, plan.class_values, scan, plan.ignore_value, trust_image_geometry=plan.trust_image_geometry
    )
    return label_to_plan_grid(label.array, grid)
