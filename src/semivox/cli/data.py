"""`plan`, `prepare`."""

from __future__ import annotations

from typing import Annotated

import typer

from semivox.cli import options as o


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(plan)
    app.command()(prepare)


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
    trust_image_geometry: o.TrustGeometry = False,
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
        plan={"trust_image_geometry": trust_image_geometry or None},
    )
    o.require_folder(data)
    from semivox.preprocessing.ready import plan as make
    from semivox.progress import show_progress

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
    trust_image_geometry: o.TrustGeometry = False,
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
        plan={"trust_image_geometry": trust_image_geometry or None},
    )
    o.require_folder(data)
    from semivox.preprocessing.ready import prepare as run
    from semivox.progress import show_progress

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
