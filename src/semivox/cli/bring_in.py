"""`import` and `fetch`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from semivox.cli import options as o
from semivox.errors import UserError, unknown
from semivox.progress import show_progress

RECIPES = ("la2018", "pancreas-ct", "brats2019")


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    o.command(app, import_, "import")
    o.command(app, fetch)


def _file(*names: str, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel="Files", **more)


def _recipe(*names: str, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel="Recipes", **more)


@dataclass(frozen=True)
class Files:
    """Options for layouts of the user's own; named as in `ImportOptions`."""

    images: Annotated[
        list[str] | None,
        _file("--images", metavar="[CHANNEL=]PATTERN", help="e.g. '*/{case}_t1.nii.gz'; repeat for channels"),
    ] = None
    labels: Annotated[
        list[str] | None,
        _file("--labels", metavar="[CLASS=]PATTERN", help="repeat to merge several files, a later one wins"),
    ] = None
    channels: Annotated[list[str] | None, _file("--channel", metavar="NAME", help="name of a channel")] = None
    classes: Annotated[
        list[str] | None,
        _file(
            "--class", metavar="NAME=VALUE", help="a class and its label value; default: every value found"
        ),
    ] = None
    ignore: Annotated[int | None, _file("--ignore", help="label value of voxels that are not annotated")] = (
        None
    )
    series: Annotated[str | None, _file("--series", help="DICOM series: its number, description or UID")] = (
        None
    )
    root: Annotated[Path | None, _file("--root", help="folder that the table's paths start from")] = None
    train_list: Annotated[Path | None, _file("--train-list", help="names of the training cases")] = None
    test_list: Annotated[Path | None, _file("--test-list", help="names of the test cases")] = None
    spacing_mm: Annotated[
        tuple[float, float, float] | None, _file("--spacing-mm", help="voxel size of h5 files")
    ] = None


@dataclass(frozen=True)
class Recipe:
    """Options of the recipes for published data sets."""

    crop: Annotated[
        Literal["none", "published"],
        _recipe(
            "--crop",
            help="published: crops of published code; for la2018 and pancreas-ct made with all labels",
        ),
    ] = "none"
    split: Annotated[str | None, _recipe("--split", help="published split; a wrong name lists them")] = None
    hu: Annotated[
        tuple[float, float] | None, _recipe("--hu", help="pancreas-ct: intensity window (default: -120 240)")
    ] = None
    modalities: Annotated[
        Literal["flair", "all"], _recipe("--modalities", help="brats2019: FLAIR alone, or all four")
    ] = "flair"
    target: Annotated[
        Literal["whole", "regions"], _recipe("--target", help="brats2019: whole tumor, or its three parts")
    ] = "whole"


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE|RECIPE",
            help="a folder, a CSV table or a scan; or la2018, pancreas-ct, brats2019 followed by RAW",
        ),
    ],
    raw: Annotated[
        Path | None, typer.Argument(metavar="[RAW]", help="after a recipe: the data set as downloaded")
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--output", "-o", help="folder for the result")],
    kind: Annotated[
        Literal["auto", "nnunet", "msd", "pairs", "csv", "h5", "dicom", "file"],
        typer.Option("--kind", help="layout of the source"),
    ] = "auto",
    files: Files = Files(),
    recipe: Recipe = Recipe(),
) -> None:
    """Bring a data set in, as nnU-Net raw with NIfTI files.

    NIfTI layouts (nnU-Net raw, MSD) are indexed where they are; everything else is converted: pairs of images
    and labels by pattern, tables, h5, DICOM, NRRD, MetaImage. A case without a label file is unlabeled.
    """
    from semivox import api

    if raw is not None or source in RECIPES:
        _check_recipe(source, raw, [*_given(files), *(["kind"] if kind != "auto" else [])])
        made = api.import_published(source, raw or "", out, **_given(recipe), progress=show_progress)
    else:
        _refuse(list(_given(recipe)), "a recipe (la2018, pancreas-ct, brats2019)")
        given = _given(files)
        if files.classes:
            given["classes"] = o.class_values(files.classes)
        made = api.import_dataset(source, out, kind=kind, **given, progress=show_progress)
    train = made.pool("train")
    labels = sum(case.label is not None for case in train)
    typer.echo(
        f"{made.name}: {len(train)} training cases ({labels} with a label file),"
        f" {len(made.pool('extra'))} extra unlabeled, {len(made.pool('test'))} test;"
        f" channels {', '.join(made.channels)}; classes {', '.join(made.class_names[1:])}"
    )
    record = api.import_record(out)
    for note in record.get("notes", ()):
        typer.echo(f"note: {note}")
    o.next_command("prepare", "-d", out, *shlex.split(record.get("prepare", "")))


def fetch(
    name: Annotated[str, typer.Argument(help="a Decathlon task: Task04_Hippocampus, hippocampus or 4")],
    out: Annotated[Path, typer.Argument(help="folder for the data set")],
    mirror: Annotated[
        Path | None, typer.Option("--from", help="folder with the tar files, instead of a download")
    ] = None,
) -> None:
    """Get a data set of the Medical Segmentation Decathlon; its checksum is verified before it is unpacked.

    Only this command uses the network, and with --from it does not.
    """
    from semivox import api

    folder = api.fetch(name, out, mirror=mirror)
    typer.echo(f"{folder.name} is in {folder}")
    o.next_command("prepare", "-d", folder)


def _given(group: Files | Recipe) -> dict[str, Any]:
    """Return the options of a group that were given."""
    values = {one.name: (getattr(group, one.name), one.default) for one in fields(group)}
    return {name: value for name, (value, default) in values.items() if value not in (default, [])}


def _refuse(names: list[str], needed: str) -> None:
    if names:
        flags = ", ".join("--" + name.replace("_", "-").removesuffix("s") for name in names)
        raise UserError(
            "Options without a meaning here", flags, f"these options with {needed}", "leave them out"
        )


def _check_recipe(name: str, raw: Path | None, others: list[str]) -> None:
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    if raw is None or not raw.is_dir():
        found = "nothing" if raw is None or not raw.exists() else "a file"
        do = f"semivox import {name} RAW -o OUT"
        raise UserError("The recipe needs the folder of the download", found, "a folder", do, raw)
    _refuse(others, "a layout of your own")
