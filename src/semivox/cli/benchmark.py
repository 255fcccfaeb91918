"""`benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from semivox.cli import options as o
from semivox.cli.values import labels
from semivox.errors import UserError

LabeledList = Annotated[
    list[float] | None,
    typer.Option(
        "--labeled",
        "-l",
        parser=labels,
        metavar="N",
        help="number of labels, or a fraction below 1 (repeatable)",
    ),
]
_GRID = {
    "method": "methods", "labeled": "labels", "seeds": "seeds", "preset": "presets",
    "settings": "assignments", "cases": "cases",
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    o.command(app, benchmark, api="benchmark")


def benchmark(
    call: o.Call,
    data: Annotated[
        list[Path],
        typer.Option("--data", "-d", help="folder of scans or a workspace (repeatable with --paper)"),
    ],
    grid: Annotated[
        Path | None, typer.Option("--grid", "-g", help="YAML file: methods, labels, seeds ...")
    ] = None,
    ablation: Annotated[
        str | None,
        typer.Option(
            "--ablation", help="shipped grid: modules, distance, contrast, percentile, tau, temperature, beta"
        ),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(
            "--paper",
            metavar="ITEM",
            help="table1 to table7, figure1, figure5 to figure8 of arXiv 2509.13084",
        ),
    ] = None,
    method: Annotated[list[str] | None, typer.Option("--method", "-m", help="a row (repeatable)")] = None,
    labeled: LabeledList = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="number of seeds")] = None,
    preset: Annotated[list[str] | None, typer.Option("--preset", "-p", help="settings (repeatable)")] = None,
    settings: o.SetOption = None,
    cases: Annotated[
        Literal["test", "val"] | None, typer.Option("--cases", help="which cases are scored (default: test)")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show the cells and estimate their time")
    ] = False,
    isolate: Annotated[bool, typer.Option(help="run the cells in a process of their own")] = True,
) -> None:
    """Compare methods over label counts, seeds and presets. The same command again resumes."""
    from semivox.cli import show

    given, typed = call.arguments, locals()
    changes = {key: typed[name] for name, key in _GRID.items() if typed[name] not in (None, [])}
    run: dict[str, Any] = {"isolate": isolate, "say": lambda line: typer.echo(line, err=True)}
    if paper is not None:
        _refuse({"--grid": grid, "--ablation": ablation, "--published": given.get("published")})
        _paper(call, {"item": paper, "data": tuple(data), "changes": changes}, None if dry_run else run)
        return
    if len(data) > 1:
        raise UserError("Several data sets go with --paper only", f"{len(data)} data sets", "one -d FOLDER")
    resolved = call("load_grid", file=grid, ablation=ablation, changes=changes)
    if dry_run:
        show.forecast(call("forecast", data=data[0], grid=resolved), given.get("max_hours"))
        return
    found = call(data=data[0], grid=resolved, ablation=ablation, **run)
    show.outcome(found)
    if found.tables is not None:
        names = "table.tex, table.csv, runs.csv, comparisons.csv, dice-*.png"
        show.text(f"written: {given['out'] / 'table.md'}, {names}")
    _end(found.failed, found.left)


def _refuse(given: dict[str, Any]) -> None:
    """A table or figure of the paper has its own grid and published figures."""
    if names := [name for name, value in given.items() if value is not None]:
        raise UserError(f"{names[0]} does not go with --paper", do=f"leave out {' and '.join(names)}")


def _paper(call: o.Call, item: dict[str, Any], run: dict[str, Any] | None) -> None:
    """Make a table or figure, or show its cells."""
    from semivox.cli import show

    if run is None:
        for name, cells in call("forecast_replication", **item).items():
            show.text(name)
            show.forecast(cells, call.arguments.get("max_hours"))
        return
    made = call("replicate", **item, **run)
    failed, left = dict[str, str](), list[str]()
    for name, found in made.outcomes.items():
        show.outcome(found)
        failed |= {f"{name}, {cell}": why for cell, why in found.failed.items()}
        left += [f"{name}, {cell}" for cell in found.left]
    show.text(f"written in {call.arguments['out']}: {', '.join(made.files)}")
    _end(failed, left)


def _end(failed: dict[str, str], left: list[str]) -> None:
    """Say what is missing, and how to resume; exit code 1 after a failure."""
    for name, why in failed.items():
        typer.echo(f"failed: {name}: {why}", err=True)
    if left:
        typer.echo(f"left for lack of time: {len(left)} cells, the first is {left[0]}")
    if failed or left:
        o.same_command()
    if failed:
        raise typer.Exit(1)
