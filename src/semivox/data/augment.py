"""Random changes of training patches; nothing here interpolates a label."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

Image = NDArray[np.float32]
Label = NDArray[np.uint8]
Augment = Callable[[Image, Label | None, np.random.Generator], tuple[Image, Label | None]]
Preset = Literal["crop", "rotflip", "intensity"]


def make_augment(preset: Preset) -> Augment:
    """Build the augmentation of a preset of `TrainConfig.augment`.

    The result takes an image (C, X, Y, Z), its label (X, Y, Z) or None, and the source of all its randomness;
    it returns them changed, in the same shapes. It can be pickled.

    * crop: no change.
    * rotflip: one of the 8 quarter turns and mirrorings of the x-y plane, each as likely as the others; where
      the patch is not square there, one of the 4 that keep its shape.
    * intensity: rotflip, then mild changes of the image alone, each with its own probability: contrast
      (gamma 0.7 to 1.5), scale (0.85 to 1.15 around the mean), shift (0.15 standard deviations), Gaussian
      blur (sigma 0.3 to 1 voxel an axis), Gaussian noise (up to 0.15 standard deviations). Mean and standard
      deviation are the patch's own, channel by channel: the strength does not depend on the normalisation.
    """
    if preset == "intensity":
        return _RotateFlipIntensity()
    return {"crop": _unchanged, "rotflip": rotate_flip}[preset]


def _unchanged(image: Image, label: Label | None, rng: np.random.Generator) -> tuple[Image, Label | None]:
    return image, label


def rotate_flip(image: Image, label: Label | None, rng: np.random.Generator) -> tuple[Image, Label | None]:
    """Turn and mirror both in the x-y plane by an element of the dihedral group, drawn uniformly."""
    quarters, mirror = int(rng.integers(4)), bool(rng.integers(2))
    if image.shape[-3] != image.shape[-2]:
        quarters = 2 * (quarters // 2)
    return _dihedral(image, quarters, mirror), None if label is None else _dihedral(label, quarters, mirror)


def _dihedral(array: NDArray[Any], quarters: int, mirror: bool) -> NDArray[Any]:
    """Turn the x-y plane of an array (..., X, Y, Z) by quarters, after mirroring x; a copy."""
    if mirror:
        array = np.flip(array, -3)
    return np.ascontiguousarray(np.rot90(array, quarters, axes=(-3, -2)))


class _RotateFlipIntensity:
    """`rotate_flip`, then MONAI's random intensity transforms on the standardised image."""

    def __init__(self) -> None:
        from monai.transforms import (  # noqa: PLC0415  (seconds to import; only this preset needs it)
            Compose,
            RandAdjustContrast,
            RandGaussianNoise,
            RandGaussianSmooth,
            RandScaleIntensity,
            RandShiftIntensity,
        )

        sigma = (0.3, 1.0)
        self.contrast = RandAdjustContrast(prob=0.3, gamma=(0.7, 1.5))
        self.others = Compose(
            [
                RandScaleIntensity(prob=0.3, factors=0.15),
                RandShiftIntensity(prob=0.3, offsets=0.15),
                RandGaussianSmooth(prob=0.2, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma),
                RandGaussianNoise(prob=0.3, std=0.15),
            ]
        )

    def __call__(
        self, image: Image, label: Label | None, rng: np.random.Generator
    ) -> tuple[Image, Label | None]:
        image, label = rotate_flip(image, label, rng)
        self.contrast.set_random_state(seed=int(rng.integers(2**31)))
        self.others.set_random_state(seed=int(rng.integers(2**31)))
        standard, mean, std = _standardised(image)
        with _plain_tensors():
            # Statistics by NumPy, not by MONAI: torch's sums depend on the number of threads.
            standard, _, _ = _standardised(self.contrast(torch.from_numpy(standard)).numpy())
            changed = self.others(torch.from_numpy(standard)).numpy()
        return np.ascontiguousarray(changed * std + mean, dtype=np.float32), label


def _standardised(image: Image) -> tuple[Image, Image, Image]:
    """Bring each channel to mean 0 and deviation 1; returns also the old mean and deviation (C, 1, 1, 1)."""
    mean = image.mean(axis=(1, 2, 3), keepdims=True)
    std = image.std(axis=(1, 2, 3), keepdims=True)
    std[std == 0] = 1
    return (image - mean) / std, mean, std


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """Keep MONAI from wrapping tensors with metadata, which takes most of the time of a small patch."""
    from monai.data import get_track_meta, set_track_meta  # noqa: PLC0415

    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)
