"""What a plan chooses from the scans, each time with its reason; settings go first."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from semivox.config import PlanConfig
from semivox.io.extent import Triple

if TYPE_CHECKING:
    from semivox.preprocessing.fingerprint import Fingerprint
    from semivox.preprocessing.intensity import Intensity

Normalisation = Literal["none", "zscore", "zscore_nonzero", "ct"]
Crop = Literal["none", "foreground"]
Spacing = tuple[float, float, float]

MAX_PATCH_VOXELS = 112 * 112 * 80
# Of training with `dual` (two networks of width 16), 2 + 2 patches a step, 32 bit: measured on a CPU as the
# peak memory of patches from 32^3 to 64 x 64 x 48.
_BYTES_PER_VOXEL, _FIXED_BYTES = 10_000, 1_000_000_000
SIDE = 16  # the networks halve a patch four times
_CT = re.compile(r"(?<![a-z])ct(?![a-z])", re.IGNORECASE)
_HOUNSFIELD_AIR, _HOUNSFIELD_TISSUE = -900.0, (100.0, 5000.0)
_BACKGROUND_SHARE = 0.25
_ANISOTROPIC = 3.0
_MOST_SCANS, _FINAL_FACTOR = 95, 4  # % of scans that a final patch holds, if it has so many patches' voxels
_SMALL_SHARE = 0.05  # of a scan: less surrounding than that hardly tells where in the body a patch is
OVERRIDE = "Given in the settings."


def patch_for(shape: Sequence[float], max_voxels: int = MAX_PATCH_VOXELS) -> Triple:
    """Choose the largest patch in the proportions of a scan, at most the whole of it.

    Each side is the multiple of 16 nearest to the same fraction of its axis, so that equal axes get equal
    sides; a small scan may thus be exceeded by up to 15 voxels, which are padded.

    Args:
        shape: of a typical scan on the plan's grid.
        max_voxels: limit of the product; a patch of 16 x 16 x 16 is always allowed.
    """
    fraction = 1.0
    while True:
        x, y, z = (SIDE * max(1, int(fraction * side / SIDE + 0.5)) for side in shape)
        if x * y * z <= max_voxels or x == y == z == SIDE:
            return x, y, z
        fraction *= 0.99


def choose_spacing(measured: Fingerprint, config: PlanConfig) -> tuple[Spacing, str]:
    if config.spacing_mm is not None:
        return config.spacing_mm, OVERRIDE
    x, y, z = (
        float(f"{side:.6g}") for side in np.median([case.spacing_mm for case in measured.cases], axis=0)
    )
    ratio = max(x, y, z) / min(x, y, z)
    if ratio > _ANISOTROPIC:
        reason = (
            f"Median voxel size along each axis; slices {ratio:.1f} times as thick as the pixels stay so."
        )
    else:
        reason = f"Median voxel size along each axis over {len(measured.cases)} scans."
    return (x, y, z), reason


def choose_crop(measured: Fingerprint, config: PlanConfig) -> tuple[Crop, str]:
    if config.crop is not None:
        return config.crop, OVERRIDE
    share = float(np.median([case.background for case in measured.cases]))
    crop: Crop = "foreground" if share >= _BACKGROUND_SHARE else "none"
    limit = f"cropping begins at {_BACKGROUND_SHARE:.0%}"
    return crop, f"In a typical scan {share:.0%} of the voxels hold exactly its minimum; {limit}."


def choose_normalisation(
    channels: Sequence[str], measured: Fingerprint, config: PlanConfig
) -> tuple[tuple[Normalisation, ...], str]:
    if config.normalisation is not None:
        return (config.normalisation,) * len(channels), OVERRIDE
    share = float(np.median([case.background for case in measured.cases]))
    chosen = [
        _normalise_channel(*pair, share) for pair in zip(channels, measured.typical_intensity(), strict=True)
    ]
    names: dict[str, list[str]] = {}
    for channel, (_, reason) in zip(channels, chosen, strict=True):
        names.setdefault(reason, []).append(channel)
    text = " ".join(f"{', '.join(group)}: {reason}" for reason, group in names.items())
    return tuple(how for how, _ in chosen), text


def _normalise_channel(name: str, intensity: Intensity, background: float) -> tuple[Normalisation, str]:
    low, high = intensity.percentiles["p005"], intensity.percentiles["p995"]
    window = "one window for all scans, the 0.5th to 99.5th percentile of the labeled foreground."
    if _CT.search(name):
        return "ct", f"CT by its name, so {window}"
    if low <= _HOUNSFIELD_AIR and _HOUNSFIELD_TISSUE[0] <= high <= _HOUNSFIELD_TISSUE[1]:
        return "ct", f"values like Hounsfield units ({low:.0f} to {high:.0f}), so {window}"
    if background >= _BACKGROUND_SHARE and low == 0:
        how = "so mean 0 and standard deviation 1 over the other voxels of each scan."
        return "zscore_nonzero", f"0 in {background:.0%} of a typical scan, {how}"
    return "zscore", "no common unit, so mean 0 and standard deviation 1 for each scan."


def choose_patch(
    measured: Fingerprint, config: PlanConfig, spacing: Spacing, crop: Crop
) -> tuple[Triple, str]:
    """The training patch: in the proportions of the median scan, within the memory."""
    if config.patch is not None:
        return config.patch, OVERRIDE
    limit, room = MAX_PATCH_VOXELS, ""
    if config.memory_gb is not None:
        limit = _affordable_voxels(config.memory_gb)
        room = (
            f" {config.memory_gb:g} GB are room for so many, at {_BYTES_PER_VOXEL / 1000:.0f} kB a voxel (two"
            " networks of width 16, 4 patches a step, 32 bit)."
        )
    median = np.maximum(1, np.round(np.median(_shapes(measured, spacing, crop), axis=0)))
    patch = patch_for(median.tolist(), limit)
    size = " x ".join(f"{side:.0f}" for side in median)
    share = float(np.prod(np.minimum(1, patch / median)))
    seen = f" It covers {share:.0%} of that scan."
    if share < _SMALL_SHARE:
        seen += " A coarser spacing_mm would show more of it at once."
    if any(side > axis for side, axis in zip(patch, median, strict=True)):
        seen += " Shorter axes are padded."
    return patch, (
        f"In the proportions of the median scan ({size} voxels at this voxel size),"
        f" at most {limit} voxels, sides divisible by {SIDE}.{room}{seen}"
    )


def choose_final_patch(
    measured: Fingerprint, config: PlanConfig, spacing: Spacing, crop: Crop, patch: Triple
) -> tuple[Triple, str]:
    """The patch of the last part of a run with `train.final_share`: whole scans, where there is room."""
    if config.final_patch is not None:
        return config.final_patch, OVERRIDE
    sides = np.percentile(_shapes(measured, spacing, crop), _MOST_SCANS, axis=0)
    x, y, z = (SIDE * max(1, math.ceil(side / SIDE - 1e-6)) for side in sides)
    if config.memory_gb is not None:
        limit, whose = _affordable_voxels(config.memory_gb), f"{config.memory_gb:g} GB"
    else:
        limit, whose = _FINAL_FACTOR * math.prod(patch), f"{_FINAL_FACTOR} times the training patch"
    if x * y * z <= max(limit, math.prod(patch)):
        return (x, y, z), f"Holds {_MOST_SCANS} % of the scans whole along each axis."
    largest = patch_for(sides.tolist(), limit)
    if math.prod(largest) <= math.prod(patch):
        return patch, f"The training patch: {whose} leave no room for more."
    return largest, f"In the proportions of large scans, which {whose} cannot hold whole."


def _affordable_voxels(memory_gb: float) -> int:
    return int(max(0.0, 1e9 * memory_gb - _FIXED_BYTES) / _BYTES_PER_VOXEL)


def _shapes(measured: Fingerprint, spacing: Spacing, crop: Crop) -> NDArray[np.float64]:
    """Voxels of each scan along each axis of the plan's grid, (cases, 3)."""
    cropped = crop == "foreground"
    return np.array(
        [
            np.multiply(case.foreground_shape if cropped else case.shape, case.spacing_mm) / spacing
            for case in measured.cases
        ]
    )
