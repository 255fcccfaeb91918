"""`benchmark --paper`: run what a table or figure of the paper compares, then write it, with ours beside."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from semivox.benchmark.cells import Cell
from semivox.benchmark.paper.beside import beside, differences
from semivox.benchmark.paper.items import Entry, Item
from semivox.benchmark.pictures import save_cases
from semivox.benchmark.published import FAMILIES, PROTOCOL
from semivox.benchmark.run import How, Outcome, benchmark
from semivox.benchmark.tables import Page
from semivox.files import replacing
from semivox.manifest import Manifest
from semivox.reporting.benchmark import paper_score_rows, paper_size_rows
from semivox.reporting.curves import save_methods, save_sensitivity
from semivox.reporting.table import latex_table

_HERE = (
    "Here: mean over cases and seeds with the 95 % bootstrap interval over cases; all voxels; failed:"
    " structures missed, invented or absent, over seeds. Labels: the paper's share, and the number here."
)

Other = Mapping[str, list[str]]  # what is not as published, by data set


@dataclass
class Replication:
    """What became of a table or figure."""

    files: list[str] = field(default_factory=list)  # what was written, by name, in the output folder
    outcomes: dict[str, Outcome] = field(default_factory=dict)  # of each data set, by name


def replicate(item: Item, entries: Sequence[Entry], how: How) -> Replication:
    """Run the grid of each data set, then write the table or figure; see `semivox.replicate`.

    Runs stand in `out/DATA SET/runs`: all items share them.
    """
    result, started, out = Replication(), time.monotonic(), how.out
    for entry in entries:
        spent = (time.monotonic() - started) / 3600
        left = None if how.max_hours is None else max(how.max_hours - spent, 0.0)
        how.say(f"{item.name}: {entry.name}")
        here = replace(how, out=out / entry.name, work=how.work and how.work / entry.name, max_hours=left)
        result.outcomes[entry.name] = benchmark(entry.data, entry.grid, here)
    if how.dry_run:
        return result
    pairs = [(entry, result.outcomes[entry.name]) for entry in entries]
    lines = pd.concat([beside(item, *pair) for pair in pairs], ignore_index=True)
    with replacing(out / f"{item.name}.csv") as temporary:
        lines.to_csv(temporary, index=False)
    other = {entry.name: differences(item, *pair) for entry, pair in zip(entries, pairs, strict=True)}
    pictures = _draw(item, entries, result, lines, other, out)
    _write(item, entries, lines, other, pictures, out)
    names = [f"{item.name}.{kind}" for kind in ("md", "tex", "csv")]
    result.files = [*names, *(name for one in pictures for name in (one, one.replace(".png", ".pdf")))]
    Manifest(out).report(
        f"paper {item.name}", data=[str(entry.data) for entry in entries], files=result.files
    )
    return result


def _draw(
    item: Item, entries: Sequence[Entry], result: Replication, lines: pd.DataFrame, other: Other, out: Path
) -> list[str]:
    """Draw the figure, if the item is one and runs are finished; return the names of the PNG files."""
    if item.shows == "pictures":
        drawn: list[str] = []
        for entry in entries:
            if cells := _first_cells(result.outcomes[entry.name]):
                suffix = f"-{entry.name}" if len(entries) > 1 else ""
                labels = len(next(iter(cells.values())).split.labeled)
                title = f"{entry.name}, {labels} labels: lowest, median, highest Dice"
                note = "".join(_marks({"": other[entry.name]}, 6))
                drawn += save_cases(out / f"{item.name}{suffix}", cells, title, note)
        return drawn
    title = "\n".join([item.title, *_marks(other)])
    if item.shows == "dots":
        shown = lines[(lines["share"] != 1.0) & lines["network"].isin(["", None])]
        save_methods(out / item.name, shown, title)
        return [f"{item.name}.png"]
    if item.shows == "curves" and "dice_mean" in lines:
        save_sensitivity(out / item.name, lines[lines["network"] == ""], title)
        return [f"{item.name}.png"]
    return []


def _first_cells(outcome: Outcome) -> dict[str, Cell]:
    """Return for each row its finished run with the first seed and the fewest labels."""
    cells: dict[str, Cell] = {}
    for cell in sorted(outcome.cells, key=lambda cell: (len(cell.split.labeled), cell.place.seed)):
        if cell.is_finished:
            cells.setdefault(cell.place.variant.label, cell)
    return cells


def _marks(other: Other, most: int = 2) -> list[str]:
    """Return a line for each data set that is not as published, with what differs most."""
    several = len(other) > 1
    return [
        f"{f'{name}: ' * several}not as published: {', '.join(found[:most])}{' ...' * (len(found) > most)}"
        for name, found in other.items()
        if found
    ]


def _write(
    item: Item, entries: Sequence[Entry], lines: pd.DataFrame, other: Other, pictures: list[str], out: Path
) -> None:
    """Write the item in Markdown and LaTeX."""
    page = Page(f"{item.name[:-1].capitalize()} {item.name[-1]} of arXiv 2509.13084: {item.title}")
    page.add(*(f"![{name}]({name})" for name in pictures))
    page.add(PROTOCOL, _HERE)
    for entry in entries:
        block = lines[lines["dataset"] == entry.name]
        title = f"{entry.name}, preset {entry.grid.presets[0]}, beside {FAMILIES[entry.family].title}"
        page.add(f"## {title}")
        if found := other[entry.name]:
            page.add(f"**Not as published** (in brackets: published): {', '.join(found)}.")
        marks = "".join(f"; {mark}" for mark in _marks({"": found}, 6))
        page.table(paper_score_rows(block))
        whole = block[block["network"].fillna("") == ""]
        for metrics in (("dice", "jaccard"), ("hd95_vox", "asd_vox")):  # all four are too wide for a page
            caption = f"{item.title}: {title}{marks}. {PROTOCOL} {_HERE}"
            page.latex.append(latex_table(*paper_score_rows(whole, metrics), caption))
        page.table(paper_size_rows(block), f"{item.title}: sizes and costs of a patch, {title}.")
    page.write(out / item.name)
