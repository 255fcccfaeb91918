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
from semivox.data.fingerprint import Fingerprint, Progress, Triple, fingerprint
from semivox.errors import UserError
from semivox.files import read_json, write_json

if TYPE_CHECKING:
    from semivox.data.dataset import Dataset
    from semivox.data.splits import Split

Normalisation = Literal["none", "zscore", "zscore_nonzero", "ct"]
Crop = Literal["none", "foreground"]
Spacing = tuple[float, float, float]

MAX_PATCH_VOXELS = 112 * 112 * 80
_SIDE = 16  # the networks halve a patch four times
_CT = re.compile(r"(?<![a-z])ct(?![a-z])", re.IGNORECASE)
_BACKGROUND_SHARE = 0.25
_ANISOTROPIC = 3.0
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
    max_patch_voxels: int = MAX_PATCH_VOXELS,
    progress: Progress | None = None,
) -> Plan:
    """Choose voxel size, crop, normalisation and patch from the scans; what `config` sets is taken as it is.

    Args:
        dataset: the cases.
        split: labels of its labeled cases alone are opened.
        config: overrides.
        measured: a fingerprint made before; None: made here.
        max_patch_voxels: upper limit of the patch that is chosen here; it bounds the training memory.
        progress: of the fingerprint.

    Raises:
        UserError: unusable files; a patch side that is not divisible by 16.
    """
    measured = measured or fingerprint(dataset, split, progress)
    reasons: dict[str, str] = {}
    spacing, reasons["spacing_mm"] = _spacing(measured, config)
    crop, reasons["crop"] = _crop(measured, config)
    normalisation, reasons["normalisation"] = _normalisation(dataset.channels, config)
    if measured.foreground is None and "ct" in normalisation:
        reasons["intensity"] = "Over whole scans, because the labels hold no foreground."
    patch, reasons["patch"] = _patch(measured, config, spacing, crop, max_patch_voxels)
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


def _normalisation(channels: Sequence[str], config: PlanConfig) -> tuple[tuple[Normalisation, ...], str]:
    if config.normalisation is not None:
        return (config.normalisation,) * len(channels), _OVERRIDE
    chosen: tuple[Normalisation, ...] = tuple("ct" if _CT.search(name) else "zscore" for name in channels)
    ct = [name for name, how in zip(channels, chosen, strict=True) if how == "ct"]
    if not ct:
        return chosen, "No channel is named CT, so each scan gets mean 0 and standard deviation 1."
    others = "" if len(ct) == len(channels) else ", each scan's own mean and deviation for the others"
    return chosen, f"One scale and range for all scans where a channel is named CT ({', '.join(ct)}){others}."


def _patch(
    measured: Fingerprint, config: PlanConfig, spacing: Spacing, crop: Crop, max_voxels: int
) -> tuple[Triple, str]:
    if config.patch is not None:
        return config.patch, _OVERRIDE
    shapes = [
        np.multiply(case.foreground_shape if crop == "foreground" else case.shape, case.spacing_mm) / spacing
        for case in measured.cases
    ]
    median = np.maximum(1, np.round(np.median(shapes, axis=0)))
    size = " x ".join(f"{side:.0f}" for side in median)
    return patch_for(median.tolist(), max_voxels), (
        f"In the proportions of the median scan ({size} voxels at this voxel size),"
        f" at most {max_voxels} voxels, sides divisible by {_SIDE}."
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
