"""Two streams of training patches, labeled and unlabeled.

A patch is a pure function of (seed, stream, iteration, slot): neither worker processes, nor ranks, nor a
resumed run change it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset

from semivox.config import TrainConfig
from semivox.patches.augment import full_deformation, lateral_classes, make_augment
from semivox.patches.sampling import Patches, Sample

if TYPE_CHECKING:
    from semivox.datasets.splits import Split
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
        "augment": make_augment(config.augment, flip_left_right=flip, spacing_mm=plan.spacing_mm),
        "deformation": full_deformation(config.augment, plan.spacing_mm),
        "num_classes": len(plan.class_names),
    }
    unlabeled = [name for name in split.unlabeled if pseudo is None or pseudo.has_shares(name)]
    streams: dict[str, tuple[int, Patches]] = {}
    if batch_labeled and split.labeled:
        streams["labeled"] = batch_labeled, Patches(
            split.labeled, store, plan.patch, truth=store, key=(config.seed, _LABELED), soft=soft_labels,
            partial=plan.ignore_value is not None, foreground_share=config.foreground_crops, **common,
        )  # fmt: skip
    if batch_unlabeled and unlabeled:
        key = (config.seed, _UNLABELED)
        streams["unlabeled"] = (
            batch_unlabeled,
            Patches(unlabeled, store, plan.patch, pseudo=pseudo, soft=pseudo is not None, key=key, **common),
        )
    return {
        name: DataLoader(
            Schedule(patches, batch, iterations, start, rank, world),
            batch_size=batch,
            num_workers=config.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=config.workers > 0,
            generator=torch.Generator(),  # of its own, so that torch's global random numbers stay untouched
        )
        for name, (batch, patches) in streams.items()
    }


@dataclass(eq=False)
class Schedule(Dataset[Sample]):
    """One rank's patches from `start` on: item i is patch i % batch of iteration start + i // batch.

    The batches of all ranks, one after the other, are the batch that a single process would have drawn.
    """

    patches: Patches
    batch: int
    iterations: int
    start: int
    rank: int
    world: int

    def __len__(self) -> int:
        return max(0, self.iterations - self.start) * self.batch

    def __getitem__(self, index: int) -> Sample:
        iteration = self.start + index // self.batch
        slot = self.rank * self.batch + index % self.batch
        return self.patches.sample(iteration * self.batch * self.world + slot, iteration, slot)
