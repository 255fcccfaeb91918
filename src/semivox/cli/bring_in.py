"""`import` and `fetch`."""

from __future__ import annotations

import inspect
import shlex
from pathlib import Path
from typing import Annotated

import typer

from semivox.cli import options as o
from semivox.cli.values import class_values
from semivox.errors import UserError

RECIPES = ("la2018", "pancreas-ct", "brats2019")


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    flags = {
        "images": "--images", "labels": "--labels", "channels": "--channel", "classes": "--class",
        "mirror": "--from", "name": "TASK",
    }  # fmt: skip
    recipes = ("Recipes", "import_published")
    o.command(app, import_, "import", api="import_dataset", also=recipes, flags=flags, without=["recipe"])
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
    if raw is not None or source in RECIPES:
        if raw is None:
            do = f"semivox import {source} RAW -o OUT"
            raise UserError("The recipe needs the folder of the download", "nothing", "a folder", do)
        _refuse(call, "import_published", "a layout of your own")
        made = call("import_published", recipe=source, raw=raw)
    else:
        _refuse(call, "import_dataset", f"a recipe ({', '.join(RECIPES)})")
        classes = class_values(given["classes"]) if "classes" in given else None
        made = call(source=source, classes=classes)
    train = made.pool("train")
    labels = sum(case.label is not None for case in train)
    typer.echo(
        f"{made.name}: {len(train)} training cases ({labels} with a label file),"
        f" {len(made.pool('extra'))} extra unlabeled, {len(made.pool('test'))} test;"
        f" channels {', '.join(made.channels)}; classes {', '.join(made.class_names[1:])}"
    )
    record = call("import_record")
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


def _refuse(call: o.Call, function: str, needed: str) -> None:
    """Refuse options that the other way to import takes."""
    known = inspect.signature(o.of_api(function)).parameters
    if names := [name for name in call.arguments if name not in known]:
        flags = ", ".join(call.flags[name].split()[0] for name in names)
        raise UserError(
            "Options without a meaning here", flags, f"these options with {needed}", "leave them out"
        )
