"""Patches of prepared scans: each a pure function of (seed, stream, position, iteration, slot)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from semivox.io.volume import IGNORE
from semivox.patches.augment import Augment
from semivox.patches.deformation import Deformation, random_center

if TYPE_CHECKING:
    from semivox.io.geometry import Triple

Array = NDArray[Any]
Sample = dict[str, Any]
Drawn = tuple[Array, Array | None, Array | None, Array | None]

_SHUFFLE = 2**31  # stands where an iteration would: keeps the shuffles' randomness apart from the patches'


@dataclass(frozen=True, eq=False)
class Patches:
    """Random patches of cases, each decided by the numbers (position, iteration, slot).

    Volumes smaller than the patch get a border on both sides: the image repeats its outermost voxels, as in
    prediction; the label is background there.
    """

    cases: Sequence[str]
    store: Any  # its `image(name)` is (C, X, Y, Z) and can be sliced
    patch: Triple  # voxels along each axis
    augment: Augment
    num_classes: int = 2
    truth: Any = None  # a store whose labels are used; None: patches without labels
    pseudo: Any = None  # one whose shares of classes are used as labels; without `truth`
    soft: bool = False  # whether patches have the shares of classes, beside the label or instead
    foreground_share: float = 0.0  # share of patches centred on a foreground voxel of `truth`
    partial: bool = False  # whether `truth` has voxels to ignore, `IGNORE`; then patches have a valid mask
    key: tuple[int, ...] = (0,)  # numbers that all randomness starts from
    deformation: Deformation | None = None  # of image and shares, while a patch is read

    def case(self, position: int) -> str:
        """Return the case at a position of the endless sequence of shuffled rounds."""
        turn, place = divmod(position, len(self.cases))
        order = np.random.default_rng([*self.key, _SHUFFLE, turn]).permutation(len(self.cases))
        return self.cases[int(order[place])]

    def sample(self, position: int, iteration: int, slot: int) -> Sample:
        name = self.case(position)
        rng = np.random.default_rng([*self.key, iteration, slot])
        draw = self._cut if self.deformation is None else self._warped
        image, label, soft, valid = draw(name, rng)
        arrays = {"image": image, "valid": valid, "label": label, "soft": soft if self.soft else None}
        if label is not None:
            arrays["label"] = (label if valid is None else label * valid).astype(np.int64)
        known = {key: torch.from_numpy(array) for key, array in arrays.items() if array is not None}
        return {**known, "case": name}

    def _cut(self, name: str, rng: np.random.Generator) -> Drawn:
        """Read a patch: image, class indices, shares (K, X, Y, Z) and valid mask, where there are any."""
        source = self.store.image(name)
        start = random_start(source.shape[-3:], self.patch, rng)
        if (voxel := self._foreground(name, rng)) is not None:
            start = start_around(voxel, source.shape[-3:], self.patch)
        image = cut(source, start, self.patch, repeat=True).astype(np.float32, copy=False)
        label, shares = self._known(name, start, self.patch, shares=self.soft)
        stack = [part for part in (None if label is None else label[None], shares) if part is not None]
        image, known = self.augment(image, np.concatenate(stack) if stack else None, rng)
        if known is None:
            return image, None, None, None
        soft = with_background(known[label is not None :] * np.float32(1 / 255)) if self.soft else None
        label = None if label is None else known[0]
        return image, label, soft, known[0] != IGNORE if self.partial else None

    def _warped(self, name: str, rng: np.random.Generator) -> Drawn:
        """Read and deform a patch; the label is the class with the largest interpolated share."""
        assert self.deformation is not None
        source = self.store.image(name)
        shape = source.shape[-3:]
        center = random_center(shape, self.patch, rng, self._foreground(name, rng))
        warp = self.deformation.draw(self.patch, rng).at(center, shape)
        label, shares = self._known(name, warp.start, warp.size, shares=True)
        maps = np.zeros((0, *warp.size), np.float32) if shares is None else shares * np.float32(1 / 255)
        if self.partial and label is not None:
            maps = np.concatenate([maps, (label == IGNORE)[None]])
        image, found = warp.sample(cut(source, warp.start, warp.size), maps)
        image, changed = self.augment(image, found, rng)
        if shares is None or changed is None:
            return image, None, None, None
        soft = with_background(changed[: self.num_classes - 1])
        label = None if self.truth is None else most_probable(soft)
        return image, label, soft, changed[-1] <= 0.5 if self.partial else None

    def _known(
        self, name: str, start: Sequence[int], size: Sequence[int], *, shares: bool
    ) -> tuple[Array | None, Array | None]:
        """Read class indices (X, Y, Z), and the classes' shares (K - 1, X, Y, Z) uint8 if asked for."""
        if self.pseudo is not None:
            return None, cut(self.pseudo.shares(name), start, size)
        if self.truth is None:
            return None, None
        label = cut(self.truth.label(name), start, size).astype(np.uint8, copy=False)
        if not shares:
            return label, None
        if self.truth.has_shares(name):
            return label, cut(self.truth.shares(name), start, size)
        classes = np.arange(1, self.num_classes, dtype=np.uint8).reshape(-1, 1, 1, 1)
        return label, np.where(label == classes, np.uint8(255), np.uint8(0))

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
    return np.pad(part, [(0, 0)] * leading + border, "edge" if repeat else "constant")
