"""Typed, frozen settings: preset + YAML file + `--set a.b=c`, resolved once and stored with the run.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, ValidationError

from semivox.errors import UserError
from semivox.files import read_yaml

Triple = tuple[int, int, int]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MethodConfig(_Settings):
    """Which method, and its options (checked against the method's own `Config` when it is built)."""

    name: str = Field(default="dual", description="registered name, see `semivox methods`")
    options: dict[str, Any] = Field(default_factory=dict, description="the method's own options")
    batch: tuple[NonNegativeInt, NonNegativeInt] | None = Field(
        default=None, description="labeled and unlabeled patches a step; null: the method's own"
    )


class NetConfig(_Settings):
    """What the networks of a method share."""

    width: int = Field(default=16, ge=2, description="channels of the finest level; doubles at every level")
    norm: Literal["batch", "instance", "group", "none"] = Field(
        default="batch", description="normalisation layer"
    )
    dropout: float = Field(default=0.5, ge=0, lt=1, description="probability of dropping a channel")


class SplitConfig(_Settings):
    """Which cases are labeled, unlabeled, for validation, for testing."""

    labeled: int | float | None = Field(
        default=None,
        description="number (int) or fraction (float < 1) of labels to use; null: every case with a label",
    )
    val: int = Field(
        default=0, ge=0, description="cases at the end of the list kept for validation, not trained on"
    )
    seed: int | None = Field(
        default=None, description="shuffle the list with this seed first; null: sorted order"
    )
    file: str | None = Field(default=None, description="a splits.json to use instead")
    fold: int = Field(default=0, ge=0, description="which fold of that file")


class PlanConfig(_Settings):
    """Overrides of the automatic plan; null means: planned from the fingerprint."""

    spacing_mm: tuple[float, float, float] | None = Field(
        default=None, description="voxel size to resample to"
    )
    patch: Triple | None = Field(default=None, description="training patch in voxels; sides divisible by 16")
    final_patch: Triple | None = Field(
        default=None, description="patch of a run's last part, see train.final_share; sides likewise"
    )
    normalisation: Literal["none", "zscore", "zscore_nonzero", "ct"] | None = Field(
        default=None, description="intensity normalisation"
    )
    crop: Literal["none", "foreground"] | None = Field(
        default=None,
        description="crop to the bounding box of voxels above the background (found without labels)",
    )
    trust_image_geometry: bool | None = Field(
        default=None,
        description="true: where a label's or another channel's affine disagrees with that of the first image"
        " file, use the latter's, if the shapes agree",
    )
    memory_gb: float | None = Field(
        default=None, gt=0, description="memory of the training device that the patch has to fit into"
    )


def _text(value: Any) -> Any:
    """YAML reads `precision: 32` as a number."""
    return str(value) if isinstance(value, int) else value


class TrainConfig(_Settings):
    """One training run. Ramps and milestones are fractions of `iterations`."""

    iterations: int = Field(default=6000, ge=1, description="optimiser steps (t_max)")
    budget_s: float | None = Field(
        default=None, gt=0, description="wall-clock seconds; sets `iterations` by a probe"
    )
    seed: int = 0
    batch_labeled: int | None = Field(
        default=None, ge=0, description="labeled patches a step; null: as in `method.batch`"
    )
    batch_unlabeled: int | None = Field(
        default=None, ge=0, description="unlabeled patches a step; null: as in `method.batch`"
    )
    augment: Literal["crop", "rotflip", "intensity", "strong"] = Field(
        default="crop",
        description="crop: random crops only; rotflip: and quarter turns and flips in the plane;"
        " intensity: and mild changes of contrast, brightness, noise and sharpness;"
        " strong: flips, affine and elastic deformation, wider changes of intensity, low resolution",
    )
    final_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the run, at its end, on patches of plan.final_patch: whole scans, where there"
        " is room; `predict` then takes windows of that size. Needs their memory",
    )
    flip_left_right: bool | None = Field(
        default=None, description="mirror patches left-right; null: unless a class is of one side by its name"
    )
    foreground_crops: float = Field(
        default=0.0, ge=0, le=1, description="share of labeled crops centred on a foreground voxel"
    )
    lr: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    schedule: Literal["step", "poly", "constant"] = Field(
        default="step", description="step: x0.1 at each 2500/6000 of the run; poly: (1 - t/t_max)^0.9"
    )
    precision: Annotated[Literal["auto", "32", "bf16", "16"], BeforeValidator(_text)] = Field(
        default="auto", description="auto: bf16 where the hardware is quicker with it, else 32"
    )
    device: str = Field(default="auto", description="auto, cpu, gpu")
    workers: int = Field(default=1, ge=0, description="loader processes a stream; 0: in the training process")
    log_every: int = Field(default=10, ge=1, description="iterations between logged losses")
    validate_every: int | None = Field(
        default=None, ge=1, description="null: ten times a run; needs validation cases"
    )
    checkpoint_every: int | None = Field(default=None, ge=1, description="null: twenty times a run")
    diagnose_every: int | None = Field(
        default=None, ge=1, description="iterations between diagnoses (train --diagnose); null: 25 a run"
    )
    selection: Literal["last", "val"] = Field(default="last", description="which checkpoint is the result")


