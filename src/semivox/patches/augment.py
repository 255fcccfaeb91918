"""Random changes of training patches, by preset; no label is ever interpolated.

Everything runs on one thread or treats each voxel by itself, so the number of threads changes nothing.
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

Array = NDArray[Any]
Image = NDArray[np.float32]
Label = NDArray[np.uint8]
Augment = Callable[[Image, Label | None, np.random.Generator], tuple[Image, Label | None]]
StrongView = Callable[[Image, np.random.Generator], Image]
Preset = Literal["crop", "rotflip", "intensity", "strong"]

_LATERAL = re.compile(r"left|right|(?:^|[\W_])(?:l|r|lt|rt|lh|rh)$|^(?:l|r|lt|rt|lh|rh)[\W_]", re.IGNORECASE)
_DEFORMED, _BENT = 0.5, 0.5  # share of patches that `strong` deforms, and of these that it also bends
MAX_ANGLE = np.pi / 12  # about each axis, either way
SCALE = (0.85, 1.2)
CONTROL = 16  # voxels between the control points of the elastic part
MAX_OFFSET = 0.4 * CONTROL  # of a control point, in the finest voxels; beyond it space would fold


def make_augment(
    preset: Preset, *, flip_left_right: bool = True, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> Augment:
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
    * strong: mirrored along x and y, each in half of the patches; half of them deformed (see `deform`);
      then wider changes of the image: gamma 0.5 to 2, scale 0.7 to 1.3, shift 0.3 and noise 0.25 standard
      deviations, blur up to 1.5 voxels, and half to full resolution.

    Args:
        preset: one of these.
        flip_left_right: without it, rotflip and what builds on it leave the x axis, which runs from right to
            left in every prepared scan, as it is: they mirror along y or do nothing.
        spacing_mm: voxel size, for deformations.
    """
    turn = partial(rotate_flip, flip_left_right=flip_left_right)
    if preset == "intensity":
        return _Chain(turn, _Intensity(strong=False))
    if preset == "strong":
        bend = partial(_mirror_deform, flip_left_right=flip_left_right, spacing_mm=tuple(spacing_mm))
        return _Chain(bend, _Intensity(strong=True))
    return turn if preset == "rotflip" else _unchanged


def make_strong_view() -> StrongView:
    """Build the change that turns a patch into its strong view: the intensities of `strong`, same geometry.

    The result takes an image (C, X, Y, Z) and the source of its randomness, and can be pickled.
    """
    return _Intensity(strong=True)


def lateral_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Return the classes of one side: left or right in the name, or L, R, LT, RT, LH, RH at an end."""
    return tuple(name for name in names if _LATERAL.search(name))


def rotate_flip(
    image: Image, label: Label | None, rng: np.random.Generator, *, flip_left_right: bool = True
) -> tuple[Image, Label | None]:
    """Turn and mirror both in the x-y plane by an element of the dihedral group, drawn uniformly.

    Without `flip_left_right`, of its two elements that keep the direction of x.
    """
    quarters, mirror = int(rng.integers(4)), bool(rng.integers(2))
    if not flip_left_right:
        quarters = 2 * mirror
    elif image.shape[-3] != image.shape[-2]:
        quarters = 2 * (quarters // 2)
    return _dihedral(image, quarters, mirror), None if label is None else _dihedral(label, quarters, mirror)


def deform(
    image: Image, label: Label | None, rng: np.random.Generator, spacing_mm: Sequence[float]
) -> tuple[Image, Label | None]:
    """Rotate, scale and bend a patch around its center: image and label by the same displacements.

    Rotations are those of space in mm; about an axis whose two others have different voxel sizes they are
    smaller, by the ratio of the two. What comes from outside the patch repeats its border.

    Args:
        image: (C, X, Y, Z); interpolated linearly.
        label: (X, Y, Z); each voxel takes the nearest one's class.
        rng: source of all randomness.
        spacing_mm: voxel size.
    """
    shape, spacing = image.shape[-3:], np.asarray(spacing_mm, float)
    matrix = random_affine(rng, spacing)
    offsets = random_offsets(shape, rng, spacing) if rng.random() < _BENT else None
    grid = torch.from_numpy(_sampling_grid(shape, matrix, offsets))[None]
    moved = _sample(image, grid, "bilinear")
    return moved, None if label is None else _sample(label[None], grid, "nearest")[0].astype(label.dtype)


def random_affine(rng: np.random.Generator, spacing: Array) -> Array:
    """Draw a (3, 3) matrix in voxel units: rotations about the three axes and one scale for all."""
    matrix = np.diag(np.full(3, 1 / rng.uniform(*SCALE)))
    for axis in range(3):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        ratio = min(spacing[one], spacing[other]) / max(spacing[one], spacing[other])
        angle = ratio * rng.uniform(-MAX_ANGLE, MAX_ANGLE)
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return np.asarray(matrix * spacing / spacing[:, None])


def random_offsets(shape: Sequence[int], rng: np.random.Generator, spacing: Array) -> Array:
    """Draw a smooth displacement of every voxel, (3, X, Y, Z) float32 in voxels.

    A free-form deformation: uniform cubic B-splines over control points with normal offsets, whose deviation
    is at most 2 of the finest voxels.
    """
    count = [-(-side // CONTROL) + 3 for side in shape]
    deviation = rng.uniform(0, 2)
    control: Array = np.clip(rng.normal(0, deviation, (3, *count)), -MAX_OFFSET, MAX_OFFSET)
    control = (control * (spacing.min() / spacing).reshape(3, 1, 1, 1)).astype(np.float32)
    for axis, side in enumerate(shape):
        # einsum without BLAS: one thread, a fixed order of summation
        letters = "axyz"
        source, target = letters, letters.replace(letters[axis + 1], "n")
        control = np.einsum(f"n{letters[axis + 1]},{source}->{target}", _splines(side), control)
    return control


def _splines(side: int) -> Array:
    """Return the values of the cubic B-splines around each voxel of an axis, (side, control points)."""
    place = np.arange(side) / CONTROL
    distance = np.abs(place[:, None] + 1 - np.arange(-(-side // CONTROL) + 3))
    inner, outer = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6
    return np.where(distance < 1, inner, np.where(distance < 2, outer, 0)).astype(np.float32)


def _sampling_grid(shape: Sequence[int], matrix: Array, offsets: Array | None) -> Array:
    """Return where each voxel's value comes from, (X, Y, Z, 3) for `grid_sample`: -1..1, last axis first."""
    grid = np.empty((*shape, 3), np.float32)
    axes = [np.arange(side) - (side - 1) / 2 for side in shape]
    for axis, side in enumerate(shape):
        unit = 2 / max(side - 1, 1)
        x, y, z = ((unit * matrix[axis, other] * axes[other]).astype(np.float32) for other in range(3))
        place = (x[:, None] + y)[:, :, None] + z
        if offsets is not None:
            place += np.float32(unit) * offsets[axis]
        grid[..., 2 - axis] = place
    return grid


