"""Every setting of semivox with its type, limits, default and meaning; `semivox.config` resolves them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)


def check_labeled(value: Any) -> Any:
    """Accept a number of cases or a fraction; 8.0 is 8, but 1.0 could be one case or all of them."""
    if isinstance(value, float) and value.is_integer() and value > 1:
        return int(value)
    fits = 0 < value < 1 if isinstance(value, float) else type(value) is int and value >= 1
    if not fits:
        raise ValueError("a whole number of cases from 1 on, a fraction between 0 and 1, or all")
    return value


def _precision(value: Any) -> Any:
    """YAML reads `precision: 32` as a number."""
    return str(value) if type(value) is int else value


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|gpu|mps|cuda(:\d{1,4})?", name):
        raise ValueError("auto, cpu or gpu (or mps, cuda, cuda:1 for the second GPU)")
    return name


Triple = tuple[int, int, int]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy and PyTorch both accept
Labeled = Annotated[int | float, BeforeValidator(check_labeled)]
Device = Annotated[str, AfterValidator(_device)]
Workers = Annotated[int, Field(ge=0, le=256)]
Share = Annotated[float, Field(ge=0, le=1)]
_Side = Annotated[int, Field(ge=4, multiple_of=4)]
_Block = Annotated[int, Field(ge=1, le=4)]
_Length = Annotated[float, Field(gt=0, le=1000)]


def _null(description: str, **limits: Any) -> Any:
    """Make a setting that is null where it is not given."""
    return Field(default=None, description=description, **limits)


class Settings(BaseModel):
    """Base of all settings: frozen; unknown names, wrong types, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _tuples(cls, value: Any) -> Any:
        """YAML and JSON know lists only."""
        return tuple(value) if isinstance(value, list) else value


class MethodConfig(Settings):
    """Which method, and its options (checked against the method's own `Config`)."""

    name: str = Field(default="self_training", description="registered name, see `semivox methods`")
    options: dict[str, Any] = Field(default_factory=dict, description="the method's own options")
    batch: tuple[NonNegativeInt, NonNegativeInt] | None = _null(
        "labeled and unlabeled patches a step; null: the method's own"
    )


class NetConfig(Settings):
    """What the networks of a method share."""

    name: str | None = _null(
        "network of the method, both of a pair: vnet, resnet34, unet3d, resunet, or monai:CLASS,"
        " e.g. monai:SwinUNETR; null: the method's own",
        min_length=1,
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="of a network of MONAI, e.g. {feature_size: 24}; dropout, norm and strides are not for"
        " it, width only where its class requires channels for its levels",
    )
    width: int = Field(
        default=16, ge=2, le=1024, description="channels of the finest level, doubled at each coarser"
    )
    norm: Literal["batch", "instance", "group", "none"] = Field(
        default="batch", description="normalisation layer"
    )
    dropout: float = Field(default=0.5, ge=0, lt=1, description="probability of dropping a channel")
    strides: Literal["published", "plan"] = Field(
        default="published",
        description="published: each level halves all axes; plan: as the plan says, thick slices are not"
        " halved (resunet always follows the plan)",
    )

    def shared(self) -> dict[str, Any]:
        """Return what `semivox.nets.NetFactory` needs of these settings."""
        shared = {**self.model_dump(exclude={"strides"}), "along_plan": self.strides == "plan"}
        return {name: value for name, value in shared.items() if value not in (None, {})}


