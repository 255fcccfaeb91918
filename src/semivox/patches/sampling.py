"""Patches of prepared scans: each a pure function of (seed, stream, iteration, slot)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from semivox.io.volume import IGNORE
from semivox.patches.augment import Augmentation
from semivox.patches.deformation import Array, Triple, random_center

Sample = dict[str, Any]
Drawn = tuple[Array, Array | None, Array | None, Array | None]

_SHUFFLE = 2**31  # stands where an iteration would: keeps the shuffles' randomness apart from the patches'


@dataclass(frozen=True, eq=False)
class Patches(Dataset[Sample]):
    """An endless sequence of random patches of cases, `batch` an iteration.

    Volumes smaller than the patch get a border on both sides: the image repeats its outermost voxels, as in
    prediction; the label is background there.
    """

    cases: Sequence[str]
    store: Any  # its `image(name)` is (C, X, Y, Z) and can be sliced
    patch: Triple  # voxels along each axis
    augment: Augmentation
    batch: int = 1  # patches an iteration, all ranks together
    num_classes: int = 2
    truth: Any = None  # a store whose labels are used; None: patches without labels
    pseudo: Any = None  # one whose shares of classes are used as labels; without `truth`
    soft: bool = False  # whether patches have the shares of classes, beside the label or instead
    foreground_share: float = 0.0  # share of patches centred on a foreground voxel of `truth`
    partial: bool = False  # whether `truth` has voxels to ignore, `IGNORE`; then patches have a valid mask
    key: tuple[int, ...] = (0,)  # numbers that all randomness starts from

    def case(self, position: int) -> str:
        """Return the case at a position of the endless sequence of shuffled rounds."""
        turn, place = divmod(position, len(self.cases))
        order = np.random.default_rng([*self.key, _SHUFFLE, turn]).permutation(len(self.cases))
        return self.cases[int(order[place])]

    def __getitem__(self, position: int) -> Sample:
        name = self.case(position)
        rng = np.random.default_rng([*self.key, *divmod(position, self.batch)])
        draw = self._cut if self.augment.deformation is None else self._warped
        image, label, soft, valid = draw(name, rng)
        if label is not None:
            label = (label if valid is None else label * valid).astype(np.int64)
        arrays = {"image": image, "label": label, "soft": soft if self.soft else None, "valid": valid}
        known = {key: torch.from_numpy(array) for key, array in arrays.items() if array is not None}
        return {**known, "case": name}

    def _cut(self, name: str, rng: np.random.Generator) -> Drawn:
        """Read a patch: image, class indices, shares (K, X, Y, Z) and valid mask, where there are any."""
        source = self.store.image(name)
        start = random_start(source.shape[-3:], self.patch, rng)
        if (voxel := self._foreground(name, rng)) is not None:
            start = start_around(voxel, source.shape[-3:], self.patch)
        image = cut(source, start, self.patch, repeat=True).astype(np.float32, copy=False)
        known = self._known(name, partial(cut, start=start, patch=self.patch), shares=self.soft)
        image, known = self.augment(image, known, rng)
        if known is None:
            return image, None, None, None
        label, shares = (None, known) if self.truth is None else (known[0], known[1:])
        soft = with_background(shares * np.float32(1 / 255)) if self.soft else None
        return image, label, soft, known[0] != IGNORE if self.partial else None

    def _warped(self, name: str, rng: np.random.Generator) -> Drawn:
        """Read and deform a patch; the label is the class with the largest interpolated share."""
        assert self.augment.deformation is not None
        source = self.store.image(name)
        shape = source.shape[-3:]
        center = random_center(shape, self.patch, rng, self._foreground(name, rng))
        warp = self.augment.deformation.draw(self.patch, rng).at(center, shape)
        known, maps = self._known(name, warp.read, shares=True), None
        if known is not None:
            maps = known[self.truth is not None :] * np.float32(1 / 255)
            maps = np.concatenate([maps, known[:1] == IGNORE]) if self.partial else maps
        image, maps = self.augment(*warp.sample(warp.read(source), maps), rng)
        if maps is None:
            return image, None, None, None
        soft = with_background(maps[: self.num_classes - 1])
        label = None if self.truth is None else most_probable(soft)
        return image, label, soft, maps[-1] <= 0.5 if self.partial else None

    def _known(self, name: str, read: Callable[[Any], Array], *, shares: bool) -> Array | None:
        """Read what is known, uint8: class indices if there is truth, then the shares of the classes."""
        if self.pseudo is not None:
            return read(self.pseudo.shares(name))
        if self.truth is None:
            return None
        label = read(self.truth.label(name))[None].astype(np.uint8, copy=False)
        if not shares:
            return label
        if self.truth.has_shares(name):
            return np.concatenate([label, read(self.truth.shares(name))])
        classes = np.arange(1, self.num_classes, dtype=np.uint8).reshape(-1, 1, 1, 1)
        return np.concatenate([label, np.where(label == classes, np.uint8(255), np.uint8(0))])

    def _foreground(self, name: str, rng: np.random.Generator) -> list[int] | None:
        """Draw a foreground voxel to centre the patch on, for the share of patches that has one."""
        if self.truth is None or rng.random() >= self.foreground_share:
            return None
        voxels: Array = self.truth.foreground_voxels(name)
        return voxels[int(rng.integers(len(voxels)))].tolist() if len(voxels) else None


def with_background(shares: Array) -> Array:
    """Put the background's share in front of those of the classes, (K - 1, X, Y, Z) float32: the sum is 1."""
    soft = np.empty((len(shares) + 1, *shares.shape[1:]), np.float32)
    soft[1:] = shares
    np.subtract(1, shares[0] if len(shares) == 1 else shares.sum(axis=0), out=soft[0])
    np.maximum(soft[0], 0, out=soft[0])
    return soft


def most_probable(soft: Array) -> Array:
    """Return the class of largest share (X, Y, Z) uint8 of (K, X, Y, Z); ties go to the lower one."""
    if len(soft) == 2:
        return np.asarray(soft[1] > soft[0]).view(np.uint8)
    return np.asarray(soft.argmax(axis=0).astype(np.uint8))


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


def cut(source: Any, start: Sequence[int], patch: Sequence[int], *, repeat: bool = False) -> NDArray[Any]:
    """Read the patch of (..., X, Y, Z) that begins at `start`, and only it: a copy.

    Outside the volume the border is repeated, or the values are 0.
    """
    axes = [(first, first + side, n) for first, side, n in zip(start, patch, source.shape[-3:], strict=True)]
    border = [(max(-first, 0), max(end - n, 0)) for first, end, n in axes]
    leading = len(source.shape) - 3  # an Ellipsis takes the store a fifth longer
    inside = tuple(slice(max(first, 0), min(end, n)) for first, end, n in axes)
    part: Array = source[(slice(None),) * leading + inside]
    if not part.flags.owndata:  # an array returns a view, the store a new array
        part = part.copy()
    if not any(map(any, border)):
        return part
    return np.pad(part, [(0, 0)] * leading + border, "edge" if repeat else "constant")