def _sample(array: Array, grid: torch.Tensor, mode: str) -> Array:
    values = torch.from_numpy(np.ascontiguousarray(array, np.float32))[None]
    return np.asarray(grid_sample(values, grid, mode, "border", align_corners=True)[0].numpy())


def _mirror_deform(
    image: Image,
    label: Label | None,
    rng: np.random.Generator,
    *,
    flip_left_right: bool,
    spacing_mm: Sequence[float],
) -> tuple[Image, Label | None]:
    mirror_x, mirror_y = bool(rng.integers(2)) and flip_left_right, bool(rng.integers(2))
    quarters, mirror = 2 * mirror_y, mirror_x != mirror_y
    image = _dihedral(image, quarters, mirror)
    label = None if label is None else _dihedral(label, quarters, mirror)
    return deform(image, label, rng, spacing_mm) if rng.random() < _DEFORMED else (image, label)


def _dihedral(array: Array, quarters: int, mirror: bool) -> Array:
    """Turn the x-y plane of an array (..., X, Y, Z) by quarters, after mirroring x; a copy."""
    if mirror:
        array = np.flip(array, -3)
    return np.ascontiguousarray(np.rot90(array, quarters, axes=(-3, -2)))


def _unchanged(image: Image, label: Label | None, rng: np.random.Generator) -> tuple[Image, Label | None]:
    return image, label


class _Chain:
    """A change of the geometry, then one of the image alone."""

    def __init__(self, geometry: Augment, intensity: StrongView) -> None:
        self.geometry, self.intensity = geometry, intensity

    def __call__(
        self, image: Image, label: Label | None, rng: np.random.Generator
    ) -> tuple[Image, Label | None]:
        image, label = self.geometry(image, label, rng)
        return self.intensity(image, rng), label


class _Intensity:
    """MONAI's random intensity transforms on the standardised image."""

    def __init__(self, *, strong: bool) -> None:
        from monai import transforms as t

        gamma, factor, shift, noise = (0.7, 1.5), 0.15, 0.15, 0.15
        if strong:
            gamma, factor, shift, noise = (0.5, 2.0), 0.3, 0.3, 0.25
        sigma = (0.3, 1.5 if strong else 1.0)
        self.contrast = t.RandAdjustContrast(prob=0.5 if strong else 0.3, gamma=gamma)
        others = [
            t.RandScaleIntensity(prob=0.3, factors=factor),
            t.RandShiftIntensity(prob=0.3, offsets=shift),
            t.RandGaussianSmooth(prob=0.2, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma),
            t.RandGaussianNoise(prob=0.3, std=noise),
        ]
        if strong:
            others.append(t.RandSimulateLowResolution(prob=0.25, zoom_range=(0.5, 1.0)))
        self.others = t.Compose(others)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        self.contrast.set_random_state(seed=int(rng.integers(2**31)))
        self.others.set_random_state(seed=int(rng.integers(2**31)))
        standard, mean, std = _standardised(image)
        with _plain_tensors():
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
    """Keep MONAI from wrapping tensors with metadata, which takes most of the time of a small patch.

    And work on one thread: powers and convolutions of large patches differ in the last bit with their number.
    """
    from monai.data import get_track_meta, set_track_meta

    before, threads = get_track_meta(), torch.get_num_threads()
    set_track_meta(False)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        set_track_meta(before)
        torch.set_num_threads(threads)
