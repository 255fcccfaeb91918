"""A grid from a shipped ablation, a YAML file and the command line; what cannot be right in it is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from semivox.benchmark.grid import AXES, Grid, cells_of
from semivox.benchmark.published import family_of, published_counts
from semivox.benchmark.scores import METRICS
from semivox.config import config_error
from semivox.errors import UserError, unknown
from semivox.files import read_yaml


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


def ablation_names() -> list[str]:
    """List the shipped ablations."""
    folder = resources.files("semivox") / "ablations"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def read_ablation(name: str) -> dict[str, Any]:
    """Return the content of a shipped ablation; another name is a `UserError` with the nearest one."""
    if name not in ablation_names():
        raise unknown("ablation", name, ablation_names())
    text = (resources.files("semivox") / "ablations" / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


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
