"""`benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from semivox.cli import options as o
from semivox.progress import show_progress


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    o.command(app, benchmark)


def benchmark(
    data: o.Data,
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
    resolved = api.load_grid(file=grid, ablation=ablation, changes=changes)
    if dry_run:
        cells = api.forecast(data, resolved, out=out, work=work, max_hours=max_hours, progress=show_progress)
        show.forecast(cells, max_hours)
        return
    found = api.benchmark(
        data, resolved, out=out, work=work, max_hours=max_hours, published=published, ablation=ablation,
        isolate=isolate, bar=True, progress=show_progress, say=lambda line: typer.echo(line, err=True),
    )  # fmt: skip
    show.outcome(found)
    if found.tables is not None:
        show.text(f"written: {out / 'table.md'}, table.tex, table.csv, runs.csv, comparisons.csv, dice-*.png")
    for name, why in found.failed.items():
        typer.echo(f"failed: {name}: {why}", err=True)
    if found.left:
        typer.echo(f"left for lack of time: {len(found.left)} cells, the first is {found.left[0]}")
    if found.failed or found.left:
        o.same_command()
    if found.failed:
        raise typer.Exit(1)
