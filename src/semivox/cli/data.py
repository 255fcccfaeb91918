"""`info`, `check`, `plan`, `prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semivox.cli import options as o
from semivox.errors import UserError
from semivox.progress import show_progress


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    for function in (info, check, plan, prepare):
        o.command(app, function)


def info(
    split: o.Split,
    positional: o.DataArgument = None,
    data: o.DataOption = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="PNG for the distributions and some scans")
    ] = None,
    machine: Annotated[
        bool, typer.Option("--machine", help="measure this machine instead, in two minutes")
    ] = False,
    device: o.Device = "auto",
    json: o.Json = False,
    workers: o.Workers = 2,
) -> None:
    """Show what a data set looks like: shapes, voxel sizes, intensities, and class volumes of labeled cases.

    Of cases that the split calls unlabeled no label is opened, of test cases nothing.
    With `--machine`: times of the networks and of reading patches, and the hours each preset would train.
    """
    from semivox import api
    from semivox.cli import show

    if machine:
        if positional or data:
            do = "semivox info --machine, or semivox info -d DATA"
            raise UserError("--machine measures this machine, not a data set", do=do)
        times = api.machine(device=device, progress=show_progress)
        show.print_json(times.as_dict()) if json else show.machine(times)
        return
    folder = o.one_data(data, positional)
    found = api.info(folder, config=split.resolve(), figure=figure, workers=workers, progress=show_progress)
    if json:
        show.print_json(found.as_dict())
        return
    show.information(found)
    if figure is not None:
        typer.echo(f"picture: {figure}")
    o.next_command("check", "-d", folder)


def check(
    split: o.Split,
    positional: o.DataArgument = None,
    data: o.DataOption = None,
    json: o.Json = False,
    workers: o.Workers = 2,
) -> None:
    """Read every file once and report all problems, each with its file and what to do.

    Exit code 0: no errors (there may be warnings); 1: errors; 2: the data set cannot be read at all.
    """
    from semivox import api
    from semivox.cli import show

    folder = o.one_data(data, positional)
    result = api.check(folder, config=split.resolve(), workers=workers, progress=show_progress)
    if json:
        show.print_json(result.as_dict())
    else:
        show.problems(result)
        if not result.errors:
            o.next_command("prepare", "-d", folder)
    raise typer.Exit(int(result.errors > 0))


def plan(data: o.Data, settings: o.Settings, fresh: o.Fresh = False) -> None:
    """Choose working grid, normalisation and patch from the scans and the labels (plans.json, editable).

    The table compares grids of features: what labels keep when they are averaged to them and back, and how
    much of a scan a training patch holds.
    """
    from semivox import api
    from semivox.cli.plan import show_plan

    workspace, split, made = api.plan(
        data, config=settings.resolve(), work=settings.work, fresh=fresh, progress=show_progress
    )
    typer.echo(
        f"{len(split.labeled)} labeled, {len(split.unlabeled)} unlabeled, {len(split.val)} validation,"
        f" {len(split.test)} test cases ({split.how})"
    )
    show_plan(made)
    note = f"you may edit {workspace.plan_file} before"
    o.next_command("prepare", "-d", workspace.folder, *settings.again(), note=note)


def prepare(
    data: o.Data,
    settings: o.Settings,
    workers: o.Workers = 2,
    overlays: Annotated[bool, typer.Option(help="write one picture a case")] = True,
    fresh: o.Fresh = False,
) -> None:
    """Resample, normalise and store the training scans; look at the pictures in WORKSPACE/overlays."""
    from semivox import api

    config = settings.resolve()
    workspace, split, _ = api.prepare(
        data, config=config, work=settings.work, fresh=fresh, workers=workers, overlays=overlays,
        progress=show_progress,
    )  # fmt: skip
    counts = f"{len(split.labeled)} labeled and {len(split.unlabeled)} unlabeled"
    typer.echo(f"{counts} scans ready in {workspace.folder}")
    o.next_command("train", "-d", workspace.folder, "--method", config.method.name, *settings.again())
