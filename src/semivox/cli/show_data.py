"""A data set and its problems on the screen."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from semivox.datasets.check_set import Group, grouped
from semivox.preprocessing.fingerprint import Intensity

if TYPE_CHECKING:
    from semivox.reporting.inspect import CheckResult, Information

_SHOWN = 5  # problems of a kind
_LEVELS = {"0.5 %": "p005", "median": "p500", "99.5 %": "p995"}


def print_json(content: dict[str, Any]) -> None:
    """Print indented JSON and nothing else."""
    sys.stdout.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def show_information(found: Information) -> None:
    """Show roles, and the ranges over cases of sizes, intensities and class volumes."""
    dataset, split, cases = found.dataset, found.split, found.measured.cases
    console = Console()
    console.print(Text(f"{dataset.name}  ({dataset.root})", style="bold"), soft_wrap=True)
    console.print(
        f"channels {', '.join(dataset.channels)}; classes {', '.join(dataset.class_names[1:])}",
        soft_wrap=True, markup=False, highlight=False,
    )  # fmt: skip
    console.print(
        f"{len(split.labeled)} labeled, {len(split.unlabeled)} unlabeled, {len(split.val)} validation,"
        f" {len(split.test)} test cases (not opened)",
        highlight=False,
    )
    scans = _table(f"{len(cases)} scans, axes to right, front, head", "smallest", "median", "largest")
    for title, rows in (
        ("voxels", [case.shape for case in cases]),
        ("voxel size in mm", [case.spacing_mm for case in cases]),
        ("size in mm", [np.multiply(case.shape, case.spacing_mm) for case in cases]),
    ):
        scans.add_row(title, *(" x ".join(f"{side:.4g}" for side in row) for row in _range(rows)))
    scans.add_row("share of background", *(f"{value:.0%}" for value in _range([c.background for c in cases])))
    console.print(scans)
    for index, channel in enumerate(dataset.channels):
        console.print(_intensity_table(found, channel, [case.channels[index] for case in cases], index))
    _show_volumes(console, found)


def show_problems(result: CheckResult) -> None:
    """Show the problems, those of one kind together, and a summary."""
    console = Console()
    for group in grouped(result.problems):
        _show_group(console, group)
    warnings = len(result.problems) - result.errors
    console.print(
        Text(
            f"{result.dataset}: {result.cases} cases, {_count(result.errors, 'error')},"
            f" {_count(warnings, 'warning')}",
            style="bold red" if result.errors else "bold yellow" if warnings else "bold green",
        )
    )
    if result.hidden:
        console.print(f"{_count(result.hidden, 'label file')} of unlabeled cases not opened", highlight=False)


def _show_group(console: Console, group: Group) -> None:
    first, count = group.first, len(group.problems)
    style = "bold red" if first.severity == "error" else "bold yellow"
    times = f"  ({count} times)" if count > 1 else ""
    _print(console, Text.assemble((f"{first.severity}: ", style), (first.what, "bold"), times))
    for problem in group.problems[:_SHOWN]:
        _print(console, Text(f"  {problem.path or problem.case or ''}", style="cyan"))
        for name in ("found", "expected"):
            if (value := getattr(problem, name)) is not None:
                _print(console, Text(f"    {name + ':':<10}{value}"))
    if count > _SHOWN:
        rest = ", ".join(dict.fromkeys(problem.case or "" for problem in group.problems[_SHOWN : 4 * _SHOWN]))
        _print(console, Text(f"  and {count - _SHOWN} more: {rest} (all with --json)", style="dim"))
    for do in dict.fromkeys(problem.do for problem in group.problems if problem.do):
        _print(console, Text(f"  do: {do}"))
    console.print()


def _intensity_table(found: Information, channel: str, scans: Sequence[Intensity], index: int) -> Table:
    table = _table(f"intensities of {channel}", "smallest", "median", "largest")
    for title, key in _LEVELS.items():
        values = _range([scan.percentiles[key] for scan in scans])
        table.add_row(f"{title} of a scan", *(f"{value:.4g}" for value in values))
    if found.measured.foreground is not None:
        inside = found.measured.foreground[index].percentiles
        table.add_row(
            "labeled foreground: 0.5 %, 50 %, 99.5 %", *(f"{inside[key]:.4g}" for key in _LEVELS.values())
        )
    return table


def _show_volumes(console: Console, found: Information) -> None:
    labeled = [case.class_volumes_ml for case in found.measured.cases if case.class_volumes_ml is not None]
    if not labeled:
        return
    table = _table(f"class volumes in mL, {len(labeled)} labeled cases", "smallest", "median", "largest")
    table.add_column("cases without it", justify="right")
    for name in found.dataset.class_names[1:]:
        volumes = [case[name] for case in labeled]
        absent = sum(volume == 0 for volume in volumes)
        table.add_row(Text(name), *(f"{value:.4g}" for value in _range(volumes)), str(absent))
    console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _range(values: Iterable[Any]) -> tuple[Any, Any, Any]:
    array = np.asarray(list(values))
    return array.min(axis=0), np.median(array, axis=0), array.max(axis=0)


def _print(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True)


def _count(number: int, name: str) -> str:
    return f"{number} {name}" + ("" if number == 1 else "s")
