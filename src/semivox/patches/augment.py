"""Random changes of training patches, by preset.

Class indices are never interpolated, shares of classes are. Everything runs on one thread or treats each
voxel by itself, so the number of threads changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import grid_sample

from semivox.hardware import one_thread
from semivox.patches.deformation import Deformation
from semivox.patches.intensity import vary

Image = NDArray[np.float32]
Label = NDArray[Any]  # (..., X, Y, Z)
Changed = tuple[Image, Label | None]
Augment = Callable[[Image, Label | None, np.random.Generator], Changed]
Intensity = Callable[[Image, np.random.Generator], Image]
Preset = Literal["crop", "rotflip", "intensity", "strong", "full"]

_LATERAL = re.compile(r"left|right|(?:^|[\W_])(?:l|r|lt|rt|lh|rh)$|^(?:l|r|lt|rt|lh|rh)[\W_]", re.IGNORECASE)
_DEFORMED = 0.5  # share of patches that `strong` deforms
_STRONG = {"angles": (15.0, 15.0, 15.0), "scale": (0.85, 1.2), "rotated": 1.0, "scaled": 1.0, "bent": 0.5}


def make_augment(
    preset: Preset, *, flip_left_right: bool = True, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> Augment:
    """Build the augmentation of a preset of `TrainConfig.augment`.

    The result takes an image (C, X, Y, Z), its label (..., X, Y, Z) or None, and the source of all its
    randomness; it returns them changed, in the same shapes. It can be pickled.

    * crop: no change.
    * rotflip: one of the 8 quarter turns and mirrorings of the x-y plane, each as likely as the others; where
      the patch is not square there, one of the 4 that keep its shape.
    * intensity: rotflip, then mild changes of the image alone, each with its own probability: contrast
      (gamma 0.7 to 1.5), scale (0.85 to 1.15 around the mean), shift (0.15 standard deviations), Gaussian
      blur (sigma 0.3 to 1 voxel an axis), Gaussian noise (up to 0.15 standard deviations). Mean and standard
      deviation are the patch's own, channel by channel: the strength does not depend on the normalisation.
    * strong: mirrored along x and y, each in half of the patches; half of them deformed (see `deform`);
      then wider changes of the image: gamma 0.5 to 2, scale 0.7 to 1.3, shift 0.3 and noise 0.25 standard
      deviations, blur up to 1.5 voxels, and half to full resolution.

    * full: mirrored along x in half of the patches; then `vary`. See `Deformation` for what it bends.

    Without `flip_left_right` no preset mirrors or turns the x axis, which runs from right to left in every
    prepared scan. The voxel size is for deformations.
    """
    if preset == "crop":
        return _unchanged
    if preset == "full":
        return partial(_changed, geometry=_mirror_x if flip_left_right else _unchanged, intensity=vary)
    turn = partial(_rotate_flip, flip_left_right=flip_left_right)
    if preset == "rotflip":
        return turn
    bend = partial(_mirror_deform, flip_left_right=flip_left_right, spacing_mm=tuple(spacing_mm))
    geometry = turn if preset == "intensity" else bend
    return partial(_changed, geometry=geometry, intensity=MonaiIntensity(preset))


def full_deformation(preset: Preset, spacing_mm: Sequence[float]) -> Deformation | None:
    """Return the deformation of the preset `full`; None for others."""
    x, y, z = spacing_mm
    return Deformation((x, y, z)) if preset == "full" else None


def lateral_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Return the classes of one side: left or right in the name, or L, R, LT, RT, LH, RH at an end."""
    return tuple(name for name in names if _LATERAL.search(name))


