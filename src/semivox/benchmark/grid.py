"""A grid of runs: methods x label counts x seeds x presets, and the order in which they are done."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from semivox.config import Config, MethodConfig, config_error, load_config, parse_config
from semivox.errors import UserError
from semivox.files import read_yaml

Axis = Literal["seeds", "presets", "labels", "methods"]
Labels = int | float | None
AXES: tuple[Axis, ...] = ("seeds", "presets", "labels", "methods")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Variant(_Part):
    """A method with some of its options changed; a row of the tables."""

    method: str = Field(description="registered name")
    label: str = Field(description="name of the row")
    options: dict[str, Any] = Field(default_factory=dict, description="over those of the preset")
    settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="sections of the settings for this row, over the grid's"
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"method": value, "label": value}
        return {"label": value.get("method"), **value} if isinstance(value, Mapping) else value


class Comparison(_Part):
    """The one comparison that is declared before the runs."""

    method: str = Field(description="row that is expected to be better")
    reference: str = Field(description="row that it is compared with")
    labels: Labels = Field(default=None, description="needed if the grid has several")
    preset: str | None = Field(default=None, description="needed if the grid has several")
    metric: str = "dice"


class Grid(_Part):
    """What `benchmark` runs.

    Attributes:
        methods: rows of the tables.
        labels: numbers (int) or fractions (float < 1) of labels; null: the preset's.
        seeds: of weights, batches and augmentation; a whole number n in a file means 0 to n - 1.
        presets: shipped settings; null: none.
        settings: sections of the settings for all runs, over the preset's.
        assignments: the same as `section.key=value`, over `settings`.
        cases: score the test cases, or the validation cases while developing.
        compare: the declared comparison.
        reference: row that the others are compared with; null: that of `compare`, or the first.
        priority: axes from the outermost loop to the innermost, each value in its order.
    """

    methods: tuple[Variant, ...] = Field(min_length=1)
    labels: tuple[Labels, ...] = Field(default=(None,), min_length=1)
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    presets: tuple[str | None, ...] = Field(default=(None,), min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    assignments: tuple[str, ...] = ()
    cases: Literal["test", "val"] = "test"
    compare: Comparison | None = None
    reference: str | None = None
    priority: tuple[Axis, ...] = AXES

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:
        return tuple(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value


@dataclass(frozen=True)
class Place:
    """One cell of the grid."""

    preset: str | None
    labels: Labels
    variant: Variant
    seed: int

    @property
    def folder(self) -> str:
        """Where its run stands, below the output folder."""
        labels = "labels" if self.labels is None else f"{self.labels:g}labels"
        row = re.sub(r"[^\w.+-]+", "_", self.variant.label).strip("_")
        return f"runs/{self.preset or 'default'}/{labels}/{row}/seed{self.seed}"

    @property
    def name(self) -> str:
        """For messages."""
        parts = (
            self.preset,
            self.labels and f"{self.labels:g} labels",
            self.variant.label,
            f"seed {self.seed}",
        )
        return ", ".join(part for part in parts if part)


def ablation_names() -> list[str]:
    """Names of the shipped ablations."""
    folder = resources.files("semivox") / "ablations"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_grid(
    *, file: Path | None = None, ablation: str | None = None, changes: Mapping[str, Any] | None = None
) -> Grid:
    """Resolve a shipped ablation, then a YAML file, then `changes`; a later entry replaces an earlier one.

    Raises:
        UserError: unknown ablation, key or value; two rows of one name; a comparison that is not in the grid.
    """
    merged: dict[str, Any] = dict(_read_ablation(ablation)) if ablation else {}
    for layer in (read_yaml(file) or {} if file else {}, changes or {}):
        merged.update({key: value for key, value in layer.items() if value is not None})
    if not merged.get("methods"):
        raise UserError(
            "The grid has no methods",
            path=file,
            expected="methods: [dual, supervised]",
            do="or --method NAME",
        )
    try:
        grid = Grid.model_validate(merged)
    except ValidationError as error:
        raise config_error(error, Grid) from error
    if sorted(grid.priority) != sorted(AXES):
        raise UserError(
            "The priority does not name each axis once",
            found=", ".join(grid.priority),
            expected=", ".join(AXES) + " in any order",
            do="correct it, or leave it out",
        )
    _check_names(grid)
    if grid.reference is not None and grid.reference not in {variant.label for variant in grid.methods}:
        raise UserError(
            "The reference is not a row of the grid",
            found=grid.reference,
            expected="one of " + ", ".join(variant.label for variant in grid.methods),
            do="correct it, or leave it out",
        )
    return (
        grid if grid.compare is None else grid.model_copy(update={"compare": _completed(grid, grid.compare)})
    )


def cells_of(grid: Grid) -> list[Place]:
    """The cells in the order of priority."""
    axes = {"seeds": grid.seeds, "presets": grid.presets, "labels": grid.labels, "methods": grid.methods}
    cells = []
    for values in product(*(axes[axis] for axis in grid.priority)):
        at: dict[str, Any] = dict(zip(grid.priority, values, strict=True))
        cells.append(Place(at["presets"], at["labels"], at["methods"], at["seeds"]))
    return cells


def settings_of(grid: Grid, place: Place) -> Config:
    """The complete settings of one cell; what a preset says of a method holds for that method's rows."""
    row = place.variant
    base = load_config(preset=place.preset, settings=grid.assignments, **grid.settings)
    method = base.method if base.method.name == row.method else MethodConfig(name=row.method)
    values = base.model_dump()
    values["method"] = method.model_dump() | {"options": {**method.options, **row.options}}
    for section, fields in row.settings.items():
        values.setdefault(section, {}).update(fields)
    values["train"]["seed"] = place.seed
    if place.labels is not None:
        values["split"]["labeled"] = place.labels
    return parse_config(values)


def _check_names(grid: Grid) -> None:
    """Rows, labels, seeds and presets must not share a folder."""
    count = Counter(place.folder for place in cells_of(grid))
    if twice := [folder for folder, times in count.items() if times > 1]:
        raise UserError(
            "Two runs of the grid have the same name",
            found=twice[0],
            expected="a label of its own for each row, and each number of labels, seed and preset once",
            do="change or remove one of them",
        )


def _completed(grid: Grid, compare: Comparison) -> Comparison:
    """The comparison with labels and preset filled in where the grid has only one."""
    rows = [variant.label for variant in grid.methods]
    labels = grid.labels[0] if len(grid.labels) == 1 else compare.labels
    preset = grid.presets[0] if len(grid.presets) == 1 else compare.preset
    for what, value, known in (
        ("method", compare.method, rows),
        ("reference", compare.reference, rows),
        ("labels", labels, list(grid.labels)),
        ("preset", preset, list(grid.presets)),
    ):
        if value not in known:
            raise UserError(
                f"The declared comparison names no {what} of the grid",
                found=value,
                expected="one of " + ", ".join(map(str, known)),
                do=f"correct compare.{what}",
            )
    return compare.model_copy(update={"labels": labels, "preset": preset})


def _read_ablation(name: str) -> dict[str, Any]:
    known = ablation_names()
    if name not in known:
        closest = get_close_matches(name, known, n=1, cutoff=0.5)
        raise UserError(
            f"Unknown ablation: {name}",
            found=name,
            expected=", ".join(known),
            do=f"did you mean {closest[0]}?" if closest else "choose one of these",
        )
    text = (resources.files("semivox") / "ablations" / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))
