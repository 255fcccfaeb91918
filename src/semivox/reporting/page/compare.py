"""Several runs side by side on the cases that all of them have, with paired differences to the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from semivox.errors import UserError
from semivox.evaluation.statistics import bootstrap_mean, holm, paired_difference, wilcoxon_p
from semivox.evaluation.summary import class_rows, read_metrics
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
        return class_rows(self.table).groupby("case", sort=False)["dice"].mean()


def read_columns(folders: Sequence[Path], validated: Callable[[RunFacts], Path]) -> list[Column]:
    """Read run folders, by their validation cases, and folders of predictions with scores.

    Args:
        folders: what to compare.
        validated: returns the folder with scores of a run's validation cases.

    Raises:
        UserError: a folder that is neither; fewer than two cases in common.
    """
    columns = []
    for folder, name in zip(folders, _names(folders), strict=True):
        if Run(folder).is_trained:
            run = read_run(folder)
            if not run.split.val:
                do = "name a folder of predictions that were scored, instead of the run"
                raise UserError(
                    "A run without validation cases cannot be compared", "none", "some", do, folder
                )
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
    cases, first = _common(columns), columns[0]
    dice = {column.name: column.dice.loc[cases] for column in columns}
    others = [column.name for column in columns[1:]]
    differences = {name: paired_difference(dice[name], dice[first.name]) for name in others}
    corrected = holm([wilcoxon_p(dice[name], dice[first.name]) for name in others])
    rows = [[first.name, interval_text(bootstrap_mean(dice[first.name])._asdict()), "", ""]]
    for name, p in zip(others, corrected, strict=True):
        gain = interval_text(differences[name]._asdict(), sign="+")
        rows.append([name, interval_text(bootstrap_mean(dice[name])._asdict()), gain, f"{p:.3g}"])
    text = (
        f"Mean Dice over the {len(cases)} cases that all have, with 95 % intervals over cases. p: Wilcoxon"
        " signed-rank test, corrected for several comparisons (Holm)."
    )
    headings = ["run", "Dice", f"difference to {first.name}", "p"]
    wide = pd.DataFrame(dice).assign(spread=lambda table: table.max(axis=1) - table.min(axis=1))
    order = list(wide.sort_values("spread", ascending=False).index)
    by_case = [[str(case), *(f"{dice[name][case]:.3f}" for name in dice)] for case in order]
    intervals = {name: found._asdict() for name, found in differences.items()}
    write_page(
        path,
        "compare.html.j2",
        title=" and ".join(dict.fromkeys(column.run.title for column in columns if column.run))
        or "Comparison",
        subtitle=f"{len(columns)} runs side by side on {len(cases)} cases",
        scores=Table(headings, rows, text),
        chart=charts.difference_chart(intervals, first.name),
        settings=_settings(columns),
        pictures=_pictures(columns, order, progress),
        all_cases=Table(["case", *dice], by_case),
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
    known = [(column.name, dict(facts(column.run))) for column in columns if column.run]
    keys = list(dict.fromkeys(key for _, values in known for key in values))
    differing = [key for key in keys if len({values.get(key) for _, values in known}) > 1]
    rows = [[key, *(values.get(key, "") for _, values in known)] for key in differing]
    return Table(["", *(name for name, _ in known)], rows)


def _pictures(columns: Sequence[Column], order: Sequence[str], progress: Report) -> list[dict[str, Any]]:
    """Draw the cases in which the runs differ most, a column a run."""
    shown = [column for column in columns if column.run and column.scored]
    drawn: list[dict[str, Any]] = []
    for case in order[:DRAWN] if shown else ():
        figure = _picture(case, shown)
        progress(len(drawn) + 1, min(DRAWN, len(order)), case)
        if figure is not None:
            drawn.append({"name": case, "picture": webp(figure)})
    return drawn


def _picture(case: str, columns: Sequence[Column]) -> Figure | None:
    read = {c.name: read_case(case, c.scored, c.run) for c in columns if c.scored and c.run}
    found = {name: volumes for name, volumes in read.items() if volumes is not None}
    one = next(iter(found.values()), None)
    if one is None:
        return None
    labels = {name: volumes.found for name, volumes in found.items()}
    scores = {column.name: float(column.dice[case]) for column in columns if column.name in found}
    scene, run = Scene(case, one.scan, one.truth, labels, scores), columns[0].run
    return slices_figure([scene], run.plan.class_names if run else None, cuts=3, cell=2.9)
