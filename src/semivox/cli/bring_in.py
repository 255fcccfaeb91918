"""`import` and `fetch`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from semivox.cli import options as o
from semivox.cli.values import class_values
from semivox.errors import UserError
from semivox.files import read_json

RECIPES = ("la2018", "pancreas-ct", "brats2019")


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    flags = {
        "images": "--images", "labels": "--labels", "channels": "--channel", "classes": "--class",
        "mirror": "--from", "name": "TASK",
    }  # fmt: skip
    o.command(app, import_, "import", api="import_dataset", flags=flags)
    o.command(app, fetch, api="fetch", flags={**flags, "out": "OUT"})


def import_(
    call: o.Call,
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
) -> None:
    """Bring a data set in, as nnU-Net raw with NIfTI files.

    NIfTI layouts (nnU-Net raw, MSD) are indexed where they are; everything else is converted: pairs of images
    and labels by pattern, tables, h5, DICOM, NRRD, MetaImage. A case without a label file is unlabeled.
    """
    out, given = call.arguments["out"], call.arguments
    if raw is None and source in RECIPES:
        do = f"semivox import {source} RAW -o OUT"
        raise UserError("The recipe needs the folder of the download", "nothing", "a folder", do)
    typed = {"classes": class_values(given["classes"])} if "classes" in given else {}
    made = call(source=source, **typed) if raw is None else call(source=raw, kind=source, **typed)
    train = made.pool("train")
    labels = sum(case.label is not None for case in train)
    typer.echo(
        f"{made.name}: {len(train)} training cases ({labels} with a label file),"
        f" {len(made.pool('extra'))} extra unlabeled, {len(made.pool('test'))} test;"
        f" channels {', '.join(made.channels)}; classes {', '.join(made.class_names[1:])}"
    )
    file = out / "import.json"
    record = read_json(file) if file.is_file() else {}
    for note in record.get("notes", ()):
        typer.echo(f"note: {note}")
    o.next_command("prepare", "-d", out, *shlex.split(record.get("prepare", "")))


def fetch(call: o.Call) -> None:
    """Get a data set of the Medical Segmentation Decathlon; its checksum is verified before it is unpacked.

    Only this command uses the network, and with --from it does not.
    """
    folder = call()
    typer.echo(f"{folder.name} is in {folder}")
    o.next_command("prepare", "-d", folder)
