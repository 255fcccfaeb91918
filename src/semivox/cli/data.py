"""`import`, `plan`, `prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from semivox.cli import options as o


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("import")(import_)
    app.command()(plan)
    app.command()(prepare)


def import_(
    source: Annotated[
        Path, typer.Argument(help="nnU-Net raw or MSD folder, or a folder of CASE/mri_norm2.h5")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="folder for the result")],
    kind: Annotated[
        Literal["auto", "nnunet", "msd", "h5"], typer.Option("--kind", help="layout of the source")
    ] = "auto",
) -> None:
    """Bring a data set in: NIfTI layouts are indexed where they are, h5 cases become NIfTI files.

    A case without a label file is unlabeled.
    """
    from semivox.data.importers import import_dataset  # noqa: PLC0415
    from semivox.run import write_manifest  # noqa: PLC0415

    dataset = import_dataset(source, out, kind=kind)
    labeled = sum(case.label is not None for case in dataset.pool("train"))
    typer.echo(
        f"{dataset.name}: {len(dataset.pool('train'))} training cases ({labeled} with a label file),"
        f" {len(dataset.pool('extra'))} extra unlabeled, {len(dataset.pool('test'))} test;"
        f" channels {', '.join(dataset.channels)}; classes {', '.join(dataset.class_names[1:])}"
    )
    write_manifest(out, "import", source=str(source), cases=len(dataset.cases))
    o.next_command(f"semivox prepare -d {out}")


def plan(
    data: o.Data,
    work: o.Work = None,
    preset: o.Preset = None,
    config: o.ConfigFile = None,
    settings: o.Settings = None,
    labeled: o.Labeled = None,
    val: o.Val = None,
    split_seed: o.SplitSeed = None,
    split_file: o.SplitFile = None,
    fold: o.Fold = None,
    fresh: o.Fresh = False,
) -> None:
    """Choose spacing, normalisation and patch from the scans and the labeled cases (plans.json, editable)."""
    resolved = o.settings_from(
        preset,
        config,
        settings,
        labeled=labeled,
        val=val,
        split_seed=split_seed,
        split_file=split_file,
        fold=fold,
    )
    o.require_folder(data)
    from semivox.verbs.prepare import plan as make  # noqa: PLC0415
    from semivox.verbs.progress import show_progress  # noqa: PLC0415

    workspace, split, made = make(data, config=resolved, work=work, fresh=fresh, progress=show_progress)
    typer.echo(
        f"{len(split.labeled)} labeled, {len(split.unlabeled)} unlabeled, {len(split.val)} validation,"
        f" {len(split.test)} test cases ({split.how})"
    )
    for name, reason in made.reasons.items():
        typer.echo(f"{name}: {getattr(made, name, '')}  {reason}")
    o.next_command(
        f"semivox prepare -d {workspace.folder}   (after editing {workspace.plan_file} if you like)"
    )


def prepare(
    data: o.Data,
    work: o.Work = None,
    preset: o.Preset = None,
    config: o.ConfigFile = None,
    settings: o.Settings = None,
    labeled: o.Labeled = None,
    val: o.Val = None,
    split_seed: o.SplitSeed = None,
    split_file: o.SplitFile = None,
    fold: o.Fold = None,
    workers: o.Workers = 2,
    overlays: Annotated[bool, typer.Option(help="write one picture a case")] = True,
    fresh: o.Fresh = False,
) -> None:
    """Resample, normalise and store the training scans; look at the pictures in WORKSPACE/overlays."""
    resolved = o.settings_from(
        preset,
        config,
        settings,
        labeled=labeled,
        val=val,
        split_seed=split_seed,
        split_file=split_file,
        fold=fold,
    )
    o.require_folder(data)
    from semivox.verbs.prepare import prepare as run  # noqa: PLC0415
    from semivox.verbs.progress import show_progress  # noqa: PLC0415

    workspace, split, _ = run(
        data,
        config=resolved,
        work=work,
        fresh=fresh,
        workers=workers,
        overlays=overlays,
        progress=show_progress,
    )
    typer.echo(
        f"{len(split.labeled)} labeled and {len(split.unlabeled)} unlabeled scans ready in {workspace.folder}"
    )
    o.next_command(f"semivox train -d {workspace.folder} --method dual")