class SplitConfig(Settings):
    """Which cases are labeled, unlabeled, for validation, for testing."""

    labeled: Labeled | None = _null("number of labels to use, or a fraction below 1; null: all")
    val: int = Field(
        default=0, ge=0, description="training cases, at the end of the list, to keep for validation"
    )
    seed: Seed | None = _null("shuffle the list with this seed before splitting; null: not")
    file: str | None = _null("splits.json or splits_final.json that decides all roles", min_length=1)
    fold: int | None = _null("fold of split.file; without one, of a cross-validation", ge=0)
    folds: int = Field(default=5, ge=2, description="number of folds of a cross-validation")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse what another setting would silently switch off."""
        given = {"labeled": self.labeled is not None, "val": self.val > 0, "seed": self.seed is not None}
        if self.file is not None and (useless := [name for name, is_given in given.items() if is_given]):
            raise ValueError(f"split.file decides all roles: leave out split.{useless[0]}")
        if self.fold is not None and self.file is None:
            if self.val:
                raise ValueError("the fold decides which cases validate: leave out split.val or split.fold")
            if self.fold >= self.folds:
                raise ValueError(f"split.fold from 0 to {self.folds - 1}; split.folds sets their number")
        elif self.folds != 5:
            raise ValueError("split.folds goes with split.fold, and without split.file")
        return self


class PlanConfig(Settings):
    """Overrides of the automatic plan; null means: planned from the fingerprint."""

    spacing_mm: tuple[_Length, _Length, _Length] | None = _null("voxel size to resample to")
    patch: tuple[_Side, _Side, _Side] | None = _null(
        "training patch in voxels; most networks need sides divisible by 16"
    )
    grid: Literal["measured", "source"] | None = _null(
        "without spacing_mm; measured: the coarsest grid that keeps `fidelity`; source: the"
        " scans' own median voxel size; null: measured"
    )
    fidelity: float | None = _null(
        "Dice that each class keeps when labels are averaged to the features' grid and back;"
        " null: 0.99 if a small patch holds the scan then, else 0.975",
        gt=0,
        le=1,
    )
    stem: tuple[_Block, _Block, _Block] | None = _null(
        "voxels that the network's features merge along each axis"
    )
    normalisation: Literal["none", "zscore", "zscore_nonzero", "ct"] | None = _null("intensity normalisation")
    crop: Literal["none", "foreground"] | None = _null(
        "crop to the bounding box of voxels above the background (found without labels)"
    )
    trust_image_geometry: bool | None = _null(
        "where a label's or another channel's affine disagrees with that of the first image"
        " file, use the latter's, if the shapes agree"
    )
    memory_gb: float | None = _null("memory of the training device that the patch has to fit into", gt=0)


class TrainConfig(Settings):
    """One training run. Ramps and milestones are fractions of `iterations`."""

    iterations: int = Field(default=6000, ge=1, description="optimiser steps (t_max)")
    budget_s: float | None = _null("wall-clock seconds; sets `iterations` by a probe", gt=0)
    init: str | None = _null("run folder whose weights are the initial ones; null: random", min_length=1)
    seed: Seed = Field(default=0, description="of weights, batches and augmentation")
    batch_labeled: NonNegativeInt | None = _null("labeled patches a step; null: as in `method.batch`")
    batch_unlabeled: NonNegativeInt | None = _null("unlabeled patches a step; null: as in `method.batch`")
    augment: Literal["crop", "rotflip", "intensity", "strong", "full"] = Field(
        default="crop",
        description="crop: random crops only; rotflip: and quarter turns and flips in the plane;"
        " intensity: and mild changes of contrast, brightness, noise and sharpness;"
        " strong: flips, affine and elastic deformation, wider changes of intensity, low resolution;"
        " full: affine and elastic deformation in one resampling, all changes of intensity, no flips unless"
        " flip_left_right is true",
    )
    flip_left_right: bool | None = _null(
        "mirror patches left-right; null: unless a class is of one side by its name"
    )
    foreground_crops: Share = Field(
        default=0.0, description="share of labeled crops centred on a foreground voxel"
    )
    optimizer: Literal["sgd", "adam", "adamw"] = Field(default="sgd", description="of the networks")
    lr: float = Field(default=0.01, gt=0, description="highest learning rate")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(default=1e-4, ge=0, description="adamw: decoupled from the gradient")
    clip: float | None = _null("largest norm of the gradient; null: any", gt=0)
    average: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights that validates and predicts; 0: the last"
        " weights",
    )
    warmup: NonNegativeInt = Field(default=0, description="iterations in which the learning rate rises")
    schedule: Literal["step", "poly", "constant"] = Field(
        default="step",
        description="step: x0.1 at each 2500/6000 of the run; poly: (1 - t/t_max)^0.9;"
        " a method with several stages has one schedule a stage",
    )
    step_every: float | None = _null(
        "of schedule step: share of the whole run between two drops, counted from the start of a"
        " stage; null: 2500/6000, of the stage",
        gt=0,
        le=1,
    )
    precision: Annotated[Literal["auto", "32", "bf16", "16"], BeforeValidator(_precision)] = Field(
        default="auto", description="auto: bf16 where the hardware is faster with it, else 32"
    )
    device: Device = Field(default="auto", description="auto, cpu, gpu")
    workers: Workers = Field(default=1, description="loader processes a stream; 0: in the training process")
    log_every: PositiveInt = Field(default=10, description="iterations between logged losses")
    validate_every: PositiveInt | None = _null("null: ten times a run; needs validation cases")
    checkpoint_every: PositiveInt | None = _null("null: twenty times a run")
    diagnose_every: PositiveInt | None = _null(
        "iterations between diagnoses (train --diagnose); null: 25 a run"
    )
    selection: Literal["last", "val"] = Field(default="last", description="which checkpoint is the result")


class PredictConfig(Settings):
    """Prediction: the sliding window, views and clean-up."""

    window: Literal["patch", "whole", "auto"] = Field(
        default="patch",
        description="patch: windows of the training patch's size; whole: one pass over the padded scan where"
        " memory allows it, with much less arithmetic; auto: whole for scans up to twice the patch",
    )
    stride: tuple[PositiveInt, PositiveInt, PositiveInt] | None = _null(
        "in voxels of the working grid, instead of `overlap`"
    )
    overlap: float = Field(default=0.5, ge=0, lt=1, description="share of a window that overlaps the next")
    weighting: Literal["uniform", "gaussian"] = Field(
        default="gaussian", description="of the voxels of a window"
    )
    batch: PositiveInt = Field(default=2, description="windows a forward pass")
    tta: bool = Field(
        default=False, description="test-time augmentation: average over five small changes of the scan"
    )
    postprocess: bool = Field(
        default=True, description="apply the clean-up that helped on validation cases, if any did"
    )


class Config(Settings):
    """Everything that decides a run's result."""

    preset: str | None = None
    method: MethodConfig = MethodConfig()
    net: NetConfig = NetConfig()
    split: SplitConfig = SplitConfig()
    plan: PlanConfig = PlanConfig()
    train: TrainConfig = TrainConfig()
    predict: PredictConfig = PredictConfig()
