"""Several runs side by side on the cases that all of them have, with paired differences to the first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from semivox.errors import UserError
from semivox.evaluation.statistics import bootstrap_mean, holm, paired_difference, wilcoxon_p
from semivox.evaluation.summary import case_means
from semivox.progress import ProgressFactory, Report
from semivox.reporting.cases import Scene, slices_figure
from semivox.reporting.page import charts
from semivox.reporting.page.build import webp, write_page
from semivox.reporting.page.content import Table, facts
from semivox.reporting.page.source import (
    RunFacts,
    Scored,
    read_case,
    read_run,
    read_scored,
    read_table,
    score_validation,
)
from semivox.reporting.table import interval_text
from semivox.run import Run

DRAWN = 5


class Column(NamedTuple):
    """One of the things compared; `run` and `scored` are None for a folder of predictions."""

    name: str
    dice: pd.Series[Any]  # of each case, the mean over its classes
    run: RunFacts | None = None
    scored: Scored | None = None


def read_columns(
    folders: Sequence[Path], progress: ProgressFactory, data: Path | None = None
) -> list[Column]:
    """Read run folders, by their validation cases, and folders of predictions with scores.

    `data` is the data set of the runs, if it has been moved. A folder that is neither is a `UserError`.
    """
    columns = []
    for folder, name in zip(folders, _names(folders), strict=True):
        if not Run(folder).is_trained:
            columns.append(Column(name, _dice(read_table(folder))))
            continue
        run = read_run(folder, data)
        if not run.split.val:
            what = "A run without validation cases cannot be compared"
            do = "name a folder of predictions that were scored, instead of the run"
            raise UserError(what, "none", "some", do, folder)
        scored = read_scored(score_validation(run, progress), run)
        columns.append(Column(name, _dice(scored.table), run, scored))
    return columns


def write_comparison(
    path: Path, columns: Sequence[Column], *, progress: Report = lambda *facts: None
) -> None:
    """Write the page; see `read_columns`. Fewer than two cases in common are a `UserError`."""
    dice = pd.concat({column.name: column.dice for column in columns}, axis="columns", join="inner").dropna()
    if len(dice) < 2:
        expected = "two cases or more that all of them scored"
        raise UserError("The runs have too few cases in common", ", ".join(dice.index) or "none", expected)
    first, *others = dice.columns
    differences = pd.DataFrame([paired_difference(dice[name], dice[first]) for name in others], others)
    corrected = holm([wilcoxon_p(dice[name], dice[first]) for name in others])
    gains = [interval_text(row, sign="+") for row in differences.to_dict("records")]
    means = [interval_text(bootstrap_mean(dice[name])._asdict()) for name in dice]
    cells = zip(map(str, dice), means, ["", *gains], ["", *(f"{p:.3g}" for p in corrected)], strict=True)
    dice = dice.loc[(dice.min(axis=1) - dice.max(axis=1)).sort_values(kind="stable").index]
    text = (
        f"Mean Dice over the {len(dice)} cases that all have, with 95 % intervals over cases. p: Wilcoxon"
        " signed-rank test, corrected for several comparisons (Holm)."
    )
    titles = dict.fromkeys(column.run.title for column in columns if column.run)
    write_page(
        path,
        "compare.html.j2",
        title=" and ".join(titles) or "Comparison",
        subtitle=f"{len(columns)} runs side by side on {len(dice)} cases",
        scores=Table(["run", "Dice", f"difference to {first}", "p"], [list(row) for row in cells], text),
        chart=charts.difference_chart(differences, first),
        settings=_settings(columns),
        pictures=_pictures(columns, [str(case) for case in dice.index[:DRAWN]], progress),
        all_cases=Table(["case", *dice], dice.map("{:.3f}".format).reset_index().values.tolist()),
    )


def _dice(table: pd.DataFrame) -> pd.Series[Any]:
    """Return the Dice of each case in the order of the scores, on which the resamples of intervals depend."""
    return case_means(table).reindex(table["case"].unique())


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the paths from the folder that holds all of them."""
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise UserError("A folder is named twice", str(folders[0]), "different runs")
    common = os.path.commonpath([path.parent for path in paths])
    return [str(path.relative_to(common)) for path in paths]


def _settings(columns: Sequence[Column]) -> Table:
    """Lay out the facts in which the runs differ."""
    told = pd.DataFrame({column.name: facts(column.run) for column in columns if column.run}).fillna("")
    differing = told[told.nunique(axis=1) > 1]
    return Table(["", *told], differing.reset_index().values.tolist())


def _pictures(columns: Sequence[Column], cases: Sequence[str], progress: Report) -> list[dict[str, Any]]:
    """Draw cases, a column a run."""
    shown = [(column, column.run, column.scored) for column in columns if column.run and column.scored]
    drawn: list[dict[str, Any]] = []
    for done, case in enumerate(cases if shown else (), start=1):
        read = {column.name: read_case(case, scored, run) for column, run, scored in shown}
        if found := {name: volumes for name, volumes in read.items() if volumes is not None}:
            one, labels = next(iter(found.values())), {name: volumes.found for name, volumes in found.items()}
            scores = {column.name: float(column.dice[case]) for column, _, _ in shown}
            scene, names = Scene(case, one.scan, one.truth, labels, scores), shown[0][1].plan.class_names
            drawn.append({"name": case, "picture": webp(slices_figure([scene], names, cuts=3, cell=2.9))})
        progress(done, len(cases), case)
    return drawn
