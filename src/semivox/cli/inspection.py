"""`info` and `check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semivox.cli import options as o
from semivox.errors import UserError

if TYPE_CHECKING:
    from semivox.config import Config


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(info)
    app.command()(check)


def info(
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="folder of scans or a workspace [default: none]")
    ] = None,
    labeled: o.Labeled = None,
    val: o.Val = None,
    split_seed: o.SplitSeed = None,
    split_file: o.SplitFile = None,
    fold: o.Fold = None,
    trust_image_geometry: o.TrustGeometry = False,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="PNG for the distributions and some scans")
    ] = None,
    machine: Annotated[
        bool, typer.Option("--machine", help="instead: how quick this machine is, in two minutes")
    ] = False,
    device: o.Device = "auto",
    json: o.Json = False,
    workers: o.Workers = 2,
) -> None:
    """Show what a data set looks like: shapes, voxel sizes, intensities, and class volumes of labeled cases.

    Of cases that the split calls unlabeled no label is opened, of test cases nothing.
    With `--machine`: times of the networks and of reading patches, and the hours each preset would train.
    """
    if machine:
        _machine(data, device, json)
        return
    if data is None:
        raise UserError(
            "There is nothing to show",
            found="neither DATA nor --machine",
            expected="a folder of scans, or --machine",
            do="semivox info DATA, or semivox info --machine",
        )
    resolved = _settings(labeled, val, split_seed, split_file, fold, trust=trust_image_geometry)
    o.require_folder(data)
    from semivox.cli.show_data import print_json, show_information
    from semivox.progress import show_progress
    from semivox.reporting.inspect import info as run

    found = run(data, config=resolved, figure=figure, workers=workers, progress=show_progress)
    if json:
        print_json(found.as_dict())
        return
    show_information(found)
    if figure is not None:
        typer.echo(f"picture: {figure}")
    o.next_command(f"semivox check {data}")


def check(
    data: o.DataArgument,
    labeled: o.Labeled = None,
    val: o.Val = None,
    split_seed: o.SplitSeed = None,
    split_file: o.SplitFile = None,
    fold: o.Fold = None,
    trust_image_geometry: o.TrustGeometry = False,
    json: o.Json = False,
    workers: o.Workers = 2,
) -> None:
    """Read every file once and report all problems, each with its file and what to do.

    Exit code 0: no errors (there may be warnings); 1: errors; 2: the data set cannot be read at all.
    """
    resolved = _settings(labeled, val, split_seed, split_file, fold, trust=trust_image_geometry)
    o.require_folder(data)
    from semivox.cli.show_data import print_json, show_problems
    from semivox.progress import show_progress
    from semivox.reporting.inspect import check as run

    result = run(data, config=resolved, workers=workers, progress=show_progress)
    if json:
        print_json(result.as_dict())
    else:
        show_problems(result)
        if not result.errors:
            o.next_command(f"semivox prepare -d {data}")
    raise typer.Exit(int(result.errors > 0))


def _settings(
    labeled: float | None,
    val: int | None,
    split_seed: int | None,
    split_file: Path | None,
    fold: int | None,
    *,
    trust: bool,
) -> Config:
    """The settings that matter without training: the split and what to trust."""
    return o.settings_from(
        None,
        None,
        None,
        labeled=labeled,
        val=val,
        split_seed=split_seed,
        split_file=split_file,
        fold=fold,
        plan={"trust_image_geometry": trust or None},
    )


def _machine(data: Path | None, device: str, json: bool) -> None:
    if data is not None:
        raise UserError(
            "--machine measures this machine, not a data set",
            found=f"--machine and {data}",
            expected="one of them",
            do="semivox info --machine",
        )
    from semivox.cli.show_data import print_json
    from semivox.cli.show_machine import show_machine
    from semivox.progress import show_progress
    from semivox.training.machine import machine as run

    found = run(device=device, progress=show_progress)
    if json:
        print_json(found.as_dict())
    else:
        show_machine(found)
