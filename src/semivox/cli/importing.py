"""`import` and `fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from semivox.cli import options as o
from semivox.errors import UserError

RECIPES = ("la2018", "pancreas-ct", "brats2019")
_RECIPE, _FILES = "Recipes", "Files"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("import")(import_)
    app.command()(fetch)


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE|RECIPE",
            help="a folder, a CSV table or a scan; or la2018, pancreas-ct, brats2019 followed by RAW",
        ),
    ],
    raw: Annotated[
        Path | None, typer.Argument(metavar="RAW", help="after a recipe: the data set as downloaded")
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--output", "-o", help="folder for the result")],
    kind: Annotated[
        Literal["auto", "nnunet", "msd", "pairs", "csv", "h5", "dicom", "file"],
        typer.Option("--kind", help="layout of the source"),
    ] = "auto",
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--images",
            metavar="[CHANNEL=]PATTERN",
            help="images, e.g. '*/{case}_t1.nii.gz'; repeat for more channels",
            rich_help_panel=_FILES,
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--labels",
            metavar="[CLASS=]PATTERN",
            help="labels; repeat to merge several files, a later one wins",
            rich_help_panel=_FILES,
        ),
    ] = None,
    channels: Annotated[
        list[str] | None,
        typer.Option("--channel", metavar="NAME", help="name of a channel", rich_help_panel=_FILES),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME=VALUE",
            help="a class and its label value; default: every value found",
            rich_help_panel=_FILES,
        ),
    ] = None,
    ignore: Annotated[
        int | None,
        typer.Option("--ignore", help="label value of voxels that are not annotated", rich_help_panel=_FILES),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option("--series", help="DICOM series: its number, description or uid", rich_help_panel=_FILES),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", help="folder that the table's paths start from", rich_help_panel=_FILES),
    ] = None,
    train_list: Annotated[
        Path | None,
        typer.Option("--train-list", help="names of the training cases", rich_help_panel=_FILES),
    ] = None,
    test_list: Annotated[
        Path | None, typer.Option("--test-list", help="names of the test cases", rich_help_panel=_FILES)
    ] = None,
    spacing_mm: Annotated[
        tuple[float, float, float] | None,
        typer.Option("--spacing-mm", help="voxel size of h5 files", rich_help_panel=_FILES),
    ] = None,
    crop: Annotated[
        Literal["none", "published"],
        typer.Option(
            "--crop",
            help="published: the crops of published code; those of la2018 and pancreas-ct use the labels"
            " of all cases",
            rich_help_panel=_RECIPE,
        ),
    ] = "none",
    split: Annotated[
        str | None,
        typer.Option("--split", help="published split; a wrong name lists them", rich_help_panel=_RECIPE),
    ] = None,
    hu: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--hu", help="pancreas-ct: intensity window [default: -120 240]", rich_help_panel=_RECIPE
        ),
    ] = None,
    modalities: Annotated[
        Literal["flair", "all"],
        typer.Option("--modalities", help="brats2019: FLAIR alone, or all four", rich_help_panel=_RECIPE),
    ] = "flair",
    target: Annotated[
        Literal["whole", "regions"],
        typer.Option("--target", help="brats2019: whole tumor, or its three parts", rich_help_panel=_RECIPE),
    ] = "whole",
) -> None:
    """Bring a data set in, as nnU-Net raw with NIfTI files.

    NIfTI layouts (nnU-Net raw, MSD) are indexed where they are; everything else is converted: pairs of images
    and labels by pattern, tables, h5, DICOM, NRRD, MetaImage. A case without a label file is unlabeled.
    """
    from semivox.progress import show_progress
    from semivox.run import write_manifest

    if raw is not None or source in RECIPES:
        _check_recipe(source, raw)
        assert raw is not None
        from semivox.datasets.importers.recipes import run_recipe

        with show_progress("import") as report:
            dataset = run_recipe(
                source,
                raw,
                out,
                crop=crop,
                split=split,
                hu=hu,
                modalities=modalities,
                target=target,
                progress=report,
            )
    else:
        from semivox.datasets.importers.bring_in import import_dataset

        chosen: dict[str, Any] = {
            "images": tuple(images or ()),
            "labels": tuple(labels or ()),
            "channels": tuple(channels or ()),
            "classes": o.class_values(classes or ()),
            "series": series,
            "root": root,
            "train_list": train_list,
            "test_list": test_list,
            **({"spacing_mm": spacing_mm} if spacing_mm else {}),
        }
        with show_progress("import") as report:
            dataset = import_dataset(Path(source), out, kind=kind, ignore=ignore, progress=report, **chosen)
    labeled = sum(case.label is not None for case in dataset.pool("train"))
    typer.echo(
        f"{dataset.name}: {len(dataset.pool('train'))} training cases ({labeled} with a label file),"
        f" {len(dataset.pool('extra'))} extra unlabeled, {len(dataset.pool('test'))} test;"
        f" channels {', '.join(dataset.channels)}; classes {', '.join(dataset.class_names[1:])}"
    )
    record = _record(out)
    for note in record.get("notes", ()):
        typer.echo(f"note: {note}")
    write_manifest(out, "import", source=str(raw or source), cases=len(dataset.cases))
    o.next_command(f"semivox prepare -d {out}{record.get('prepare', '')}")


def fetch(
    name: Annotated[str, typer.Argument(help="a Decathlon task: Task04_Hippocampus, hippocampus or 4")],
    out: Annotated[Path, typer.Argument(help="folder for the data set")],
    mirror: Annotated[
        Path | None,
        typer.Option("--from", help="folder with the tar files, instead of a download"),
    ] = None,
) -> None:
    """Get a data set of the Medical Segmentation Decathlon; its checksum is verified before it is unpacked.

    Only this command uses the network, and with --from it does not.
    """
    from semivox.datasets.importers.fetch import fetch_task

    folder = fetch_task(name, out, mirror=mirror)
    typer.echo(f"{folder.name} is in {folder}")
    o.next_command(f"semivox prepare -d {folder}")


def _check_recipe(name: str, raw: Path | None) -> None:
    if name not in RECIPES:
        raise UserError(
            f"Unknown recipe: {name}",
            found=f"{name} before {raw}",
            expected=", ".join(RECIPES),
            do=f"for a layout of your own: semivox import {raw} -o OUT",
        )
    if raw is None or not raw.is_dir():
        raise UserError(
            "The recipe needs the folder of the download",
            path=raw,
            found="nothing" if raw is None or not raw.exists() else "a file",
            expected="a folder",
            do=f"semivox import {name} RAW -o OUT",
        )


def _record(out: Path) -> dict[str, Any]:
    from semivox.datasets.importers.convert import RECORD
    from semivox.files import read_json

    path = out / RECORD
    return dict(read_json(path)) if path.is_file() else {}
