"""A grid of runs: methods x label counts x seeds x presets, and the order in which they are done."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from semivox.config import Config, Settings, load_config, parse_config
from semivox.settings import Seed, check_labeled

Axis = Literal["seeds", "presets", "labels", "methods"]
Labels = Annotated[
    int | float | Literal["all"] | None,
    BeforeValidator(lambda value: value if value in ("all", None) else check_labeled(value)),
]
AXES: tuple[Axis, ...] = ("seeds", "presets", "labels", "methods")


class Variant(Settings):
    """A method with some of its options changed; a row of the tables."""

    method: str  # registered name
    label: str  # name of the row
    options: dict[str, Any] = Field(default_factory=dict)  # over those of the preset
    more_labels: tuple[Labels, ...] = ()  # for this row beside those of the grid
    published: str | None = None  # its row in the paper's table; None: the label
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)  # for this row, over the grid's

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"method": value, "label": value}
        return {"label": value.get("method"), **value} if isinstance(value, Mapping) else value


class Comparison(Settings):
    """The one comparison that is declared before the runs."""

    method: str  # row that is expected to be better
    reference: str  # row that it is compared with
    labels: Labels = None  # needed if the grid has several
    preset: str | None = None  # likewise
    metric: str = "dice"


class Grid(Settings):
    """What `benchmark` runs.

    `labels` are numbers (int), fractions (float < 1) of the training cases without those for validation, or
    `all`; null: the preset's. A whole number n as `seeds` means 0 to n - 1. `settings` are sections over the
    preset's, `assignments` the same as `section.key=value`, over them. `reference` is the row that the others
    are compared with; null: that of `compare`, or the first. `priority` has the outermost loop first.
    """

    methods: tuple[Variant, ...] = Field(min_length=1)
    labels: tuple[Labels, ...] = Field(default=(None,), min_length=1)
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1, max_length=1000)
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
        if type(value) is int and value < 1:
            raise ValueError("a whole number from 1 on, or a list of seeds")
        return tuple(range(min(value, 1001))) if type(value) is int else value

    @field_validator("methods", "labels", "presets", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | int | float | Mapping) else value


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
        labels = "labels" if self.labels is None else f"{_text(self.labels)}labels"
        row = re.sub(r"[^\w.+-]+", "_", self.variant.label).strip("_")
        return f"runs/{self.preset or 'default'}/{labels}/{row}/seed{self.seed}"

    @property
    def name(self) -> str:
        """For messages."""
        labels = f"{_text(self.labels)} labels" if self.labels else None
        parts = (self.preset, labels, self.variant.label, f"seed {self.seed}")
        return ", ".join(part for part in parts if part)

    @property
    def kind(self) -> str:
        """What decides how long a training step takes."""
        return f"{self.preset or 'default'}, {self.variant.label}"


def cells_of(grid: Grid) -> list[Place]:
    """List the cells in the order of priority."""
    more = (labels for row in grid.methods for labels in row.more_labels if labels not in grid.labels)
    labels = (*grid.labels, *dict.fromkeys(more))
    axes = {"seeds": grid.seeds, "presets": grid.presets, "labels": labels, "methods": grid.methods}
    cells = []
    for values in product(*(axes[axis] for axis in grid.priority)):
        at: dict[str, Any] = dict(zip(grid.priority, values, strict=True))
        if at["labels"] in (*grid.labels, *at["methods"].more_labels):
            cells.append(Place(at["presets"], at["labels"], at["methods"], at["seeds"]))
    return cells


def settings_of(grid: Grid, place: Place) -> Config:
    """Resolve the settings of one cell.

    What a preset says of a method holds for that method's rows, and each row has the settings that its
    method brings along; those of the grid, e.g. `train.iterations`, are the same for all rows.
    """
    row = place.variant
    axes = {"train": {"seed": place.seed}, "split": {"labeled": place.labels}}
    given: dict[str, Any] = {"file": grid.settings, "settings": grid.assignments, **axes}
    base = load_config(preset=place.preset, method={"name": row.method}, **given)
    values = base.model_dump()
    values["method"]["options"] = {**base.method.options, **row.options}
    for section, fields in row.settings.items():
        values.setdefault(section, {}).update(fields)
    return parse_config(values)


def _text(labels: Labels) -> str:
    return f"{labels:g}" if isinstance(labels, int | float) else str(labels)
