"""Two streams of training patches, labeled and unlabeled.

A patch is a pure function of (seed, stream, iteration, slot): neither worker processes, nor ranks, nor a
resumed run change it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from semivox.config import TrainConfig
from semivox.datasets.splits import Split
from semivox.patches.augment import Augmentation, lateral_classes
from semivox.patches.sampling import Patches, Sample
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.store import Store

_LABELED, _UNLABELED = 0, 1


def build_loaders(
    store: Store,
    split: Split,
    plan: Plan,
    config: TrainConfig,
    *,
    batch_labeled: int,
    batch_unlabeled: int,
    iterations: int,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    soft_labels: bool = False,
    pseudo: Store | None = None,
) -> dict[str, DataLoader[Sample]]:
    """Make the loaders "labeled" and "unlabeled", without one whose batch is 0 or that has no cases.

    A batch is {"image": (B, C, X, Y, Z) float32, "case": names}; a labeled one has the "label" beside,
    (B, X, Y, Z) int64, and where the plan has voxels to ignore, the valid mask "valid" (B, X, Y, Z) bool,
    False at them; their "label" is background. The unlabeled stream has no access to the store's labels.
    Each stream goes through its cases in an order shuffled anew every time round.

    Args:
        store, split, plan, config: of the run.
        batch_labeled, batch_unlabeled: patches a step on each rank.
        iterations, start: steps of the whole run, and the one to begin with.
        rank, world: of this process, and the number of processes.
        soft_labels: add the shares of the classes to the labeled stream, "soft" (B, K, X, Y, Z) float32 with
            sum 1.
        pseudo: shares of the classes of unlabeled cases, see `Store.write_shares`: these are "soft" then, and
            cases without them are not drawn.
    """
    flip = config.flip_left_right
    if flip is None:
        flip = config.augment != "full" and not lateral_classes(plan.class_names)
    common: dict[str, Any] = {
        "augment": Augmentation(config.augment, flip_left_right=flip, spacing_mm=plan.spacing_mm),
        "num_classes": len(plan.class_names),
    }
    labeled = Patches(
        split.labeled, store, plan.patch, batch=world * batch_labeled, key=(config.seed, _LABELED),
        truth=store, soft=soft_labels, partial=plan.ignore_value is not None,
        foreground_share=config.foreground_crops, **common,
    )  # fmt: skip
    names = [name for name in split.unlabeled if pseudo is None or pseudo.has_shares(name)]
    unlabeled = Patches(
        names, store, plan.patch, batch=world * batch_unlabeled, key=(config.seed, _UNLABELED),
        pseudo=pseudo, soft=pseudo is not None, **common,
    )  # fmt: skip
    return {
        name: DataLoader(
            patches,
            batch_sampler=_batches(patches.batch, iterations, start, rank, world),
            num_workers=config.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=config.workers > 0,
            generator=torch.Generator(),  # of its own, so that torch's global random numbers stay untouched
        )
        for name, patches in {"labeled": labeled, "unlabeled": unlabeled}.items()
        if patches.batch and patches.cases
    }


def _batches(together: int, iterations: int, start: int, rank: int, world: int) -> list[list[int]]:
    """Return the positions of one rank's patches, a list for each iteration.

    The batches of all ranks, one after the other, are the batch that a single process would have drawn.
    """
    own = together // world
    firsts = (iteration * together + rank * own for iteration in range(start, iterations))
    return [[*range(first, first + own)] for first in firsts]
