"""Choose a plan from the scans, each entry with its reason; what the settings say is taken as it is."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semivox.config import PlanConfig
from semivox.io.geometry import Triple
from semivox.preprocessing.fingerprint import Fingerprint, Intensity, fingerprint
from semivox.preprocessing.plan import FIGURES, SIDE, Crop, Normalisation, Plan, Spacing, checked_plan

if TYPE_CHECKING:
    from semivox.datasets.dataset import Dataset
    from semivox.datasets.splits import Split

MAX_PATCH_VOXELS = 112 * 112 * 80
# Of training with `dual` (two networks of width 16), 2 + 2 patches a step, 32 bit: measured on a CPU as the
# peak memory of patches from 32^3 to 64 x 64 x 48.
_BYTES_PER_VOXEL, _FIXED_BYTES = 10_000, 1_000_000_000
_MR_WORD = re.compile(r"(ce)?t[12]\w*|mri?|flair|pd|dwi|adc|swi")
_HOUNSFIELD_AIR, _HOUNSFIELD_TISSUE = -900.0, (100.0, 5000.0)
_BACKGROUND_SHARE = 0.25
_ANISOTROPIC = 3.0
_MOST_SCANS, _FINAL_FACTOR = 95, 4  # % of scans that a final patch holds, if it has so many patches' voxels
_SMALL_SHARE = 0.05  # of a scan: less surrounding than that hardly tells where in the body a patch is
_GIVEN = "Given in the settings."


def make_plan(
    dataset: Dataset, split: Split, config: PlanConfig, *, measured: Fingerprint | None = None
) -> Plan:
    """Choose voxel size, crop, normalisation and patch from the scans.

    Args:
        dataset: the cases.
        split: labels of its labeled cases alone are opened.
        config: overrides.
        measured: a fingerprint made before; None: made here.

    Raises:
        UserError: unusable files; a patch side that is not divisible by 16.
    """
    trust = bool(config.trust_image_geometry)
    measured = measured or fingerprint(dataset, split, trust_image_geometry=trust)
    reasons: dict[str, str] = {}
    spacing, reasons["spacing_mm"] = _choose_spacing(measured, config)
    crop, reasons["crop"] = _choose_crop(measured, config)
    normalisation, reasons["normalisation"] = _choose_normalisation(dataset.channels, measured, config)
    if measured.foreground is None and "ct" in normalisation:
        reasons["intensity"] = "Over whole scans, because the labels hold no foreground."
    shapes = _shapes(measured, spacing, crop)
    patch, reasons["patch"] = _choose_patch(shapes, config)
    final_patch, reasons["final_patch"] = _choose_final_patch(shapes, config, patch)
    if trust:
        reasons["trust_image_geometry"] = _GIVEN
    intensity = [channel.as_dict() for channel in measured.foreground or measured.typical_intensity()]
    declared = ("channels", "class_names", "class_values", "ignore_value")
    return checked_plan(
        {
            "dataset": dataset.name,
            **{name: getattr(dataset, name) for name in declared},
            "spacing_mm": spacing,
            "patch": patch,
            "final_patch": final_patch,
            "normalisation": normalisation,
            "crop": crop,
            "trust_image_geometry": trust,
            "memory_gb": config.memory_gb,
            "intensity": [{key: channel[key] for key in FIGURES} for channel in intensity],
            "fingerprint": measured.summary(),
            "reasons": reasons,
        }
    )


def patch_for(shape: Sequence[float], max_voxels: int = MAX_PATCH_VOXELS) -> Triple:
    """Choose the largest patch in the proportions of a scan, at most the whole of it.

    Each side is the multiple of 16 nearest to the same fraction of its axis, so that equal axes get equal
    sides; a small scan may thus be exceeded by up to 15 voxels, which are padded.

    Args:
        shape: of a typical scan on the working grid.
        max_voxels: limit of the product; a patch of 16 x 16 x 16 is always allowed.
    """
    fraction = 1.0
    while True:
        x, y, z = (SIDE * max(1, int(fraction * side / SIDE + 0.5)) for side in shape)
        if x * y * z <= max_voxels or x == y == z == SIDE:
            return x, y, z
        fraction *= 0.99


def _choose_spacing(measured: Fingerprint, config: PlanConfig) -> tuple[Spacing, str]:
    if config.spacing_mm is not None:
        return config.spacing_mm, _GIVEN
    medians = np.median([case.spacing_mm for case in measured.cases], axis=0)
    x, y, z = (float(f"{side:.6g}") for side in medians)
    reason, ratio = "Median voxel size along each axis", max(x, y, z) / min(x, y, z)
    if ratio > _ANISOTROPIC:
        return (x, y, z), f"{reason}; slices {ratio:.1f} times as thick as the pixels stay so."
    return (x, y, z), f"{reason} over {len(measured.cases)} scans."


def _choose_crop(measured: Fingerprint, config: PlanConfig) -> tuple[Crop, str]:
    if config.crop is not None:
        return config.crop, _GIVEN
    share = measured.background()
    crop: Crop = "foreground" if share >= _BACKGROUND_SHARE else "none"
    limit = f"cropping begins at {_BACKGROUND_SHARE:.0%}"
    return crop, f"In a typical scan {share:.0%} of the voxels hold exactly its minimum; {limit}."


def _choose_normalisation(
    channels: Sequence[str], measured: Fingerprint, config: PlanConfig
) -> tuple[tuple[Normalisation, ...], str]:
    if config.normalisation is not None:
        return (config.normalisation,) * len(channels), _GIVEN
    share = measured.background()
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
    if is_ct(name):
        return "ct", f"CT by its name, so {window}"
    if low <= _HOUNSFIELD_AIR and _HOUNSFIELD_TISSUE[0] <= high <= _HOUNSFIELD_TISSUE[1]:
        return "ct", f"values like Hounsfield units ({low:.0f} to {high:.0f}), so {window}"
    if background >= _BACKGROUND_SHARE and low == 0:
        how = "so mean 0 and standard deviation 1 over the other voxels of each scan."
        return "zscore_nonzero", f"0 in {background:.0%} of a typical scan, {how}"
    return "zscore", "no common unit, so mean 0 and standard deviation 1 for each scan."


def is_ct(channel: str) -> bool:
    """Whether a channel is CT by its name: CT as a word of its own, and no word for MR beside it.

    T1CT, T1-CT and "t1 ct" are contrast-enhanced MR; cT1 and CT1 are MR or unclear, so values decide.
    """
    words = re.findall(r"[^\W_]+", channel.lower())
    return "ct" in words and not any(_MR_WORD.fullmatch(word) for word in words)


def _choose_patch(shapes: NDArray[np.float64], config: PlanConfig) -> tuple[Triple, str]:
    """Choose the training patch: in the proportions of the median scan, within the memory."""
    if config.patch is not None:
        return config.patch, _GIVEN
    limit, room = MAX_PATCH_VOXELS, ""
    if config.memory_gb is not None:
        limit = _affordable_voxels(config.memory_gb)
        room = (
            f" {config.memory_gb:g} GB are room for so many, at {_BYTES_PER_VOXEL / 1000:.0f} kB a voxel (two"
            " networks of width 16, 4 patches a step, 32 bit)."
        )
    median = np.maximum(1, np.round(np.median(shapes, axis=0)))
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


def _choose_final_patch(shapes: NDArray[np.float64], config: PlanConfig, patch: Triple) -> tuple[Triple, str]:
    """Choose the patch of the last part of a run with `train.final_share`: whole scans if there is room."""
    if config.final_patch is not None:
        return config.final_patch, _GIVEN
    sides = np.percentile(shapes, _MOST_SCANS, axis=0)
    x, y, z = (SIDE * max(1, math.ceil(side / SIDE - 1e-6)) for side in sides)
    limit, whose = _FINAL_FACTOR * math.prod(patch), f"{_FINAL_FACTOR} times the training patch"
    if config.memory_gb is not None:
        limit, whose = _affordable_voxels(config.memory_gb), f"{config.memory_gb:g} GB"
    if x * y * z <= max(limit, math.prod(patch)):
        return (x, y, z), f"Holds {_MOST_SCANS} % of the scans whole along each axis."
    largest = patch_for(sides.tolist(), limit)
    if math.prod(largest) <= math.prod(patch):
        return patch, f"The training patch: {whose} leave no room for more."
    return largest, f"In the proportions of large scans, which {whose} cannot hold whole."


def _affordable_voxels(memory_gb: float) -> int:
    return int(max(0.0, 1e9 * memory_gb - _FIXED_BYTES) / _BYTES_PER_VOXEL)


def _shapes(measured: Fingerprint, spacing: Spacing, crop: Crop) -> NDArray[np.float64]:
    """Return the voxels of each scan along each axis of the working grid, (cases, 3)."""
    sizes = [case.foreground_shape if crop == "foreground" else case.shape for case in measured.cases]
    return np.multiply(sizes, [case.spacing_mm for case in measured.cases]) / spacing
