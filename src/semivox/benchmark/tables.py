"""The files that a benchmark leaves: CSV, Markdown, LaTeX and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from semivox.benchmark.published import PROTOCOL, TABLES
from semivox.benchmark.published import published as published_figures
from semivox.benchmark.scores import Declared, Scored, comparison_table, run_table, setting_table
from semivox.files import replacing, write_text
from semivox.reporting import benchmark as show
from semivox.reporting.curves import save_curves
from semivox.reporting.table import STARRED, Rows, latex_table, markdown_table

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

    def table(self, table: tuple[list[str], Rows], caption: str | None = None) -> None:
        """Add a table; those with a caption are in LaTeX, too."""
        self.text.append(markdown_table(*table))
        if caption is not None:
            self.latex.append(latex_table(*table, caption))

    def write(self, path: Path) -> None:
        """Write `path.md` and `path.tex`."""
        write_text(path.with_name(f"{path.name}.md"), "\n".join(self.text))
        write_text(path.with_name(f"{path.name}.tex"), "\n".join(self.latex))


def write_tables(
    scored: Sequence[Scored],
    out: Path,
    *,
    reference: str,
    declared: tuple[Declared, int] | None,
    missing: Mapping[str, str],
    cases: Literal["test", "val"],
    dataset: str,
    published: str | None = None,
    ablation: str | None = None,
) -> Tables:
    """Write `runs.csv`, `table.csv`, `comparisons.csv`, `table.md`, `table.tex` and `dice-PRESET.png`.

    `scored` are the finished cells and their networks alone; `declared` the declared comparison, and how many
    cells were finished when it was declared; `missing` tells why cells are not in the tables, by name.
    """
    compared = comparison_table(scored, reference, declared[0] if declared else None)
    tables = Tables(run_table(scored), setting_table(scored), compared)
    for name, table in zip(("runs", "table", "comparisons"), tables, strict=True):
        with replacing(out / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    page = Page(f"Benchmark on {dataset}")
    runs, own = (table[table["network"] == ""] for table in tables[:2])
    for preset, settings in tables.settings.groupby("preset", sort=False):
        title, picture = f"{preset}: {settings['n'].max()} {cases} cases", f"dice-{preset}.png"
        here = runs[runs["preset"] == preset]
        save_curves(out / picture, own[own["preset"] == preset], here, title=title)
        rows = show.score_rows(settings)
        note = show.EXPLANATION + (f" {STARRED}." if any("*" in "".join(row) for row in rows[1]) else "")
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
    page: Page, comparisons: pd.DataFrame, reference: str, declared: tuple[Declared, int] | None
) -> None:
    page.add("## Comparisons on the same cases")
    if declared is None:
        page.add("No comparison was declared before the runs: all that follow are exploratory.")
    elif declared[1] == 0:
        page.add("Declared before the first run was finished:")
    else:
        page.add(f"Declared when {declared[1]} runs were finished already, so not before the results:")
    for is_declared in (True, False):
        if not len(comparisons) or not (comparisons["declared"] == is_declared).any():
            if is_declared and declared:
                page.add("Its runs are not finished.")
            continue
        rows = show.comparison_rows(comparisons, declared=is_declared)
        tests = f"p after Holm's correction (tests: {len(rows[1])})"
        caption = "The declared comparison." if is_declared else f"All others, with {reference}; {tests}."
        if not is_declared:
            page.add(caption)
        page.table(rows, caption)
    page.add(_INTERVALS)
