"""`train` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semivox.cli import options as o


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(train)
    app.command()(demo)


def train(
    data: o.Data,
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="method, e.g. dual or supervised")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="run folder [default: runs/NAME/PRESET/METHOD/...]")
    ] = None,
    labeled: o.Labeled = None,
    preset: o.Preset = None,
    config: o.ConfigFile = None,
    settings: o.Settings = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="wall time, e.g. 30m; sets the number of iterations")
    ] = None,
    iterations: Annotated[int | None, typer.Option("--iterations", help="optimiser steps")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="of weights, batches and augmentation")] = None,
    val: o.Val = None,
    split_seed: o.SplitSeed = None,
    split_file: o.SplitFile = None,
    fold: o.Fold = None,
    trust_image_geometry: o.TrustGeometry = False,
    work: o.Work = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or gpu")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, 32, bf16 or 16")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="loader processes a stream")] = None,
    diagnose: Annotated[
        bool,
        typer.Option(
            "--diagnose",
            help="compare pseudo-labels with labels hidden from training, in RUN/diagnosis/",
        ),
    ] = False,
    extend: Annotated[
        bool,
        typer.Option(
            "--extend",
            help="with more iterations, and perhaps another train.final_share: go on with a run begun with"
            " fewer, on the longer schedule",
        ),
    ] = False,
    fresh: o.Fresh = False,
) -> None:
    """Train a model from few labels and many scans. The same command again resumes an interrupted run."""
    resolved = o.settings_from(
        preset,
        config,
        settings,
        labeled=labeled,
        val=val,
        split_seed=split_seed,
        split_file=split_file,
        fold=fold,
        plan={"trust_image_geometry": trust_image_geometry or None},
        method={"name": method},
        train={
            "budget_s": o.seconds(budget),
            "iterations": iterations,
            "seed": seed,
            "device": device,
            "precision": precision,
            "workers": workers,
        },
    )
    o.require_folder(data)
    from semivox.progress import show_progress
    from semivox.training.train import train as run

    folder = run(
        data,
        config=resolved,
        out=out,
        work=work,
        fresh=fresh,
        extend=extend,
        diagnose=diagnose,
        bar=True,
        progress=show_progress,
    )
    typer.echo(f"trained: {folder}")
    if diagnose:
        typer.echo(f"diagnosis: {folder / 'diagnosis' / 'diagnosis.png'}")
    o.next_command(f"semivox predict -m {folder} -i FOLDER_WITH_SCANS -o {folder}/predictions")


def demo(
    out: Annotated[Path, typer.Option("--output", "--out", "-o", help="folder for everything")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option("--seed", help="of phantoms and training")] = 0,
    fresh: o.Fresh = False,
) -> None:
    """Train on phantoms, 4 of 40 labeled, with and without the unlabeled ones; compare on 20 others."""
    from semivox.benchmark.demo import demo as run
    from semivox.cli.show import show_comparison, verdict
    from semivox.progress import show_progress

    result = run(out, seed=seed, fresh=fresh, bar=True, progress=show_progress)
    show_comparison(result.summary, "20 phantoms that no training saw; 4 labels of 40")
    typer.echo(f"{verdict(result.summary['difference']['dual'])} (one seed). Picture: {result.picture}")
    o.next_command("semivox train -d YOUR_FOLDER --method dual")
