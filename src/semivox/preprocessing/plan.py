"""How scans become network input: working grid, crop, normalisation and patch, each with its reason.

Importing this module does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from semivox.config import config_error
from semivox.errors import UserError
from semivox.files import read_json, write_json
from semivox.io.geometry import Triple

Normalisation = Literal["none", "zscore", "zscore_nonzero", "ct"]
Crop = Literal["none", "foreground"]
Spacing = tuple[float, float, float]
_Side = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Block = Annotated[int, Field(ge=1)]
_Step = Annotated[int, Field(ge=1, le=2)]

SIDE = 16  # V-Net and ResNet halve a patch four times
HALVINGS: tuple[Triple, ...] = ((2, 2, 2),) * 4
FIGURES = ("mean", "std", "p005", "p995")
DECLARED = ("channels", "class_names", "class_values", "ignore_value")  # as the data set has them


class Plan(BaseModel):
    """Everything that decides what the network sees of a scan; kept as `plans.json`, which may be edited.

    Axes are those of the canonical grid: the scan's own, permuted and flipped to be closest to RAS.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    channels: tuple[str, ...] = Field(min_length=1)
    class_names: tuple[str, ...] = Field(min_length=2)  # background first
    class_values: tuple[int, ...]  # value on disk of each class index
    ignore_value: int | None = None  # value on disk of unannotated voxels
    spacing_mm: tuple[_Side, _Side, _Side]  # voxel size of the working grid
    grid: Literal["measured", "source", "given"] = "given"  # how it was chosen
    fidelity: float | None = None  # Dice that a measured grid had to keep
    stem: tuple[_Block, _Block, _Block] = (1, 1, 1)  # voxels that the network's features merge
    # halved axes between the levels of the network's features
    strides: tuple[tuple[_Step, _Step, _Step], ...] = Field(default=HALVINGS, min_length=1)
    patch: Triple  # training patch in voxels; sides divisible by stem x strides
    normalisation: tuple[Normalisation, ...]  # one a channel
    crop: Crop  # box around the voxels above the background, found without labels
    trust_image_geometry: bool = False  # use the first image file's affine where others of its case disagree
    memory_gb: float | None = None  # training memory that the patch was chosen for
    intensity: tuple[
        dict[str, float], ...
    ]  # of each channel `FIGURES` over the labeled foreground; used by ct
    one_piece: tuple[bool, ...] = ()  # whether each foreground class is one connected piece in all labels
    grids: tuple[dict[str, Any], ...] = ()  # those compared: spacing, voxels, fidelity of each class, patch
    fingerprint: dict[str, Any] = {}
    reasons: dict[str, str] = {}

    @field_validator("patch")
    @classmethod
    def _check_patch(cls, value: Triple, info: ValidationInfo) -> Triple:
        divisor = divisor_of(info.data.get("stem", (1, 1, 1)), info.data.get("strides", HALVINGS))
        if not all(side > 0 and side % part == 0 for side, part in zip(value, divisor, strict=True)):
            wanted = ", ".join(map(str, divisor)) if len(set(divisor)) > 1 else str(divisor[0])
            raise ValueError(f"three sides in voxels, multiples of {wanted} (stem x strides)")
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
        figures = value if info.field_name == "intensity" else ()
        if not all(set(FIGURES) <= set(one) and one["p005"] <= one["p995"] for one in figures):
            raise ValueError(f"for each channel the numbers {', '.join(FIGURES)}, with p005 <= p995")
        return value

    @property
    def divisor(self) -> Triple:
        """Number of voxels along each axis that a patch's side is a multiple of: stem x strides."""
        return divisor_of(self.stem, self.strides)

    def fitted(self, divisor: Triple = (SIDE, SIDE, SIDE)) -> Self:
        """Return the plan with the sides of its patch rounded up, for networks that need multiples."""
        parts = map(math.lcm, divisor, self.divisor)
        x, y, z = (-(-side // part) * part for side, part in zip(self.patch, parts, strict=True))
        if (x, y, z) == self.patch:
            return self
        wanted = " x ".join(map(str, divisor))
        reason = f"{self.reasons.get('patch', '')} Rounded up to multiples of {wanted} for this method."
        changes = {"patch": (x, y, z), "reasons": self.reasons | {"patch": reason.strip()}}
        return self.model_copy(update=changes)

    def grid_settings(self) -> dict[str, Any]:
        """Return what decides the content of the store, as plain data."""
        names = {"channels", "class_values", "ignore_value", "spacing_mm", "normalisation", "crop"}
        if "ct" in self.normalisation:
            names.add("intensity")
        return self.model_dump(mode="json", include=names)


def divisor_of(stem: Triple, strides: Sequence[Triple]) -> Triple:
    """Return what the sides of a patch have to be multiples of."""
    x, y, z = (block * math.prod(level[axis] for level in strides) for axis, block in enumerate(stem))
    return x, y, z


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
        found = "nothing" if kind == "missing" else problem.found
        do = problem.do if kind == "extra_forbidden" else "correct the entry, or plan anew with --fresh"
        raise UserError(problem.what, found, problem.expected, do, path) from error
