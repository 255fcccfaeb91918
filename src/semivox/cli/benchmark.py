"""`benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from semivox.cli import options as o
from semivox.errors import UserError
from semivox.progress import show_progress


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    o.command(app, benchmark)


def benchmark(
    data: Annotated[
        list[Path],
        typer.Option("--data", "-d", help="folder of scans or a workspace (repeatable with --paper)"),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="folder for runs, tables and pictures")],
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
    labeled: o.LabeledList = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="number of seeds")] = None,
    preset: Annotated[list[str] | None, typer.Option("--preset", "-p", help="settings (repeatable)")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="one setting, e.g. train.lr=0.02 (repeatable)"),
    ] = None,
    cases: Annotated[
        Literal["test", "val"] | None, typer.Option("--cases", help="which cases are scored (default: test)")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option("--work", help="folder for the workspaces of raw data (default: OUTPUT/work)"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show the cells and estimate their time")
    ] = False,
    max_hours: Annotated[
        float | None, typer.Option("--max-hours", help="begin no cell that would end later; 0: only tables")
    ] = None,
    published: Annotated[
        Literal["la", "pancreas", "brats"] | None,
        typer.Option("--published", help="show the figures of arXiv 2509.13084 beside, as printed"),
    ] = None,
    isolate: Annotated[bool, typer.Option(help="run the cells in a process of their own")] = True,
) -> None:
    """Compare methods over label counts, seeds and presets. The same command again resumes."""
    from semivox import api
    from semivox.cli import show

    changes = {
        "methods": method, "labels": labeled, "seeds": seeds, "presets": preset, "assignments": settings,
        "cases": cases,
    }  # fmt: skip
    changes = {name: value for name, value in changes.items() if value not in (None, [])}
    run: dict[str, Any] = {"out": out, "work": work, "progress": show_progress}
    training: dict[str, Any] = {"max_hours": max_hours, "isolate": isolate, "bar": True, "say": _say}
    if paper is not None:
        _refuse({"--grid": grid, "--ablation": ablation, "--published": published})
        _paper(paper, tuple(data), changes, run, None if dry_run else training, max_hours)
        return
    if len(data) > 1:
        raise UserError("Several data sets go with --paper only", f"{len(data)} data sets", "one -d FOLDER")
    resolved = api.load_grid(file=grid, ablation=ablation, changes=changes)
    if dry_run:
        show.forecast(api.forecast(data[0], resolved, max_hours=max_hours, **run), max_hours)
        return
    found = api.benchmark(data[0], resolved, published=published, ablation=ablation, **run, **training)
    show.outcome(found)
    if found.tables is not None:
        show.text(f"written: {out / 'table.md'}, table.tex, table.csv, runs.csv, comparisons.csv, dice-*.png")
    _end(found.failed, found.left)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _refuse(given: dict[str, Any]) -> None:
    """A table or figure of the paper has its own grid and published figures."""
    if names := [name for name, value in given.items() if value is not None]:
        raise UserError(f"{names[0]} does not go with --paper", do=f"leave out {' and '.join(names)}")


def _paper(
    item: str,
    data: tuple[Path, ...],
    changes: dict[str, Any],
    run: dict[str, Any],
    training: dict[str, Any] | None,
    max_hours: float | None,
) -> None:
    """Make a table or figure, or show its cells."""
    from semivox import api
    from semivox.cli import show

    if training is None:
        for name, cells in api.forecast_replication(item, data, changes=changes, **run).items():
            show.text(name)
            show.forecast(cells, max_hours)
        return
    made = api.replicate(item, data, changes=changes, **run, **training)
    failed, left = dict[str, str](), list[str]()
    for name, found in made.outcomes.items():
        show.outcome(found)
        failed |= {f"{name}, {cell}": why for cell, why in found.failed.items()}
        left += [f"{name}, {cell}" for cell in found.left]
    show.text(f"written in {run['out']}: {', '.join(made.files)}")
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
