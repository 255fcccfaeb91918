"""How scans become network input: voxel size, crop, normalisation and patch, each with its reason.

Importing this module does not import torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from semivox.config import config_error
from semivox.errors import UserError
from semivox.files import read_json, write_json
from semivox.io.geometry import Triple

Normalisation = Literal["none", "zscore", "zscore_nonzero", "ct"]
Crop = Literal["none", "foreground"]
Spacing = tuple[float, float, float]

SIDE = 16  # the networks halve a patch four times
FIGURES = ("mean", "std", "p005", "p995")


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
    spacing_mm: Spacing = Field(description="voxel size of the working grid")
    patch: Triple = Field(description="training patch in voxels; sides divisible by 16")
    final_patch: Triple | None = Field(
        default=None, description="patch of the last part of a run with train.final_share; sides likewise"
    )
    normalisation: tuple[Normalisation, ...] = Field(description="one a channel")
    crop: Crop = Field(description="box around the voxels above the background, found without labels")
    trust_image_geometry: bool = Field(
        default=False, description="use the first image file's affine where others of its case disagree"
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
        if len(value) != (count := len(info.data.get("channels", value))):
            raise ValueError(f"one entry for each channel ({count})")
        return value

    @field_validator("intensity")
    @classmethod
    def _check_intensity(cls, value: tuple[dict[str, float], ...]) -> tuple[dict[str, float], ...]:
        if not all(set(FIGURES) <= set(channel) and channel["p005"] <= channel["p995"] for channel in value):
            raise ValueError(f"for each channel the numbers {', '.join(FIGURES)}, with p005 <= p995")
        return value

    def grid_settings(self) -> dict[str, Any]:
        """Return what decides the content of the store, as plain data."""
        names = {"channels", "class_values", "ignore_value", "spacing_mm", "normalisation", "crop"}
        if "ct" in self.normalisation:
            names.add("intensity")
        return self.model_dump(mode="json", include=names)

    def largest_volumes_ml(self) -> list[list[float]]:
        """Return the largest volume of each foreground class, once for each labeled case measured."""
        ranges = self.fingerprint.get("class_volumes_ml") or {}
        largest = [ranges[name]["max"] for name in self.class_names[1:] if name in ranges]
        return [largest] * len(self.fingerprint.get("labeled_cases", ())) if largest else []


def save_plan(plan: Plan, path: Path) -> None:
    """Write the plan as indented JSON."""
    write_json(path, plan.model_dump(mode="json"))


def load_plan(path: Path) -> Plan:
    """Read a plan and check it; what an edit broke becomes a `UserError` that names the entry."""
    return checked_plan(read_json(path), path)


def checked_plan(values: Any, path: Path | None = None) -> Plan:
    """Build a plan; what is wrong becomes a `UserError` that names the entry."""
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        problem, kind = config_error(error, Plan), error.errors()[0]["type"]
        do = "correct the entry, or delete the file and run semivox plan again"
        if path is None:
            do = "correct it among the settings of the plan, or leave it out"
        found = "nothing" if kind == "missing" else problem.found
        expected = str(problem.expected).removeprefix("Value error, ")
        do = problem.do if kind == "extra_forbidden" and problem.do else do
        raise UserError(problem.what, found, expected, do, path) from error
