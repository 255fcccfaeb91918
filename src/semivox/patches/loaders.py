"""Two streams of training patches, labeled and unlabeled.

A patch is a pure function of (seed, stream, iteration, slot): neither worker processes, nor ranks, nor a
resumed run change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset

from semivox.config import TrainConfig
from semivox.errors import UserError
from semivox.patches.augment import full_deformation, lateral_classes, make_augment, make_strong_view
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
    strong_view: bool = False,
    soft_labels: bool = False,
    pseudo: Store | None = None,
) -> dict[str, DataLoader[Sample]]:
    """Make the loaders "labeled" and "unlabeled", without one whose batch is 0 or that has no cases.

    A batch is {"image": (B, C, X, Y, Z) float32, "label": (B, X, Y, Z) int64, "case": names}; the unlabeled
    stream has no "label" and no access to the store's labels, but with `strong_view` an "image_strong": the
    same patches in the same position, with the intensities of the preset "strong" on top. With a plan that
    has voxels to ignore the labeled stream has the valid mask "valid" (B, X, Y, Z) bool, False at them; their
    "label" is background. With `soft_labels` a labeled patch has the shares of its classes beside, "soft"
    (B, K, X, Y, Z) float32 with sum 1; with `pseudo` an unlabeled one has those of its pseudo-label, and only
    cases with one are drawn. Each stream goes through its cases in an order shuffled anew every time round.

    Args:
        store, split, plan, config: of the run.
        batch_labeled, batch_unlabeled: patches a step on each rank.
        iterations: steps of the whole run.
        start: step to begin with; a loader has `iterations - start` batches.
        rank, world: of this process, and the number of processes.
        strong_view: add the second view to the unlabeled stream; the first one does not change by that.
        soft_labels: add the shares of the classes to the labeled stream.
        pseudo: shares of the classes of unlabeled cases, see `Store.write_shares`.

    Raises:
        UserError: cases of the split are not in the store.
    """
    flip = config.flip_left_right
    if flip is None:
        flip = config.augment != "full" and not lateral_classes(plan.class_names)
    common: dict[str, Any] = {
        "augment": make_augment(config.augment, flip_left_right=flip, spacing_mm=plan.spacing_mm),
        "deformation": full_deformation(config.augment, plan.spacing_mm),
        "num_classes": len(plan.class_names),
    }
    streams: dict[str, tuple[int, Patches]] = {}
    if batch_labeled and split.labeled:
        _check_prepared(store, split.labeled, labeled=True)
        labeled = Patches(
            split.labeled, store, plan.patch, truth=store, key=(config.seed, _LABELED), soft=soft_labels,
            partial=plan.ignore_value is not None, foreground_share=config.foreground_crops, **common,
        )  # fmt: skip
        streams["labeled"] = batch_labeled, labeled
    unlabeled = [name for name in split.unlabeled if pseudo is None or pseudo.has_shares(name)]
    if batch_unlabeled and unlabeled:
        _check_prepared(store, unlabeled, labeled=False)
        view = make_strong_view() if strong_view else None
        taken = Patches(
            unlabeled, store, plan.patch, pseudo=pseudo, key=(config.seed, _UNLABELED), strong_view=view,
            **common,
        )  # fmt: skip
        streams["unlabeled"] = batch_unlabeled, taken
    return {
        name: DataLoader(
            Schedule(patches, batch=batch, iterations=iterations, start=start, rank=rank, world=world),
            batch_size=batch,
            num_workers=config.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=config.workers > 0,
            generator=torch.Generator(),  # of its own, so that torch's global random numbers stay untouched
        )
        for name, (batch, patches) in streams.items()
    }


class Schedule(Dataset[Sample]):
    """One rank's patches from `start` on: item i is patch i % batch of iteration start + i // batch.

    The batches of all ranks, one after the other, are the batch that a single process would have drawn.
    """

    def __init__(
        self, patches: Patches, *, batch: int, iterations: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.patches, self.batch, self.iterations, self.start = patches, batch, iterations, start
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return max(0, self.iterations - self.start) * self.batch

    def __getitem__(self, index: int) -> Sample:
        iteration = self.start + index // self.batch
        slot = self.rank * self.batch + index % self.batch
        return self.patches.sample(iteration * self.batch * self.world + slot, iteration, slot)


def _check_prepared(store: Store, cases: Sequence[str], *, labeled: bool) -> None:
    kind, missing = "image", [name for name in cases if not store.has_image(name)]
    if labeled and not missing:
        kind, missing = "label", [name for name in cases if not store.has_label(name)]
    if missing:
        found = f"no {kind} of {', '.join(missing[:5])} ({len(missing)} of {len(cases)} cases)"
        do = "run semivox prepare again; it adds what is missing"
        what, expected = "The data are not prepared for this split", "every case of the split in the store"
        raise UserError(what, found, expected, do)
