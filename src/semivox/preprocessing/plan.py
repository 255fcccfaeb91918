"""How scans become network input: voxel size, crop, normalisation and patch, each with its reason.

Importing this module does not import torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from semivox.config import PlanConfig, config_error
from semivox.errors import UserError
from semivox.files import read_json, write_json
from semivox.io.extent import Triple
from semivox.preprocessing.choices import (
    OVERRIDE,
    SIDE,
    Crop,
    Normalisation,
    Spacing,
    choose_crop,
    choose_final_patch,
    choose_normalisation,
    choose_patch,
    choose_spacing,
)
from semivox.preprocessing.fingerprint import Fingerprint, fingerprint
from semivox.progress import Progress

if TYPE_CHECKING:
    from semivox.datasets.dataset import Dataset
    from semivox.datasets.splits import Split

_FIGURES = ("mean", "std", "p005", "p995")


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
    final_patch: Triple | None = Field(
        default=None, description="patch of the last part of a run with train.final_share; sides likewise"
    )
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

    @field_validator("patch", "final_patch")
    @classmethod
    def _check_patch(cls, value: Triple | None) -> Triple | None:
        if value is not None and not all(side > 0 and side % SIDE == 0 for side in value):
            raise ValueError(f"three sides in voxels, each a multiple of {SIDE}")
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
    spacing, reasons["spacing_mm"] = choose_spacing(measured, config)
    crop, reasons["crop"] = choose_crop(measured, config)
    normalisation, reasons["normalisation"] = choose_normalisation(dataset.channels, measured, config)
    if measured.foreground is None and "ct" in normalisation:
        reasons["intensity"] = "Over whole scans, because the labels hold no foreground."
    patch, reasons["patch"] = choose_patch(measured, config, spacing, crop)
    final_patch, reasons["final_patch"] = choose_final_patch(measured, config, spacing, crop, patch)
    if trust:
        reasons["trust_image_geometry"] = OVERRIDE
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
            "final_patch": final_patch,
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
