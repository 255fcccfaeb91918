"""`benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from semivox.cli import options as o

if TYPE_CHECKING:
    from semivox.benchmark.run import Forecast, Outcome


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(benchmark)


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
    labeled: Annotated[
        list[float] | None,
        typer.Option("--labeled", "-l", help="labels: a number, or a fraction below 1 (repeatable)"),
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="number of seeds")] = None,
    preset: Annotated[list[str] | None, typer.Option("--preset", "-p", help="settings (repeatable)")] = None,
    settings: o.Settings = None,
    cases: Annotated[
        Literal["test", "val"] | None, typer.Option("--cases", help="which cases are scored [default: test]")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option("--work", help="folder for the workspaces of raw data [default: OUTPUT/work]"),
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
    """Compare methods over label counts, seeds and presets. The same command again goes on."""
    o.require_folder(data)
    from semivox.benchmark.grid import load_grid
    from semivox.progress import show_progress

    changes: dict[str, Any] = {
        "methods": method or None,
        "labels": [int(n) if n >= 1 else n for n in labeled] if labeled else None,
        "seeds": seeds,
        "presets": preset or None,
        "assignments": settings or None,
        "cases": cases,
    }
    resolved = load_grid(file=grid, ablation=ablation, changes=changes)
    from semivox.benchmark import run as verb

    if dry_run:
        _show_forecast(verb.forecast(data, resolved, out=out, work=work, progress=show_progress), max_hours)
        return
    outcome = verb.benchmark(
        data,
        resolved,
        out=out,
        work=work,
        max_hours=max_hours,
        published=published,
        ablation=ablation,
        isolate=isolate,
        bar=True,
        progress=show_progress,
        say=lambda line: typer.echo(line, err=True),
    )
    _show_outcome(outcome, out)
    if outcome.failed:
        raise typer.Exit(1)


def _show_forecast(cells: list[Forecast], max_hours: float | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from semivox.reporting.benchmark import duration

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("cell", "state"):
        table.add_column(heading)
    for heading in ("estimate", "ends after"):
        table.add_column(heading, justify="right")
    total, fitting = 0.0, True
    for cell in cells:
        total += cell.seconds
        fitting = fitting and (max_hours is None or total <= max_hours * 3600)
        state = cell.state if fitting or cell.state == "finished" else "left for lack of time"
        table.add_row(Text(cell.job.place.name), state, duration(cell.seconds), duration(total))
    Console().print(table)
    typer.echo("Nothing was trained. Estimates are of training and prediction; a begun cell counts whole.")


def _show_outcome(outcome: Outcome, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from semivox.cli.show import interval_text

    if outcome.tables is not None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("preset, labels, method", overflow="fold")
        for heading in ("Dice [95 % interval]", "sd, seeds"):
            table.add_column(heading, no_wrap=True)
        dice = outcome.tables.settings
        for row in dice[dice["metric"] == "dice"].to_dict("records"):
            name = f"{row['preset']}, {row['labeled']}, {row['method']}"
            table.add_row(Text(name), Text(interval_text(row)), f"{row['sd_seeds']:.3f}, {row['seeds']}")
        Console().print(table)
        typer.echo(
            f"written: {out / 'table.md'}, table.tex, table.csv, runs.csv, comparisons.csv, dice-*.png"
        )
    for name, why in outcome.failed.items():
        typer.echo(f"failed: {name}: {why}", err=True)
    if outcome.left:
        typer.echo(f"left for lack of time: {len(outcome.left)} cells, the first is {outcome.left[0]}")
    if outcome.failed or outcome.left:
        o.next_command("the same command again goes on with these")
