"""Random changes of training patches, by preset.

Class indices are never interpolated, shares of classes are. Everything runs on one thread or treats each
voxel by itself, so the number of threads changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import grid_sample

from semivox.patches.deformation import Deformation, Spacing
from semivox.patches.intensity import Image, Intensity, MonaiIntensity, vary

Label = NDArray[Any]  # (..., X, Y, Z)
Changed = tuple[Image, Label | None]
Preset = Literal["crop", "rotflip", "intensity", "strong", "full"]

_LATERAL = re.compile(r"left|right|(?:^|[\W_])(?:l|r|lt|rt|lh|rh)$|^(?:l|r|lt|rt|lh|rh)[\W_]", re.IGNORECASE)
_DEFORMED = 0.5  # share of patches that `strong` deforms
_STRONG = {"angles": (15.0, 15.0, 15.0), "scale": (0.85, 1.2), "rotated": 1.0, "scaled": 1.0, "bent": 0.5}


class Augmentation:
    """Change patches at random, as a preset of `TrainConfig.augment` says; can be pickled.

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
    * full: mirrored along x in half of the patches; then `vary`. The patch is read with a `deformation`.

    Without `flip_left_right` no preset mirrors or turns the x axis, which runs from right to left in every
    prepared scan. The voxel size is for deformations.
    """

    def __init__(
        self, preset: Preset, *, flip_left_right: bool = True, spacing_mm: Spacing = (1.0, 1.0, 1.0)
    ) -> None:
        self.preset, self.flip_left_right, self.spacing_mm = preset, flip_left_right, spacing_mm
        self.deformation = Deformation(spacing_mm) if preset == "full" else None
        self.intensity: Intensity | None = vary if preset == "full" else None
        if preset in ("intensity", "strong"):
            self.intensity = MonaiIntensity(preset)

    def __call__(self, image: Image, label: Label | None, rng: np.random.Generator) -> Changed:
        """Change the geometry of image (C, X, Y, Z) and label, if any, then the image; shapes stay."""
        quarters, mirror = self.symmetry(image.shape, rng)
        image, label = _dihedral(image, quarters, mirror), _dihedral(label, quarters, mirror)
        if self.preset == "strong" and rng.random() < _DEFORMED:
            image, label = deform(image, label, rng, self.spacing_mm)
        return image if self.intensity is None else self.intensity(image, rng), label

    def symmetry(self, shape: Sequence[int], rng: np.random.Generator) -> tuple[int, bool]:
        """Draw quarter turns of the x-y plane, and whether x is mirrored before them."""
        flip = self.flip_left_right
        match self.preset:
            case "crop":
                return 0, False
            case "full":
                return 0, flip and bool(rng.integers(2))
            case "strong":
                mirror_x, mirror_y = bool(rng.integers(2)) and flip, bool(rng.integers(2))
                return 2 * mirror_y, mirror_x != mirror_y
        quarters, mirror = int(rng.integers(4)), bool(rng.integers(2))
        if not flip:
            return 2 * mirror, mirror
        return quarters if shape[-3] == shape[-2] else 2 * (quarters // 2), mirror


def _dihedral(array: Any, quarters: int, mirror: bool) -> Any:
    """Turn the x-y plane of an array (..., X, Y, Z), if any, by quarters, after mirroring x."""
    if array is None:
        return None
    return np.ascontiguousarray(np.rot90(np.flip(array, -3) if mirror else array, quarters, axes=(-3, -2)))


def deform(image: Image, label: Label | None, rng: np.random.Generator, spacing_mm: Spacing) -> Changed:
    """Rotate, scale and bend a patch around its center: image and label by the same displacements.

    What comes from outside the patch repeats its border. The image is interpolated linearly, a voxel of the
    label takes the nearest one's value.
    """
    shape = image.shape[-3:]
    motion = Deformation(spacing_mm, **_STRONG).draw(shape, rng)  # type: ignore[arg-type]
    warp = motion.at([(side - 1) / 2 for side in shape], shape)
    moved, _ = warp.sample(warp.read(image), None)
    if label is None:
        return moved, None
    padded = np.pad(warp.read(label.reshape(-1, *shape)), [(0, 0), *[(1, 1)] * 3], "edge")
    values = torch.from_numpy(padded.astype(np.float32))[None]
    found = grid_sample(values, warp.grid, "nearest", "border", align_corners=True)[0].numpy()
    return moved, found.reshape(label.shape).astype(label.dtype)


def lateral_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Return the classes of one side: left or right in the name, or L, R, LT, RT, LH, RH at an end."""
    return tuple(name for name in names if _LATERAL.search(name))