def _rotate_flip(
    image: Image, label: Label | None, rng: np.random.Generator, *, flip_left_right: bool
) -> Changed:
    """Turn and mirror both in the x-y plane by an element of the dihedral group, drawn uniformly.

    Without `flip_left_right`, of its two elements that keep the direction of x.
    """
    quarters, mirror = int(rng.integers(4)), bool(rng.integers(2))
    if not flip_left_right:
        quarters = 2 * mirror
    elif image.shape[-3] != image.shape[-2]:
        quarters = 2 * (quarters // 2)
    return _dihedral(image, quarters, mirror), _dihedral(label, quarters, mirror)


def deform(
    image: Image, label: Label | None, rng: np.random.Generator, spacing_mm: Sequence[float]
) -> Changed:
    """Rotate, scale and bend a patch around its center: image and label by the same displacements.

    What comes from outside the patch repeats its border. The image is interpolated linearly, a voxel of the
    label takes the nearest one's value.
    """
    x, y, z = spacing_mm
    shape = image.shape[-3:]
    motion = Deformation((x, y, z), **_STRONG).draw(shape, rng)  # type: ignore[arg-type]
    warp = motion.at([(side - 1) / 2 for side in shape], shape)
    moved, _ = warp.sample(image[:, *warp.box], image[:0, *warp.box])
    if label is None:
        return moved, None
    padded = np.pad(label.reshape(-1, *shape)[:, *warp.box], [(0, 0), *[(1, 1)] * 3], "edge")
    values = torch.from_numpy(padded.astype(np.float32))[None]
    found = grid_sample(values, warp.grid, "nearest", "border", align_corners=True)[0].numpy()
    return moved, found.reshape(label.shape).astype(label.dtype)


def _mirror_deform(
    image: Image,
    label: Label | None,
    rng: np.random.Generator,
    *,
    flip_left_right: bool,
    spacing_mm: Sequence[float],
) -> Changed:
    mirror_x, mirror_y = bool(rng.integers(2)) and flip_left_right, bool(rng.integers(2))
    quarters, mirror = 2 * mirror_y, mirror_x != mirror_y
    image, label = _dihedral(image, quarters, mirror), _dihedral(label, quarters, mirror)
    return deform(image, label, rng, spacing_mm) if rng.random() < _DEFORMED else (image, label)


def _mirror_x(image: Image, label: Label | None, rng: np.random.Generator) -> Changed:
    mirror = bool(rng.integers(2))
    return _dihedral(image, 0, mirror), _dihedral(label, 0, mirror)


def _dihedral(array: Any, quarters: int, mirror: bool) -> Any:
    """Turn the x-y plane of an array (..., X, Y, Z), if any, by quarters, after mirroring x; a copy."""
    if array is None:
        return None
    return np.ascontiguousarray(np.rot90(np.flip(array, -3) if mirror else array, quarters, axes=(-3, -2)))


def _unchanged(image: Image, label: Label | None, rng: np.random.Generator) -> Changed:
    return image, label


def _changed(
    image: Image, label: Label | None, rng: np.random.Generator, *, geometry: Augment, intensity: Intensity
) -> Changed:
    """Change the geometry, then the image alone."""
    image, label = geometry(image, label, rng)
    return intensity(image, rng), label


class MonaiIntensity:
    """MONAI's random intensity transforms on the standardised image, of the preset intensity or strong.

    It can be pickled.
    """

    def __init__(self, preset: Preset) -> None:
        from monai import transforms as t

        strong = preset == "strong"
        sigma = (0.3, 1.5 if strong else 1.0)
        self.contrast = t.RandAdjustContrast(
            prob=0.5 if strong else 0.3, gamma=(0.5, 2.0) if strong else (0.7, 1.5)
        )
        others = [
            t.RandScaleIntensity(prob=0.3, factors=0.3 if strong else 0.15),
            t.RandShiftIntensity(prob=0.3, offsets=0.3 if strong else 0.15),
            t.RandGaussianSmooth(prob=0.2, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma),
            t.RandGaussianNoise(prob=0.3, std=0.25 if strong else 0.15),
        ]
        if strong:
            others.append(t.RandSimulateLowResolution(prob=0.25, zoom_range=(0.5, 1.0)))
        self.others = t.Compose(others)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        self.contrast.set_random_state(seed=int(rng.integers(2**31)))
        self.others.set_random_state(seed=int(rng.integers(2**31)))
        standard, mean, std = _standardised(image)
        with _plain_tensors(), one_thread():  # the last bit of powers differs with the number of threads
            standard, _, _ = _standardised(self.contrast(torch.from_numpy(standard)).numpy())
            changed = self.others(torch.from_numpy(standard)).numpy()
        return np.ascontiguousarray(changed * std + mean, dtype=np.float32)


def _standardised(image: Image) -> tuple[Image, Image, Image]:
    """Bring each channel to mean 0 and deviation 1; return also the old mean and deviation (C, 1, 1, 1)."""
    mean = image.mean(axis=(1, 2, 3), keepdims=True)
    std = image.std(axis=(1, 2, 3), keepdims=True)
    std[std == 0] = 1
    return (image - mean) / std, mean, std


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """Keep MONAI from wrapping tensors with metadata, which takes most of the time of a small patch."""
    from monai.data import get_track_meta, set_track_meta

    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)
