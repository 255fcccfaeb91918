"""What each table and figure of arXiv 2509.13084 compares: data sets, rows, numbers of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from semivox.benchmark.grid import Grid
from semivox.benchmark.grid_file import load_grid, read_ablation, row_names, rows_named
from semivox.benchmark.published import FAMILIES, family_named, family_of, published, published_counts
from semivox.datasets.dataset import open_dataset
from semivox.errors import UserError, unknown


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
    dataset = open_dataset(data)
    name = dataset.name.replace("/", "_")
    family = family_of([preset]) if preset else family_named(name)
    if preset is None:
        if family is None:
            known = ", ".join(one.title for one in FAMILIES.values())
            what, expected = "The settings for this data set are not known", f"{known} by name, or a preset"
            raise UserError(what, name, expected, "add -p lite", data)
        preset, channels, classes = FAMILIES[family].preset, len(dataset.channels), dataset.num_classes - 1
        if (channels, classes) != (1, 1):
            what = "The paper's settings are for one channel and one class"
            found = f"channels: {channels}, classes: {classes}"
            do = f"import it as published, or add -p {preset} to run {item.name} nevertheless"
            raise UserError(what, found, do=do, path=data)
    if item.family and family and family != item.family:
        other = next(one.name for one in ITEMS.values() if (one.family, one.shows) == (family, item.shows))
        is_of = f"{item.name} is of {FAMILIES[item.family].title}, not of {FAMILIES[family].title}"
        raise UserError(is_of, preset, do=f"--paper {other}", path=data)
    known = family or item.family or "la"
    rows, references = _rows(item, known)
    if chosen := changes.get("methods"):
        rows = rows_named(rows, chosen)
        names = row_names(rows)
        references = tuple(one for one in references if one in names) or (names[0],)
    layer = {
        "labels": published_counts(item.shares, [preset]),
        "reference": references[0],
        "seeds": item.seeds,
        **{key: value for key, value in changes.items() if value is not None},
        "methods": rows,
        "presets": [preset],
    }
    return Entry(data, name, known, load_grid(changes=layer), references)


def _rows(item: Item, family: str) -> tuple[list[Any], tuple[str, ...]]:
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
