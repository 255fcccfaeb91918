"""How scans become network input: voxel size, crop, normalisation and patch, each with its reason.

Importing this module does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from semivox.config import PlanConfig, config_error
from semivox.data.extent import Triple
from semivox.data.fingerprint import Fingerprint, Progress, fingerprint
from semivox.data.intensity import Intensity
from semivox.errors import UserError
from semivox.files import read_json, write_json

if TYPE_CHECKING:
    from semivox.data.dataset import Dataset
    from semivox.data.splits import Split

Normalisation = Literal["none", "zscore", "zscore_nonzero", "ct"]
Crop = Literal["none", "foreground"]
Spacing = tuple[float, float, float]

MAX_PATCH_VOXELS = 112 * 112 * 80
# Of training with `dual` (two networks of width 16), 2 + 2 patches a step, 32 bit: measured on a CPU as the
# peak memory of patches from 32^3 to 64 x 64 x 48.
_BYTES_PER_VOXEL, _FIXED_BYTES = 10_000, 1_000_000_000
_SIDE = 16  # the networks halve a patch four times
_CT = re.compile(r"(?<![a-z])ct(?![a-z])", re.IGNORECASE)
_HOUNSFIELD_AIR, _HOUNSFIELD_TISSUE = -900.0, (100.0, 5000.0)
_BACKGROUND_SHARE = 0.25
_ANISOTROPIC = 3.0
_SMALL_SHARE = 0.05  # of a scan: less surrounding than that hardly tells where in the body a patch is
_FIGURES = ("mean", "std", "p005", "p995")
_OVERRIDE = "Given in the settings."


class Plan(BaseModel):
    """Everything that decides what the network sees of a scan; kept as `plans.json`, which may be edited.

    Axes are those of the canonical grid: the scan's own, permuted and flipped to be closest to RAS.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    channels: tuple[str, ...] = Field(min_length=1)
    class_names: tuple[str, ...] = Field(min_length=2, description="background first")
    class_values: tuple[int, ...] = Field(description="value on disk of each class index")
    ignore_value: int | None = Field(default=None, description="value on disk of unannotated voxels")
    spacing_mm: Spacing = Field(description="voxel size of the plan's grid")
    patch: Triple = Field(description="training patch in voxels; sides divisible by 16")
    normalisation: tuple[Normalisation, ...] = Field(description="one a channel")
    crop: Crop = Field(description="box around the voxels above the background, found without labels")
    trust_image_geometry: bool = Field(
        default=False, description="the first image file's affine counts where others of its case disagree"
    )
    memory_gb: float | None = Field(default=None, description="training memory that the patch was chosen for")
    intensity: tuple[dict[str, float], ...] = Field(
        description="for each channel mean, std, p005 and p995 over the labeled foreground; used by ct"
    )
    fingerprint: dict[str, Any] = Field(default_factory=dict)
    reasons: dict[str, str] = Field(default_factory=dict)

    @field_validator("spacing_mm")
    @classmethod
    def _check_spacing(cls, value: Spacing) -> Spacing:
        if not all(0 < side < np.inf for side in value):
            raise ValueError("three lengths in mm above 0")
        return value

    @field_validator("patch")
    @classmethod
    def _check_patch(cls, value: Triple) -> Triple:
        if not all(side > 0 and side % _SIDE == 0 for side in value):
            raise ValueError(f"three sides in voxels, each a multiple of {_SIDE}")
        return value

    @field_validator("class_values")
    @classmethod
    def _check_values(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if len(value) != len(info.data.get("class_names", value)) or len(set(value)) != len(value):
            raise ValueError("one value for each of class_names, all different")
        return value

    @field_validator("normalisation", "intensity")
    @classmethod
    def _check_channels(cls, value: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        channels = info.data.get("channels", value)
        if len(value) != len(channels):
            raise ValueError(f"one entry for each channel ({len(channels)})")
        return value

    @field_validator("intensity")
    @classmethod
    def _check_intensity(cls, value: tuple[dict[str, float], ...]) -> tuple[dict[str, float], ...]:
        if not all(set(_FIGURES) <= set(channel) and channel["p005"] <= channel["p995"] for channel in value):
            raise ValueError(f"for each channel the numbers {', '.join(_FIGURES)}, with p005 <= p995")
        return value


def make_plan(
    dataset: Dataset,
    split: Split,
    config: PlanConfig,
    *,
    measured: Fingerprint | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Choose voxel size, crop, normalisation and patch from the scans; what `config` sets is taken as it is.

    Args:
        dataset: the cases.
        split: labels of its labeled cases alone are opened.
        config: overrides.
        measured: a fingerprint made before; None: made here.
        progress: of the fingerprint.

    Raises:
        UserError: unusable files; a patch side that is not divisible by 16.
    """
    trust = bool(config.trust_image_geometry)
    measured = measured or fingerprint(dataset, split, progress, trust_image_geometry=trust)
    reasons: dict[str, str] = {}
    spacing, reasons["spacing_mm"] = _spacing(measured, config)
    crop, reasons["crop"] = _crop(measured, config)
    normalisation, reasons["normalisation"] = _normalisation(dataset.channels, measured, config)
    if measured.foreground is None and "ct" in normalisation:
        reasons["intensity"] = "Over whole scans, because the labels hold no foreground."
    patch, reasons["patch"] = _patch(measured, config, spacing, crop)
    if trust:
        reasons["trust_image_geometry"] = _OVERRIDE
    intensity = [channel.as_dict() for channel in measured.foreground or measured.typical_intensity()]
    return _checked(
        {
            "dataset": dataset.name,
            "channels": dataset.channels,
            "class_names": dataset.class_names,
            "class_values": dataset.class_values,
            "ignore_value": dataset.ignore_value,
            "spacing_mm": spacing,
            "patch": patch,
            "normalisation": normalisation,
            "crop": crop,
            "trust_image_geometry": trust,
            "memory_gb": config.memory_gb,
            "intensity": [{key: channel[key] for key in _FIGURES} for channel in intensity],
            "fingerprint": measured.summary(),
            "reasons": reasons,
        }
    )


def save_plan(plan: Plan, path: Path) -> None:
    """Write the plan as indented JSON."""
    write_json(path, plan.model_dump(mode="json"))


def load_plan(path: Path) -> Plan:
    """Read a plan and check it; what an edit broke becomes a `UserError` that names the entry."""
    return _checked(read_json(path), path)


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
        x, y, z = (_SIDE * max(1, int(fraction * side / _SIDE + 0.5)) for side in shape)
        if x * y * z <= max_voxels or x == y == z == _SIDE:
            return x, y, z
        fraction *= 0.99


def _spacing(measured: Fingerprint, config: PlanConfig) -> tuple[Spacing, str]:
    if config.spacing_mm is not None:
        return config.spacing_mm, _OVERRIDE
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


def _crop(measured: Fingerprint, config: PlanConfig) -> tuple[Crop, str]:
    if config.crop is not None:
        return config.crop, _OVERRIDE
    share = float(np.median([case.background for case in measured.cases]))
    crop: Crop = "foreground" if share >= _BACKGROUND_SHARE else "none"
    limit = f"cropping begins at {_BACKGROUND_SHARE:.0%}"
    return crop, f"In a typical scan {share:.0%} of the voxels hold exactly its minimum; {limit}."


def _normalisation(
    channels: Sequence[str], measured: Fingerprint, config: PlanConfig
) -> tuple[tuple[Normalisation, ...], str]:
    if config.normalisation is not None:
        return (config.normalisation,) * len(channels), _OVERRIDE
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


def _patch(measured: Fingerprint, config: PlanConfig, spacing: Spacing, crop: Crop) -> tuple[Triple, str]:
    if config.patch is not None:
        return config.patch, _OVERRIDE
    limit, room = MAX_PATCH_VOXELS, ""
    if config.memory_gb is not None:
        limit = int(max(0.0, 1e9 * config.memory_gb - _FIXED_BYTES) / _BYTES_PER_VOXEL)
        room = (
            f" {config.memory_gb:g} GB are room for so many, at {_BYTES_PER_VOXEL / 1000:.0f} kB a voxel (two"
            " networks of width 16, 4 patches a step, 32 bit)."
        )
    shapes = [
        np.multiply(case.foreground_shape if crop == "foreground" else case.shape, case.spacing_mm) / spacing
        for case in measured.cases
    ]
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
        f" at most {limit} voxels, sides divisible by {_SIDE}.{room}{seen}"
    )


def _checked(values: Any, path: Path | None = None) -> Plan:
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        problem, kind = config_error(error, Plan), error.errors()[0]["type"]
        do = "correct the entry, or delete the file and run semivox plan again"
        if path is None:
            do = "correct it among the settings of the plan, or leave it out"
        raise UserError(
            problem.what,
            path=path,
            found="nothing" if kind == "missing" else problem.found,
            expected=str(problem.expected).removeprefix("Value error, "),
            do=problem.do if kind == "extra_forbidden" else do,
        ) from error
