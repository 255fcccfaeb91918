"""Two streams of training patches, labeled and unlabeled.

A patch is a pure function of (seed, stream, iteration, slot): neither worker processes, nor ranks, nor a
resumed run change it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from semivox.config import TrainConfig
from semivox.errors import UserError
from semivox.io.volume import IGNORE
from semivox.patches.augment import Augment, StrongView, lateral_classes, make_augment, make_strong_view

if TYPE_CHECKING:
    from semivox.datasets.splits import Split
    from semivox.io.geometry import Triple
    from semivox.preprocessing.plan import Plan
    from semivox.preprocessing.store import Store

_LABELED, _UNLABELED = 0, 1
_SHUFFLE = 2**31  # stands where an iteration would: keeps the shuffles' randomness apart from the patches'
_VIEW = 1  # sets the second view's random numbers apart from the first one's

Read = Callable[[str], Any]
Sample = dict[str, Any]


class PatchSizes(NamedTuple):
    """`first` before iteration `change`, `final` from there on; without a change always `first`."""

    first: Triple
    final: Triple | None = None
    change: int = 0

    def at(self, iteration: int) -> Triple:
        """Return the voxels along each axis of the patches that this iteration trains on."""
        return self.first if self.final is None or iteration < self.change else self.final


def patch_sizes(plan: Plan, config: TrainConfig, iterations: int) -> PatchSizes:
    """Return the sizes of a run of so many iterations, as `train.final_share` divides it.

    Raises:
        UserError: the plan has no final patch, because an earlier version made it.
    """
    if not config.final_share:
        return PatchSizes(plan.patch)
    if plan.final_patch is None:
        what = "The plan has no patch for the last part of the run"
        found = f"train.final_share {config.final_share:g}, but no final_patch in plans.json"
        do = (
            "write one into plans.json, e.g. the size of a large scan, its sides multiples of 16;"
            " or delete the file and run semivox prepare again"
        )
        raise UserError(what, found, "a plan with final_patch", do)
    return PatchSizes(plan.patch, plan.final_patch, iterations - round(config.final_share * iterations))


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
) -> dict[str, DataLoader[Sample]]:
    """Make the loaders "labeled" and "unlabeled", without one whose batch is 0 or that has no cases.

    A batch is {"image": (B, C, X, Y, Z) float32, "label": (B, X, Y, Z) int64, "case": names}; the unlabeled
    stream has no "label" and no access to the store's labels, but with `strong_view` an "image_strong": the
    same patches in the same position, with the intensities of the preset "strong" on top. With a plan that
    has voxels to ignore the labeled stream has the valid mask "valid" (B, X, Y, Z) bool, False at them; their
    "label" is background. Each stream goes through its cases in an order shuffled anew every time round.

    The loaders already divide the work between ranks: a trainer must not replace their samplers.

    Args:
        store: of the prepared cases.
        split: whose labeled and unlabeled cases to use.
        plan: for the sizes of patches.
        config: for seed, augmentation, workers, the share of crops centred on the foreground and that of
            final patches.
        batch_labeled: patches a step on each rank.
        batch_unlabeled: patches a step on each rank.
        iterations: steps of the whole run.
        start: step to begin with; a loader has `iterations - start` batches.
        rank: of this process.
        world: number of processes.
        strong_view: add the second view to the unlabeled stream; the first one does not change by that.

    Raises:
        UserError: cases of the split are not in the store.
    """
    sizes, seed = patch_sizes(plan, config, iterations), config.seed
    flip = not lateral_classes(plan.class_names) if config.flip_left_right is None else config.flip_left_right
    augment = make_augment(config.augment, flip_left_right=flip, spacing_mm=plan.spacing_mm)
    streams: dict[str, tuple[int, Patches]] = {}
    if batch_labeled and split.labeled:
        _check_prepared(store, split.labeled, labeled=True)
        streams["labeled"] = (
            batch_labeled,
            Patches(
                split.labeled,
                store.image,
                sizes,
                augment,
                read_label=store.label,
                read_foreground=store.foreground_voxels,
                foreground_share=config.foreground_crops,
                partial=plan.ignore_value is not None,
                key=(seed, _LABELED),
            ),
        )
    if batch_unlabeled and split.unlabeled:
        _check_prepared(store, split.unlabeled, labeled=False)
        view = make_strong_view() if strong_view else None
        key = (seed, _UNLABELED)
        patches = Patches(split.unlabeled, store.image, sizes, augment, key=key, strong_view=view)
        streams["unlabeled"] = batch_unlabeled, patches
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


class Patches:
    """Random patches of cases, each decided by the numbers (position, iteration, slot).

    Volumes smaller than the patch get a border on both sides, with value 0 in the image, whatever the
    normalisation (the mean after "zscore", air or water after "none"), and background in the label.

    Args:
        cases: names.
        read_image: returns something of shape (C, X, Y, Z) that can be sliced.
        sizes: (X, Y, Z) voxels of a patch, by iteration.
        augment: see `make_augment`.
        read_label: likewise, (X, Y, Z) class indices; None: patches without labels.
        read_foreground: returns foreground voxels (N, 3).
        foreground_share: share of patches centred on one of them.
        partial: whether labels have voxels to ignore, `IGNORE`; then a labeled patch has a valid mask.
        key: numbers that all randomness starts from.
        strong_view: makes a second view of each patch, from random numbers of its own.
    """

    def __init__(
        self,
        cases: Sequence[str],
        read_image: Read,
        sizes: PatchSizes,
        augment: Augment,
        *,
        read_label: Read | None = None,
        read_foreground: Read | None = None,
        foreground_share: float = 0.0,
        partial: bool = False,
        key: tuple[int, ...] = (0,),
        strong_view: StrongView | None = None,
    ) -> None:
        self.cases, self.sizes, self.augment, self.key = tuple(cases), sizes, augment, key
        self.read_image, self.read_label, self.read_foreground = read_image, read_label, read_foreground
        self.foreground_share, self.partial, self.strong_view = foreground_share, partial, strong_view

    def case(self, position: int) -> str:
        """Return the case at a position of the endless sequence of shuffled rounds."""
        turn, place = divmod(position, len(self.cases))
        order = np.random.default_rng([*self.key, _SHUFFLE, turn]).permutation(len(self.cases))
        return self.cases[int(order[place])]

    def sample(self, position: int, iteration: int, slot: int) -> Sample:
        name = self.case(position)
        rng = np.random.default_rng([*self.key, iteration, slot])
        source, patch = self.read_image(name), self.sizes.at(iteration)
        start = self._start(name, source.shape[-3:], patch, rng)
        image = cut(source, start, patch).astype(np.float32, copy=False)
        label = None
        if self.read_label is not None:
            label = cut(self.read_label(name), start, patch).astype(np.uint8, copy=False)
        image, label = self.augment(image, label, rng)
        sample: Sample = {"image": torch.from_numpy(image), "case": name}
        if label is not None and self.partial:
            valid = label != IGNORE
            sample["valid"], label = torch.from_numpy(valid), label * valid
        if label is not None:
            sample["label"] = torch.from_numpy(label).long()
        if self.strong_view is not None:
            own = np.random.default_rng([*self.key, iteration, slot, _VIEW])
            sample["image_strong"] = torch.from_numpy(self.strong_view(image, own))
        return sample

    def _start(
        self, name: str, shape: Sequence[int], patch: Triple, rng: np.random.Generator
    ) -> tuple[int, ...]:
        start = random_start(shape, patch, rng)
        if self.read_foreground is None or rng.random() >= self.foreground_share:
            return start
        voxels = self.read_foreground(name)
        if len(voxels) == 0:
            return start
        return start_around(voxels[int(rng.integers(len(voxels)))], shape, patch)


class Schedule(Dataset[Sample]):
    """One rank's patches from `start` on: item i is patch i % batch of iteration start + i // batch.

    The batches of all ranks, one after the other, are the batch that a single process would have drawn.
    """

    def __init__(
        self, patches: Patches, *, batch: int, iterations: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.patches, self.batch, self.iterations = patches, batch, iterations
        self.start, self.rank, self.world = start, rank, world

    def __len__(self) -> int:
        return max(0, self.iterations - self.start) * self.batch

    def __getitem__(self, index: int) -> Sample:
        iteration = self.start + index // self.batch
        slot = self.rank * self.batch + index % self.batch
        return self.patches.sample(iteration * self.batch * self.world + slot, iteration, slot)


def random_start(shape: Sequence[int], patch: Sequence[int], rng: np.random.Generator) -> tuple[int, ...]:
    """Draw the first voxel of a patch, uniform over all that fit; negative (centred) along short axes."""
    return tuple(
        int(rng.integers(n - p + 1)) if n >= p else -((p - n) // 2) for n, p in zip(shape, patch, strict=True)
    )


def start_around(centre: Sequence[int], shape: Sequence[int], patch: Sequence[int]) -> tuple[int, ...]:
    """Return the first voxel of the patch around `centre`, moved into the volume; see `random_start`."""
    return tuple(
        min(max(int(c) - p // 2, 0), n - p) if n >= p else -((p - n) // 2)
        for c, n, p in zip(centre, shape, patch, strict=True)
    )


def cut(source: Any, start: Sequence[int], patch: Sequence[int]) -> NDArray[Any]:
    """Read the patch of (..., X, Y, Z) that begins at `start`, and only it; 0 outside the volume; a copy."""
    inside, border = [], []
    for first, size, n in zip(start, patch, source.shape[-3:], strict=True):
        low, high = max(first, 0), min(first + size, n)
        inside.append(slice(low, high))
        border.append((low - first, first + size - high))
    leading = len(source.shape) - 3
    part: NDArray[Any] = source[(slice(None),) * leading + tuple(inside)]
    if not part.flags.owndata:  # an array returns a view, the store a new array
        part = part.copy()
    if not any(before or after for before, after in border):
        return part
    return np.pad(part, [(0, 0)] * leading + border)


def _check_prepared(store: Store, cases: Sequence[str], *, labeled: bool) -> None:
    kind, missing = "image", [name for name in cases if not store.has_image(name)]
    if labeled and not missing:
        kind, missing = "label", [name for name in cases if not store.has_label(name)]
    if missing:
        found = f"no {kind} of {', '.join(missing[:5])} ({len(missing)} of {len(cases)} cases)"
        do = "run semivox prepare again; it adds what is missing"
        what, expected = "The data are not prepared for this split", "every case of the split in the store"
        raise UserError(what, found, expected, do)
