"""Results on the screen; a table too wide for the terminal becomes a list, in which nothing is cut."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from semivox.errors import shortened

if TYPE_CHECKING:
    import pandas as pd

    from semivox.benchmark.run import Forecast, Outcome
    from semivox.benchmark.tables import Tables
    from semivox.datasets.check import CheckResult, Problem
    from semivox.preprocessing.inspect import Information

_SHOWN = 5  # problems of a kind
_LEVELS = {"0.5 %": "p005", "median": "p500", "99.5 %": "p995"}
_RANGE = ("smallest", "median", "largest")
_HOURS = (
    "Hours are those of the training steps alone, for one channel and one class; validation takes more. A"
    " patch ? depends on the scans; other presets without a time would have taken too long to measure."
)


def print_json(content: Any) -> None:
    """Print indented JSON and nothing else."""
    sys.stdout.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def text(line: str | Text) -> None:
    """Print one line as it is: no markup, no breaks, no colours of its own."""
    Console().print(line, soft_wrap=True, markup=False, highlight=False)


def table(*headings: str, rows: Iterable[Sequence[object]], title: str = "", left: int = 1) -> Table:
    """Make a table of `left` columns of names, then numbers; where all are names, the last one is text."""
    made = Table(title=title and Text(title), title_justify="left", box=None, pad_edge=False)
    for index, heading in enumerate(headings):
        is_text = index == left - 1 == len(headings) - 1
        made.add_column(heading, justify="left" if index < left else "right", no_wrap=not is_text)
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    return made


def put(made: Table) -> None:
    """Print a table, as a list of its rows where the terminal is too narrow."""
    console = Console()
    if _needed(console, made) <= console.width:
        console.print(made)
        return
    if made.title:
        console.print(made.title, style="bold", soft_wrap=True)
    headings = [str(column.header) for column in made.columns]
    for row in zip(*(column.cells for column in made.columns), strict=True):
        cells = [Text.from_markup(cell) if isinstance(cell, str) else cell for cell in row]
        if str(cells[0]):
            console.print(cells[0], style="bold", soft_wrap=True)
        for heading, cell in zip(headings[1:], cells[1:], strict=True):
            if str(cell):
                console.print(Text(f"  {heading}: ") + cell, soft_wrap=True)
    if made.caption:
        console.print(made.caption, soft_wrap=True)


def _needed(console: Console, made: Table) -> int:
    """Return the columns of text that a table needs if only cells that may wrap do so, between words."""
    endless, total = console.options.update(width=10_000), -2
    for column in made.columns:
        sizes = [Measurement.get(console, endless, cell) for cell in (column.header, *column.cells)]
        total += max(size.maximum if column.no_wrap else size.minimum for size in sizes) + 2
    return total


def scores(found: pd.DataFrame) -> None:
    """Show means with intervals over cases, the number of values and of failures, and files left over."""
    from semivox.evaluation.summary import summarise
    from semivox.reporting.table import summary_table

    put(summary_table(summarise(found), title="mean [95 % interval] over cases"))
    left_over = {
        "missing": "without a prediction, scored 0",
        "without_reference": "without a reference, not scored",
    }
    for key, what in left_over.items():
        if names := found.attrs.get(key):
            text(f"{len(names)} {what}: {shortened(names, 10)}")


def comparison(tables: Tables, title: str) -> None:
    """Show each method's Dice and its paired difference to the first."""
    from semivox.reporting.table import interval_text

    dice = tables.settings[tables.settings["metric"] == "dice"].to_dict("records")
    gains = {row["method"]: interval_text(row, sign="+") for row in tables.comparisons.to_dict("records")}
    seconds = tables.runs.set_index("method")["seconds_training"]
    rows = []
    for row in dice:
        name = row["method"]
        rows.append((name, interval_text(row), row["n"], gains.get(name, ""), f"{seconds[name]:.0f} s"))
    headings = ("method", "Dice [95 % interval]", "n", f"difference to {dice[0]['method']}", "training")
    put(table(*headings, title=title, rows=rows))


def verdict(difference: Mapping[Any, float]) -> str:
    """Say what a paired difference with its interval means for semi-supervised training as a whole."""
    if difference["low"] > 0:
        return "Training with the unlabeled scans brings a clear gain over labels only here"
    if difference["high"] < 0:
        return "The unlabeled scans do harm here: labels only is clearly better"
    what = "Whether training with the unlabeled scans brings a gain"
    return f"{what} is not clear here: the interval includes 0"


def forecast(cells: list[Forecast], max_hours: float | None) -> None:
    """Show the cells of a grid with their estimated times."""
    from semivox.reporting.table import duration

    total, fitting, rows = 0.0, True, []
    for cell in cells:
        total += cell.seconds
        fitting = fitting and (max_hours is None or total <= max_hours * 3600)
        state = cell.state if fitting or cell.state == "finished" else "left for lack of time"
        rows.append((cell.cell.place.name, state, duration(cell.seconds), duration(total)))
    put(table("cell", "state", "estimate", "ends after", rows=rows, left=2))
    text("Nothing was trained. Estimates are of training and prediction; a begun cell counts whole.")