class PredictConfig(_Settings):
    """Sliding-window inference."""

    window: Literal["patch", "whole"] = Field(
        default="patch",
        description="patch: windows of the training patch's size; whole: one pass over the padded scan where"
        " memory allows it, with much less arithmetic but, as far as measured, a lower Dice",
    )
    stride: Triple | None = Field(
        default=None, description="in voxels of the plan's grid, instead of `overlap`"
    )
    overlap: float = Field(default=0.5, ge=0, lt=1, description="share of a window that overlaps the next")
    weighting: Literal["uniform", "gaussian"] = "gaussian"
    batch: int = Field(default=2, ge=1, description="windows a forward pass")


class Config(_Settings):
    """Everything that decides a run's result."""

    preset: str | None = None
    method: MethodConfig = MethodConfig()
    net: NetConfig = NetConfig()
    split: SplitConfig = SplitConfig()
    plan: PlanConfig = PlanConfig()
    train: TrainConfig = TrainConfig()
    predict: PredictConfig = PredictConfig()


def preset_names() -> list[str]:
    """Names of the shipped presets."""
    folder = resources.files("semivox") / "presets"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_config(
    *, preset: str | None = None, file: Path | None = None, settings: Sequence[str] = (), **sections: Any
) -> Config:
    """Resolve preset, then YAML file, then `sections`, then `a.b=c` settings; the later wins.

    Args:
        preset: a name from `preset_names`.
        file: a YAML file with the same sections.
        settings: assignments such as `train.lr=0.02`; the right side is YAML.
        sections: nested dictionaries, e.g. `train={"seed": 1}`; keys whose value is None are ignored.

    Raises:
        UserError: unknown preset, unknown key (the nearest one is named) or bad value.
    """
    merged: dict[str, Any] = {}
    if preset is not None:
        merged = {**_read_preset(preset), "preset": preset}
    layers = [read_yaml(file) or {}] if file is not None else []
    for layer in (*layers, _drop_none(sections), *map(_parse_setting, settings)):
        _forget_other_method(merged, layer)
        _merge(merged, layer)
    return parse_config(merged)


def parse_config(values: Mapping[str, Any]) -> Config:
    """Check a nested dictionary; problems become a `UserError` with field, value and what is allowed."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise config_error(error, Config) from error


def config_error(error: ValidationError, model: type[BaseModel]) -> UserError:
    """Turn pydantic's report on `model` into one message, naming the nearest field for a typing error."""
    first = error.errors()[0]
    *parents, name = (str(part) for part in first["loc"]) if first["loc"] else ("settings",)
    expected, do = first["msg"], "correct it, or leave it out to get the default"
    if first["type"] == "extra_forbidden":
        known = _fields(model, parents)
        expected = "one of " + ", ".join(known)
        do = f"did you mean {closest}?" if (closest := _nearest(name, known)) else "choose one of these"
    return UserError(
        f"Unknown or wrong setting: {'.'.join([*parents, name])}",
        found=repr(first["input"]),
        expected=expected,
        do=do,
    )


def _nearest(name: str, known: Sequence[str]) -> str | None:
    from difflib import get_close_matches

    matches = get_close_matches(name, known, n=1, cutoff=0.5)
    return matches[0] if matches else None


def _fields(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def _read_preset(name: str) -> dict[str, Any]:
    known = preset_names()
    if name not in known:
        raise UserError(
            f"Unknown preset: {name}",
            found=name,
            expected=", ".join(known),
            do=f"did you mean {closest}?" if (closest := _nearest(name, known)) else "choose one of these",
        )
    text = (resources.files("semivox") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def _parse_setting(setting: str) -> dict[str, Any]:
    key, equals, value = setting.partition("=")
    if not equals or not key.strip():
        raise UserError(
            "A --set value is malformed", found=setting, expected="section.key=value, e.g. train.lr=0.02"
        )
    nested: Any = yaml.safe_load(value)
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


def _drop_none(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _drop_none(item) if isinstance(item, Mapping) else item
        for key, item in value.items()
        if item is not None
    }


def _forget_other_method(base: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Drop the options of `base`'s method where `layer` names another one: they are not that method's."""
    method = layer.get("method")
    name = method.get("name") if isinstance(method, Mapping) else None
    if name is not None and base.get("method", {}).get("name", name) != name:
        base["method"] = {}


def _merge(base: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value
