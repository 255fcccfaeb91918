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


class Declaration(NamedTuple):
    """The declared comparison, and how many cells were finished when it was declared."""

    preset: str
    labeled: int
    method: str
    reference: str
    metric: str
    finished_before: int


class Tables(NamedTuple):
    """One row a run; one row a setting and metric; one row a comparison."""

    runs: pd.DataFrame
    settings: pd.DataFrame
    comparisons: pd.DataFrame


def write_tables(
    scored: Sequence[Scored],
    out: Path,
    *,
    reference: str,
    declaration: Declaration | None,
    missing: Mapping[str, str],
    cases: Literal["test", "val"],
    dataset: str,
    published: str | None = None,
    ablation: str | None = None,
) -> Tables:
    """Write `runs.csv`, `table.csv`, `comparisons.csv`, `table.md`, `table.tex` and `dice-PRESET.png`.

    Args:
        scored: the finished cells.
        out: the folder.
        reference: row that the others are compared with.
        declaration: the declared comparison.
        missing: why cells are not in the tables, by name.
        cases: which were scored.
        dataset: its name.
        published, ablation: as for `benchmark`.
    """
    declared = None if declaration is None else Declared(*declaration[:-1])
    tables = Tables(run_table(scored), setting_table(scored), comparison_table(scored, reference, declared))
    for name, table in zip(("runs", "table", "comparisons"), tables, strict=True):
        with replacing(out / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    text, latex = [f"# Benchmark on {dataset}", ""], []
    for preset, settings in tables.settings.groupby("preset", sort=False):
        runs = tables.runs[tables.runs["preset"] == preset]
        title = f"{preset}: {settings['n'].max()} {cases} cases"
        picture = f"dice-{preset}.png"
        save_curves(out / picture, settings, runs, title=title)
        headings, rows = show.score_rows(settings)
        note = (
            f"{show.EXPLANATION} {show.STARRED}."
            if any("*" in "".join(r) for r in rows)
            else show.EXPLANATION
        )
        text += [f"## {title}", "", show.markdown_table(headings, rows), note.replace("*", r"\*"), ""]
        text += [f"![Dice]({picture})", "", show.markdown_table(*show.cost_rows(runs))]
        latex.append(show.latex_table(headings, rows, f"{title}. {note}"))
    text += _comparisons(tables.comparisons, reference, declaration, latex)
    text += _published(tables.settings, dataset, published, ablation, latex) if published else []
    if missing:
        text += ["## Not in these tables", "", *(f"* {name}: {why}" for name, why in missing.items()), ""]
    write_text(out / "table.md", "\n".join(text))
    write_text(out / "table.tex", "\n".join(latex))
    return tables


def _comparisons(
    comparisons: pd.DataFrame, reference: str, declaration: Declaration | None, latex: list[str]
) -> list[str]:
    text = ["## Comparisons on the same cases", ""]
    if declaration is None:
        text += ["No comparison was declared before the runs: all that follow are exploratory.", ""]
    else:
        when = declaration.finished_before
        text.append(
            "Declared before the first run was finished:"
            if when == 0
            else f"Declared when {when} runs were finished already, so not before the results:"
        )
        text.append("")
    for is_declared in (True, False):
        if not len(comparisons) or not (comparisons["declared"] == is_declared).any():
            text += ["Its runs are not finished.", ""] if is_declared and declaration else []
            continue
        headings, rows = show.comparison_rows(comparisons, declared=is_declared)
        caption = (
            "The declared comparison."
            if is_declared
            else f"All other comparisons, with {reference}; p after Holm's correction (tests: {len(rows)})."
        )
        text += [] if is_declared else [caption, ""]
        text.append(show.markdown_table(headings, rows))
        latex.append(show.latex_table(headings, rows, caption))
    text += [
        "An interval over cases, and p, say how far a difference depends on the cases. By seed: the smallest"
        " and the largest difference between two runs of one seed; where these have two signs, the order of"
        " the methods depends on chance in training.",
        "",
    ]
    return text


def _published(
    settings: pd.DataFrame, dataset: str, published: str, ablation: str | None, latex: list[str]
) -> list[str]:
    name = ablation if ablation in TABLES else "comparison"
    headings, rows = show.published_rows(published_figures(published, name), settings)
    caption = f"{PROTOCOL} Here: runs of this benchmark on {dataset}, another protocol; all voxels."
    latex.append(show.latex_table(headings, rows, caption))
    return [f"## Published figures ({published})", "", caption, "", show.markdown_table(headings, rows)]
