"""Published figures and ours, row by row, and what of ours is not as published."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from semivox.benchmark.cells import Cell
from semivox.benchmark.grid import cells_of, settings_of
from semivox.benchmark.paper.items import Entry, Item
from semivox.benchmark.published import FAMILIES, SHARES, family_named, family_of, published
from semivox.benchmark.run import Outcome

_METRICS = {
    "dice": "dice_percent", "jaccard": "jaccard_percent", "hd95_vox": "hd95_voxel", "asd_vox": "asd_voxel",
}  # fmt: skip
_ROW = ("method", "row_as_printed", "cr_distance", "contrast", "alpha_percentile")  # what names a row
_SECTIONS = ("net", "plan", "train", "predict")
_FREE = {
    "train.workers", "train.device", "train.precision", "train.log_every", "train.checkpoint_every",
    "train.validate_every", "train.diagnose_every", "train.seed", "predict.batch",
}  # fmt: skip


def beside(item: Item, entry: Entry, outcome: Outcome) -> pd.DataFrame:
    """Return one line a row and number of labels, then those of its networks alone; published ones come last.

    Returns:
        Columns dataset, family, row, network, is_reference, share (of labels; NaN if it is none of the
        paper's), labels (here), seeds, failures; for each metric in percent or voxels `*_published`,
        `*_spread`, `*_mean`, `*_low`, `*_high`, `*_n`; params_M and macs_G as printed; the columns of
        `benchmark.cells.Cell.sizes`. NaN for what is not known.
    """
    printed = {} if item.table is None else _published(entry.family, item.table)
    ours, cells = _ours(outcome), dict[tuple[Any, str], Cell]()
    for cell in outcome.cells:
        cells.setdefault((cell.place.labels, cell.place.variant.label), cell)
    lines, used = [], set()
    for (labels, row), cell in cells.items():
        key = cell.place.variant.published or row, share_of(labels, entry.grid.presets[0], entry.family)
        used.add(key)
        count = len(cell.split.labeled)
        start = {
            "dataset": entry.name, "family": entry.family, "row": row, "share": key[1], "labels": count,
            "is_reference": row in entry.references,
        }  # fmt: skip
        scores = ours.get((count, row), {})
        size = {**cell.sizes(), **({"parameters": cell.cost.step.parameters} if cell.cost else {})}
        lines.append({**start, "network": "", **printed.get(key, {}), **scores.pop("", {}), **size})
        lines += [{**start, "network": network, **values} for network, values in scores.items()]
    for (row, share), values in printed.items():
        if (row, share) not in used and share in item.shares:
            known = {"dataset": entry.name, "family": entry.family, "row": row, "share": share}
            lines.append({**known, **values})
    return pd.DataFrame(lines)


def share_of(labels: Any, preset: str | None, family: str) -> float:
    """Return the published share that a number of labels stands for; NaN if it is none of the paper's.

    A number counts where the preset is one of the published data set.
    """
    if labels == "all":
        return 1.0
    if isinstance(labels, float):
        return labels
    fitting = SHARES if family_of([preset]) == family else ()
    return next((share for share in fitting if labels == FAMILIES[family].count(share)), float("nan"))


def _published(family: str, table: str) -> dict[tuple[str, float], dict[str, Any]]:
    """Return the printed values by row and share of labels."""
    found = {}
    for line in published(family, table).to_dict("records"):
        row = str(next(line[name] for name in _ROW if name in line))
        values = {"params_M": line.get("params_M"), "macs_G": line.get("macs_G")}
        for metric, name in _METRICS.items():
            values[f"{metric}_published"] = line[f"{name}_mean"]
            values[f"{metric}_spread"] = line[f"{name}_spread"]
        share = float(str(line.get("labeled_unlabeled", "10%")).split("%")[0]) / 100
        if "labeled" in line:
            share = share_of(line["labeled"], FAMILIES[family].preset, family)
        found[row, share] = values
    return found


def _ours(outcome: Outcome) -> dict[tuple[int, str], dict[str, dict[str, float]]]:
    """Return our values by number of labels, row and network ("" for the method's prediction)."""
    found: dict[tuple[int, str], dict[str, dict[str, float]]] = {}
    for line in outcome.tables.settings.to_dict("records") if outcome.tables else ():
        values = found.setdefault((line["labeled"], line["method"]), {}).setdefault(line["network"], {})
        values |= {"seeds": line["seeds"], "failures": line["failures"]}
        if (metric := line["metric"]) in _METRICS:
            scale = 100 if metric in ("dice", "jaccard") else 1
            values |= {f"{metric}_{part}": line[part] * scale for part in ("mean", "low", "high")}
            values[f"{metric}_n"] = line["n"]
    return found


def differences(item: Item, entry: Entry, outcome: Outcome) -> list[str]:
    """Say what is not as published, with the published value in brackets; empty if all is.

    Data and scale come first, then the settings by name.
    """
    cell, family, on_test = outcome.cells[0], FAMILIES[entry.family], entry.grid.cases == "test"
    ours, theirs = _settings(entry), _settings(entry, family.preset)
    training = len(cell.split.labeled) + len(cell.split.unlabeled)
    facts: list[tuple[str, Any, Any]] = [
        ("iterations", ours.pop("train.iterations"), theirs["train.iterations"]),
        ("training cases", training, family.training),
        ("test cases", len(cell.cases) if on_test else "validation instead of", family.test),
        ("seeds", len(entry.grid.seeds), item.seeds),
        ("channels", len(cell.plan.channels), 1),
        ("classes", len(cell.plan.class_names) - 1, 1),
    ]
    found = [f"data set {entry.name} ({family.title})"] * (family_named(entry.name) != entry.family)
    for what, here, published_here in facts:
        if here != published_here:
            found.append(f"{here} {what if here != 1 else what[:-1]} ({published_here})")
    changed = (name for name in ours if ours[name] != theirs.get(name) and name not in _FREE)
    return found + [f"{name} {_text(ours[name])} ({_text(theirs.get(name))})" for name in changed]


def _settings(entry: Entry, paper: str | None = None) -> dict[str, Any]:
    """Return by name the settings of the first row, and the options of all methods; or those of a preset."""
    found, grid = dict[str, Any](), entry.grid
    if paper is not None:
        grid = grid.model_copy(update={"settings": {}, "assignments": ()})
    for row in grid.methods:
        place = next(place for place in cells_of(grid) if place.variant == row)
        config = settings_of(grid, replace(place, preset=paper or place.preset))
        values = config.model_dump()
        named = {
            f"{section}.{name}": value for section in _SECTIONS for name, value in values[section].items()
        }
        named["method.batch"] = config.method.batch
        named |= {f"{config.method.name}.{name}": value for name, value in config.method.options.items()}
        found |= {name: value for name, value in named.items() if name not in found}
    return found


def _text(value: Any) -> str:
    if value is None:
        return "default"
    return " x ".join(f"{side:g}" for side in value) if isinstance(value, list | tuple) else str(value)
