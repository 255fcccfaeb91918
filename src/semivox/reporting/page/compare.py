"""Several runs side by side on the cases that all of them have, with paired differences to the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from semivox.errors import UserError
from semivox.evaluation.statistics import bootstrap_mean, holm, paired_difference, wilcoxon_p
from semivox.evaluation.summary import case_means, read_metrics
from semivox.progress import Report
from semivox.reporting.cases import Scene, slices_figure
from semivox.reporting.page import charts
from semivox.reporting.page.build import webp, write_page
from semivox.reporting.page.content import Table, facts
from semivox.reporting.page.source import RunFacts, Scored, read_case, read_run, read_scored
from semivox.reporting.table import interval_text
from semivox.run import Run

DRAWN = 5


class Column(NamedTuple):
    """One of the things compared; `run` and `scored` are None for a folder of predictions."""

    name: str
    table: pd.DataFrame
    run: RunFacts | None = None
    scored: Scored | None = None

    @property
    def dice(self) -> pd.Series[Any]:
        """Mean over the classes of each case."""
        return case_means(self.table)


def read_columns(folders: Sequence[Path], validated: Callable[[RunFacts], Path]) -> list[Column]:
    """Read run folders, by their validation cases, and folders of predictions with scores.

    `validated` returns the folder with scores of a run's validation cases.

    Raises:
        UserError: a folder that is neither; fewer than two cases in common.
    """
    columns = []
    for folder, name in zip(folders, _names(folders), strict=True):
        if Run(folder).is_trained:
            run = read_run(folder)
            if not run.split.val:
                what = "A run without validation cases cannot be compared"
                do = "name a folder of predictions that were scored, instead of the run"
                raise UserError(what, "none", "some", do, folder)
            scored = read_scored(validated(run), run)
            columns.append(Column(name, scored.table, run, scored))
        else:
            columns.append(Column(name, read_metrics(folder / "metrics.csv")))
    common = _common(columns)
    if len(common) < 2:
        expected = "two cases or more that all of them scored"
        raise UserError("The runs have too few cases in common", ", ".join(common) or "none", expected)
    return columns


def write_comparison(
    path: Path, columns: Sequence[Column], *, progress: Report = lambda *facts: None
) -> None:
    """Write the page; see `read_columns`."""
    cases = _common(columns)
    dice = pd.DataFrame({column.name: column.dice.loc[cases] for column in columns})
    first, *others = dice.columns
    spread = (dice.max(axis=1) - dice.min(axis=1)).sort_values(ascending=False)
    order = [str(case) for case in spread.index]
    differences = {name: paired_difference(dice[name], dice[first])._asdict() for name in others}
    corrected = holm([wilcoxon_p(dice[name], dice[first]) for name in others])
    means = {name: interval_text(bootstrap_mean(dice[name])._asdict()) for name in dice}
    rows = [[first, means[first], "", ""]]
    for name, p in zip(others, corrected, strict=True):
        rows.append([name, means[name], interval_text(differences[name], sign="+"), f"{p:.3g}"])
    every = [[case, *(f"{value:.3f}" for value in dice.loc[case])] for case in order]
    text = (
        f"Mean Dice over the {len(cases)} cases that all have, with 95 % intervals over cases. p: Wilcoxon"
        " signed-rank test, corrected for several comparisons (Holm)."
    )
    titles = dict.fromkeys(column.run.title for column in columns if column.run)
    write_page(
        path,
        "compare.html.j2",
        title=" and ".join(titles) or "Comparison",
        subtitle=f"{len(columns)} runs side by side on {len(cases)} cases",
        scores=Table(["run", "Dice", f"difference to {first}", "p"], rows, text),
        chart=charts.difference_chart(differences, first),
        settings=_settings(columns),
        pictures=_pictures(columns, order[:DRAWN], progress),
        all_cases=Table(["case", *dice], every),
    )


def _common(columns: Sequence[Column]) -> list[str]:
    every = [set(column.table["case"]) for column in columns]
    return [case for case in dict.fromkeys(columns[0].table["case"]) if all(case in names for names in every)]


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError("A folder is named twice", str(folders[0]), "different runs")


def _settings(columns: Sequence[Column]) -> Table:
    """Lay out the facts in which the runs differ."""
    told = {column.name: dict(facts(column.run)) for column in columns if column.run}
    names = dict.fromkeys(name for known in told.values() for name in known)
    rows = [[name, *(known.get(name, "") for known in told.values())] for name in names]
    return Table(["", *told], [row for row in rows if len(set(row[1:])) > 1])


def _pictures(columns: Sequence[Column], cases: Sequence[str], progress: Report) -> list[dict[str, Any]]:
    """Draw cases, a column a run."""
    shown = [(column, column.run, column.scored) for column in columns if column.run and column.scored]
    drawn: list[dict[str, Any]] = []
    for done, case in enumerate(cases if shown else (), start=1):
        read = {column.name: read_case(case, scored, run) for column, run, scored in shown}
        found = {name: volumes for name, volumes in read.items() if volumes is not None}
        if found:
            one, labels = next(iter(found.values())), {name: volumes.found for name, volumes in found.items()}
            scores = {column.name: float(column.dice[case]) for column, _, _ in shown}
            scene, names = Scene(case, one.scan, one.truth, labels, scores), shown[0][1].plan.class_names
            drawn.append({"name": case, "picture": webp(slices_figure([scene], names, cuts=3, cell=2.9))})
        progress(done, len(cases), case)
    return drawn