def outcome(found: Outcome) -> None:
    """Show the Dice of each setting of a grid."""
    from semivox.reporting.table import interval_text

    if found.tables is None:
        return
    dice = found.tables.settings
    rows = []
    for row in dice[dice["metric"] == "dice"].to_dict("records"):
        alone = f", {row['network']} alone" if row["network"] else ""
        spread = f"{row['sd_seeds']:.3f}" if row["seeds"] > 1 else ""
        name = f"{row['preset']}, {row['labeled']}, {row['method']}{alone}"
        rows.append((name, interval_text(row), spread, row["seeds"]))
    put(table("preset, labels, method", "Dice [95 % interval]", "sd over seeds", "seeds", rows=rows))


def information(found: Information) -> None:
    """Show roles, and the ranges over cases of sizes, intensities and class volumes."""
    import numpy as np

    dataset, split, cases = found.dataset, found.split, found.measured.cases
    text(Text(f"{dataset.name}  ({dataset.root})", style="bold"))
    text(f"channels {', '.join(dataset.channels)}; classes {', '.join(dataset.class_names[1:])}")
    text(
        f"{len(split.labeled)} labeled, {len(split.unlabeled)} unlabeled, {len(split.val)} validation,"
        f" {len(split.test)} test cases (not opened)"
    )
    rows = [
        _range("voxels", [case.shape for case in cases]),
        _range("voxel size in mm", [case.spacing_mm for case in cases]),
        _range("size in mm", [np.multiply(case.shape, case.spacing_mm) for case in cases]),
        _range("share of background", [case.background for case in cases], ".0%"),
    ]
    put(table("", *_RANGE, title=f"{counted(len(cases), 'scan')}, axes to right, front, head", rows=rows))
    for index, channel in enumerate(dataset.channels):
        scans = [case.channels[index] for case in cases]
        rows = [_range(f"{name} of a scan", [scan[key] for scan in scans]) for name, key in _LEVELS.items()]
        if found.measured.foreground is not None:
            inside = found.measured.foreground[index]
            levels = [f"{inside[key]:.4g}" for key in _LEVELS.values()]
            rows.append(["labeled foreground: 0.5 %, 50 %, 99.5 %", *levels])
        put(table("", *_RANGE, title=f"intensities of {channel}", rows=rows))
    if labeled := [case.class_volumes_ml for case in cases if case.class_volumes_ml is not None]:
        volumes = {name: [case[name] for case in labeled] for name in dataset.class_names[1:]}
        rows = [[*_range(name, values), str(values.count(0))] for name, values in volumes.items()]
        title = f"class volumes in mL, {len(labeled)} labeled cases"
        put(table("", *_RANGE, "cases without it", title=title, rows=rows))


def _range(title: str, values: Sequence[Any], form: str = ".4g") -> list[str]:
    """Return a row with smallest, median and largest value; of each axis where a value has several."""
    import numpy as np

    ranges = (np.atleast_1d(find(values, axis=0)) for find in (np.min, np.median, np.max))
    return [title, *(" x ".join(f"{side:{form}}" for side in one) for one in ranges)]


def problems(result: CheckResult) -> None:
    """Show the problems, those of one kind together, and a summary."""
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in result.problems:
        kinds.setdefault((problem.severity, problem.what), []).append(problem)
    for group in kinds.values():
        _problem(group)
    warnings = len(result.problems) - result.errors
    style = "bold red" if result.errors else "bold yellow" if warnings else "bold green"
    counts = f"{counted(result.errors, 'error')}, {counted(warnings, 'warning')}"
    text(Text(f"{result.dataset}: {counted(result.cases, 'case')}, {counts}", style=style))
    if result.hidden:
        text(f"{counted(result.hidden, 'label file')} of unlabeled cases not opened")


def _problem(group: list[Problem]) -> None:
    first, count = group[0], len(group)
    style = "bold red" if first.severity == "error" else "bold yellow"
    times = f"  ({count} times)" if count > 1 else ""
    text(Text.assemble((f"{first.severity}: ", style), (first.what, "bold"), times))
    for problem in group[:_SHOWN]:
        text(Text(f"  {problem.path or problem.case or ''}", style="cyan"))
        for name in ("found", "expected"):
            if (value := getattr(problem, name)) is not None:
                text(f"    {name + ':':<10}{value}")
    if count > _SHOWN:
        rest = ", ".join(dict.fromkeys(problem.case or "" for problem in group[_SHOWN : 4 * _SHOWN]))
        text(Text(f"  and {count - _SHOWN} more: {rest} (all with --json)", style="dim"))
    for do in dict.fromkeys(problem.do for problem in group if problem.do):
        text(f"  do: {do}")
    text("")


def counted(number: int, name: str) -> str:
    """Return a number with its noun, with an s where it is not one."""
    return f"{number} {name}" + ("" if number == 1 else "s")


def machine(found: dict[str, Any]) -> None:
    """Show the hardware, and how long each preset would train on it."""
    memory = "" if found["memory_gb"] is None else f", {found['memory_gb']:g} GB"
    precision = found["precision"] if found["precision"] == "bf16" else f"{found['precision']} bit"
    where = f"{found['device']}, {counted(found['threads'], 'thread')}{memory}"
    text(f"{where}, {precision}, PyTorch {found['torch']}")
    rows = []
    for one in found["presets"]:
        measured = one["step_s"] is not None
        times = (f"{one['step_s']:.3g} s", f"{one['hours']:.2g}") if measured else ("", "")
        patches = f"{one['patches']} x {'x'.join(map(str, one['patch'] or '?'))}"
        rows.append((one["preset"], one["method"], patches, times[0], one["iterations"], times[1]))
    put(table("preset", "method", "patches", "step", "iterations", "hours", rows=rows, left=2))
    text(_HOURS)
