"""The files that a benchmark leaves: CSV, Markdown, LaTeX and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from semivox.benchmark.cells import Cell
from semivox.benchmark.grid import Grid
from semivox.benchmark.published import PROTOCOL, TABLES
from semivox.benchmark.published import published as published_figures
from semivox.benchmark.scores import Pair, comparison_table, run_table, setting_table
from semivox.files import replacing, write_text
from semivox.reporting import benchmark as show
from semivox.reporting.curves import save_curves
from semivox.reporting.table import STARRED, Table, latex_table, markdown_table

_INTERVALS = (
    "An interval over cases, and p, say how far a difference depends on the cases. By seed: the smallest"
    " and the largest difference between two runs of one seed; where these have two signs, the order of"
    " the methods depends on chance in training."
)


class Tables(NamedTuple):
    """One row a run; one row a setting and metric; one row a comparison."""

    runs: pd.DataFrame
    settings: pd.DataFrame
    comparisons: pd.DataFrame


class Page:
    """Text in Markdown, and its tables in LaTeX."""

    def __init__(self, title: str) -> None:
        self.text, self.latex = [f"# {title}", ""], list[str]()

    def add(self, *lines: str) -> None:
        """Add paragraphs."""
        for line in lines:
            self.text += [line, ""]

    def table(self, table: Table, caption: str | None = None) -> None:
        """Add a table; those with a caption are in LaTeX, too."""
        self.text.append(markdown_table(*table))
        if caption is not None:
            self.latex.append(latex_table(*table, caption))

    def write(self, path: Path) -> None:
        """Write `path.md` and `path.tex`."""
        write_text(path.with_name(f"{path.name}.md"), "\n".join(self.text))
        write_text(path.with_name(f"{path.name}.tex"), "\n".join(self.latex))


def make_tables(finished: Iterable[Cell], reference: str, declared: Pair | None = None) -> Tables:
    """Read the scores of finished cells; `reference` is the row that the others are compared with."""
    scores = pd.concat([cell.scored_cases() for cell in finished])
    return Tables(run_table(scores), setting_table(scores), comparison_table(scores, reference, declared))


def write_tables(
    finished: Sequence[Cell],
    out: Path,
    grid: Grid,
    *,
    declared: tuple[Pair, int] | None,
    missing: Mapping[str, str],
    published: str | None = None,
    ablation: str | None = None,
) -> Tables:
    """Write `runs.csv`, `table.csv`, `comparisons.csv`, `table.md`, `table.tex` and `dice-PRESET.png`.

    `declared` is the declared comparison, and how many cells were finished when it was declared; `missing`
    tells why cells are not in the tables, by name.
    """
    reference = grid.reference or (grid.compare.reference if grid.compare else grid.methods[0].label)
    dataset = finished[0].workspace.dataset.name
    tables = make_tables(finished, reference, declared[0] if declared else None)
    for name, table in zip(("runs", "table", "comparisons"), tables, strict=True):
        with replacing(out / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    page = Page(f"Benchmark on {dataset}")
    runs, own = (table[table["network"] == ""] for table in tables[:2])
    for preset, settings in tables.settings.groupby("preset", sort=False):
        title, picture = f"{preset}: {settings['n'].max()} {grid.cases} cases", f"dice-{preset}.png"
        here = runs[runs["preset"] == preset]
        save_curves(out / picture, own[own["preset"] == preset], here, title=title)
        rows = show.score_rows(settings)
        note = show.EXPLANATION + (f" {STARRED}." if any("*" in "".join(row) for row in rows.rows) else "")
        page.add(f"## {title}")
        page.table(rows, f"{title}. {note}")
        page.add(note.replace("*", r"\*"), f"![Dice]({picture})")
        page.table(show.cost_rows(here))
    _add_comparisons(page, tables.comparisons, reference, declared)
    if published:
        name = ablation if ablation in TABLES else "comparison"
        caption = f"{PROTOCOL} Here: runs of this benchmark on {dataset}, another protocol; all voxels."
        page.add(f"## Published figures ({published})", caption)
        page.table(show.published_rows(published_figures(published, name), own), caption)
    if missing:
        page.add("## Not in these tables", "\n".join(f"* {name}: {why}" for name, why in missing.items()))
    page.write(out / "table")
    return tables


def _add_comparisons(
    page: Page, comparisons: pd.DataFrame, reference: str, declared: tuple[Pair, int] | None
) -> None:
    page.add("## Comparisons on the same cases")
    if declared is None:
        page.add("No comparison was declared before the runs: all that follow are exploratory.")
    elif declared[1] == 0:
        page.add("Declared before the first run was finished:")
    else:
        page.add(f"Declared when {declared[1]} runs were finished already, so not before the results:")
    found = comparisons["declared"].unique() if len(comparisons) else ()
    if True in found:
        page.table(show.comparison_rows(comparisons, declared=True), "The declared comparison.")
    elif declared:
        page.add("Its runs are not finished.")
    if False in found:
        rows = show.comparison_rows(comparisons, declared=False)
        caption = f"All others, with {reference}; p after Holm's correction (tests: {len(rows.rows)})."
        page.add(caption)
        page.table(rows, caption)
    page.add(_INTERVALS)
