"""A grid of runs: methods x label counts x seeds x presets, and the order in which they are done."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from semivox.benchmark.published import family_of, published_counts
from semivox.benchmark.scores import METRICS
from semivox.config import Config, Settings, config_error, load_config, parse_config
from semivox.errors import UserError, unknown
from semivox.files import read_yaml
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


def ablation_names() -> list[str]:
    """List the shipped ablations."""
    folder = resources.files("semivox") / "ablations"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_grid(
    *, file: Path | None = None, ablation: str | None = None, changes: Mapping[str, Any] | None = None
) -> Grid:
    """Resolve a shipped ablation, then a YAML file, then `changes`; a later entry replaces an earlier one.

    A later list of `methods` may name earlier rows by their labels. Where their reference is not among them,
    the first is.

    With presets of one published data set, an ablation's fractions of labels become the published numbers:
    10 % of LA are 8 labels, whether or not a preset takes some of the 80 training cases for validation. A
    reference that differs between the published data sets is that of the presets', or of LA.

    Raises:
        UserError: unknown ablation, key or value; two rows of one name; a comparison that is not in the grid.
    """
    merged: dict[str, Any] = dict(read_ablation(ablation)) if ablation else {}
    shares, replaced = merged.get("labels"), False
    for layer in (read_yaml(file) or {} if file else {}, changes or {}):
        if not isinstance(layer, Mapping):
            raise UserError("This is no grid", repr(layer)[:100], "methods: [...], labels: [...]", path=file)
        given = {key: value for key, value in layer.items() if value is not None}
        if "methods" in given:
            given["methods"] = rows_named(merged.get("methods", ()), given["methods"])
        replaced = ("methods" in given or replaced) and "reference" not in given
        merged.update(given)
    if not merged.get("methods"):
        expected, do = "methods: [dual, supervised]", "or --method NAME"
        raise UserError("The grid has no methods", None, expected, do, file)
    if shares is not None and merged["labels"] is shares:
        merged["labels"] = published_counts(shares, merged.get("presets") or ())
    if isinstance(reference := merged.get("reference"), Mapping):
        merged["reference"] = reference.get(family_of(merged.get("presets") or ()), reference["la"])
    if replaced and merged.get("reference") not in row_names(merged["methods"]):
        merged["reference"] = None
    try:
        grid = Grid.model_validate(merged)
    except ValidationError as error:
        raise config_error(error, Grid) from error
    return _checked(grid)


def rows_named(rows: Sequence[Any], chosen: Any) -> Any:
    """Return the rows with these labels; another name is that of a method."""
    if isinstance(chosen, str | Mapping):
        chosen = [chosen]
    if not isinstance(chosen, Sequence):
        return chosen
    known = dict(zip(row_names(rows), rows, strict=True))
    return [known.get(one, one) if isinstance(one, str) else one for one in chosen]


def row_names(rows: Any) -> list[Any]:
    """Return the labels of rows that are not checked yet."""
    if not isinstance(rows, Sequence):
        return []
    return [row.get("label", row.get("method")) if isinstance(row, Mapping) else row for row in rows]


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


def _checked(grid: Grid) -> Grid:
    """Refuse names that occur twice or are unknown; complete the comparison where there is no choice."""
    if sorted(grid.priority) != sorted(AXES):
        found, expected = ", ".join(grid.priority), ", ".join(AXES) + " in any order"
        raise UserError("The priority does not name each axis once", found, expected)
    count = Counter(place.folder for place in cells_of(grid))
    if twice := [folder for folder, times in count.items() if times > 1]:
        expected = "a label of its own for each row, and each number of labels, seed and preset once"
        raise UserError("Two runs of the grid have the same name", twice[0], expected, "change or remove one")
    rows = [variant.label for variant in grid.methods]
    named: list[tuple[str, Any, Sequence[Any]]] = [("reference", grid.reference or rows[0], rows)]
    if compare := grid.compare:
        labels = grid.labels[0] if len(grid.labels) == 1 else compare.labels
        preset = grid.presets[0] if len(grid.presets) == 1 else compare.preset
        compare = compare.model_copy(update={"labels": labels, "preset": preset})
        named += [("compare.method", compare.method, rows), ("compare.reference", compare.reference, rows)]
        named += [("compare.labels", labels, grid.labels), ("compare.preset", preset, grid.presets)]
        named += [("compare.metric", compare.metric, METRICS)]
    for what, value, known in named:
        if value not in known:
            raise unknown(what, value, known)
    _check_settings(grid)
    return grid.model_copy(update={"compare": compare})


def _check_settings(grid: Grid) -> None:
    """Refuse settings that an axis of the grid would replace, and those of a row that all rows share."""
    axes: dict[tuple[str, str, str], Sequence[Any]] = {
        ("train", "seed", "seeds"): grid.seeds, ("split", "labeled", "labels"): grid.labels,
    }  # fmt: skip
    for settings in (grid.settings, *(row.settings for row in grid.methods)):
        for (section, key, axis), values in axes.items():
            fields = settings.get(section)
            value = fields.get(key) if isinstance(fields, Mapping) else None
            if value is not None and set(values) not in ({None}, {value}):
                found = f"{value}, and {axis}: {', '.join(map(str, values))}"
                raise UserError(f"Two values for {section}.{key}", found, f"{axis} of the grid alone")
    for row in grid.methods:
        if shared := {"split", "plan"} & row.settings.keys():
            found, do = (f"{min(shared)} for the row {row.label}", "put it under the grid's own settings")
            raise UserError("The rows of a grid share one split and one plan", found, do=do)


def read_ablation(name: str) -> dict[str, Any]:
    """Return the content of a shipped ablation; another name is a `UserError` with the nearest one."""
    if name not in ablation_names():
        raise unknown("ablation", name, ablation_names())
    text = (resources.files("semivox") / "ablations" / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))
