"""What each table and figure of arXiv 2509.13084 compares: data sets, rows, numbers of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from semivox.benchmark.grid import Grid, family_of, load_grid, published_counts, read_ablation
from semivox.benchmark.published import DATASETS, published
from semivox.errors import UserError, unknown
from semivox.files import read_json

PRESETS = {"la": "la-8", "pancreas": "pancreas-6", "brats": "brats-25"}
_NAMES = {"la2018": "la", "leftatrium": "la", "pancreas": "pancreas", "brats": "brats"}  # of data sets


@dataclass(frozen=True)
class Item:
    """A table or figure of the paper."""

    name: str  # what is typed
    title: str
    shows: Literal["table", "dots", "pictures", "curves"] = "table"
    ablations: tuple[str, ...] = ()  # whose rows it has; none: those of the paper's comparison
    family: str | None = None  # the published data set that it is of; None: all three
    shares: tuple[float, ...] = (0.10,)  # of labels
    seeds: int = 3

    @property
    def table(self) -> str | None:
        """Name of the published table whose figures stand beside; None for a figure without numbers."""
        if not self.ablations:
            return "comparison"
        return self.ablations[0] if len(self.ablations) == 1 else None


ITEMS = {
    item.name: item
    for item in (
        Item("table1", "all methods on LA", family="la", shares=(0.10, 0.20)),
        Item("table2", "all methods on Pancreas-CT", family="pancreas", shares=(0.10, 0.20)),
        Item("table3", "all methods on BraTS 2019", family="brats", shares=(0.10, 0.20)),
        Item("table4", "modules of dual", ablations=("modules",)),
        Item("table5", "distance of CR", ablations=("distance",), shares=(0.10, 0.15, 0.20, 0.25)),
        Item("table6", "third term of PGL", ablations=("contrast",), shares=(0.10, 0.20)),
        Item("table7", "entropy percentile", ablations=("percentile",)),
        Item("figure1", "methods over data sets, 10 % of the labels", "dots"),
        Item("figure5", "cases of LA by methods", "pictures", family="la", seeds=1),
        Item("figure6", "cases of Pancreas-CT by methods", "pictures", family="pancreas", seeds=1),
        Item("figure7", "cases of BraTS 2019 by methods", "pictures", family="brats", seeds=1),
        Item("figure8", "tau, T and beta of dual", "curves", ("tau", "temperature", "beta")),
    )
}


@dataclass(frozen=True)
class Entry:
    """A data set of an item."""

    data: Path  # raw folder or workspace
    name: str  # of the data set; its runs stand in a folder of this name
    family: str  # the published data set whose figures stand beside
    grid: Grid
    references: tuple[str, ...]  # rows that are the published setting


def find_item(name: str) -> Item:
    """Return a table or figure by name; another name is a `UserError` with the nearest one."""
    if name not in ITEMS:
        raise unknown("table or figure of the paper", name, ITEMS)
    return ITEMS[name]


def entries_of(item: Item, data: Sequence[Path], changes: Mapping[str, Any]) -> list[Entry]:
    """Resolve the grid of each data set.

    `changes` are entries of a grid that replace the item's. `presets`: one for all data sets, or one each;
    without, those of the paper for its data sets. `methods`: only these rows.

    Raises:
        UserError: no preset for a data set; a data set that the item is not of; two of one name.
    """
    presets = list(changes.get("presets") or [None])
    if len(presets) not in (1, len(data)):
        expected, do = f"one for all, or {len(data)} in the order of the data sets", "repeat -p"
        raise UserError("Presets and data sets do not fit", f"{len(presets)} presets", expected, do)
    presets *= len(data) if len(presets) == 1 else 1
    found = [_entry(item, one, preset, changes) for one, preset in zip(data, presets, strict=True)]
    names = [entry.name for entry in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError("Two data sets have the same name", twice, do='change "name" in one dataset.json')
    return found


def _entry(item: Item, data: Path, preset: str | None, changes: Mapping[str, Any]) -> Entry:
    description = _description(data)
    name = description["name"]
    family = family_of([preset]) if preset else guess_family(name)
    if preset is None and family is not None:
        preset = PRESETS[family]
        _refuse_other_data(item, description, preset, data)
    if preset is None:
        expected = "LA 2018, Pancreas-CT or BraTS 2019 by name, or a preset"
        raise UserError("The settings for this data set are not known", name, expected, "add -p lite", data)
    if item.family and family and family != item.family:
        other = next(one.name for one in ITEMS.values() if (one.family, one.shows) == (family, item.shows))
        is_of = f"{item.name} is of {DATASETS[item.family]}, not of {DATASETS[family]}"
        raise UserError(is_of, preset, do=f"--paper {other}", path=data)
    known = family or item.family or "la"
    rows, references = _rows(item, known)
    layer = {
        "methods": rows,
        "labels": published_counts(item.shares, [preset]),
        "reference": references[0],
        "seeds": item.seeds,
        **{key: value for key, value in changes.items() if value is not None},
        "presets": [preset],
    }
    if chosen := changes.get("methods"):
        by_label = {row["label"]: row for row in rows}
        layer["methods"] = [by_label.get(one, one) if isinstance(one, str) else one for one in chosen]
        labels = [row["label"] if isinstance(row, Mapping) else row for row in layer["methods"]]
        references = tuple(one for one in references if one in labels) or (labels[0],)
        layer["reference"] = references[0]
    return Entry(data, name, known, load_grid(changes=layer), references)


def _rows(item: Item, family: str) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return the rows of an item, and those of them that are the published setting."""
    if item.ablations:
        grids = [read_ablation(name) for name in item.ablations]
        given = [grid["reference"] for grid in grids]
        references = (one[family] if isinstance(one, Mapping) else one for one in given)
        return [row for grid in grids for row in grid["methods"]], tuple(references)
    rows: dict[str, dict[str, Any]] = {}
    for line in published(family).to_dict("records"):
        row = {"method": line["name"], "label": line["name"], "published": line["method"]}
        if line["name"] == "supervised" and item.shows == "table":
            row["more_labels"] = ["all"]
        rows.setdefault(line["name"], row)
    return list(rows.values()), ("dual",)


def _description(data: Path) -> dict[str, Any]:
    """Read what the data set says of itself; without a name, it has that of the folder."""
    file = data / "dataset.json"
    content = read_json(file) if file.is_file() else {}
    content = content if isinstance(content, dict) else {}
    return {**content, "name": str(content.get("name") or data.resolve().name).replace("/", "_")}


def _refuse_other_data(item: Item, description: Mapping[str, Any], preset: str, data: Path) -> None:
    """The paper's settings are for one channel and one class; an import can have more."""
    names = ("channels", "channel_names", "modality"), ("class_names", "labels")
    channels, classes = ([*next(filter(None, map(description.get, one)), ())] for one in names)
    counts = len(channels) or 1, len({*classes} - {"ignore"}) - 1 if classes else 1
    if counts != (1, 1):
        found = f"channels: {counts[0]}, classes: {counts[1]}"
        do = f"import it as published, or add -p {preset} to run {item.name} nevertheless"
        raise UserError("The paper's settings are for one channel and one class", found, do=do, path=data)


def guess_family(name: str) -> str | None:
    """Return the published data set that a name is of, or None."""
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return next((family for start, family in _NAMES.items() if plain.startswith(start)), None)
