"""`train` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semivox.cli import options as o
from semivox.progress import show_progress


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    o.command(app, train)
    o.command(app, demo)


def train(
    data: o.Data,
    settings: o.Settings,
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="method, e.g. dual or supervised")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="run folder (default: runs/NAME/PRESET/METHOD/...)")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="wall time, e.g. 30m; sets the number of iterations")
    ] = None,
    iterations: Annotated[int | None, typer.Option("--iterations", help="optimiser steps")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="of weights, batches and augmentation")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or gpu")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, 32, bf16 or 16")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="loader processes a stream")] = None,
    diagnose: Annotated[
        bool,
        typer.Option(
            "--diagnose", help="compare pseudo-labels with labels hidden from training, in RUN/diagnosis/"
        ),
    ] = False,
    extend: Annotated[
        bool,
        typer.Option("--extend", help="train a finished run for more iterations, on the longer schedule"),
    ] = False,
    fresh: o.Fresh = False,
) -> None:
    """Train a model from few labels and many scans. The same command again resumes an interrupted run."""
    from semivox import api

    sections = {"iterations": iterations, "seed": seed, "device": device, "precision": precision}
    config = settings.resolve(
        method={"name": method}, train={**sections, "budget_s": o.seconds(budget), "workers": workers}
    )
    folder = api.train(
        data, config=config, out=out, work=settings.work, fresh=fresh, extend=extend, diagnose=diagnose,
        bar=True, progress=show_progress,
    )  # fmt: skip
    typer.echo(f"trained: {folder}")
    if diagnose:
        typer.echo(f"diagnosis: {folder / 'diagnosis' / 'diagnosis.png'}")
    o.next_command("predict", "-m", folder, "-i", "FOLDER_WITH_SCANS", "-o", folder / "predictions")


def demo(
    out: Annotated[Path, typer.Option("--output", "--out", "-o", help="folder for everything")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option("--seed", help="of the training")] = 0,
    fresh: o.Fresh = False,
) -> None:
    """Train on phantoms, 4 of 40 labeled, with and without the unlabeled ones; compare on 20 others."""
    from semivox import api
    from semivox.cli import show

    result = api.demo(out, seed=seed, fresh=fresh, bar=True, progress=show_progress)
    show.comparison(result.summary, "20 phantoms that no training saw; 4 labels of 40")
    typer.echo(f"{show.verdict(result.summary['difference']['dual'])} (one seed). Picture: {result.picture}")
    o.next_command("train", "-d", "YOUR_FOLDER", "--preset", "lite")
